import type { SalvagedSequence } from '../../cluster/salvage.ts'
import { type SqlSession, sqlStateOf } from '../../node/sql-session.ts'
import type { CatalogTable } from '../../postgres/salvage-queries.ts'
import { asComment } from '../../postgres/salvage-sql.ts'
import { quoteLiteral } from '../../postgres/sql.ts'
import type { DatabaseTask } from './save-database.ts'
import { readTimeoutMs } from './table-rows.ts'

/** Compares the sequences that moved on after the fork; where the old primary was ahead, proposes to catch up. */
export async function saveSequences(
  { own, primary, database }: Pick<DatabaseTask, 'own' | 'primary' | 'database'>,
  tables: readonly CatalogTable[],
): Promise<{ readonly found: readonly SalvagedSequence[]; readonly sql: string }> {
  const found: SalvagedSequence[] = []
  const lines: string[] = []
  for (const { ident, kind, persistence } of tables) {
    // What is not in the WAL cannot be read from a standby.
    if (kind !== 'S' || persistence !== 'p') continue
    const mine = await stateOf(own, ident)
    const theirs = primary === null ? null : await stateOf(primary, ident).catch(whereMissing)
    if (mine === null || (theirs !== null && !isAhead(mine, theirs))) continue
    const lastValue = mine.last
    found.push({ database, sequence: ident, lastValue, primaryLastValue: theirs?.last ?? null })
    const has = theirs?.last ?? 'no such sequence'
    lines.push(
      asComment(
        `Sequence ${ident}: ${lastValue} on the old primary, ${has} on the new one. To go on from there:`,
      ),
      asComment(`SELECT pg_catalog.setval(${quoteLiteral(ident).trim()}, ${lastValue}, ${mine.isCalled});`),
    )
  }
  return { found, sql: lines.length === 0 ? '' : `\n${lines.join('\n')}\n` }
}

interface SequenceState {
  /** As text: a bigint may have more digits than a number holds. */
  readonly last: string
  /** Whether `last` was given out, or is the next one to be. */
  readonly isCalled: boolean
  readonly increment: string
}

/** Whether a sequence would give out values that the other has given out already: in the direction in which it counts. */
function isAhead(mine: SequenceState, theirs: SequenceState): boolean {
  const increment = BigInt(mine.increment)
  const next = ({ last, isCalled }: SequenceState) => BigInt(last) + (isCalled ? increment : 0n)
  return increment > 0n ? next(mine) > next(theirs) : next(mine) < next(theirs)
}

/** A table or schema that is not there; anything else is no answer. */
function whereMissing(thrown: unknown): null {
  if (!['42P01', '3F000'].includes(sqlStateOf(thrown) ?? '')) throw thrown
  return null
}

async function stateOf(sql: SqlSession, ident: string): Promise<SequenceState | null> {
  const text = await sql.value(
    `SELECT json_build_object('last', s.last_value::text, 'isCalled', s.is_called, 'increment', q.seqincrement::text)::text
       FROM ${ident} AS s, pg_sequence AS q WHERE q.seqrelid = ${quoteLiteral(ident)}::regclass`,
    { timeoutMs: readTimeoutMs },
  )
  return text === null ? null : (JSON.parse(text) as SequenceState)
}
