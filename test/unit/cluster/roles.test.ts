import { describe, expect, test } from 'vitest'
import type { NodeFacts } from '../../../src/cluster/facts.ts'
import type { NodeSettings } from '../../../src/cluster/inventory.ts'
import { nodeName } from '../../../src/cluster/names.ts'
import {
  confirmingStandbys,
  liveRoles,
  meantRoles,
  ownSlots,
  staleSlots,
  wantedSlots,
} from '../../../src/cluster/roles.ts'
import {
  fenceMark,
  inventoryOf,
  observed,
  receivesFrom,
  recordOf,
  runningNode,
  slot,
  standbyNode,
  stoppedNode,
  unreachableNode,
} from '../some-cluster.ts'

const names = (...list: string[]) => list.map(nodeName)
const [pg1, pg2, pg3, pg4] = ['pg1', 'pg2', 'pg3', 'pg4'].map(nodeName) as [
  ReturnType<typeof nodeName>,
  ReturnType<typeof nodeName>,
  ReturnType<typeof nodeName>,
  ReturnType<typeof nodeName>,
]
const four = (
  changes: Record<string, Partial<NodeSettings>> = {},
  replication: Parameters<typeof inventoryOf>[2] = {},
) => inventoryOf(['pg1', 'pg2', 'pg3', 'pg4'], changes, replication)
const cascade = { pg3: { upstream: pg2 } }

describe('whom each standby receives from', () => {
  test('the wished upstream while that is a running standby, else the primary', () => {
    const roles = meantRoles(four(cascade), { primary: pg1, running: names('pg2', 'pg3', 'pg4') })
    expect(Object.fromEntries(roles.upstreams)).toEqual({ pg2: 'pg1', pg3: 'pg2', pg4: 'pg1' })
    const lost = meantRoles(four(cascade), { primary: pg1, running: names('pg3', 'pg4') })
    expect(Object.fromEntries(lost.upstreams)).toEqual({ pg3: 'pg1', pg4: 'pg1' })
  })

  test('one that is away counts as a standby, and nobody receives from it', () => {
    const roles = meantRoles(four(cascade), { primary: pg1, running: names('pg3'), away: names('pg2') })
    expect(Object.fromEntries(roles.upstreams)).toEqual({ pg2: 'pg1', pg3: 'pg1' })
  })

  test('when the wished upstream leads, its children stay with it, and the old primary follows it', () => {
    const roles = meantRoles(four(cascade), { primary: pg2, running: names('pg1', 'pg3', 'pg4') })
    expect(Object.fromEntries(roles.upstreams)).toEqual({ pg1: 'pg2', pg3: 'pg2', pg4: 'pg2' })
  })

  test('a node that wished the old primary still follows it when that has become a standby', () => {
    const inventory = four({ pg4: { upstream: pg1 } })
    const roles = meantRoles(inventory, { primary: pg2, running: names('pg1', 'pg3', 'pg4') })
    expect(roles.upstreams.get(pg4)).toBe('pg1')
  })

  test('what the operator says beats the inventory', () => {
    const except = new Map([[pg4, pg3]])
    const roles = meantRoles(four(cascade), { primary: pg1, running: names('pg2', 'pg3', 'pg4'), except })
    expect(roles.upstreams.get(pg4)).toBe('pg3')
  })
})

describe('the roles as they are now', () => {
  const roles = (survey: readonly NodeFacts[]) => {
    const { inventory, topology } = observed(survey)
    return Object.fromEntries(liveRoles(inventory, topology, pg1).upstreams)
  }
  const leader = (slots: string[] = []) =>
    runningNode(
      'pg1',
      { slots: slots.map((name) => slot(name, '0/5000000', { isActive: false })) },
      { record: recordOf('pg1', ['pg1', 'pg2', 'pg3']) },
    )

  test('everybody receives from where it does; one that is away from where a slot waits for it', () => {
    const child = standbyNode('pg3', '0/1', receivesFrom('10.0.0.12'))
    const middle = standbyNode('pg2', '0/1', receivesFrom('10.0.0.11'))
    expect(roles([leader(), middle, child])).toEqual({ pg2: 'pg1', pg3: 'pg2' })
    const holder = { ...middle, instance: { ...middle.instance!, slots: [slot('shop_pg3', '0/1')] } }
    expect(roles([leader(), holder, unreachableNode('pg3')])).toEqual({ pg2: 'pg1', pg3: 'pg2' })
    expect(roles([leader(), middle, unreachableNode('pg3')])).toEqual({ pg2: 'pg1', pg3: 'pg1' })
  })

  test('one that was removed has no place, whatever it does', () => {
    const survey = [leader(), standbyNode('pg2', '0/1'), standbyNode('pg3', '0/1'), standbyNode('pg4', '0/1')]
    expect(roles(survey)).toEqual({ pg2: 'pg1', pg3: 'pg1' })
  })

  test('a slot that was made for the rejoin of a fenced one is left to it; without one it has no place', () => {
    const fenced = stoppedNode('pg3', '0/1', { fence: fenceMark('pg1') })
    expect(roles([leader(['shop_pg3']), standbyNode('pg2', '0/1'), fenced])).toEqual({
      pg2: 'pg1',
      pg3: 'pg1',
    })
    expect(roles([leader(), standbyNode('pg2', '0/1'), fenced])).toEqual({ pg2: 'pg1' })
  })
})

describe('slots', () => {
  const roles = meantRoles(four(cascade), { primary: pg1, running: names('pg2', 'pg3', 'pg4') })

  test('each node has exactly one for each standby that receives from it', () => {
    expect(wantedSlots(four(), roles, pg1)).toEqual(['shop_pg2', 'shop_pg4'])
    expect(wantedSlots(four(), roles, pg2)).toEqual(['shop_pg3'])
    expect(wantedSlots(four(), roles, pg3)).toEqual([])
    expect(wantedSlots(four({}, { slots: false }), roles, pg1)).toEqual([])
  })

  test('ours that nobody is to use are stale; logical, temporary and foreign ones are not ours', () => {
    const slots = [
      slot('shop_pg1', '0/5000000', { isActive: false }),
      slot('shop_pg3', '0/5000000'),
      slot('shop_pg4', '0/5000000', { type: 'logical' }),
      slot('shop_pg2', '0/5000000', { isTemporary: true }),
      slot('shop_pg3_backup', '0/5000000'),
      slot('mine', '0/5000000'),
    ]
    const facts = runningNode('pg2', { slots })
    expect(ownSlots(four(), facts.instance)).toEqual(['shop_pg1', 'shop_pg3'])
    expect(staleSlots(four(), roles, facts.name, facts.instance)).toEqual(['shop_pg1'])
    expect(staleSlots(four({}, { slots: false }), roles, facts.name, facts.instance)).toEqual([
      'shop_pg1',
      'shop_pg3',
    ])
  })
})

describe('who confirms commits', () => {
  const all = names('pg2', 'pg3', 'pg4')
  const confirming = (
    changes: Record<string, Partial<NodeSettings>>,
    syncStandbys = 1,
    except: ReturnType<typeof nodeName>[] = [],
  ) => {
    const inventory = four(changes, { mode: 'quorum', syncStandbys })
    return confirmingStandbys(inventory, meantRoles(inventory, { primary: pg1, running: all }), except)
  }

  test('every standby that receives from the primary, never one that hangs below another', () => {
    expect(confirming({})).toEqual(all)
    expect(confirming(cascade)).toEqual(['pg2', 'pg4'])
    expect(confirming(cascade, 3)).toEqual(['pg2', 'pg4'])
    expect(confirming({}, 1, [pg3])).toEqual(['pg2', 'pg4'])
  })

  test('delayed and not promotable ones only where there would be too few otherwise', () => {
    const changes = { pg2: { delayMs: 3_600_000 }, pg3: { promotable: false } }
    expect(confirming(changes)).toEqual(['pg4'])
    expect(confirming(changes, 2)).toEqual(['pg4', 'pg3'])
    expect(confirming(changes, 3)).toEqual(['pg4', 'pg3', 'pg2'])
  })
})

test('the slot of a standby that was taken out is nobody’s, wherever it is left; one that somebody uses is theirs', () => {
  const roles = { ...meantRoles(four(), { primary: pg1, running: names('pg2') }), removedSlots: ['shop_pg9'] }
  const holder = (isActive: boolean) =>
    standbyNode('pg2', '0/1', { slots: [slot('shop_pg9', '0/1', { isActive }), slot('mine', '0/1')] })
      .instance
  expect(staleSlots(four(), roles, pg2, holder(false))).toEqual(['shop_pg9'])
  expect(staleSlots(four(), roles, pg2, holder(true))).toEqual([])
  const { inventory, topology } = observed([
    runningNode('pg1', {}, { record: recordOf('pg1', ['pg1'], { removedSlots: ['shop_pg9'] }) }),
  ])
  expect(liveRoles(inventory, topology, pg1).removedSlots).toEqual(['shop_pg9'])
})
