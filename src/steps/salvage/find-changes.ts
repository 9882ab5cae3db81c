import { type SqlSession, sqlStateOf } from '../../node/sql-session.ts'
import type { ListedChange } from '../../postgres/change-list.ts'
import type { LostTransactions } from '../../postgres/lost-transactions.ts'
import { type RelationChanges, type TupleKey, tupleText } from '../../postgres/relation-changes.ts'
import { isOfFork, type RowChange } from '../../postgres/salvage-change.ts'
import type { SalvageRow, SalvageTable } from '../../postgres/salvage-sql.ts'
import { type ReadRow, rowsAt, rowsWithKeys } from './table-rows.ts'

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

export interface ChangesTask {
  readonly own: SqlSession
  readonly primary: SqlSession | null
  readonly lost: LostTransactions
}

/** One change, with what either side has of its row. */
export interface FoundChange extends RowChange {
  readonly old: ReadRow | null
  /** When another lost change frees its key. */
  readonly after?: number | undefined
}

/** Reads what is to be known of some changes of one table, here and on the new primary. */
export async function findChanges(
  { own, primary, lost }: ChangesTask,
  table: LostTable,
  listed: readonly ListedChange[],
  unsalvaged: string[],
): Promise<ReadonlyMap<ListedChange, FoundChange>> {
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
  if (primary !== null) await addCurrent(primary, lost, table, changes)
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
  primary: SqlSession,
  lost: LostTransactions,
  table: LostTable,
  changes: Map<ListedChange, FoundChange>,
): Promise<void> {
  if (table.primary === null || table.primary.key.length === 0) return
  const keyOf = (row: SalvageRow) => table.own.key.map((index) => row.literals[index] ?? 'NULL')
  const hasOtherKey = ({ old, now }: RowChange) =>
    old !== null && now !== null && String(keyOf(old)) !== String(keyOf(now))
  const open = [...changes].flatMap(([listed, change]) =>
    change.now !== null && (change.old === null || hasOtherKey(change))
      ? [{ listed, change, key: keyOf(change.now) }]
      : [],
  )
  const keys = open.map(({ key }) => key)
  const rows = await rowsThatHave(primary, table.primary, keys)
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

/**
 * Rows of these keys. A key that the new primary's type cannot hold (an integer that was made a bigint, a new value of an enum)
 * is not there.
 */
async function rowsThatHave(
  primary: SqlSession,
  table: SalvageTable,
  keys: readonly (readonly string[])[],
): Promise<ReadonlyMap<number, ReadRow>> {
  try {
    return await rowsWithKeys(primary, table, keys)
  } catch (thrown) {
    if (!isDataException(thrown)) throw thrown
  }
  const found = new Map<number, ReadRow>()
  for (const [position, key] of keys.entries()) {
    const row = await rowsWithKeys(primary, table, [key]).catch((thrown: unknown) => {
      if (!isDataException(thrown)) throw thrown
      return new Map<number, ReadRow>()
    })
    const one = row.get(0)
    if (one !== undefined) found.set(position, one)
  }
  return found
}

const isDataException = (thrown: unknown): boolean => sqlStateOf(thrown)?.startsWith('22') === true

/** When lost transactions took this row of the fork away from under its key: they deleted it, or gave it another one. */
function givenUpAt({ hasSamePlaces, changes, earlier }: LostTable, at: TupleKey): number | undefined {
  if (!hasSamePlaces) return undefined
  // Before a rewrite, an update may have left the key as it was: only what was deleted surely is out of the way.
  return changes === null ? earlier?.deleted.get(at)?.turn : changes.changedAt(at)
}
