import type { PrimaryNeeds } from '../cluster/doctor-facts.ts'
import type { NodeFacts } from '../cluster/facts.ts'
import { readCopySize } from './measure-room.ts'
import type { Node } from './node.ts'
import { sqlEndpointOf } from './survey.ts'

/** What a copy of this instance needs where it goes: room, and the locales that its databases use. */
export async function readPrimaryNeeds(node: Node, facts: NodeFacts): Promise<PrimaryNeeds> {
  const sql = await node.sql(sqlEndpointOf(node, facts))
  const options = { timeoutMs: 4_000 }
  const size = await readCopySize(sql, options)
  const locales = await sql.json<(string | null)[]>(
    'SELECT json_agg(DISTINCT name) FROM pg_database, unnest(ARRAY[datcollate, datctype]) name',
    options,
  )
  const names = locales.filter((name) => name !== null)
  return { size, locales: names.filter((name) => !['C', 'POSIX'].includes(name)) }
}
