import { describe, expect, it } from 'vitest'
import type { CatalogTable } from '../../../src/postgres/salvage-queries.ts'
import { rowsByKeyQuery, tablesByOidQuery } from '../../../src/postgres/salvage-queries.ts'
import { deleteStatement } from '../../../src/postgres/salvage-sql.ts'
import { isCreatedSince, isSameTable, sharedTable } from '../../../src/postgres/salvage-table.ts'

const column = (name: string, type = 'integer', isGenerated = false) => ({
  name,
  ident: name,
  type,
  isGenerated,
})
const table = (other: Partial<CatalogTable> = {}): CatalogTable => ({
  oid: '16400',
  schema: 'public',
  name: 'item',
  ident: 'public.item',
  kind: 'r',
  persistence: 'p',
  file: 16400,
  columns: [column('id'), column('v', 'text'), column('mail', 'text')],
  key: { columns: ['id'], operators: ['='], isImmediate: true },
  hasDeferrable: false,
  hasRules: false,
  triggers: [],
  createdBy: 600,
  ...other,
})
const key = (...columns: string[]) => ({ columns, operators: columns.map(() => '='), isImmediate: true })

describe('sharedTable', () => {
  it('knows rows by the key that the new primary has, whatever the old primary calls unique', () => {
    for (const own of [key('id'), key('id', 'v'), null]) {
      const { own: mine, primary } = sharedTable(table({ key: own }), table({ key: key('mail') }))
      expect([mine.key, primary?.key]).toEqual([[2], [2]])
    }
  })

  it('knows no key where only the old primary has one, or where its columns are not on both sides', () => {
    expect(sharedTable(table(), table({ key: null })).primary?.key).toEqual([])
    const lacking = table({ columns: [column('id'), column('v', 'text')] })
    expect(sharedTable(lacking, table({ key: key('id', 'mail') })).own.key).toEqual([])
  })

  it('takes a key whose type was changed on one side only where values can be compared', () => {
    const withId = (type: string) => table({ columns: [column('id', type), column('v', 'text')] })
    const keyOf = (mine: string, theirs: string) => sharedTable(withId(mine), withId(theirs)).own.key
    expect(keyOf('bigint', 'integer')).toEqual([0])
    expect(keyOf('character varying(20)', 'text')).toEqual([0])
    expect(keyOf('numeric(10,2)', 'numeric(12,4)')).toEqual([0])
    expect(keyOf('text', 'integer')).toEqual([])
    expect(keyOf('text[]', 'text')).toEqual([])
  })

  it('puts the columns of both sides into one order, and takes from the new primary what can be written', () => {
    const there = table({
      columns: [column('mail', 'citext'), column('v', 'text', true), column('more'), column('id', 'bigint')],
    })
    const { own, primary } = sharedTable(table(), there)
    expect(own.columns.map(({ name, type }) => `${name} ${type}`)).toEqual([
      'id integer',
      'v text',
      'mail text',
    ])
    expect(primary?.columns.map(({ name, type }) => `${name} ${type}`)).toEqual([
      ...['id bigint', 'v text', 'mail citext'],
    ])
    expect(primary?.columns.map(({ isGenerated }) => isGenerated)).toEqual([false, true, false])
  })

  it('knows what an INSERT may ask for a conflict: no constraint that can be deferred', () => {
    const arbiterOf = (other: Partial<CatalogTable>) => sharedTable(table(), table(other)).primary?.arbiter
    const deferred = { columns: ['id'], operators: ['='], isImmediate: false }
    expect(arbiterOf({})).toBe('all')
    expect(arbiterOf({ hasDeferrable: true })).toBe('key')
    expect(arbiterOf({ hasRules: true })).toBe('nothing')
    expect(arbiterOf({ hasDeferrable: true, key: deferred })).toBe('nothing')
    expect(arbiterOf({ hasDeferrable: true, key: null })).toBe('nothing')
    expect(arbiterOf({ hasDeferrable: true, key: key('elsewhere') })).toBe('nothing')
    expect(sharedTable(table({ hasDeferrable: true, key: deferred }), undefined).own.arbiter).toBe('nothing')
  })
})

describe('isSameTable', () => {
  const fork = 700
  it('takes a table of before the fork for the same, whatever each side called it since', () => {
    expect(isSameTable(table(), table({ ident: 'public.renamed' }), fork)).toBe(true)
  })

  it('tells tables apart that both sides created since with one OID', () => {
    const fresh = table({ createdBy: 705 })
    expect(isSameTable(fresh, table({ createdBy: 702, ident: 'public.theirs' }), fork)).toBe(false)
    expect(isSameTable(fresh, table({ createdBy: 702 }), fork)).toBe(true)
    expect(isSameTable(fresh, table(), fork)).toBe(false)
    expect(isSameTable(table(), fresh, fork)).toBe(false)
  })

  it('counts what a transaction created that began before the fork as new', () => {
    expect(isCreatedSince(table({ createdBy: 690 }), fork)).toBe(false)
    expect(isCreatedSince(table({ createdBy: 690 }), fork, [690])).toBe(true)
  })
})

it('a key of an extension’s type is compared by the operator of its index, which no search path finds', () => {
  const path = { name: 'path', ident: 'path', type: 'public.ltree', isGenerated: false }
  const keyed = { columns: ['path'], operators: ['OPERATOR(public.=)'], isImmediate: true }
  const both = table({ columns: [path], key: keyed })
  const { primary } = sharedTable(both, both)
  expect(primary).not.toBeNull()
  const row = { literals: ["'a.b'"], json: '{}', md5: 'm' }
  expect(deleteStatement(primary!, row)).toContain(
    "replctl_row.path OPERATOR(public.=) 'a.b'::public.ltree AND",
  )
  expect(rowsByKeyQuery(primary!, [["'a.b'"]])).toContain(
    'replctl_row.path OPERATOR(public.=) replctl_key.k0',
  )
  expect(deleteStatement(sharedTable(both, undefined).own, row)).toContain('OPERATOR(public.=)')
})

// The index of PRIMARY KEY (id, valid_at WITHOUT OVERLAPS) is unique and an exclusion index; strategy 3 of a range is &&.
it('a key WITHOUT OVERLAPS (18) is none to find a row by: it would find rows whose periods only overlap', () => {
  expect(tablesByOidQuery(['16384'])).toMatch(/i\.indisunique AND NOT i\.indisexclusion AND i\.indisvalid/)
})
