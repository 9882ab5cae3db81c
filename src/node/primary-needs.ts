import type { PrimaryNeeds } from '../cluster/doctor-facts.ts'
import type { NodeFacts } from '../cluster/facts.ts'
import type { Node } from './node.ts'
import { sqlEndpointOf } from './survey.ts'

/** What a copy of this instance needs where it goes: room, and the locales that its databases use. */
export async function readPrimaryNeeds(node: Node, facts: NodeFacts): Promise<PrimaryNeeds> {
  const sql = await node.sql(sqlEndpointOf(node, facts))
  const { size, locales } = await sql.json<{ size: string; locales: (string | null)[] }>(
    `SELECT json_build_object(
       'size', (SELECT sum(pg_tablespace_size(oid))::text FROM pg_tablespace),
       'locales', (SELECT json_agg(DISTINCT name) FROM pg_database, unnest(ARRAY[datcollate, datctype]) name))`,
    { timeoutMs: 4_000 },
  )
  const names = locales.filter((name) => name !== null)
  return { sizeBytes: Number(size), locales: names.filter((name) => !['C', 'POSIX'].includes(name)) }
}
