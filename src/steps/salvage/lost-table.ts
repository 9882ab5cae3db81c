import { fileNumberOf, type LostChanges, type LostTransactions } from '../../postgres/lost-transactions.ts'
import type { RelationChanges } from '../../postgres/relation-changes.ts'
import type { CatalogTable } from '../../postgres/salvage-queries.ts'
import { isCreatedSince, isSameTable, sharedTable } from '../../postgres/salvage-table.ts'
import type { LostTable } from './find-changes.ts'

/** What of a database's tables is known. */
export interface TablesTask {
  readonly database: string
  readonly oid: string
  readonly lost: LostTransactions
  readonly changes: LostChanges
  /** The new primary's tables, by OID and by qualified name. */
  readonly there: {
    readonly byOid: ReadonlyMap<string, CatalogTable>
    readonly byName: ReadonlyMap<string, CatalogTable>
  }
}

/** Tables that lost transactions changed, and what is to be said of them. */
export interface LostTables {
  readonly tables: readonly LostTable[]
  readonly notes: readonly string[]
  readonly unsalvaged: readonly string[]
}

/** Takes the tables of a diverged node's database whose rows can be written out, each beside its like on the new primary. */
export function lostTables(task: TablesTask, here: readonly CatalogTable[]): LostTables {
  const found = here.filter(isUserTable).map((table) => lostTable(task, table))
  return {
    tables: found.flatMap(({ table }) => (table === null ? [] : [table])),
    notes: found.flatMap(({ notes }) => notes),
    unsalvaged: found.flatMap(({ unsalvaged }) => unsalvaged),
  }
}

const isUserTable = ({ kind, schema }: CatalogTable): boolean =>
  kind === 'r' && schema !== 'pg_catalog' && schema !== 'information_schema' && schema !== 'pg_toast'

interface Found {
  readonly table: LostTable | null
  readonly notes: readonly string[]
  readonly unsalvaged: readonly string[]
}

function lostTable(task: TablesTask, table: CatalogTable): Found {
  const { lost } = task
  const ofOid = task.there.byOid.get(table.oid)
  const same = ofOid !== undefined && isSameTable(table, ofOid, lost.forkXid) ? ofOid : undefined
  if (same !== undefined) return changedTable(task, table, same)
  if (table.persistence !== 'p') return { table: null, notes: [], unsalvaged: [] }
  return isCreatedSince(table, lost.forkXid, lost.straddlers)
    ? newTable(task, table, task.there.byName.get(table.ident))
    : {
        table: lostTableOf(table, { isGone: true, changes: ofFile(task, table.file) }),
        notes: [],
        unsalvaged: [],
      }
}

/** All rows of a table that lost transactions created are lost ones, however often it was rewritten since. */
function newTable(task: TablesTask, table: CatalogTable, namesake: CatalogTable | undefined): Found {
  const title = titleOf(task, table)
  const order = ofFile(task, table.file)
  if (namesake === undefined) return { table: lostTableOf(table, { order }), notes: [], unsalvaged: [] }
  if (namesake.kind !== 'r' && namesake.kind !== 'p') {
    const notes = [
      `${title} was created; the new primary has something else of this name: it is not created there`,
    ]
    return { table: lostTableOf(table, { isGone: true, order }), notes, unsalvaged: [] }
  }
  const notes = [
    `${title} was created on both sides: its rows are compared by key with those of the new primary's table`,
    ...lackingNotes(title, table, namesake),
  ]
  return { table: lostTableOf(table, { there: namesake, order }), notes, unsalvaged: [] }
}

function changedTable(task: TablesTask, table: CatalogTable, there: CatalogTable): Found {
  const { changes, oid } = task
  const title = titleOf(task, table)
  const isRewritten = [...changes.createdFiles].some(isFileOf(oid, table.file))
  // Where the new primary rewrote it too, nothing lies there any more where it lay at the fork.
  const hasSamePlaces = isRewritten
    ? [...changes.droppedFiles].some(isFileOf(oid, there.file)) &&
      ![...changes.createdFiles].some(isFileOf(oid, there.file))
    : there.file === table.file
  const earlier = isRewritten && hasSamePlaces ? ofFile(task, there.file) : null
  if (table.persistence !== 'p') {
    const isLost = earlier !== null && !earlier.isEmpty
    const unsalvaged = [`changes of ${title} of before it was made unlogged: its content is gone`]
    return { table: null, notes: [], unsalvaged: isLost ? unsalvaged : [] }
  }
  const present = ofFile(task, table.file)
  const both = lostTableOf(table, {
    there,
    hasSamePlaces,
    changes: isRewritten ? null : present,
    earlier,
    order: present,
  })
  const notes = lackingNotes(title, table, there)
  if (!isRewritten) return { table: both, notes, unsalvaged: [] }
  const rewritten = rewrittenNotes(title, both, present)
  return { table: both, notes: [...notes, ...rewritten.notes], unsalvaged: rewritten.unsalvaged }
}

function rewrittenNotes(
  title: string,
  { own }: LostTable,
  since: RelationChanges | null,
): Omit<Found, 'table'> {
  const notes = [
    `${title} was truncated or rewritten (TRUNCATE, ALTER TABLE, VACUUM FULL, CLUSTER): rows that went away with it are on the new primary still, and are not listed one by one`,
  ]
  if (own.key.length === 0 && since !== null)
    notes.push(`${title} has no key: rows that it kept when it was rewritten are listed as inserted`)
  if (since !== null && since.vanished > 0)
    notes.push(
      `${since.vanished} rows of ${title} that were written into its new file were deleted again: where ALTER TABLE rewrote it, rows of before may be among them, which are on the new primary still`,
    )
  const deleted = since?.certainlyDeleted ?? 0
  const unsalvaged =
    deleted === 0 ? [] : [`${deleted} rows of ${title} that were deleted after it was rewritten`]
  return { notes, unsalvaged }
}

interface Known {
  readonly there?: CatalogTable
  readonly isGone?: boolean
  readonly hasSamePlaces?: boolean
  readonly changes?: RelationChanges | null
  readonly earlier?: RelationChanges | null
  readonly order?: RelationChanges | null
}

function lostTableOf(table: CatalogTable, known: Known): LostTable {
  return {
    schema: table.schema,
    name: table.name,
    ...sharedTable(table, known.there),
    isGone: known.isGone ?? false,
    hasSamePlaces: known.hasSamePlaces ?? false,
    changes: known.changes ?? null,
    earlier: known.earlier ?? null,
    order: known.order ?? null,
  }
}

/**
 * Deletions in files that belong to no table any more, neither here nor on the new primary: made between two rewrites of
 * a table, or before a rewrite of one that the new primary rewrote or dropped as well.
 */
export function deletionsNowhere(
  { changes, oid, database }: Pick<TablesTask, 'changes' | 'oid' | 'database'>,
  isKnown: (file: string) => boolean,
): readonly string[] {
  return [...changes.relations].flatMap(([file, { certainlyDeleted }]) => {
    if (file.split('/')[1] !== oid || isKnown(file) || certainlyDeleted === 0) return []
    const gone = changes.createdFiles.has(file) || changes.droppedFiles.has(file)
    return gone
      ? [
          `${certainlyDeleted} rows in ${database} deleted from file ${file}, which a later rewrite or DROP replaced: of which table is not known`,
        ]
      : []
  })
}

const titleOf = ({ database }: TablesTask, { ident }: CatalogTable): string => `${ident} in ${database}`

const isFileOf = (oid: string, file: number | null) => (name: string) =>
  name.split('/')[1] === oid && fileNumberOf(name) === file

const ofFile = ({ changes, oid }: TablesTask, file: number | null): RelationChanges | null =>
  [...changes.relations].find(([name]) => isFileOf(oid, file)(name))?.[1] ?? null

function lackingNotes(title: string, table: CatalogTable, there: CatalogTable): readonly string[] {
  const lacking = table.columns.filter(({ name }) => !there.columns.some((column) => column.name === name))
  if (lacking.length === 0) return []
  const columns = lacking.map(({ ident }) => ident).join(', ')
  return [`${title}: the new primary lacks ${columns}; their values are in rows.jsonl only`]
}
