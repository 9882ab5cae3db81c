import type { SalvagedTable } from '../../cluster/salvage.ts'
import { asReplctlError } from '../../errors.ts'
import type { TextWriter } from '../../node/salvage-folder.ts'
import { ChangeList, type ListedChange } from '../../postgres/change-list.ts'
import { parseTuple } from '../../postgres/relation-changes.ts'
import { writeChange } from '../../postgres/salvage-change.ts'
import {
  extentQuery,
  rangeStandingQuery,
  standingQuery,
  type TableExtent,
} from '../../postgres/salvage-queries.ts'
import { type ChangesTask, type FoundChange, findChanges, type LostTable } from './find-changes.ts'
import { batchBytes, batchRows, mostRowBytes, readTimeoutMs } from './table-rows.ts'
import { type Turn, TurnsOfKeys } from './turns-of-keys.ts'

export interface RowsTask extends ChangesTask {
  readonly database: string
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
  const refused = new RefusedTables(task.database, unsalvaged)
  for (const [index, table] of task.tables.entries()) {
    await refused.orElse(table, () => listChanges(task, table, index, list, unsalvaged))
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
  const turns = new TurnsOfKeys<Written>()
  for (const batch of batchesOf(list)) {
    if (task.isInterrupted()) break
    for (const one of await writeBatch(task, batch, refused, unsalvaged)) {
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

/**
 * A table that one of the servers refuses to read (a lock that the old primary's recovery holds for ever, a value of a type
 * that cannot be compared) is told, and all others are saved.
 */
class RefusedTables {
  readonly #database: string
  readonly #unsalvaged: string[]
  readonly #tables = new Set<LostTable>()

  constructor(database: string, unsalvaged: string[]) {
    this.#database = database
    this.#unsalvaged = unsalvaged
  }

  /** Undefined where a statement is refused, now or before. */
  async orElse<T>(table: LostTable, work: () => Promise<T>): Promise<T | undefined> {
    if (this.#tables.has(table)) return undefined
    try {
      return await work()
    } catch (thrown) {
      const error = asReplctlError(thrown)
      if (error.code !== 'sql-failed') throw error
      this.#tables.add(table)
      this.#unsalvaged.push(`rows of ${table.own.ident} in ${this.#database}: ${error.message}`)
      return undefined
    }
  }
}

/** Of rows that the WAL does not place: a rewrite moved them. */
const lastTurn = 0xffffffff

type Listed = readonly [ctid: string, xmin: number, bytes: number]

/** Blocks whose places are asked for at a time. */
const blocksAtATime = 128

/** The same where a range of them is one scan: some hundred thousand rows at most. */
const blocksInRange = 1024

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
    const { blocks, hasRanges } = await own.json<TableExtent>(extentQuery(table))
    const step = hasRanges ? blocksInRange : blocksAtATime
    for (let from = 0; from < blocks; from += step) {
      const to = Math.min(from + step, blocks)
      const each = Array.from({ length: hasRanges ? 0 : to - from }, (_, n) => from + n)
      await ask(hasRanges ? rangeStandingQuery(table, from, to, since) : standingQuery(table, each, since))
    }
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

interface Written extends Turn {
  readonly table: number
  readonly written: ReturnType<typeof writeChange>
}

/** Reads what a batch of changes needs, table by table, and writes them in their order. */
async function writeBatch(
  task: RowsTask,
  batch: readonly ListedChange[],
  refused: RefusedTables,
  unsalvaged: string[],
): Promise<readonly Written[]> {
  const numbers = [...new Set(batch.map((change) => change.table))]
  const known = new Map<number, ReadonlyMap<ListedChange, FoundChange>>()
  for (const number of numbers) {
    const table = task.tables[number]
    const changes = batch.filter((change) => change.table === number)
    if (table === undefined) continue
    const found = await refused.orElse(table, () => findChanges(task, table, changes, unsalvaged))
    if (found !== undefined) known.set(number, found)
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
