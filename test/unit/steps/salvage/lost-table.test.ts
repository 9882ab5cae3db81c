import { describe, expect, it } from 'vitest'
import { LostChanges, LostTransactions } from '../../../../src/postgres/lost-transactions.ts'
import type { Lsn } from '../../../../src/postgres/lsn.ts'
import { tupleKey } from '../../../../src/postgres/relation-changes.ts'
import type { CatalogTable } from '../../../../src/postgres/salvage-queries.ts'
import type { WalAction } from '../../../../src/postgres/waldump.ts'
import { deletionsNowhere, lostTables } from '../../../../src/steps/salvage/lost-table.ts'

const lsn = '0/2000000' as Lsn
const relation = (file: number) => `1663/5/${file}`
const at = (offset: number) => ({ block: 0, offset })

/** Transaction 700, the first one after the fork, did this and committed. */
function lostBy(...actions: WalAction[]): { lost: LostTransactions; changes: LostChanges } {
  const lost = new LostTransactions('0/1000000' as Lsn)
  lost.add({ is: 'next-xid', nextXid: 700, xid: 0, lsn: '0/F00000' as Lsn })
  lost.committed.add(700)
  const changes = new LostChanges(lost)
  for (const action of actions) changes.add({ ...action, xid: 700, lsn })
  return { lost, changes }
}
const commit = (...dropped: string[]): WalAction => {
  return { is: 'commit', of: 0, subxacts: [], time: '', wasPrepared: false, dropped }
}

const table = (other: Partial<CatalogTable> = {}): CatalogTable => ({
  ...{ oid: '16400', schema: 'public', name: 'item', ident: 'public.item', kind: 'r', persistence: 'p' },
  ...{ file: 16400, columns: [{ name: 'id', ident: 'id', type: 'integer', isGenerated: false }] },
  ...{
    key: { columns: ['id'], operators: ['='], isImmediate: true },
    hasDeferrable: false,
    hasRules: false,
    triggers: [],
    createdBy: 600,
  },
  ...other,
})

function find(
  { lost, changes }: ReturnType<typeof lostBy>,
  own: CatalogTable,
  there: readonly CatalogTable[] = [],
) {
  const byOid = new Map(there.map((one) => [one.oid, one]))
  const byName = new Map(there.map((one) => [one.ident, one]))
  return lostTables({ database: 'shop', oid: '5', lost, changes, there: { byOid, byName } }, [own])
}

describe('lostTables', () => {
  it('reads no row of an unlogged table, which a standby refuses', () => {
    const made = lostBy({ is: 'create-file', relation: relation(16500) })
    const unlogged = table({ persistence: 'u', file: 16500, createdBy: 700 })
    expect(find(made, unlogged)).toEqual({ tables: [], notes: [], unsalvaged: [] })
    const emptied = { ...unlogged, createdBy: 600 }
    expect(find(made, emptied, [table({ persistence: 'u' })]).tables).toEqual([])
  })

  it('says what is lost with a table that was made unlogged after it was changed', () => {
    const made = lostBy(
      { is: 'delete', relation: relation(16400), at: at(1) },
      { is: 'create-file', relation: relation(16500) },
      commit(relation(16400)),
    )
    const { tables, unsalvaged } = find(made, table({ persistence: 'u', file: 16500 }), [table()])
    expect([tables, unsalvaged]).toEqual([[], [expect.stringContaining('before it was made unlogged')]])
  })

  it('looks for all rows of a table that is new, however often it was rewritten, and for no deletion', () => {
    const made = lostBy(
      { is: 'create-file', relation: relation(16500) },
      { is: 'insert', relation: relation(16500), at: at(3) },
      { is: 'delete', relation: relation(16500), at: at(1) },
    )
    const { tables } = find(made, table({ file: 16500, createdBy: 700 }))
    expect(tables).toMatchObject([{ primary: null, isGone: false, changes: null, earlier: null }])
    expect(tables[0]?.order?.turnOf(tupleKey(at(3)))).toBe(1)
  })

  it('does not take a table that the new primary created meanwhile with this OID for its own', () => {
    const made = lostBy({ is: 'insert', relation: relation(16400), at: at(1) })
    const theirs = table({ createdBy: 705, ident: 'public.theirs' })
    expect(find(made, table({ createdBy: 700 }), [theirs]).tables).toMatchObject([
      { primary: null, isGone: false },
    ])
  })

  it('compares a table that both sides created with the one of its name', () => {
    const made = lostBy({ is: 'insert', relation: relation(16400), at: at(1) })
    const theirs = table({ createdBy: 705, oid: '24600', file: 24600 })
    const found = find(made, table({ createdBy: 700 }), [theirs])
    expect(found.tables).toMatchObject([
      { primary: { ident: 'public.item' }, isGone: false, hasSamePlaces: false, changes: null },
    ])
    expect(found.notes.join()).toContain('created on both sides')
    const view = find(made, table({ createdBy: 700 }), [{ ...theirs, kind: 'v' }])
    expect(view.tables).toMatchObject([{ primary: null, isGone: true }])
  })

  it('finds rows where they lay at the fork only as long as the new primary did not rewrite the table as well', () => {
    const made = lostBy(
      { is: 'delete', relation: relation(16400), at: at(1) },
      { is: 'create-file', relation: relation(16500) },
      { is: 'delete', relation: relation(16500), at: at(2) },
      commit(relation(16400)),
    )
    const own = table({ file: 16500 })
    const once = find(made, own, [table()])
    expect(once.tables).toMatchObject([{ hasSamePlaces: true, changes: null }])
    expect(once.tables[0]?.earlier?.deleted.size).toBe(1)
    expect(once.unsalvaged).toEqual([
      '1 rows of public.item in shop that were deleted after it was rewritten',
    ])
    // Its own new file may even have the number of the old primary's.
    for (const file of [16500, 16600]) {
      expect(find(made, own, [table({ file })]).tables).toMatchObject([
        { hasSamePlaces: false, changes: null, earlier: null },
      ])
    }
  })
})

describe('deletionsNowhere', () => {
  it('counts deletions in a file that a second rewrite replaced', () => {
    const { changes } = lostBy(
      { is: 'create-file', relation: relation(16500) },
      { is: 'delete', relation: relation(16500), at: at(1) },
      { is: 'create-file', relation: relation(16600) },
      { is: 'delete', relation: relation(16600), at: at(1) },
      commit(relation(16400), relation(16500)),
    )
    const task = { changes, oid: '5', database: 'shop' }
    expect(deletionsNowhere(task, (file) => file === relation(16600))).toEqual([
      expect.stringMatching(/^1 rows in shop deleted from file 1663\/5\/16500/),
    ])
    expect(deletionsNowhere({ ...task, oid: '6' }, () => false)).toEqual([])
  })

  it('counts those in the file of the fork that both sides replaced, but not what came and went with a new table', () => {
    const { changes } = lostBy(
      { is: 'delete', relation: relation(16400), at: at(1) },
      { is: 'create-file', relation: relation(16500) },
      { is: 'insert', relation: relation(16500), at: at(1) },
      { is: 'delete', relation: relation(16500), at: at(1) },
      commit(relation(16400), relation(16500)),
    )
    const found = deletionsNowhere({ changes, oid: '5', database: 'shop' }, () => false)
    expect(found).toEqual([expect.stringContaining(relation(16400))])
  })
})
