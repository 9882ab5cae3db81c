import { asWireText } from './row-text.ts'
import { equals, type SalvageColumn, type SalvageTable } from './salvage-sql.ts'
import { quoteLiteral } from './sql.ts'

/** A table as its catalog describes it. */
export interface CatalogTable {
  readonly oid: string
  readonly schema: string
  readonly name: string
  readonly ident: string
  /** `r` table, `m` materialized view, `t` TOAST, `S` sequence, `i` index, … */
  readonly kind: string
  /** `p`: all of it is in the WAL; `u` unlogged, `t` temporary. */
  readonly persistence: string
  /** Its file in the main fork: another number after TRUNCATE, VACUUM FULL and the like; null: it has none. */
  readonly file: number | null
  readonly columns: readonly SalvageColumn[]
  readonly key: CatalogKey | null
  /** A unique or exclusion constraint of it can be deferred. */
  readonly hasDeferrable: boolean
  /** It has a rule for INSERT or UPDATE, of which ON CONFLICT wants to know nothing, be it disabled. */
  readonly hasRules: boolean
  /** Triggers that fire for a client's statement, and rules that rewrite it. */
  readonly triggers: readonly CatalogTrigger[]
  /** The transaction that created it: it made the row of a system column, which nothing changes later. */
  readonly createdBy: number | null
}

/** Never one WITHOUT OVERLAPS (18 and newer): its index finds rows whose periods overlap, not equal ones, and ON CONFLICT refuses it. */
export interface CatalogKey {
  readonly columns: readonly string[]
  /** By what its index compares each of them, e.g. `=` or `OPERATOR(public.=)`. */
  readonly operators: readonly string[]
  /** It is checked with each row, and cannot be deferred. */
  readonly isImmediate: boolean
}

export interface CatalogTrigger {
  readonly kind: 'TRIGGER' | 'RULE'
  readonly ident: string
  /** It fires under every session_replication_role (ENABLE ALWAYS). */
  readonly isAlways: boolean
}

const tableColumns = `
  c.oid::text AS oid, n.nspname AS schema, c.relname AS name, format('%I.%I', n.nspname, c.relname) AS ident,
  c.relkind AS kind, c.relpersistence AS persistence, pg_relation_filenode(c.oid)::bigint AS file,
  (SELECT a.xmin::text::bigint FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = -1) AS "createdBy",
  coalesce((SELECT json_agg(json_build_object('name', a.attname, 'ident', quote_ident(a.attname),
      'type', format_type(a.atttypid, a.atttypmod),
      'isGenerated', coalesce(to_jsonb(a) ->> 'attgenerated', '') <> '') ORDER BY a.attnum)
    FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '[]') AS columns,
  (SELECT json_build_object('isImmediate', i.indimmediate, 'columns', (SELECT json_agg(a.attname ORDER BY k.n)
      FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, n)
      JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number WHERE k.n <= i.indnkeyatts),
      'operators', (SELECT json_agg(coalesce((SELECT CASE s.nspname WHEN 'pg_catalog' THEN o.oprname
              ELSE format('OPERATOR(%I.%s)', s.nspname, o.oprname) END
            FROM pg_opclass p
            JOIN pg_amop m ON m.amopfamily = p.opcfamily AND m.amopstrategy = 3
              AND m.amoplefttype = p.opcintype AND m.amoprighttype = p.opcintype
            JOIN pg_operator o ON o.oid = m.amopopr
            JOIN pg_namespace s ON s.oid = o.oprnamespace
            WHERE p.oid = i.indclass[k.n - 1]), '=') ORDER BY k.n)
      FROM generate_series(1, i.indnkeyatts) AS k(n)))
    FROM pg_index i
    WHERE i.indrelid = c.oid AND i.indisunique AND NOT i.indisexclusion AND i.indisvalid AND i.indpred IS NULL
      AND i.indexprs IS NULL AND NOT EXISTS (
        SELECT FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, n)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
        WHERE k.n <= i.indnkeyatts AND NOT a.attnotnull)
    ORDER BY i.indimmediate DESC, i.indisprimary DESC, i.indnkeyatts, i.indexrelid LIMIT 1) AS key,
  EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND (i.indisunique OR i.indisexclusion)
    AND NOT i.indimmediate) AS "hasDeferrable",
  EXISTS (SELECT FROM pg_rewrite w WHERE w.ev_class = c.oid AND w.ev_type IN ('2', '3')) AS "hasRules",
  coalesce((SELECT json_agg(json_build_object('kind', a.kind, 'ident', quote_ident(a.name), 'isAlways', a.enabled = 'A')
      ORDER BY a.kind, a.name)
    FROM (SELECT 'TRIGGER' AS kind, t.tgname AS name, t.tgenabled AS enabled FROM pg_trigger t
        WHERE t.tgrelid = c.oid AND NOT t.tgisinternal
      UNION ALL SELECT 'RULE', w.rulename, w.ev_enabled FROM pg_rewrite w
        WHERE w.ev_class = c.oid AND w.ev_type <> '1') AS a
    WHERE a.enabled IN ('O', 'A')), '[]') AS triggers`

/** A foreign key that a table has or is referred to by: of a partition, the one of the partitioned table. */
export interface CatalogForeignKey {
  readonly ident: string
  /** As they stand behind FROM, e.g. `ONLY public.item`; all partitions are meant of a partitioned table. */
  readonly child: string
  readonly parent: string
  readonly pairs: readonly {
    readonly child: string
    readonly parent: string
    /** Between the parent's column and the child's, e.g. `=`. */
    readonly operator: string
  }[]
  /** Those that enforce it on the tables that were asked for: when the child is written, or when the parent is. */
  readonly triggers: readonly {
    readonly table: string
    readonly ident: string
    readonly isOfChild: boolean
  }[]
}

/** JSON array of the foreign keys that hold in these tables, or to them: none that is not validated, or switched off. */
export function foreignKeysQuery(oids: readonly string[]): string {
  const from = (column: string) =>
    `(SELECT CASE c.relkind WHEN 'p' THEN '' ELSE 'ONLY ' END || format('%I.%I', n.nspname, c.relname)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = k.${column})`
  const column = (table: string, number: string) =>
    `(SELECT quote_ident(a.attname) FROM pg_attribute a WHERE a.attrelid = k.${table} AND a.attnum = ${number})`
  return `WITH RECURSIVE line(trigger, key) AS (
      SELECT t.oid, t.tgconstraint FROM pg_trigger t JOIN pg_constraint k ON k.oid = t.tgconstraint
      WHERE t.tgrelid = ANY ('{${oids.join(',')}}'::oid[]) AND t.tgisinternal AND k.contype = 'f'
      UNION ALL SELECT l.trigger, k.conparentid FROM line l JOIN pg_constraint k ON k.oid = l.key WHERE k.conparentid <> 0)
    SELECT coalesce(json_agg(json_build_object('ident', quote_ident(k.conname), 'child', ${from('conrelid')},
        'parent', ${from('confrelid')}, 'triggers', f.triggers,
        'pairs', (SELECT json_agg(json_build_object('child', ${column('conrelid', 'p.child')},
              'parent', ${column('confrelid', 'p.parent')},
              'operator', CASE s.nspname WHEN 'pg_catalog' THEN o.oprname
                ELSE format('OPERATOR(%I.%s)', s.nspname, o.oprname) END) ORDER BY p.n)
            FROM ROWS FROM (unnest(k.conkey), unnest(k.confkey), unnest(k.conpfeqop))
              WITH ORDINALITY AS p(child, parent, operator, n)
            JOIN pg_operator o ON o.oid = p.operator JOIN pg_namespace s ON s.oid = o.oprnamespace))
      ORDER BY k.oid), '[]')::text
    FROM (SELECT l.key, bool_and(t.tgenabled = 'O') AS "isOn", json_agg(json_build_object(
          'table', format('%I.%I', n.nspname, c.relname), 'ident', quote_ident(t.tgname),
          'isOfChild', p.proname LIKE 'RI_FKey_check%') ORDER BY t.oid) AS triggers
        FROM line l JOIN pg_trigger t ON t.oid = l.trigger JOIN pg_class c ON c.oid = t.tgrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_proc p ON p.oid = t.tgfoid GROUP BY l.key) AS f
    JOIN pg_constraint k ON k.oid = f.key
    WHERE k.conparentid = 0 AND k.convalidated AND f."isOn" AND coalesce(to_jsonb(k) ->> 'conperiod', 'false') = 'false'`
}

/** JSON object: `tablespace/file` as asked → its table, for those files that belong to one. */
export function tablesByFileQuery(
  files: readonly { readonly tablespace: number; readonly file: number }[],
): string {
  const values = files.map(({ tablespace, file }) => `(${tablespace}::oid, ${file}::oid)`).join(', ')
  return `SELECT coalesce(json_object_agg(f.space || '/' || f.file, row_to_json(x)), '{}')::text
    FROM (VALUES ${values}) AS f(space, file)
    CROSS JOIN LATERAL (SELECT pg_filenode_relation(f.space, f.file)::oid AS found) AS r
    CROSS JOIN LATERAL (SELECT ${tableColumns} FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.oid = r.found) AS x`
}

/** JSON object: oid → table, for those that exist. */
export function tablesByOidQuery(oids: readonly string[]): string {
  return `SELECT coalesce(json_object_agg(x.oid, row_to_json(x)), '{}')::text
    FROM (SELECT ${tableColumns} FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.oid = ANY ('{${oids.join(',')}}'::oid[])) AS x`
}

/** JSON object: qualified and quoted name → what is of this name, whatever it is. */
export function tablesByNameQuery(idents: readonly string[]): string {
  return `SELECT coalesce(json_object_agg(x.ident, row_to_json(x)), '{}')::text
    FROM (SELECT ${tableColumns} FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE format('%I.%I', n.nspname, c.relname) IN (${idents.map(quoteLiteral).join(', ')})) AS x`
}

/** JSON array: qualified and quoted names of the partitioned tables to which these belong, at whatever depth. */
export function partitionedAboveQuery(idents: readonly string[]): string {
  return `WITH RECURSIVE above(oid) AS (
      SELECT i.inhparent FROM pg_inherits i WHERE i.inhrelid = ANY (${quoteLiteral(arrayText(idents))}::regclass[])
      UNION SELECT i.inhparent FROM pg_inherits i JOIN above a ON i.inhrelid = a.oid)
    SELECT coalesce(json_agg(format('%I.%I', n.nspname, c.relname)), '[]')::text
    FROM above a JOIN pg_class c ON c.oid = a.oid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'p'`
}

/** Text of an array of texts, as the server reads it. */
const arrayText = (texts: readonly string[]): string =>
  `{${texts.map((one) => `"${one.replaceAll(/["\\]/g, '\\$&')}"`).join(',')}}`

const alias = 'replctl_row'
const xmin = `${alias}.xmin::text::bigint`

/**
 * Whether a transaction id lies between the fork and the next one that will be given. Ids come round: the xmin of a row that
 * was frozen long ago may be any number, and must not pass for a young one.
 */
export function isAfterFork(xid: string, forkXid: number): string {
  const distance = (to: string) => `(${to} - ${forkXid} + 4294967296) % 4294967296`
  const next = '(SELECT txid_snapshot_xmax(txid_current_snapshot()))'
  return `(${distance(xid)} < ${distance(next)} AND ${xid} > 2)`
}

/** Whether the visible version was made by a transaction of after the fork, or by one of those that straddle it. */
function madeAfterFork(forkXid: number, straddlers: readonly number[]): string {
  const younger = isAfterFork(xmin, forkXid)
  return straddlers.length === 0 ? younger : `(${younger} OR ${xmin} IN (${straddlers.join(', ')}))`
}

/** What a row takes about, without reading its TOASTed values. */
function sizeOf(table: SalvageTable): string {
  const sizes = table.columns.map(({ ident, type }) =>
    /^(text|bytea|character varying|character)\b(?!.*\[\])/.test(type)
      ? `coalesce(octet_length(${alias}.${ident}), 0)`
      : `coalesce(pg_column_size(${alias}.${ident}), 0) * 3`,
  )
  return sizes.length === 0 ? '0' : sizes.map((size) => `${size}::bigint`).join(' + ')
}

/** JSON array of `[ctid, xmin, size]` of what lost transactions left in these blocks. */
export function standingQuery(
  table: SalvageTable,
  blocks: readonly number[],
  since: { readonly forkXid: number; readonly straddlers: readonly number[] },
): string {
  return `SELECT coalesce(json_agg(json_build_array(${alias}.ctid::text, ${xmin}, ${sizeOf(table)})), '[]')::text
    FROM ONLY ${table.ident} AS ${alias}
    WHERE ${alias}.ctid = ANY (ARRAY(SELECT ('(' || b || ',' || o || ')')::tid
        FROM unnest('{${blocks.join(',')}}'::bigint[]) AS b,
          generate_series(1, current_setting('block_size')::int / 28) AS o))
      AND ${madeAfterFork(since.forkXid, since.straddlers)}`
}

export interface TableExtent {
  readonly blocks: number
  /** The server reads a range of blocks without reading the others. */
  readonly hasRanges: boolean
}

/** How many blocks a table has, and whether they can be read range by range (TID range scans: from 14 on). */
export const extentQuery = ({ ident }: SalvageTable): string =>
  `SELECT json_build_object('blocks', pg_relation_size(${quoteLiteral(ident)}::regclass) / current_setting('block_size')::int,
    'hasRanges', current_setting('server_version_num')::int >= 140000)::text`

/** JSON array of `[ctid, xmin, size]` of all that lost transactions left in the blocks from `from` up to before `to`. */
export function rangeStandingQuery(
  table: SalvageTable,
  from: number,
  to: number,
  since: { readonly forkXid: number; readonly straddlers: readonly number[] },
): string {
  return `SELECT coalesce(json_agg(json_build_array(${alias}.ctid::text, ${xmin}, ${sizeOf(table)})), '[]')::text
    FROM ONLY ${table.ident} AS ${alias}
    WHERE ${alias}.ctid >= '(${from},0)'::tid AND ${alias}.ctid < '(${to},0)'::tid
      AND ${madeAfterFork(since.forkXid, since.straddlers)}`
}

/** JSON array of `[ctid, xmin, size]` of the rows that lie at these places. */
export function sizesQuery(table: SalvageTable, tuples: readonly string[]): string {
  return `SELECT coalesce(json_agg(json_build_array(${alias}.ctid::text, ${xmin}, ${sizeOf(table)})), '[]')::text
    FROM ONLY ${table.ident} AS ${alias} WHERE ${alias}.ctid = ANY (${tidArray(tuples)})`
}

/** JSON array of `[ctid, xmin, json, md5, literals]` of the rows that lie at these places. */
export function rowsQuery(table: SalvageTable, tuples: readonly string[]): string {
  return `SELECT coalesce(json_agg(json_build_array(${alias}.ctid::text, ${xmin}, ${rowValues(table)})), '[]')::text
    FROM ONLY ${table.ident} AS ${alias} WHERE ${alias}.ctid = ANY (${tidArray(tuples)})`
}

/** JSON array of `[n, xmin, json, md5, literals, ctid]`: rows of these keys, `n` the position of the key in the list. */
export function rowsByKeyQuery(table: SalvageTable, keys: readonly (readonly string[])[]): string {
  const columns = table.key.map((index) => table.columns[index]).filter((one) => one !== undefined)
  const values = keys.map(
    (literals, n) => `(${[n, ...columns.map(({ type }, k) => `${literals[k]}::${type}`)].join(', ')})`,
  )
  const names = columns.map((_, k) => `k${k}`)
  const match = columns.map(({ ident }, k) => `${alias}.${ident} ${equals(table, k)} replctl_key.k${k}`)
  return `SELECT coalesce(json_agg(json_build_array(replctl_key.n, ${xmin}, ${rowValues(table)}, ${alias}.ctid::text)), '[]')::text
    FROM (VALUES ${values.join(', ')}) AS replctl_key(${['n', ...names].join(', ')})
    JOIN ONLY ${table.ident} AS ${alias} ON ${match.join(' AND ')}`
}

/** The %L of format() uses the type's own output function, and tells NULL from a composite of NULLs. */
function rowValues(table: SalvageTable): string {
  const literals = table.columns.map(({ ident }) => asWireText(`format('%L', ${alias}.${ident})`))
  return `${asWireText(`row_to_json(${alias}.*)::text`)}, md5((${alias}.*)::text), ARRAY[${literals.join(', ')}]::text[]`
}

const tidArray = (tuples: readonly string[]): string =>
  `${quoteLiteral(`{${tuples.map((one) => `"${one}"`).join(',')}}`)}::tid[]`
