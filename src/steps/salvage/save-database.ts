import type { SalvagedTable, SalvageRecord } from '../../cluster/salvage.ts'
import type { TextWriter } from '../../node/salvage-folder.ts'
import type { SqlSession } from '../../node/sql-session.ts'
import { fileNumberOf, type LostChanges, type LostTransactions } from '../../postgres/lost-transactions.ts'
import { type CatalogTable, tablesByFileQuery, tablesByOidQuery } from '../../postgres/salvage-queries.ts'
import { asComment, type SalvageTable, setSalvageSettings } from '../../postgres/salvage-sql.ts'
import { xidPrecedes } from '../../postgres/xid-set.ts'
import { type SavedObjects, saveLargeObjects } from './save-large-objects.ts'
import { type LostTable, saveRows } from './save-rows.ts'
import { saveSequences } from './save-sequences.ts'
import { findSchemaChanges } from './schema-changes.ts'
import { readTimeoutMs } from './table-rows.ts'

/** One database of the diverged node, beside the same one on the new primary. */
export interface DatabaseTask {
  readonly database: string
  readonly oid: string
  readonly own: SqlSession
  /** Null: the new primary has no database of this name. */
  readonly primary: SqlSession | null
  readonly lost: LostTransactions
  readonly changes: LostChanges
  readonly rows: TextWriter
  readonly sql: TextWriter
  readonly isInterrupted: () => boolean
  readonly progress: (done: number, total: number) => void
  /** Text of pg_dump for tables that the new primary lacks; null where there is no pg_dump. */
  readonly dumpTables: (idents: readonly string[]) => Promise<string | null>
}

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
  const files = filesOf(changes, task.oid)
  const found = await tablesOfFiles(own, files)
  const before = primary === null ? new Map<string, CatalogTable>() : await tablesOfFiles(primary, files)
  const tables = [...new Map([...found.values()].map((table) => [table.oid, table])).values()]
  const rewritten = [...before].filter(([file]) => !found.has(file)).map(([, table]) => table)
  const oids = [...tables, ...rewritten].map(({ oid }) => oid)
  const here = await tablesByOid(own, oids)
  const there = primary === null ? new Map<string, CatalogTable>() : await tablesByOid(primary, oids)
  const notes: string[] = []
  const unsalvaged: string[] = []
  const lostTables = [...here.values()].flatMap((table) => {
    const one = lostTableOf(task, table, there.get(table.oid), notes, unsalvaged)
    return one === null ? [] : [one]
  })
  const schemaChanges = await findSchemaChanges(task, tables)
  const created = lostTables.filter((one) => one.primary === null && !one.isGone)
  await sql.write(`\n\\connect ${quoteForPsql(database)}\nBEGIN;\n${setSalvageSettings('LOCAL ')}\n`)
  await sql.write('SET CONSTRAINTS ALL DEFERRED;\n')
  if (created.length > 0) {
    const dump = await task.dumpTables(created.map(({ own: { ident } }) => ident))
    if (dump === null)
      notes.push(
        `no pg_dump on the node: create ${names(created)} in ${database} before salvage.sql is applied`,
      )
    else
      await sql.write(
        `\n-- Tables that the new primary does not have\n${dump}\n${setSalvageSettings('LOCAL ')}\n`,
      )
  }
  const triggers = triggersOf(lostTables, there)
  await sql.write(triggerText(triggers, 'DISABLE'))
  const saved = await saveRows({ ...task, tables: lostTables })
  const objectTable = tables.find(isLargeObjects)
  const objects = objectTable === undefined ? noObjects : await saveLargeObjects(task, objectTable.file)
  const sequences = await saveSequences(task, tables)
  await sql.write(sequences.sql)
  await sql.write(`\nSET CONSTRAINTS ALL IMMEDIATE;\n${triggerText(triggers, 'ENABLE')}COMMIT;\n`)
  const isTouched = (one: { inserted: number; updated: number; deleted: number }) =>
    one.inserted + one.updated + one.deleted > 0
  return {
    tables: [...saved.tables.filter(isTouched), ...objectsAsTable(database, objects)],
    sequences: sequences.found,
    schemaChanges,
    unsalvaged: [...unsalvaged, ...saved.unsalvaged, ...objects.unsalvaged],
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

/** Files of a database that lost transactions changed or made. */
function filesOf(changes: LostChanges, database: string): readonly LostFile[] {
  const all = new Set([...changes.relations.keys(), ...changes.createdFiles, ...changes.sequences])
  return [...all].flatMap((relation) => {
    const [tablespace = '', of = ''] = relation.split('/')
    return of === database ? [{ relation, tablespace: Number(tablespace), file: fileNumberOf(relation) }] : []
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

const isLargeObjects = ({ schema, name }: CatalogTable): boolean =>
  schema === 'pg_catalog' && name === 'pg_largeobject'

const noObjects: SavedObjects = { rows: 0, conflicts: 0, unsalvaged: [], notes: [] }

function objectsAsTable(database: string, { rows, conflicts }: SavedObjects): readonly SalvagedTable[] {
  const place = { database, schema: 'pg_catalog', table: 'pg_largeobject' }
  const counts = { inserted: rows, updated: 0, deleted: 0, conflicts, alreadyThere: 0 }
  return rows === 0 ? [] : [{ ...place, ...counts, hasKey: true }]
}

const isUserTable = ({ kind, schema }: CatalogTable): boolean =>
  kind === 'r' && schema !== 'pg_catalog' && schema !== 'information_schema' && schema !== 'pg_toast'

function lostTableOf(
  { database, changes, lost, oid }: DatabaseTask,
  table: CatalogTable,
  there: CatalogTable | undefined,
  notes: string[],
  unsalvaged: string[],
): LostTable | null {
  if (!isUserTable(table)) return null
  const of = (file: number | null) =>
    [...changes.relations].find(([name]) => name.split('/')[1] === oid && fileNumberOf(name) === file)?.[1] ??
    null
  const isRewritten =
    there !== undefined &&
    [...changes.createdFiles].some((name) => name.split('/')[1] === oid && fileNumberOf(name) === table.file)
  const isNew = there === undefined && !xidPrecedes(table.xmin, lost.forkXid)
  const own = sharedTable(table, there, table.ident)
  const title = `${table.ident} in ${database}`
  if (there !== undefined && own.columns.length < table.columns.length) {
    notes.push(
      `${title}: the new primary lacks ${lackingColumns(table, there)}; their values are in rows.jsonl only`,
    )
  }
  if (isRewritten) {
    notes.push(
      `${title} was truncated or rewritten (TRUNCATE, ALTER TABLE, VACUUM FULL, CLUSTER): rows that went away with it are on the new primary still, and are not listed one by one`,
    )
    const since = of(table.file)
    if (own.key.length === 0 && since !== null) {
      notes.push(`${title} has no key: rows that it kept when it was rewritten are listed as inserted`)
    }
    if (since !== null && since.deleted.size > 0) {
      unsalvaged.push(`${since.deleted.size} rows of ${title} that were deleted after it was rewritten`)
    }
  }
  return {
    schema: table.schema,
    name: table.name,
    own,
    primary: there === undefined ? null : sharedTable(table, there, there.ident),
    isGone: there === undefined && !isNew,
    hasSamePlaces: there !== undefined && (isRewritten || there.file === table.file),
    changes: isRewritten ? null : of(table.file),
    earlier: isRewritten ? of(there.file) : null,
  }
}

/** The table with the columns that both sides have. */
function sharedTable(table: CatalogTable, there: CatalogTable | undefined, ident: string): SalvageTable {
  const columns = table.columns.filter(
    ({ name }) => there === undefined || there.columns.some((column) => column.name === name),
  )
  const key = (table.key ?? []).map((name) => columns.findIndex((column) => column.name === name))
  return { ident, columns, key: key.includes(-1) ? [] : key }
}

const lackingColumns = (table: CatalogTable, there: CatalogTable): string =>
  table.columns
    .filter(({ name }) => !there.columns.some((column) => column.name === name))
    .map(({ ident }) => ident)
    .join(', ')

const names = (tables: readonly LostTable[]): string => tables.map(({ own }) => own.ident).join(', ')

/** What a trigger did on the old primary is among the rows: it must not do so again. */
function triggersOf(
  tables: readonly LostTable[],
  there: ReadonlyMap<string, CatalogTable>,
): readonly { readonly table: string; readonly trigger: string }[] {
  const idents = new Set(tables.flatMap(({ primary }) => (primary === null ? [] : [primary.ident])))
  return [...there.values()]
    .filter(({ ident }) => idents.has(ident))
    .flatMap(({ ident, triggers }) => triggers.map((trigger) => ({ table: ident, trigger })))
}

function triggerText(
  triggers: readonly { readonly table: string; readonly trigger: string }[],
  verb: 'DISABLE' | 'ENABLE',
): string {
  if (triggers.length === 0) return ''
  const why =
    verb === 'DISABLE' ? `${asComment('What triggers did on the old primary is among these changes.')}\n` : ''
  return `${why}${triggers.map(({ table, trigger }) => `ALTER TABLE ${table} ${verb} TRIGGER ${trigger};\n`).join('')}`
}

/** A name as an argument of a psql command. */
const quoteForPsql = (name: string): string => `"${name.replaceAll('"', '""')}"`
