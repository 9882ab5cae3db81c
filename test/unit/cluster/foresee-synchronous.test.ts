import { expect, test } from 'vitest'
import { foreseeSynchronous } from '../../../src/cluster/diagnose-synchronous.ts'
import type { Inventory } from '../../../src/cluster/inventory.ts'
import { nodeName } from '../../../src/cluster/names.ts'
import { inventoryOf } from '../some-cluster.ts'

// What a plan says of commits that will wait once its operation is done.

function foresee(
  replication: Partial<Inventory['replication']>,
  confirming: readonly string[],
  running: readonly string[],
) {
  const inventory = inventoryOf(['pg1', 'pg2', 'pg3'], {}, replication)
  const error = foreseeSynchronous(inventory, {
    primary: nodeName('pg3'),
    confirming: confirming.map(nodeName),
    running: running.map(nodeName),
  })
  return error === null ? null : [error.code, error.message, error.hint]
}
const quorum = { mode: 'quorum', syncStandbys: 1 } as const

test('the only one that would confirm is down: with the command that sets writes free', () => {
  expect(foresee(quorum, ['pg2'], [])).toEqual([
    'writes-blocked',
    'writes will be blocked on pg3: 0 of 1 sync standbys',
    'Bring pg2 back; or, to set writes free without, once pg3 leads: replctl remove-standby pg2',
  ])
})

test('more are wanted than are left: as many as there are have to confirm', () => {
  expect(foresee({ mode: 'quorum', syncStandbys: 2 }, ['pg2'], [])?.[1]).toBe(
    'writes will be blocked on pg3: 0 of 2 sync standbys',
  )
  expect(foresee({ mode: 'sync', syncStandbys: 2 }, ['pg1', 'pg2'], ['pg1'])?.[2]).toContain('Bring pg2 back')
})

test('nothing is foreseen where enough confirm, or nobody is waited for', () => {
  expect(foresee(quorum, ['pg1', 'pg2'], ['pg1'])).toBeNull()
  expect(foresee(quorum, [], [])).toBeNull()
  expect(foresee({ mode: 'async' }, ['pg2'], [])).toBeNull()
})
