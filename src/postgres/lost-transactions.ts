import { compareLsn, type Lsn } from './lsn.ts'
import { RelationChanges } from './relation-changes.ts'
import type { WalRecord } from './waldump.ts'
import { laterXid, XidSet, xidPrecedes } from './xid-set.ts'

/** A transaction that committed after the fork: the surviving line lacks it. */
export interface LostTransaction {
  readonly xid: number
  readonly lsn: Lsn
  /** As pg_waldump prints it, e.g. `2026-11-26 05:49:59.839299 UTC`. */
  readonly committedAt: string
  readonly changes: number
}

/**
 * First reading of the diverged WAL, from somewhere before the fork on: which transactions committed after it. What they
 * changed is told by the second reading, {@link LostChanges}: a commit stands behind the changes it makes valid.
 */
export class LostTransactions {
  readonly fork: Lsn
  readonly committed = new XidSet()
  /** Committed after the fork, begun before it: some of their changes lie before it as well. */
  readonly straddlers: number[] = []
  /** Prepared, and neither committed nor rolled back when the WAL ended: xid → gid, `''` where pg_waldump does not tell it (11 and 12). */
  readonly prepared = new Map<number, string>()
  aborted = 0
  /** Start of the last record. */
  lastLsn: Lsn | null = null
  #firstNextXid: number | null = null
  #forkXid: number | null = null
  #leastXid: number | null = null

  constructor(fork: Lsn) {
    this.fork = fork
  }

  /**
   * The first transaction id that was assigned after the fork, as far as can be told: on the new primary and on the
   * diverged node alike, a tuple whose xmin is not before it was made after the fork.
   */
  get forkXid(): number {
    return this.#forkXid ?? this.#leastXid ?? 3
  }

  /** Whether the reading began before every transaction that committed after the fork. */
  get reachesFarEnough(): boolean {
    const since = this.#firstNextXid
    // Without it the oldest open transaction cannot be told from one that began after the fork.
    return since !== null && this.straddlers.every((xid) => !xidPrecedes(xid, since))
  }

  /** What to look for {@link prepared} by: the name, or where pg_waldump tells none, the transaction's id. */
  get preparedNames(): readonly string[] {
    return [...this.prepared].map(([xid, gid]) =>
      gid === '' ? `transaction ${xid} (pg_waldump tells its name from PostgreSQL 13 on)` : gid,
    )
  }

  add(record: WalRecord): void {
    const { xid, lsn } = record
    this.lastLsn = lsn
    if (compareLsn(lsn, this.fork) < 0) {
      if (xid !== 0) this.#forkXid = this.#later(xid + 1)
      if (record.is === 'next-xid') {
        this.#firstNextXid ??= record.nextXid
        this.#forkXid = this.#later(record.nextXid)
      }
      if (record.is === 'commit' || record.is === 'abort') {
        for (const sub of record.subxacts) this.#forkXid = this.#later(sub + 1)
      }
      if (record.is === 'prepare') this.prepared.set(xid, record.gid)
      if (record.is === 'commit' || record.is === 'abort') this.prepared.delete(record.of || xid)
      return
    }
    if (xid !== 0 && (this.#leastXid === null || xidPrecedes(xid, this.#leastXid))) this.#leastXid = xid
    if (record.is === 'prepare') this.prepared.set(xid, record.gid)
    if (record.is === 'abort') {
      this.aborted += 1
      this.prepared.delete(record.of || xid)
    }
    if (record.is === 'commit') {
      const top = record.of || xid
      this.prepared.delete(top)
      for (const one of [top, ...record.subxacts]) {
        this.committed.add(one)
        if (this.#forkXid !== null && xidPrecedes(one, this.#forkXid)) this.straddlers.push(one)
      }
    }
  }

  #later(xid: number): number {
    return this.#forkXid === null ? xid : laterXid(this.#forkXid, xid)
  }
}

/** The first relation file number that initdb does not give to a system catalog. */
const firstNormalFile = 16384

/** Catalogs in which ANALYZE writes, and their TOAST tables: what it found out is of no worth elsewhere. */
const statistics = new Set([2619, 2840, 3429, 3430])

export const fileNumberOf = (relation: string): number =>
  Number(relation.slice(relation.lastIndexOf('/') + 1))
export const isCatalogFile = (relation: string): boolean => fileNumberOf(relation) < firstNormalFile

/** Second reading of the diverged WAL: what the lost transactions changed, file by file. */
export class LostChanges {
  readonly relations = new Map<string, RelationChanges>()
  readonly sequences = new Set<string>()
  /** Files that lost transactions made, for a new table or for one that they truncated or rewrote. */
  readonly createdFiles = new Set<string>()
  readonly droppedFiles = new Set<string>()
  readonly #lost: LostTransactions
  /** Changes of transactions that have not yet ended. */
  readonly #open = new Map<number, number>()
  #turn = 0

  constructor(lost: LostTransactions) {
    this.#lost = lost
  }

  /** Takes a record in; gives the transaction that it ends, if that is a lost one which changed anything. */
  add(record: WalRecord): LostTransaction | undefined {
    const { xid, lsn } = record
    if (record.is === 'commit') return this.#commit(record, lsn)
    // A sequence moves on whether its transaction commits or not.
    if (record.is === 'sequence' && compareLsn(lsn, this.#lost.fork) >= 0) this.sequences.add(record.relation)
    if (!this.#lost.committed.has(xid)) return undefined
    if (compareLsn(lsn, this.#lost.fork) < 0 && !this.#isStraddler(xid)) return undefined
    switch (record.is) {
      case 'insert':
        this.#change(xid, record.relation).insert(record.at, this.#turn)
        break
      case 'multi-insert':
        this.#change(xid, record.relation, record.count).insertSome(
          record.block,
          record.count,
          record.offsets,
          this.#turn,
        )
        break
      case 'update':
        this.#change(xid, record.relation).update(record.from, record.to, this.#turn)
        break
      case 'delete':
        this.#change(xid, record.relation).delete(record.at, xid, this.#turn)
        break
      case 'kill':
        this.relations.get(record.relation)?.kill(record.at)
        break
      case 'create-file':
        this.createdFiles.add(record.relation)
        break
    }
    return undefined
  }

  #isStraddler(xid: number): boolean {
    return xidPrecedes(xid, this.#lost.forkXid)
  }

  #commit(record: WalRecord & { readonly is: 'commit' }, lsn: Lsn): LostTransaction | undefined {
    const top = record.of || record.xid
    if (compareLsn(lsn, this.#lost.fork) < 0) return undefined
    for (const file of record.dropped) this.droppedFiles.add(file)
    let changes = record.dropped.length
    for (const xid of [top, ...record.subxacts]) {
      changes += this.#open.get(xid) ?? 0
      this.#open.delete(xid)
    }
    return changes === 0 ? undefined : { xid: top, lsn, committedAt: record.time, changes }
  }

  #change(xid: number, relation: string, count = 1): RelationChanges {
    this.#turn += 1
    if (!statistics.has(fileNumberOf(relation))) this.#open.set(xid, (this.#open.get(xid) ?? 0) + count)
    let changes = this.relations.get(relation)
    if (changes === undefined) {
      changes = new RelationChanges()
      this.relations.set(relation, changes)
    }
    return changes
  }
}
