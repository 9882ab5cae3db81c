import type { CatalogTable } from './salvage-queries.ts'
import type { Arbiter, SalvageColumn, SalvageTable } from './salvage-sql.ts'
import { xidPrecedes } from './xid-set.ts'

/** One table as the two sides have it: the same columns in the same order, and the key by which the new primary knows a row. */
export interface SharedTable {
  readonly own: SalvageTable
  /** Null: the new primary does not have it. */
  readonly primary: SalvageTable | null
}

/**
 * Brings the two sides of a table together. Statements are made for the new primary, and rows are looked up there: what is
 * generated, which types values are read as, and what is unique is therefore told by it, where it has the table.
 */
export function sharedTable(table: CatalogTable, there: CatalogTable | undefined): SharedTable {
  const { ident } = table
  if (there === undefined) {
    const key = (table.key?.columns ?? []).map((name) => positionOf(table.columns, name))
    const operators = table.key?.operators ?? []
    return {
      own: { ident, columns: table.columns, key, operators, arbiter: arbiterOf(table) },
      primary: null,
    }
  }
  const pairs = table.columns.flatMap((own) => {
    const primary = there.columns.find(({ name }) => name === own.name)
    return primary === undefined ? [] : [{ own, primary }]
  })
  const found = (there.key?.columns ?? []).map((name) =>
    pairs.findIndex((pair) => pair.own.name === name && isComparable(pair.own.type, pair.primary.type)),
  )
  const key = found.includes(-1) ? [] : found
  const arbiter = key.length === 0 && there.hasDeferrable ? 'nothing' : arbiterOf(there)
  const operators = there.key?.operators ?? []
  const side = (name: string, columns: readonly SalvageColumn[]) => ({
    ...{ ident: name, columns, key, operators, arbiter },
  })
  return {
    own: side(
      ident,
      pairs.map(({ own }) => own),
    ),
    primary: side(
      there.ident,
      pairs.map(({ primary }) => primary),
    ),
  }
}

const positionOf = (columns: readonly SalvageColumn[], name: string): number =>
  columns.findIndex((column) => column.name === name)

function arbiterOf({ key, hasDeferrable, hasRules }: CatalogTable): Arbiter {
  if (hasRules) return 'nothing'
  if (!hasDeferrable) return 'all'
  return key?.isImmediate === true ? 'key' : 'nothing'
}

/** Types of which one value can be looked up among those of the other, whatever their length. */
function isComparable(a: string, b: string): boolean {
  const kindOf = (type: string) => {
    const bare = type.replace(/\([\d,-]+\)/, '')
    return families.find((family) => family.includes(bare))?.[0] ?? bare
  }
  return kindOf(a) === kindOf(b)
}

const families = [
  ['smallint', 'integer', 'bigint'],
  ['text', 'character varying'],
]

/**
 * Whether two tables of one OID are one table. Both sides go on counting OIDs from where they parted: what each of them
 * created since may have the same one.
 */
export function isSameTable(table: CatalogTable, there: CatalogTable, forkXid: number): boolean {
  const isNew = isCreatedSince(table, forkXid)
  if (isNew !== isCreatedSince(there, forkXid)) return false
  return !isNew || table.ident === there.ident
}

/** Whether a table was created after the fork: by one of `straddlers`, if given, too. */
export const isCreatedSince = (
  { createdBy }: CatalogTable,
  forkXid: number,
  straddlers: readonly number[] = [],
): boolean => createdBy !== null && (!xidPrecedes(createdBy, forkXid) || straddlers.includes(createdBy))
