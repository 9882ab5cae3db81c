import type { SqlSession } from '../../node/sql-session.ts'
import { parseTuple, type TupleKey, tupleText } from '../../postgres/relation-changes.ts'
import { jsonFromWire, literalFromWire } from '../../postgres/row-text.ts'
import { rowsByKeyQuery, rowsQuery, sizesQuery } from '../../postgres/salvage-queries.ts'
import { onOneLine, type SalvageRow, type SalvageTable } from '../../postgres/salvage-sql.ts'

/** A row with the transaction that made this version of it. */
export interface ReadRow extends SalvageRow {
  readonly xmin: number
  /** Where this version lies. */
  readonly at: TupleKey
}

/** Reading old data may take its time; nothing waits for it. */
export const readTimeoutMs = 600_000

/** About how much text is asked for at a time: it bounds the memory of this process. */
export const batchBytes = 1024 * 1024

/** Rows that are asked for at a time, however small they are. */
export const batchRows = 500

/** A row of more than this is not written out: no server would hand its text over in one piece. */
export const mostRowBytes = 64 * 1024 * 1024

type RawRow = readonly [
  ctidOrPosition: string | number,
  xmin: number,
  json: string,
  md5: string,
  literals: readonly string[],
  ctid?: string,
]

const readRow = ([first, xmin, json, md5, literals, ctid]: RawRow): ReadRow => ({
  xmin,
  at: parseTuple(ctid ?? String(first)),
  json: onOneLine(jsonFromWire(json)),
  md5,
  literals: literals.map(literalFromWire),
})

/** The rows at these places, as far as there is a visible one; sizes are looked at first. */
export async function rowsAt(
  sql: SqlSession,
  table: SalvageTable,
  keys: readonly TupleKey[],
  sizes?: ReadonlyMap<TupleKey, number>,
): Promise<Map<TupleKey, ReadRow>> {
  const found = new Map<TupleKey, ReadRow>()
  if (keys.length === 0) return found
  const known = sizes ?? (await sizesAt(sql, table, keys))
  for (const some of pieces(
    [...keys].filter((key) => (known.get(key) ?? mostRowBytes) < mostRowBytes),
    known,
  )) {
    const query = rowsQuery(table, some.map(tupleText))
    const rows = await sql.json<readonly RawRow[]>(query, { timeoutMs: readTimeoutMs })
    for (const row of rows.map(readRow)) found.set(row.at, row)
  }
  return found
}

async function sizesAt(
  sql: SqlSession,
  table: SalvageTable,
  keys: readonly TupleKey[],
): Promise<Map<TupleKey, number>> {
  const query = sizesQuery(table, keys.map(tupleText))
  const rows = await sql.json<readonly [string, number, number][]>(query, { timeoutMs: readTimeoutMs })
  return new Map(rows.map(([ctid, , size]) => [parseTuple(ctid), size]))
}

/** Rows that have one of these keys now, by the position of the key. */
export async function rowsWithKeys(
  sql: SqlSession,
  table: SalvageTable,
  keys: readonly (readonly string[])[],
): Promise<Map<number, ReadRow>> {
  if (keys.length === 0 || table.key.length === 0) return new Map()
  const rows = await sql.json<readonly RawRow[]>(rowsByKeyQuery(table, keys), { timeoutMs: readTimeoutMs })
  return new Map(rows.map((row) => [Number(row[0]), readRow(row)]))
}

/** Cuts a list so that the text of each piece stays within bounds. */
function pieces(keys: readonly TupleKey[], sizes: ReadonlyMap<TupleKey, number>): TupleKey[][] {
  const all: TupleKey[][] = []
  let piece: TupleKey[] = []
  let bytes = 0
  for (const key of keys) {
    const size = (sizes.get(key) ?? 0) * 2 + 200
    if (piece.length > 0 && (bytes + size > batchBytes || piece.length >= batchRows)) {
      all.push(piece)
      piece = []
      bytes = 0
    }
    piece.push(key)
    bytes += size
  }
  if (piece.length > 0) all.push(piece)
  return all
}
