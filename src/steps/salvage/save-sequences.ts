import type { SalvagedSequence } from '../../cluster/salvage.ts'
import { type SqlSession, sqlStateOf } from '../../node/sql-session.ts'
import type { CatalogTable } from '../../postgres/salvage-queries.ts'
import { asComment } from '../../postgres/salvage-sql.ts'
import { quoteLiteral } from '../../postgres/sql.ts'
import type { DatabaseTask } from './save-database.ts'
import { readTimeoutMs } from './table-rows.ts'

/** Compares the sequences that moved on after the fork; where the old primary was ahead, proposes to catch up. */
export async function saveSequences(
  { own, primary, database }: DatabaseTask,
  tables: readonly CatalogTable[],
): Promise<{ readonly found: readonly SalvagedSequence[]; readonly sql: string }> {
  const found: SalvagedSequence[] = []
  const lines: string[] = []
  for (const { ident, kind } of tables) {
    if (kind !== 'S') continue
    const lastValue = await lastValueOf(own, ident)
    const primaryLastValue = primary === null ? null : await lastValueOf(primary, ident).catch(whereMissing)
    if (lastValue === null || lastValue === primaryLastValue) continue
    found.push({ database, sequence: ident, lastValue, primaryLastValue })
    const has = primaryLastValue ?? 'no such sequence'
    lines.push(
      asComment(
        `Sequence ${ident}: ${lastValue} on the old primary, ${has} on the new one. To go on from there:`,
      ),
      asComment(`SELECT pg_catalog.setval(${quoteLiteral(ident).trim()}, ${lastValue}, true);`),
    )
  }
  return { found, sql: lines.length === 0 ? '' : `\n${lines.join('\n')}\n` }
}

/** A table or schema that is not there; anything else is no answer. */
function whereMissing(thrown: unknown): null {
  if (!['42P01', '3F000'].includes(sqlStateOf(thrown) ?? '')) throw thrown
  return null
}

async function lastValueOf(sql: SqlSession, ident: string): Promise<string | null> {
  return await sql.value(`SELECT last_value::text FROM ${ident}`, { timeoutMs: readTimeoutMs })
}
