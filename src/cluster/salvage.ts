import type { Lsn, TimelineId } from '../postgres/lsn.ts'

/** Where the WAL of a node left the line that the primary is on. */
export interface Divergence {
  readonly systemIdentifier: string
  /** The node's own timeline, and its last record on it. */
  readonly timeline: TimelineId
  readonly fork: Lsn
}

export interface SalvagedTable {
  readonly database: string
  readonly schema: string
  readonly table: string
  readonly inserted: number
  readonly updated: number
  readonly deleted: number
  /** Changes of rows that the new primary has changed as well: commented out in salvage.sql. */
  readonly conflicts: number
  /** Changes that the new primary has as well. */
  readonly alreadyThere: number
  readonly hasKey: boolean
}

export interface SalvagedSequence {
  readonly database: string
  readonly sequence: string
  readonly lastValue: string
  /** Null: the new primary does not have it. */
  readonly primaryLastValue: string | null
}

export interface SchemaChange {
  readonly database: string
  readonly change: 'created' | 'changed' | 'dropped'
  /** e.g. `table`, `function`, `role`. */
  readonly kind: string
  /** e.g. `public.orders`. */
  readonly identity: string
}

/** What stands in `salvage.json`: what was saved of a diverged node, and what could not be. */
export interface SalvageRecord {
  readonly version: 1
  readonly node: string
  readonly systemIdentifier: string
  readonly timeline: number
  readonly forkLsn: Lsn
  /** Start of the last record of the node's WAL; null where there is none after the fork. */
  readonly endLsn: Lsn | null
  readonly createdAt: string
  /** Absolute path of the folder on the node. */
  readonly dir: string
  /** Every change of a row by a lost transaction stands in rows.jsonl. */
  readonly isComplete: boolean
  /** Committed on the node, lacking on the primary, and of some effect. */
  readonly transactions: number
  /** Lines of rows.jsonl. */
  readonly rows: number
  readonly conflicts: number
  readonly tables: readonly SalvagedTable[]
  readonly sequences: readonly SalvagedSequence[]
  readonly schemaChanges: readonly SchemaChange[]
  /** Transactions that were rolled back, and names of those that were prepared and still open: not saved. */
  readonly aborted: number
  readonly prepared: readonly string[]
  readonly walSegments: readonly string[]
  /** Why it is not complete: each what, and why. Nothing of it is in rows.jsonl. */
  readonly unsalvaged: readonly string[]
  /** What is to be known when salvage.sql is applied. */
  readonly notes: readonly string[]
}

/** The name of a salvage's folder, e.g. `tl1-0-30001A8`: node and cluster are told by where it lies. */
export function salvageId(
  { timeline, fork }: Pick<Divergence, 'timeline' | 'fork'>,
  end: Lsn | null,
): string {
  const part = (lsn: Lsn) => lsn.replace('/', '-')
  return `tl${timeline}-${part(fork)}${end === null ? '' : `-to-${part(end)}`}`
}

/** Reads a salvage.json; null where it is none that we know. */
export function parseSalvageRecord(text: string): SalvageRecord | null {
  try {
    const record = JSON.parse(text) as SalvageRecord
    return record.version === 1 ? record : null
  } catch {
    return null
  }
}

/** Whether this salvage is of this very divergence. */
export function isOfDivergence(record: SalvageRecord, divergence: Divergence): boolean {
  return (
    record.systemIdentifier === divergence.systemIdentifier &&
    record.timeline === divergence.timeline &&
    record.forkLsn === divergence.fork
  )
}

/** What is told of a salvage in a result; what has the name of a key of {@link SalvageRecord} is that. */
export interface SalvageResult
  extends Pick<
    SalvageRecord,
    | 'dir'
    | 'transactions'
    | 'rows'
    | 'conflicts'
    | 'tables'
    | 'sequences'
    | 'schemaChanges'
    | 'prepared'
    | 'unsalvaged'
    | 'notes'
  > {
  readonly complete: boolean
}

/** Whether nothing of any effect was lost. Values of a sequence were given out whether their transactions committed or not. */
export function isOfNothing(record: SalvageRecord): boolean {
  const { transactions, isComplete, sequences, prepared } = record
  return transactions === 0 && isComplete && sequences.length === 0 && prepared.length === 0
}

/** What rejoin's result says of it; null where nothing was lost. */
export function salvageResult(record: SalvageRecord): SalvageResult | null {
  if (isOfNothing(record)) return null
  const { dir, transactions, rows, conflicts, isComplete, tables } = record
  const { sequences, schemaChanges, prepared, unsalvaged, notes } = record
  return {
    ...{ dir, transactions, rows, conflicts, complete: isComplete },
    ...{ tables, sequences, schemaChanges, prepared, unsalvaged, notes },
  }
}
