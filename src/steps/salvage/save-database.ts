import type { SalvagedTable, SalvageRecord, SchemaChange } from '../../cluster/salvage.ts'
import type { TextWriter } from '../../node/salvage-folder.ts'
import type { SqlSession } from '../../node/sql-session.ts'
import { fileNumberOf, type LostChanges, type LostTransactions } from '../../postgres/lost-transactions.ts'
import {
  type CatalogForeignKey,
  type CatalogTable,
  foreignKeysQuery,
  partitionedAboveQuery,
  tablesByFileQuery,
  tablesByNameQuery,
  tablesByOidQuery,
} from '../../postgres/salvage-queries.ts'
import {
  databaseForPsql,
  foreignKeyCheck,
  foreignKeyText,
  setSalvageSettings,
  triggerText,
} from '../../postgres/salvage-sql.ts'
import type { LostTable } from './find-changes.ts'
import { deletionsNowhere, lostTables } from './lost-table.ts'
import { type SavedObjects, saveLargeObjects } from './save-large-objects.ts'
import { saveRows } from './save-rows.ts'
import { saveSequences } from './save-sequences.ts'
import { findSchemaChanges } from './schema-changes.ts'
import { readTimeoutMs } from './table-rows.ts'

/** One database of the diverged node, beside the same one on the new primary. */
export interface DatabaseTask {
  readonly database: string
  readonly oid: string
  /** The catalogs that all databases share (roles, databases, …) are told with this one. */
  readonly hasShared: boolean
  readonly own: SqlSession
  /** Null: the new primary has no database of this name. */
  readonly primary: SqlSession | null
  readonly lost: LostTransactions
  readonly changes: LostChanges
  readonly rows: TextWriter
  readonly sql: TextWriter
  readonly isInterrupted: () => boolean
  readonly progress: (done: number, total: number) => void
  /** For tables that the new primary lacks. */
  readonly dumpTables: (idents: readonly string[]) => Promise<TableDump>
}

/** What pg_dump made of some tables; `none`: there is no pg_dump. */
export type TableDump =
  | {
      readonly is: 'dumped'
      readonly text: string
      /** What is to come when the rows are there: foreign keys, triggers, and what attaches partitions. */
      readonly after: string
    }
  | { readonly is: 'failed'; readonly said: string }
  | { readonly is: 'none' }

/** A part of the record, to be put together with those of the other databases. */
export type SalvagePart = Pick<
  SalvageRecord,
  'tables' | 'sequences' | 'schemaChanges' | 'unsalvaged' | 'notes' | 'rows'
>

export const nothingSaved: SalvagePart = {
  tables: [],
  sequences: [],
  schemaChanges: [],
  unsalvaged: [],
  notes: [],
  rows: 0,
}

/** Writes out what lost transactions did in one database: schema, rows, sequences. */
export async function saveDatabase(task: DatabaseTask): Promise<SalvagePart> {
  const { own, primary, database, changes, sql } = task
  await own.execute(setSalvageSettings())
  await primary?.execute(`${setSalvageSettings()} ${findByKeyOnly}`)
  const files = filesOf(changes, task.hasShared ? [task.oid, '0'] : [task.oid])
  const found = await tablesOfFiles(own, files)
  const before = primary === null ? new Map<string, CatalogTable>() : await tablesOfFiles(primary, files)
  const tables = [...new Map([...found.values()].map((table) => [table.oid, table])).values()]
  const isKnown = (file: string) => found.has(file) || before.has(file)
  const nowhere = primary === null ? [] : deletionsNowhere(task, isKnown)
  const rewritten = [...before].filter(([file]) => !found.has(file)).map(([, table]) => table)
  const oids = [...tables, ...rewritten].map(({ oid }) => oid)
  const here = await tablesByOid(own, oids)
  const idents = [...here.values()].map(({ ident }) => ident)
  const byOid = primary === null ? new Map<string, CatalogTable>() : await tablesByOid(primary, oids)
  const byName = primary === null ? new Map<string, CatalogTable>() : await tablesByName(primary, idents)
  const lostHere = lostTables({ ...task, there: { byOid, byName } }, [...here.values()])
  const notes = [...lostHere.notes]
  if (primary === null)
    notes.push(`the new primary has no database ${database}: create it before salvage.sql is applied`)
  const schemaChanges = await findSchemaChanges(task, tables)
  const created = lostHere.tables.filter((one) => one.primary === null && !one.isGone)
  await sql.write(`\n\\connect ${databaseForPsql(database)}\nBEGIN;\n${setSalvageSettings('LOCAL ')}\n`)
  await sql.write('SET CONSTRAINTS ALL DEFERRED;\n')
  const undumped: string[] = []
  let after = ''
  if (created.length > 0) {
    const idents = [...(await newParents(task, created)), ...created.map(({ own: { ident } }) => ident)]
    const dump = await task.dumpTables(idents)
    const byHand = `create ${idents.join(', ')} in ${database} before salvage.sql is applied`
    if (dump.is === 'none') notes.push(`no pg_dump on the node: ${byHand}`)
    if (dump.is === 'failed') {
      undumped.push(`the definition of ${idents.join(', ')} in ${database}: pg_dump failed: ${dump.said}`)
      notes.push(`pg_dump failed on the node: ${byHand}`)
    }
    if (dump.is === 'dumped') {
      await sql.write(
        `\n-- Tables that the new primary does not have\n${schemasOf(created, schemaChanges)}${dump.text}\n${setSalvageSettings('LOCAL ')}\n`,
      )
      if (dump.after !== '')
        after = `\n-- What belongs to these tables\n${dump.after}\n${setSalvageSettings('LOCAL ')}\n`
    }
  }
  const there = tablesThere(lostHere.tables, [...byOid.values(), ...byName.values()])
  const triggers = there.flatMap(({ ident, triggers: own }) =>
    own.map((trigger) => ({ table: ident, trigger })),
  )
  const keys = primary === null ? [] : await foreignKeysOf(primary, there)
  await sql.write(`${triggerText(triggers, 'DISABLE')}${foreignKeyText(keys, 'DISABLE')}`)
  const saved = await saveRows({ ...task, tables: lostHere.tables })
  const objectTable = tables.find(isLargeObjects)
  const objects = objectTable === undefined ? noObjects : await saveLargeObjects(task, objectTable.file)
  const sequences = await saveSequences(task, tables)
  await sql.write(sequences.sql)
  const checks = keys.filter((key) => isToBeChecked(key, lostHere.tables, saved.tables)).map(foreignKeyCheck)
  await sql.write(`\nSET CONSTRAINTS ALL IMMEDIATE;\n${after}${checks.join('')}`)
  await sql.write(`${foreignKeyText(keys, 'ENABLE')}${triggerText(triggers, 'ENABLE')}COMMIT;\n`)
  const isTouched = (one: { inserted: number; updated: number; deleted: number }) =>
    one.inserted + one.updated + one.deleted > 0
  return {
    tables: [...saved.tables.filter(isTouched), ...objectsAsTable(database, objects)],
    sequences: sequences.found,
    schemaChanges,
    unsalvaged: [...lostHere.unsalvaged, ...undumped, ...nowhere, ...saved.unsalvaged, ...objects.unsalvaged],
    notes: [...notes, ...objects.notes],
    rows: saved.rows + objects.rows,
  }
}

/** A key is looked up by its index, whatever the planner thinks of a list of a thousand values. */
const findByKeyOnly =
  'SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET default_transaction_read_only = on;'

interface LostFile {
  readonly relation: string
  readonly tablespace: number
  readonly file: number
}

/** Files of these databases (`0`: catalogs that all share) that lost transactions changed or made. */
function filesOf(changes: LostChanges, databases: readonly string[]): readonly LostFile[] {
  const all = new Set([...changes.relations.keys(), ...changes.createdFiles, ...changes.sequences])
  return [...all].flatMap((relation) => {
    const [tablespace = '', of = ''] = relation.split('/')
    return databases.includes(of)
      ? [{ relation, tablespace: Number(tablespace), file: fileNumberOf(relation) }]
      : []
  })
}

/** Files → the tables to which they belong now. */
async function tablesOfFiles(
  sql: SqlSession,
  files: readonly LostFile[],
): Promise<Map<string, CatalogTable>> {
  const found = new Map<string, CatalogTable>()
  for (let at = 0; at < files.length; at += 500) {
    const some = files.slice(at, at + 500)
    const query = tablesByFileQuery(some)
    const rows = await sql.json<Record<string, CatalogTable>>(query, { timeoutMs: readTimeoutMs })
    for (const { relation, tablespace, file } of some) {
      const table = rows[`${tablespace}/${file}`]
      if (table !== undefined) found.set(relation, table)
    }
  }
  return found
}

async function tablesByOid(sql: SqlSession, oids: readonly string[]): Promise<Map<string, CatalogTable>> {
  if (oids.length === 0) return new Map()
  const rows = await sql.json<Record<string, CatalogTable>>(tablesByOidQuery(oids), {
    timeoutMs: readTimeoutMs,
  })
  return new Map(Object.entries(rows))
}

async function tablesByName(sql: SqlSession, idents: readonly string[]): Promise<Map<string, CatalogTable>> {
  if (idents.length === 0) return new Map()
  const rows = await sql.json<Record<string, CatalogTable>>(tablesByNameQuery(idents), {
    timeoutMs: readTimeoutMs,
  })
  return new Map(Object.entries(rows))
}

const isLargeObjects = ({ schema, name }: CatalogTable): boolean =>
  schema === 'pg_catalog' && name === 'pg_largeobject'

const noObjects: SavedObjects = { rows: 0, conflicts: 0, unsalvaged: [], notes: [] }

function objectsAsTable(database: string, { rows, conflicts }: SavedObjects): readonly SalvagedTable[] {
  const place = { database, schema: 'pg_catalog', table: 'pg_largeobject' }
  const counts = { inserted: rows, updated: 0, deleted: 0, conflicts, alreadyThere: 0 }
  return rows === 0 ? [] : [{ ...place, ...counts, hasKey: true }]
}

/** pg_dump leaves out the schema of a table that is asked for by name. */
function schemasOf(created: readonly LostTable[], changes: readonly SchemaChange[]): string {
  const schemas = changes.filter((one) => one.kind === 'schema' && one.change === 'created')
  return schemas
    .filter(({ identity }) => created.some(({ own }) => own.ident.startsWith(`${identity}.`)))
    .map(({ identity }) => `CREATE SCHEMA IF NOT EXISTS ${identity};\n`)
    .join('')
}

/** Partitioned tables have no file by which they would have been found: those of new partitions that the new primary lacks. */
async function newParents(
  { own, primary }: DatabaseTask,
  created: readonly LostTable[],
): Promise<readonly string[]> {
  const query = partitionedAboveQuery(created.map((one) => one.own.ident))
  const parents = await own.json<readonly string[]>(query, { timeoutMs: readTimeoutMs })
  const there = primary === null ? new Map<string, CatalogTable>() : await tablesByName(primary, parents)
  return parents.filter((ident) => !there.has(ident))
}

/** The new primary's tables that will be written into. What their triggers did on the old primary is among the rows. */
function tablesThere(tables: readonly LostTable[], there: readonly CatalogTable[]): readonly CatalogTable[] {
  const idents = new Set(tables.flatMap(({ primary }) => (primary === null ? [] : [primary.ident])))
  const known = new Map(there.map((table) => [table.ident, table]))
  return [...known.values()].filter(({ ident }) => idents.has(ident))
}

async function foreignKeysOf(
  primary: SqlSession,
  tables: readonly CatalogTable[],
): Promise<readonly CatalogForeignKey[]> {
  if (tables.length === 0) return []
  const query = foreignKeysQuery(tables.map(({ oid }) => oid))
  return await primary.json<readonly CatalogForeignKey[]>(query, { timeoutMs: readTimeoutMs })
}

/** Whether one of these changes can have broken it: a row that came or changed and refers, or one that went or changed and is referred to. */
function isToBeChecked(
  { triggers }: CatalogForeignKey,
  tables: readonly LostTable[],
  saved: readonly SalvagedTable[],
): boolean {
  return triggers.some(({ table, isOfChild }) => {
    const counts = saved[tables.findIndex(({ primary }) => primary?.ident === table)]
    if (counts === undefined) return false
    return counts.updated + (isOfChild ? counts.inserted : counts.deleted) > 0
  })
}
