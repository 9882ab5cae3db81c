import type { SchemaChange } from '../../cluster/salvage.ts'
import { type SqlSession, sqlStateOf } from '../../node/sql-session.ts'
import { fileNumberOf } from '../../postgres/lost-transactions.ts'
import { tupleText } from '../../postgres/relation-changes.ts'
import { type CatalogTable, isAfterFork } from '../../postgres/salvage-queries.ts'
import { quoteLiteral } from '../../postgres/sql.ts'
import type { DatabaseTask } from './save-database.ts'
import { readTimeoutMs } from './table-rows.ts'

/** Catalogs that follow from others, or say nothing of the schema. */
const silent = [
  ...['pg_statistic', 'pg_statistic_ext_data', 'pg_depend', 'pg_shdepend', 'pg_largeobject'],
  ...[
    'pg_init_privs',
    'pg_shdescription',
    'pg_description',
    'pg_sequence',
    'pg_attrdef',
    'pg_rewrite',
    'pg_replication_origin',
  ],
]

/** An object as a row of a catalog names it. */
interface Source {
  readonly catalog: string
  readonly column: string
}

const source = (catalog: string, column = 'oid'): Source => ({ catalog, column })

/** Catalogs whose rows belong to an object of another one. */
const parents: Readonly<Record<string, readonly Source[]>> = {
  pg_attribute: [source('pg_class', 'attrelid')],
  pg_index: [source('pg_class', 'indexrelid')],
  pg_inherits: [source('pg_class', 'inhrelid')],
  pg_partitioned_table: [source('pg_class', 'partrelid')],
  pg_foreign_table: [source('pg_class', 'ftrelid')],
  pg_aggregate: [source('pg_proc', 'aggfnoid')],
  pg_range: [source('pg_type', 'rngtypid')],
  pg_enum: [source('pg_type', 'enumtypid')],
  // Of ALTER ROLE … SET, ALTER DATABASE … SET, or both: the other one is 0.
  pg_db_role_setting: [source('pg_authid', 'setrole'), source('pg_database', 'setdatabase')],
  pg_auth_members: [source('pg_authid', 'member')],
}

/** Of these, rows that were deleted (REVOKE, RESET) changed the object, which goes on to be there. */
const grants = ['pg_db_role_setting', 'pg_auth_members']

/** Catalogs of which objects that initdb made are changed too: the superuser, the first databases. */
const withBuiltIn = ['pg_authid', 'pg_database']

const sourcesOf = ({ name }: CatalogTable): readonly Source[] => parents[name] ?? [source(name)]

/**
 * Which objects lost transactions created, changed or dropped: found through the rows of the system catalogs that they
 * wrote. What was created stands on the diverged node, what was dropped on the new primary.
 */
export async function findSchemaChanges(
  task: DatabaseTask,
  catalogs: readonly CatalogTable[],
): Promise<readonly SchemaChange[]> {
  const seen = new Map<string, SchemaChange>()
  const add = (changes: readonly SchemaChange[]) => {
    for (const one of changes) {
      const key = `${one.kind} ${one.identity}`
      const before = seen.get(key)
      if (before === undefined || before.change === 'changed') seen.set(key, one)
    }
  }
  for (const catalog of catalogs) {
    if (catalog.schema !== 'pg_catalog' || catalog.kind !== 'r' || silent.includes(catalog.name)) continue
    try {
      for (const one of sourcesOf(catalog)) {
        add(await writtenObjects(task, catalog, one))
        add(await droppedObjects(task, catalog, one))
      }
    } catch (thrown) {
      // Not every catalog has objects of its own that can be named.
      if (sqlStateOf(thrown) === undefined) throw thrown
      add([{ database: task.database, change: 'changed', kind: 'catalog', identity: catalog.ident }])
    }
  }
  const all = [...seen.values()]
  return all.filter((one) => !followsAnother(one, all))
}

/** Objects that come and go with a table or a type which is named itself. */
function followsAnother({ kind, identity, change }: SchemaChange, all: readonly SchemaChange[]): boolean {
  if (/^(toast table|toast table column|default value|rule)$/.test(kind) || /^pg_toast\./.test(identity))
    return true
  // Those of a foreign key, which is named itself.
  if (kind === 'trigger' && identity.startsWith('"RI_ConstraintTrigger_')) return true
  if (kind === 'type' && identity.endsWith('[]')) return true
  const isOfSame = (one: SchemaChange) => one.change === change && /table|view|sequence/.test(one.kind)
  if (kind === 'type') return all.some((one) => isOfSame(one) && one.identity === identity)
  if (kind !== 'table constraint') return false
  return all.some((one) => isOfSame(one) && identity.endsWith(` on ${one.identity}`))
}

const numberOf = (catalog: string) => `(${quoteLiteral(`pg_catalog.${catalog}`)}::regclass::oid)`

interface Found {
  readonly oid: string
  readonly kind: string
  readonly identity: string
}

function objectsQuery(catalog: string, { catalog: of, column }: Source, condition: string): string {
  const least = withBuiltIn.includes(of) ? 1 : 16384
  return `SELECT coalesce(json_agg(json_build_object('oid', x.oid::text, 'kind', i.type, 'identity', i.identity)), '[]')::text
    FROM (SELECT DISTINCT c.${column}::oid AS oid FROM pg_catalog.${catalog} c WHERE ${condition}) AS x
    CROSS JOIN LATERAL pg_identify_object(${numberOf(of)}, x.oid, 0) AS i
    WHERE i.identity IS NOT NULL AND x.oid >= ${least}`
}

/** Objects of a catalog whose row, or a row that belongs to them, was written by a lost transaction. */
async function writtenObjects(
  { own, primary, database, lost }: DatabaseTask,
  catalog: CatalogTable,
  of: Source,
): Promise<readonly SchemaChange[]> {
  const xmin = 'c.xmin::text::bigint'
  const younger = isAfterFork(xmin, lost.forkXid)
  const straddling = lost.straddlers.length === 0 ? '' : ` OR ${xmin} IN (${lost.straddlers.join(', ')})`
  const found = await ask(own, objectsQuery(catalog.name, of, `${younger}${straddling}`))
  const known = primary === null ? new Set<string>() : await existing(primary, of.catalog, found)
  return found.map(({ oid, kind, identity }) => {
    const isNew = !known.has(oid)
    return { database, change: isNew ? 'created' : 'changed', kind, identity }
  })
}

/** Objects whose row a lost transaction deleted: the new primary still has them where they lay. */
async function droppedObjects(
  { own, primary, database, changes, oid }: DatabaseTask,
  catalog: CatalogTable,
  of: Source,
): Promise<readonly SchemaChange[]> {
  const isGrant = grants.includes(catalog.name)
  if (primary === null || (parents[catalog.name] !== undefined && !isGrant)) return []
  const written = [...changes.relations].find(
    ([name]) => ['0', oid].includes(name.split('/')[1] ?? '') && fileNumberOf(name) === catalog.file,
  )?.[1]
  const places = [...(written?.deleted.keys() ?? [])].map((key) => `"${tupleText(key)}"`)
  if (places.length === 0) return []
  const at = `c.ctid = ANY (${quoteLiteral(`{${places.join(',')}}`)}::tid[])`
  const found = await ask(primary, objectsQuery(catalog.name, of, at))
  const still = await existing(own, of.catalog, found)
  return found
    .filter(({ oid: one }) => still.has(one) === isGrant)
    .map(({ kind, identity }) => ({ database, change: isGrant ? 'changed' : 'dropped', kind, identity }))
}

async function ask(sql: SqlSession, query: string): Promise<readonly Found[]> {
  return await sql.json<readonly Found[]>(query, { timeoutMs: readTimeoutMs })
}

async function existing(sql: SqlSession, catalog: string, objects: readonly Found[]): Promise<Set<string>> {
  if (objects.length === 0) return new Set()
  const oids = objects.map(({ oid }) => oid).join(',')
  const query = `SELECT coalesce(json_agg(oid::text), '[]')::text FROM pg_catalog.${catalog} WHERE oid = ANY ('{${oids}}'::oid[])`
  return new Set(await sql.json<readonly string[]>(query, { timeoutMs: readTimeoutMs }))
}
