import { expect, test } from 'vitest'
import type { NodeFacts } from '../../../src/cluster/facts.ts'
import { isOnlyKeeper, keepersOf, keepsFrom, neededLsn } from '../../../src/cluster/kept-wal.ts'
import { nodeName } from '../../../src/cluster/names.ts'
import {
  control,
  inventoryOf,
  lsn,
  runningNode,
  slot,
  standbyNode,
  stoppedNode,
  unreachableNode,
} from '../some-cluster.ts'

const [, , , pg4] = inventoryOf(['pg1', 'pg2', 'pg3', 'pg4']).nodes
const waiting = (restart: string | null, walStatus = 'reserved') =>
  restart === null ? [] : [slot('shop_pg4', restart, { isActive: false, walStatus })]
/** pg1 leads now, pg2 did before; this is what their slots keep for pg4. */
const survey = (leads: string | null, before: string | null, own: NodeFacts): NodeFacts[] => [
  runningNode('pg1', { currentLsn: lsn('0/30000000'), slots: waiting(leads) }),
  standbyNode('pg2', '0/30000000', { slots: waiting(before) }),
  own,
]
const holdingBack = standbyNode('pg4', '0/3000000', {
  receiveLsn: lsn('0/7B31640'),
  receiver: null,
  isAwaitingDelay: true,
})

test('one that received something since its start asks from there on; of another one a slot tells what it confirmed', () => {
  const needed = (own: NodeFacts, leads: string | null, before: string | null) =>
    neededLsn(pg4!, own, survey(leads, before, own))
  expect(needed(holdingBack, '0/20000050', '0/7B31640')).toBe(lsn('0/7B31640'))
  const restarted = standbyNode('pg4', '0/3000000', {
    receiveLsn: null,
    receiver: null,
    isAwaitingDelay: true,
  })
  expect(needed(restarted, '0/20000050', '0/7B31640')).toBe(lsn('0/7B31640'))
  const stopped = stoppedNode('pg4', '0/2000000', {
    control: control({ checkpointLsn: lsn('0/2000000'), minRecoveryEndLsn: lsn('0/9000000') }),
  })
  // A slot that was just made says nothing of what its standby has.
  const made = survey('0/20000050', null, stopped)
  expect(neededLsn(pg4!, stopped, made, nodeName('pg1'))).toBe(lsn('0/9000000'))
  expect(needed(stopped, '0/20000050', '0/7B31640')).toBe(lsn('0/9000000'))
  expect(needed(unreachableNode('pg4'), null, '0/7B31640')).toBe(lsn('0/7B31640'))
  expect(needed(unreachableNode('pg4'), null, null)).toBeNull()
})

test.each([
  ['the new slot begins after what it has', '0/20000050', '0/7B31640', true],
  ['there is no new slot', null, '0/7B31640', true],
  ['the new slot begins in the segment that it asks for first', '0/7FFFFFF', '0/7B31640', false],
  ['neither of them keeps it', '0/20000050', '0/10000000', false],
])('the slot of before is the only one that keeps its WAL where %s', (_, leads, before, isOnly) => {
  expect(isOnlyKeeper(nodeName('pg2'), pg4!, nodeName('pg1'), survey(leads, before, holdingBack))).toBe(
    isOnly,
  )
})

test('a slot that lost its WAL keeps nothing; one that is made now would begin with the last restartpoint', () => {
  const lost = [standbyNode('pg2', '0/30000000', { slots: waiting('0/7B31640', 'lost') }), holdingBack]
  expect(keepersOf(pg4!, lsn('0/7B31640'), lost)).toEqual([])
  expect(keepsFrom(lost[0]!, 'shop_pg4')).toBeNull()
  const none = standbyNode('pg2', '0/3', {}, { control: control({ redoLsn: lsn('0/5000028') }) })
  expect(keepsFrom(none, 'shop_pg4')).toBe(lsn('0/5000028'))
})
