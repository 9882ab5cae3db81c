import { expect, test } from 'vitest'
import { type SalvageRecord, salvageResult } from '../../../src/cluster/salvage.ts'
import type { Lsn } from '../../../src/postgres/lsn.ts'

const record = (over: Partial<SalvageRecord> = {}): SalvageRecord => ({
  version: 1,
  node: 'pg1',
  systemIdentifier: '7',
  timeline: 1,
  forkLsn: '0/3000000' as Lsn,
  endLsn: '0/3000100' as Lsn,
  createdAt: '2026-11-27T00:00:00Z',
  dir: '/x',
  isComplete: true,
  transactions: 0,
  rows: 0,
  conflicts: 0,
  tables: [],
  sequences: [],
  schemaChanges: [],
  aborted: 0,
  prepared: [],
  walSegments: [],
  unsalvaged: [],
  notes: ['unlogged tables leave no WAL'],
  ...over,
})

test('nothing is told of a divergence without any effect', () => {
  expect(salvageResult(record())).toBeNull()
  expect(salvageResult(record({ aborted: 1 }))).toBeNull()
})

test('a sequence that moved on, or a transaction that is prepared, is told although no transaction committed', () => {
  const sequences = [{ database: 'd', sequence: 'public.s', lastValue: '33', primaryLastValue: '1' }]
  expect(salvageResult(record({ sequences }))).toMatchObject({ rows: 0, sequences })
  expect(salvageResult(record({ prepared: ['gx'] }))).toMatchObject({ rows: 0, prepared: ['gx'] })
})

test('what was lost besides rows is told, and what is to be known', () => {
  const schemaChanges = [
    { database: 'd', change: 'created', kind: 'function', identity: 'public.f()' },
  ] as const
  expect(salvageResult(record({ transactions: 1, schemaChanges, notes: ['n'] }))).toMatchObject({
    schemaChanges,
    notes: ['n'],
    complete: true,
  })
})
