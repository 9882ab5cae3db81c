/** Rows of one table, as one instance counted them. */
export interface TableCount {
  readonly database: string
  readonly schema: string
  readonly table: string
  readonly rows: number
  /** Rows ever inserted, updated and deleted: tells a table that is being written to. */
  readonly changes: number
}

/** One table in the report of a drill. */
export interface ComparedTable {
  readonly database: string
  readonly schema: string
  readonly table: string
  /** Null: the restored instance lacks it. */
  readonly restored_rows: number | null
  readonly primary_rows: number
  /** It was written to meanwhile, so that the counts may differ. */
  readonly is_changing: boolean
  readonly ok: boolean
}

const keyOf = ({ database, schema, table }: TableCount) => JSON.stringify([database, schema, table])

/**
 * Compares what was restored with what the primary had before its last WAL went to the archive, and has now. A table
 * that nobody wrote to in between must have the same rows everywhere.
 */
export function compareCounts(
  before: readonly TableCount[],
  after: readonly TableCount[],
  restored: readonly TableCount[],
): readonly ComparedTable[] {
  const now = new Map(after.map((one) => [keyOf(one), one]))
  const copies = new Map(restored.map((one) => [keyOf(one), one]))
  return before.map((one) => {
    const { database, schema, table, rows } = one
    const later = now.get(keyOf(one))
    const restoredRows = copies.get(keyOf(one))?.rows ?? null
    const isChanging = later === undefined || later.rows !== rows || later.changes !== one.changes
    return {
      ...{
        database,
        schema,
        table,
        restored_rows: restoredRows,
        primary_rows: rows,
        is_changing: isChanging,
      },
      ok: isChanging || restoredRows === rows,
    }
  })
}
