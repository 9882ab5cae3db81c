import { describe, expect, it } from 'vitest'
import type { SqlSession } from '../../../../src/node/sql-session.ts'
import type { CatalogTable } from '../../../../src/postgres/salvage-queries.ts'
import { saveSequences } from '../../../../src/steps/salvage/save-sequences.ts'

type State = readonly [last: string, isCalled: boolean, increment: string]

/** A server that has one sequence. */
const server = ([last, isCalled, increment]: State) =>
  ({ value: async () => JSON.stringify({ last, isCalled, increment }) }) as unknown as SqlSession

const sequence = { ident: 'public.s', kind: 'S', persistence: 'p' } as CatalogTable
const compare = async (mine: State, theirs: State, of = sequence) =>
  await saveSequences({ own: server(mine), primary: server(theirs), database: 'shop' }, [of])

describe('saveSequences', () => {
  it('proposes to go on from the old primary only where that was ahead', async () => {
    const { found, sql } = await compare(['10', true, '1'], ['9', true, '1'])
    expect(found).toEqual([
      { database: 'shop', sequence: 'public.s', lastValue: '10', primaryLastValue: '9' },
    ])
    expect(sql).toContain("-- SELECT pg_catalog.setval('public.s', 10, true);")
    expect(await compare(['9', true, '1'], ['10', true, '1'])).toEqual({ found: [], sql: '' })
    expect(await compare(['10', true, '1'], ['10', true, '1'])).toEqual({ found: [], sql: '' })
  })

  it('compares numbers, in the direction in which the sequence counts', async () => {
    const isFound = async (mine: State, theirs: State) => (await compare(mine, theirs)).found.length === 1
    expect(await isFound(['-5', true, '-1'], ['-4', true, '-1'])).toBe(true)
    expect(await isFound(['-4', true, '-1'], ['-5', true, '-1'])).toBe(false)
    expect(await isFound(['9223372036854775807', true, '1'], ['9223372036854775806', true, '1'])).toBe(true)
    // The first value was given out on the old primary, and would be once more on the new one.
    expect(await isFound(['1', true, '1'], ['1', false, '1'])).toBe(true)
  })

  it('does not read an unlogged sequence, which a standby refuses', async () => {
    const unlogged = { ...sequence, persistence: 'u' }
    expect((await compare(['10', true, '1'], ['1', true, '1'], unlogged)).found).toEqual([])
  })
})
