import { expect, test } from 'vitest'
import type { Entry } from '../../reliability/ledger.ts'
import { judge } from '../../reliability/verdict.ts'

const entry = (id: number, outcome: Entry['outcome']): Entry => ({ id, outcome, node: 'pg1', at: id })
const entries = [entry(1, 'confirmed'), entry(2, 'confirmed'), entry(3, 'unknown'), entry(4, 'failed')]

test('all confirmed rows on the primary: good, whatever became of those whose outcome nobody knows', () => {
  for (const ids of [
    [1, 2],
    [1, 2, 3],
  ]) {
    const verdict = judge({ entries, onPrimary: new Set(ids), salvaged: new Set(), mode: 'sync' })
    expect(verdict).toMatchObject({ isGood: true, confirmed: 2, unknown: 1, inSalvage: 0, lost: [] })
  }
})

test('a confirmed row that is only in a salvage is excused in mode async, and lost in mode sync and quorum', () => {
  const found = { entries, onPrimary: new Set([1]), salvaged: new Set([2]) }
  expect(judge({ ...found, mode: 'async' })).toMatchObject({ isGood: true, inSalvage: 1, lost: [] })
  for (const mode of ['sync', 'quorum'] as const) {
    expect(judge({ ...found, mode })).toMatchObject({
      isGood: false,
      inSalvage: 0,
      lost: [entry(2, 'confirmed')],
    })
  }
})

test('a confirmed row that is nowhere is lost', () => {
  const verdict = judge({ entries, onPrimary: new Set([1]), salvaged: new Set(), mode: 'async' })
  expect(verdict).toMatchObject({ isGood: false, lost: [entry(2, 'confirmed')] })
})

test('a row that the server refused, or that nobody wrote, must not be there', () => {
  const verdict = judge({ entries, onPrimary: new Set([1, 2, 4, 99]), salvaged: new Set(), mode: 'async' })
  expect(verdict).toMatchObject({ isGood: false, phantoms: [4, 99] })
})
