import type { SalvagedTable } from '../../cluster/salvage.ts'
import type { TextWriter } from '../../node/salvage-folder.ts'
import type { SqlSession } from '../../node/sql-session.ts'
import { ChangeList, type ListedChange } from '../../postgres/change-list.ts'
import type { LostTransactions } from '../../postgres/lost-transactions.ts'
import {
  parseTuple,
  type RelationChanges,
  type TupleKey,
  tupleText,
} from '../../postgres/relation-changes.ts'
import { isOfFork, type RowChange, writeChange } from '../../postgres/salvage-change.ts'
import { allStandingQuery, standingQuery } from '../../postgres/salvage-queries.ts'
import type { SalvageRow, SalvageTable } from '../../postgres/salvage-sql.ts'
import {
  batchBytes,
  batchRows,
  mostRowBytes,
  type ReadRow,
  readTimeoutMs,
  rowsAt,
  rowsWithKeys,
} from './table-rows.ts'

/** A table that lost transactions changed, as both sides know it. */
export interface LostTable {
  readonly schema: string
  readonly name: string
  /** As it is on the diverged node, with the columns that both sides have. */
  readonly own: SalvageTable
  /** The same as it is on the new primary, column by column; null: it is not there. */
  readonly primary: SalvageTable | null
  /** It was there at the fork, and is no more on the new primary. */
  readonly isGone: boolean
  /** Rows lie on the new primary where they lay at the fork: nobody rewrote or truncated the table. */
  readonly hasSamePlaces: boolean
  /** What the WAL tells of its file; null: it was truncated or rewritten, and all that lost transactions left is looked for. */
  readonly changes: RelationChanges | null
  /** What the WAL tells of the file that it had at the fork, where that is another one. */
  readonly earlier: RelationChanges | null
  /** When rows of its present file were made, as far as the WAL tells: only their order is taken from it. */
  readonly order: RelationChanges | null
}

export interface RowsTask {
  readonly database: string
  readonly own: SqlSession
  readonly primary: SqlSession | null
  readonly lost: LostTransactions
  readonly tables: readonly LostTable[]
  readonly rows: TextWriter
  readonly sql: TextWriter
  readonly isInterrupted: () => boolean
  readonly progress: (done: number, total: number) => void
}

export interface SavedRows {
  readonly tables: readonly SalvagedTable[]
  readonly unsalvaged: readonly string[]
  readonly rows: number
}

/** Writes every row that lost transactions inserted, changed or deleted in one database, in the order of the changes. */
export async function saveRows(task: RowsTask): Promise<SavedRows> {
  const unsalvaged: string[] = []
  const list = new ChangeList()
  for (const [index, table] of task.tables.entries()) {
    await listChanges(task, table, index, list, unsalvaged)
  }
  const counts = task.tables.map(() => ({ insert: 0, update: 0, delete: 0, conflict: 0, there: 0 }))
  let done = 0
  let xid = 0
  const write = async ({ table, written }: Written) => {
    const count = counts[table]
    if (count === undefined) return
    count[written.op] += 1
    if (written.state === 'conflict') count.conflict += 1
    if (written.state === 'already-there') count.there += 1
    await task.rows.write(written.line)
    if (written.xid !== xid) await task.sql.write(`-- Transaction ${written.xid}\n`)
    xid = written.xid
    await task.sql.write(written.sql)
  }
  const turns = new TurnsOfKeys()
  for (const batch of batchesOf(list)) {
    if (task.isInterrupted()) break
    for (const one of await writeBatch(task, batch, unsalvaged)) {
      for (const due of turns.next(one)) await write(due)
    }
    done += batch.length
    task.progress(done, list.size)
  }
  for (const late of turns.rest()) await write(late)
  const tables = task.tables.map((table, index) => {
    const count = counts[index] ?? { insert: 0, update: 0, delete: 0, conflict: 0, there: 0 }
    return {
      database: task.database,
      schema: table.schema,
      table: table.name,
      inserted: count.insert,
      updated: count.update,
      deleted: count.delete,
      conflicts: count.conflict,
      alreadyThere: count.there,
      hasKey: table.own.key.length > 0,
    }
  })
  const rows = tables.reduce((sum, one) => sum + one.inserted + one.updated + one.deleted, 0)
  return { tables, unsalvaged, rows }
}

/** Of rows that the WAL does not place: a rewrite moved them. */
const lastTurn = 0xffffffff

type Listed = readonly [ctid: string, xmin: number, bytes: number]

/** Blocks whose places are asked for at a time. */
const blocksAtATime = 128

/** Finds what lost transactions left in a table, and compares its number with what the WAL says. */
async function listChanges(
  { database, own, lost }: RowsTask,
  { own: table, changes, earlier, order }: LostTable,
  index: number,
  list: ChangeList,
  unsalvaged: string[],
): Promise<void> {
  let found = 0
  const since = { forkXid: lost.forkXid, straddlers: lost.straddlers }
  const take = (rows: readonly Listed[]) => {
    for (const [ctid, xid, bytes] of rows) {
      const key = parseTuple(ctid)
      found += 1
      if (bytes >= mostRowBytes) {
        unsalvaged.push(
          `the row at ${ctid} of ${table.ident} in ${database}: it has more than ${mostRowBytes} bytes`,
        )
      } else {
        list.add({
          table: index,
          key,
          isDeletion: false,
          xid,
          bytes,
          turn: (changes ?? order)?.turnOf(key) || lastTurn,
        })
      }
    }
  }
  const ask = async (query: string) =>
    take(await own.json<readonly Listed[]>(query, { timeoutMs: readTimeoutMs }))
  for (const [key, { xid, turn }] of (changes ?? earlier)?.deleted ?? []) {
    list.add({ table: index, key, isDeletion: true, xid, bytes: 500, turn })
  }
  if (changes === null) {
    await ask(allStandingQuery(table, since))
    return
  }
  const { blocks } = changes
  for (let at = 0; at < blocks.length; at += blocksAtATime) {
    await ask(standingQuery(table, blocks.slice(at, at + blocksAtATime), since))
  }
  const { least, most } = changes.standing
  if (found < least || found > most) {
    unsalvaged.push(
      `some rows of ${table.ident} in ${database}: its WAL tells of ${most}, ${found} were found in the table`,
    )
  }
}

function* batchesOf(list: ChangeList): Generator<readonly ListedChange[]> {
  let batch: ListedChange[] = []
  let bytes = 0
  for (const change of list.inOrder()) {
    const size = change.bytes * 2 + 200
    if (batch.length > 0 && (bytes + size > batchBytes || batch.length >= batchRows)) {
      yield batch
      batch = []
      bytes = 0
    }
    batch.push(change)
    bytes += size
  }
  if (batch.length > 0) yield batch
}

interface Written {
  readonly table: number
  readonly written: ReturnType<typeof writeChange>
  readonly turn: number
  /** The change that frees its key; undefined: nothing is in the way. */
  readonly after: number | undefined
}

/**
 * Each change stands once, at one of the turns in which its row was written. A row may have got, later than that, a key
 * that another one gave up in between: it has to come after that other one.
 */
class TurnsOfKeys {
  #waiting: { readonly one: Written; readonly after: number }[] = []

  /** What can be written now: this one, unless it has to wait, and those that waited for it. */
  next(one: Written): readonly Written[] {
    const blocked = this.#waiting.find(({ one: other }) => other.turn === one.after)
    const after = blocked?.after ?? one.after ?? 0
    if (after > one.turn) {
      this.#waiting.push({ one, after })
      return []
    }
    const due = this.#waiting.filter((other) => other.after <= one.turn)
    this.#waiting = this.#waiting.filter((other) => other.after > one.turn)
    return [one, ...due.map((other) => other.one)]
  }

  rest(): readonly Written[] {
    const left = this.#waiting.map(({ one }) => one)
    this.#waiting = []
    return left
  }
}

/** Reads what a batch of changes needs, table by table, and writes them in their order. */
async function writeBatch(
  task: RowsTask,
  batch: readonly ListedChange[],
  unsalvaged: string[],
): Promise<readonly Written[]> {
  const numbers = [...new Set(batch.map((change) => change.table))]
  const known = new Map<number, ReadonlyMap<ListedChange, FoundChange>>()
  for (const number of numbers) {
    const table = task.tables[number]
    const changes = batch.filter((change) => change.table === number)
    if (table !== undefined) known.set(number, await readChangesOf(task, table, changes, unsalvaged))
  }
  return batch.flatMap((change) => {
    const row = known.get(change.table)?.get(change)
    const table = task.tables[change.table]
    if (row === undefined || table === undefined) return []
    const place = { database: task.database, schema: table.schema, table: table.name }
    const written = writeChange(place, table.primary ?? table.own, row)
    return [{ table: change.table, written, turn: change.turn, after: row.after }]
  })
}

interface FoundChange extends RowChange {
  readonly old: ReadRow | null
  /** When another lost change frees its key. */
  readonly after?: number | undefined
}

async function readChangesOf(
  task: RowsTask,
  table: LostTable,
  listed: readonly ListedChange[],
  unsalvaged: string[],
): Promise<ReadonlyMap<ListedChange, FoundChange>> {
  const { own, primary, lost } = task
  const standing = listed.filter((change) => !change.isDeletion)
  const sizes = new Map(standing.map(({ key, bytes }) => [key, bytes]))
  const nowRows = await rowsAt(own, table.own, [...sizes.keys()], sizes)
  const rootOf = ({ key, isDeletion }: ListedChange) => (isDeletion ? key : table.changes?.rootOf(key))
  const roots = listed.map(rootOf).filter((key) => key !== undefined)
  const oldRows = await rowsOfFork(primary, table, roots, lost)
  const changes = new Map<ListedChange, FoundChange>()
  for (const change of listed) {
    const root = rootOf(change)
    const now = change.isDeletion ? null : (nowRows.get(change.key) ?? null)
    if (!change.isDeletion && now === null) {
      unsalvaged.push(`the row at ${tupleText(change.key)} of ${table.own.ident}: it could not be read`)
      continue
    }
    const old = root === undefined ? null : (oldRows.get(root) ?? null)
    // One of a COPY that the WAL does not place, changed later: it never was on the new primary.
    const isOfCopy = root !== undefined && old === null && table.changes?.isUncertain(root) === true
    if (isOfCopy && now === null) continue
    const wasThere = root !== undefined && !isOfCopy
    const isTableGone = table.isGone
    changes.set(change, { xid: change.xid, now, wasThere, old, current: undefined, isTableGone })
  }
  await addCurrent(task, table, changes)
  return changes
}

async function rowsOfFork(
  primary: SqlSession | null,
  table: LostTable,
  roots: readonly TupleKey[],
  lost: LostTransactions,
): Promise<ReadonlyMap<TupleKey, ReadRow>> {
  if (primary === null || table.primary === null || !table.hasSamePlaces) return new Map()
  const rows = await rowsAt(primary, table.primary, roots)
  return new Map([...rows].filter(([, row]) => isOfFork(row.xmin, lost.forkXid)))
}

/**
 * Looks up, by key, what the new primary has of rows that are not found there as they were at the fork, or that got another
 * key. Where a table was rewritten that is the only way to tell a changed row from a new one.
 */
async function addCurrent(
  { primary, lost }: RowsTask,
  table: LostTable,
  changes: Map<ListedChange, FoundChange>,
): Promise<void> {
  if (primary === null || table.primary === null || table.primary.key.length === 0) return
  const keyOf = (row: SalvageRow) => table.own.key.map((index) => row.literals[index] ?? 'NULL')
  const hasOtherKey = ({ old, now }: RowChange) =>
    old !== null && now !== null && String(keyOf(old)) !== String(keyOf(now))
  const open = [...changes].flatMap(([listed, change]) =>
    change.now !== null && (change.old === null || hasOtherKey(change))
      ? [{ listed, change, key: keyOf(change.now) }]
      : [],
  )
  const keys = open.map(({ key }) => key)
  const rows = await rowsWithKeys(primary, table.primary, keys)
  for (const [position, { listed, change }] of open.entries()) {
    const current = rows.get(position) ?? null
    // Its own old version, where the two sides only write its key differently.
    if (current !== null && current.at === change.old?.at) continue
    const isUntouched = current !== null && isOfFork(current.xmin, lost.forkXid)
    const after = isUntouched ? givenUpAt(table, current.at) : undefined
    if (after !== undefined) changes.set(listed, { ...change, current: null, after })
    else if (isUntouched && table.changes === null)
      changes.set(listed, { ...change, wasThere: true, old: current })
    else changes.set(listed, { ...change, current })
  }
}

/** When lost transactions took this row of the fork away from under its key: they deleted it, or gave it another one. */
function givenUpAt({ hasSamePlaces, changes, earlier }: LostTable, at: TupleKey): number | undefined {
  if (!hasSamePlaces) return undefined
  // Before a rewrite, an update may have left the key as it was: only what was deleted surely is out of the way.
  return changes === null ? earlier?.deleted.get(at)?.turn : changes.changedAt(at)
}
