import { createHash } from 'node:crypto'
import type { SqlSession } from '../../node/sql-session.ts'
import { fileNumberOf, type LostTransactions } from '../../postgres/lost-transactions.ts'
import { tupleText } from '../../postgres/relation-changes.ts'
import { isOfFork } from '../../postgres/salvage-change.ts'
import { isAfterFork } from '../../postgres/salvage-queries.ts'
import { asComment, sayIfNothingDone } from '../../postgres/salvage-sql.ts'
import { quoteLiteral } from '../../postgres/sql.ts'
import type { DatabaseTask } from './save-database.ts'
import { mostRowBytes, readTimeoutMs } from './table-rows.ts'

/** What was saved of large objects; each counts as one row. */
export interface SavedObjects {
  readonly rows: number
  readonly conflicts: number
  readonly unsalvaged: readonly string[]
  readonly notes: readonly string[]
}

interface LargeObject {
  readonly oid: string
  readonly xid: number
  readonly bytes: number
}

/** Writes out the large objects into which lost transactions wrote, whole: one change each. */
export async function saveLargeObjects(task: DatabaseTask, file: number | null): Promise<SavedObjects> {
  const { own, primary, database, lost, rows, sql } = task
  const xmin = 'xmin::text::bigint'
  const younger = isAfterFork(xmin, lost.forkXid)
  const among = lost.straddlers.length === 0 ? '' : ` OR ${xmin} IN (${lost.straddlers.join(', ')})`
  const found = await own.json<readonly LargeObject[]>(
    `SELECT coalesce(json_agg(json_build_object('oid', o.loid::text, 'xid', o.xid,
         'bytes', (SELECT sum(octet_length(p.data)) FROM pg_largeobject p WHERE p.loid = o.loid)) ORDER BY o.loid), '[]')::text
       FROM (SELECT loid, max(${xmin}) AS xid FROM pg_largeobject WHERE ${younger}${among} GROUP BY loid) AS o`,
    { timeoutMs: readTimeoutMs },
  )
  const unsalvaged: string[] = []
  let conflicts = 0
  for (const { oid, xid, bytes } of found) {
    if (task.isInterrupted()) break
    if (bytes >= mostRowBytes) {
      unsalvaged.push(`large object ${oid} in ${database}: it has ${bytes} bytes, more than ${mostRowBytes}`)
      continue
    }
    const data = await dataOf(own, oid)
    const there = primary === null ? null : await dataOf(primary, oid)
    const isUntouched = primary !== null && there !== null && (await isOfForkAltogether(primary, oid, lost))
    const state = there === data ? 'already-there' : there === null || isUntouched ? 'clean' : 'conflict'
    const old = isUntouched && state === 'clean' ? objectText(oid, there) : 'null'
    if (state === 'conflict') conflicts += 1
    const fields = [
      `"op":"${there === null ? 'insert' : 'update'}","database":${JSON.stringify(database)}`,
      `"schema":"pg_catalog","table":"pg_largeobject","xid":${xid},"old":${old}`,
      `"new":${objectText(oid, data)},"state":"${state}"`,
    ]
    await rows.write(`{${fields.join(',')}}\n`)
    await sql.write(statementOf(oid, data, there, state))
  }
  const notes = await deletedObjects(task, file)
  return { rows: found.length - unsalvaged.length, conflicts, unsalvaged, notes }
}

/** Large objects that lost transactions deleted: the new primary still has their pages where they lay. */
async function deletedObjects(
  { own, primary, database, oid, changes, sql }: DatabaseTask,
  file: number | null,
): Promise<readonly string[]> {
  const pages = [...changes.relations].find(
    ([name]) => name.split('/')[1] === oid && fileNumberOf(name) === file,
  )?.[1]
  const places = [...(pages?.deleted.keys() ?? [])].map((key) => `"${tupleText(key)}"`)
  if (primary === null || places.length === 0) return []
  const at = `${quoteLiteral(`{${places.join(',')}}`)}::tid[]`
  const loids = await primary.json<readonly string[]>(
    `SELECT coalesce(json_agg(DISTINCT loid::text), '[]')::text FROM pg_largeobject WHERE ctid = ANY (${at})`,
    { timeoutMs: readTimeoutMs },
  )
  const gone: string[] = []
  for (const loid of loids) if ((await dataOf(own, loid)) === null) gone.push(loid)
  for (const loid of gone) await sql.write(`${asComment(`SELECT pg_catalog.lo_unlink(${loid});`)}\n`)
  return gone.length === 0 ? [] : [`large objects that were deleted in ${database}: ${gone.join(', ')}`]
}

const objectText = (oid: string, data: string | null): string => `{"loid":${oid},"data":"\\\\x${data ?? ''}"}`

/** Whether the new primary has each page of an object as it was at the fork. Whatever shortens one writes its last page anew. */
async function isOfForkAltogether(sql: SqlSession, oid: string, lost: LostTransactions): Promise<boolean> {
  const xmins = await sql.json<readonly number[]>(
    `SELECT coalesce(json_agg(xmin::text::bigint), '[]')::text FROM pg_largeobject WHERE loid = ${oid}`,
    { timeoutMs: readTimeoutMs },
  )
  return xmins.every((xmin) => isOfFork(xmin, lost.forkXid))
}

function statementOf(oid: string, data: string | null, there: string | null, state: string): string {
  if (state === 'already-there') return `${asComment(`Large object ${oid}: already so on the new primary`)}\n`
  const value = `pg_catalog.decode('${data}', 'hex')`
  if (there === null) {
    const unless = `WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata WHERE oid = ${oid})`
    const create = `SELECT pg_catalog.lo_from_bytea(${oid}, ${value}) ${unless};`
    return `${create}\n${sayIfNothingDone(`NOT DONE: large object ${oid}: there is one of this OID`)}\n`
  }
  // In either order: it ends where the old primary's ended. 131072 is INV_WRITE.
  const length = (data?.length ?? 0) / 2
  const put = `pg_catalog.lo_put(${oid}, 0, ${value}), pg_catalog.lo_truncate64(pg_catalog.lo_open(${oid}, 131072), ${length})`
  if (state === 'conflict') {
    const words = `CONFLICT: large object ${oid}: the new primary has it with other content.`
    return `${asComment(`${words}\nSELECT ${put};`)}\n`
  }
  const md5 = createHash('md5').update(Buffer.from(there, 'hex')).digest('hex')
  const asItWas = `SELECT FROM pg_catalog.pg_largeobject_metadata WHERE oid = ${oid} AND md5(pg_catalog.lo_get(oid)) = '${md5}'`
  const words = `NOT DONE: large object ${oid}: it is not as it was at the fork`
  return `SELECT ${put} WHERE EXISTS (${asItWas});\n${sayIfNothingDone(words)}\n`
}

/** Hexadecimal digits; null where there is no such object. */
async function dataOf(sql: SqlSession, oid: string): Promise<string | null> {
  return await sql.value(
    `SELECT encode(lo_get(oid), 'hex') FROM pg_largeobject_metadata WHERE oid = ${oid}`,
    { timeoutMs: readTimeoutMs },
  )
}
