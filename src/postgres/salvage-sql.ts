import type { CatalogForeignKey, CatalogTrigger } from './salvage-queries.ts'
import { quoteLiteral } from './sql.ts'

/** One column of a table whose rows are written out. Texts are quoted by the server. */
export interface SalvageColumn {
  readonly name: string
  /** Quoted as a name, e.g. `"Order"`. */
  readonly ident: string
  /** e.g. `numeric(10,2)`, schema-qualified where it is not of pg_catalog. */
  readonly type: string
  /** Its value follows from the others. */
  readonly isGenerated: boolean
}

export interface SalvageTable {
  /** Qualified and quoted, e.g. `public."Order"`. */
  readonly ident: string
  readonly columns: readonly SalvageColumn[]
  /** Positions in `columns` of its primary key, else of another key that holds no NULL; empty: none. */
  readonly key: readonly number[]
  /** By which operator each column of the key is compared, where that is not pg_catalog's `=`, e.g. `OPERATOR(public.=)`. */
  readonly operators?: readonly string[]
  readonly arbiter: Arbiter
}

/**
 * Which uniqueness an INSERT can be told to respect. ON CONFLICT is an error where it would have to ask a deferrable
 * constraint: then it asks for the `key` alone, or, where the key itself is deferrable, `nothing`. That is so, too, where
 * a rule rewrites what is written.
 * @see src/backend/executor/execIndexing.c, ExecCheckIndexConstraints
 */
export type Arbiter = 'all' | 'key' | 'nothing'

/** A row as a server gave it. `literals` are in the order of the table's columns: `'text'`, `E'C:\\x'` or `NULL`. */
export interface SalvageRow {
  readonly literals: readonly string[]
  /** row_to_json() as text, on one line. */
  readonly json: string
  /** md5 of the whole row's text. */
  readonly md5: string
}

/** Settings under which both servers give the same text for the same value, and under which that text is read again. */
export const salvageSettings: Readonly<Record<string, string>> = {
  client_encoding: 'UTF8',
  standard_conforming_strings: 'on',
  DateStyle: 'ISO, YMD',
  IntervalStyle: 'postgres',
  TimeZone: 'UTC',
  bytea_output: 'hex',
  extra_float_digits: '3',
  lc_monetary: 'C',
  xmloption: 'content',
  search_path: 'pg_catalog',
}

/** `SET …; SET LOCAL …` of {@link salvageSettings}. */
export const setSalvageSettings = (scope: '' | 'LOCAL ' = ''): string =>
  Object.entries(salvageSettings)
    .map(([name, value]) => `SET ${scope}${name} = ${name === 'search_path' ? value : `'${value}'`};`)
    .join('\n')

/** A database as psql's \connect takes it: one whose name looks like a connection string is named by one. */
export function databaseForPsql(name: string): string {
  const quote = (text: string) => `"${text.replaceAll('"', '""')}"`
  if (!name.includes('=') && !/^postgres(ql)?:\/\//.test(name)) return quote(name)
  return `-reuse-previous=on ${quote(`dbname='${name.replaceAll(/['\\]/g, '\\$&')}'`)}`
}

/** Switches triggers and rules of the new primary off for the time of the changes, or on again as each of them was. */
export function triggerText(
  triggers: readonly { readonly table: string; readonly trigger: CatalogTrigger }[],
  verb: 'DISABLE' | 'ENABLE',
): string {
  if (triggers.length === 0) return ''
  const why =
    verb === 'DISABLE' ? `${asComment('What triggers did on the old primary is among these changes.')}\n` : ''
  const lines = triggers.map(({ table, trigger: { kind, ident, isAlways } }) => {
    const mode = verb === 'ENABLE' && isAlways ? 'ENABLE ALWAYS' : verb
    return `ALTER TABLE ${table} ${mode} ${kind} ${ident};\n`
  })
  return `${why}${lines.join('')}`
}

/**
 * Switches what enforces these foreign keys off, or on again. What they did on the old primary (ON DELETE CASCADE and the
 * like) is among the changes. Done again here it would reach rows that only the new primary has; and each change stands
 * once, with its final values, which may refer to a row that comes later.
 */
export function foreignKeyText(keys: readonly CatalogForeignKey[], verb: 'DISABLE' | 'ENABLE'): string {
  if (keys.length === 0) return ''
  const why =
    verb === 'DISABLE' ? `${asComment('Foreign keys are looked at when all changes are made.')}\n` : ''
  const lines = keys.flatMap(({ triggers }) =>
    triggers.map(({ table, ident }) => `ALTER TABLE ${table} ${verb} TRIGGER ${ident};\n`),
  )
  return `${why}${lines.join('')}`
}

/** Fails, and with it the transaction, where a row refers to one that is not there. */
export function foreignKeyCheck({ ident, child, parent, pairs }: CatalogForeignKey): string {
  const refers = pairs.map((one) => `replctl_child.${one.child} IS NOT NULL`).join(' AND ')
  const match = pairs.map((one) => `replctl_parent.${one.parent} ${one.operator} replctl_child.${one.child}`)
  const name = (from: string) => from.replace(/^ONLY /, '')
  const words = `a row of ${name(child)} refers to one of ${name(parent)} that is not there, against ${ident}`
  const hint =
    'Nothing was changed in this database. Look at the changes of these two tables, and take out, or put in, what is in the way.'
  const body = `DECLARE orphan text;
BEGIN
  SELECT (replctl_child.*)::text INTO orphan FROM ${child} AS replctl_child
    WHERE ${refers} AND NOT EXISTS (SELECT FROM ${parent} AS replctl_parent WHERE ${match.join(' AND ')}) LIMIT 1;
  IF FOUND THEN
    RAISE foreign_key_violation USING MESSAGE = ${quoteLiteral(words)}, DETAIL = orphan, HINT = ${quoteLiteral(hint)};
  END IF;
END`
  return `DO ${quoteLiteral(body)};\n`
}

/** Two rows hold the same values. */
export const isSameRow = (a: SalvageRow, b: SalvageRow): boolean =>
  a.literals.length === b.literals.length &&
  a.literals.every((literal, index) => literal === b.literals[index])

const alias = 'replctl_row'

/** Inserts a row unless one with the same key, or whatever else is unique, is there. */
export function insertStatement(table: SalvageTable, row: SalvageRow): string {
  const columns = written(table)
  const names = columns.map(({ column }) => column.ident).join(', ')
  const values = columns.map(({ column, index }) => typed(column, row.literals[index])).join(', ')
  if (columns.length === 0) return `INSERT INTO ${table.ident} DEFAULT VALUES${unless(table)};`
  const into = `INSERT INTO ${table.ident} (${names}) OVERRIDING SYSTEM VALUE`
  if (table.arbiter !== 'nothing' || table.key.length === 0)
    return `${into} VALUES (${values})${unless(table)};`
  const taken = `SELECT FROM ONLY ${table.ident} AS ${alias} WHERE ${keyCondition(table, row.literals)}`
  return `${into} SELECT ${values} WHERE NOT EXISTS (${taken});`
}

function unless(table: SalvageTable): string {
  if (table.arbiter === 'all') return ' ON CONFLICT DO NOTHING'
  return table.arbiter === 'key' && table.key.length > 0 ? ` ON CONFLICT (${keyNames(table)}) DO NOTHING` : ''
}

const keyNames = (table: SalvageTable): string =>
  table.key.map((index) => table.columns[index]?.ident).join(', ')

/** Brings a row to what it was on the old primary, whatever it is now: for the operator to decide. */
export function overwriteStatement(table: SalvageTable, row: SalvageRow): string {
  const insert = insertStatement(table, row)
  const others = written(table).filter(({ index }) => !table.key.includes(index))
  if (table.key.length === 0 || others.length === 0) return insert
  if (table.arbiter === 'nothing') {
    const set = others.map(({ column, index }) => `${column.ident} = ${typed(column, row.literals[index])}`)
    const where = keyCondition(table, row.literals)
    return `${insert}\nUPDATE ONLY ${table.ident} AS ${alias} SET ${set.join(', ')} WHERE ${where};`
  }
  const set = others.map(({ column }) => `${column.ident} = EXCLUDED.${column.ident}`).join(', ')
  const bare = insert.slice(0, insert.lastIndexOf(' ON CONFLICT'))
  return `${bare} ON CONFLICT (${keyNames(table)}) DO UPDATE SET ${set};`
}

/** Changes a row if it still is what it was at the fork. Null where nothing that can be set differs. */
export function updateStatement(table: SalvageTable, old: SalvageRow, row: SalvageRow): string | null {
  const changed = written(table).filter(({ index }) => old.literals[index] !== row.literals[index])
  if (changed.length === 0) return null
  const set = changed.map(({ column, index }) => `${column.ident} = ${typed(column, row.literals[index])}`)
  return `UPDATE ONLY ${table.ident} AS ${alias} SET ${set.join(', ')} WHERE ${thisVery(table, old)};`
}

/** Deletes a row if it still is what it was at the fork. */
export function deleteStatement(table: SalvageTable, old: SalvageRow): string {
  return `DELETE FROM ONLY ${table.ident} AS ${alias} WHERE ${thisVery(table, old)};`
}

/** Without a key a row is known by all of its values; of several that are alike, one is meant. */
function thisVery(table: SalvageTable, old: SalvageRow): string {
  const asItWas = `md5((${alias}.*)::text) = '${old.md5}'`
  if (table.key.length === 0) {
    return `ctid = (SELECT ctid FROM ONLY ${table.ident} AS ${alias} WHERE ${asItWas} LIMIT 1)`
  }
  return `${keyCondition(table, old.literals)} AND ${asItWas}`
}

/** e.g. `replctl_row.id = '5'::integer`. */
function keyCondition(table: SalvageTable, literals: readonly string[]): string {
  return table.key
    .flatMap((index, n) => {
      const column = table.columns[index]
      if (column === undefined) return []
      return [`${alias}.${column.ident} ${equals(table, n)} ${typed(column, literals[index])}`]
    })
    .join(' AND ')
}

/** The operator of the n-th column of the key: that of an extension's type is found under its own schema only. */
export const equals = (table: SalvageTable, n: number): string => table.operators?.[n] ?? '='

const typed = (column: SalvageColumn, literal = 'NULL'): string => `${literal}::${column.type}`

const written = (table: SalvageTable) =>
  table.columns.flatMap((column, index) => (column.isGenerated ? [] : [{ column, index }]))

/**
 * psql's own commands, on one line: say it where the statement before changed no row. Nothing fails by that, but nothing
 * passes in silence either. (psql knows \if since 10, ROW_COUNT since 11.)
 */
export const sayIfNothingDone = (words: string): string =>
  `\\if :ROW_COUNT \\else \\echo ${quoteForPsql(words)} \\endif`

/** An argument of a psql command, in which no variable and no backquote is expanded. */
const quoteForPsql = (text: string): string =>
  `'${onOneLine(text).replaceAll('\\', '\\\\').replaceAll("'", "''")}'`

/** How a message names a row: by its key, else by what it holds. Long ones are cut. */
export function rowName(table: SalvageTable, row: SalvageRow): string {
  const names = table.key.map((index) => table.columns[index]?.name).join(', ')
  const values = table.key.map((index) => row.literals[index] ?? 'NULL').join(', ')
  const text = table.key.length === 0 ? row.json : `(${names}) = (${values})`
  return text.length > 200 ? `${text.slice(0, 200)}…` : text
}

/** Makes a comment of any text: each of its lines begins with `-- `. */
export const asComment = (text: string): string =>
  text
    .split(/\r\n|\r|\n/)
    .map((line) => `-- ${line}`.trimEnd())
    .join('\n')

/**
 * JSON text of a row on one line: a value of type json keeps the line breaks it was written with, between its tokens
 * only, since inside a JSON string they cannot be.
 */
export const onOneLine = (json: string): string => json.replaceAll(/[\r\n]+/g, ' ')
