import { describe, expect, test } from 'vitest'
import { refuseSecondPrimary } from '../../../src/cli/runs/init-primary.ts'
import { diagnose } from '../../../src/cluster/diagnose.ts'
import type { NodeFacts } from '../../../src/cluster/facts.ts'
import { awaitedAndAway } from '../../../src/cluster/failover-slots.ts'
import { judgeFollow, refuseCircle } from '../../../src/cluster/judge-follow.ts'
import { judgePromotion } from '../../../src/cluster/judge-promotion.ts'
import { arrangeAfter } from '../../../src/cluster/judge-switchover.ts'
import { nodeName } from '../../../src/cluster/names.ts'
import { neverConfirming, ownSlots } from '../../../src/cluster/roles.ts'
import { expectedUpstream, placeFor } from '../../../src/cluster/topology.ts'
import { capabilitiesOf } from '../../../src/postgres/versions.ts'
import { needsRestart } from '../../../src/steps/ensure-standby-settings.ts'
import {
  connection,
  emptyNode,
  foreign,
  inventoryOf,
  lsn,
  observed,
  ours,
  receivesFrom,
  recordOf,
  runningNode,
  setting,
  slot,
  standbyNode,
  stoppedNode,
  timeline,
  unreachableNode,
} from '../some-cluster.ts'

const [pg1, pg2, pg3] = ['pg1', 'pg2', 'pg3'].map(nodeName) as [
  ReturnType<typeof nodeName>,
  ReturnType<typeof nodeName>,
  ReturnType<typeof nodeName>,
]
const waitsFor = (names: string) => ({ settings: { synchronous_standby_names: setting(names) } })
const history = '1\t0/4000000\tno recovery target specified\n2\t0/4500000\tno recovery target specified\n'
const leader = (changes = {}, facts: Partial<NodeFacts> = {}) =>
  runningNode('pg1', { currentLsn: lsn('0/6000000'), history, ...changes }, facts)
/** On timeline 2, past the point where the primary's history left it. */
const diverged = (name: string) =>
  standbyNode(name, '0/5000000', { ...receivesFrom('10.0.0.11'), timeline: timeline(2) })
const cut = { receiver: null }

describe('whom a commit must not wait for', () => {
  test('one that is away and not waited for now: it may be the primary that was lost', () => {
    const never = (names: string) =>
      neverConfirming(
        observed([leader(waitsFor(names)), standbyNode('pg2', '0/1'), unreachableNode('pg3')]).topology,
      )
    expect(never('')).toEqual(['pg3'])
    expect(never('FIRST 1 ("shop_pg2")')).toEqual(['pg3'])
    expect(never('ANY 1 ("shop_pg2", "shop_pg3")')).toEqual([])
    const logical = {
      settings: { ...waitsFor('').settings, synchronized_standby_slots: setting('shop_pg2, shop_pg3') },
    }
    const survey = [leader(logical), standbyNode('pg2', '0/1'), unreachableNode('pg3')]
    expect(neverConfirming(observed(survey).topology)).toEqual([])
  })

  test('a switchover does not begin to wait for it either', () => {
    const survey = [
      leader(waitsFor('ANY 1 ("shop_pg2")'), { record: recordOf('pg1', ['pg1', 'pg2', 'pg3']) }),
      standbyNode('pg2', '0/6000000'),
      unreachableNode('pg3'),
    ]
    const { inventory, topology } = observed(survey, {}, { mode: 'quorum', syncStandbys: 2 })
    const order = arrangeAfter(inventory, topology, { oldPrimary: pg1, candidate: pg2 })
    expect(order.confirming).toEqual(['pg1'])
    expect(order.away.map(({ node }) => node.name)).toEqual(['pg3'])
  })
})

describe('the place of a standby', () => {
  const cascade = { pg3: { upstream: pg2 } }
  const inventory = inventoryOf(['pg1', 'pg2', 'pg3'], cascade)
  const node = inventory.nodes[2]!

  test('is not below an upstream that has what the primary never had', () => {
    const survey = [leader(), diverged('pg2'), standbyNode('pg3', '0/5000000')]
    expect(expectedUpstream(inventory, node, pg1, survey)).toBe('pg1')
    const sound = [leader(), standbyNode('pg2', '0/5000000'), standbyNode('pg3', '0/5000000')]
    expect(expectedUpstream(inventory, node, pg1, sound)).toBe('pg2')
  })

  test('is not taken anew below an upstream that gets nothing itself, nor is it given up for that', () => {
    const pg2Cut = standbyNode('pg2', '0/5000000', cut)
    const atPrimary = [leader(), pg2Cut, standbyNode('pg3', '0/5000000', receivesFrom('10.0.0.11'))]
    expect(placeFor(inventory, node, pg1, observed(atPrimary, cascade).topology)).toBe('pg1')
    const below = [leader(), pg2Cut, standbyNode('pg3', '0/5000000', receivesFrom('10.0.0.12'))]
    expect(placeFor(inventory, node, pg1, observed(below, cascade).topology)).toBe('pg2')
    const { inventory: wished, topology } = observed(atPrimary, cascade)
    const codes = diagnose(wished, topology).filter((problem) => problem.node === 'pg3')
    expect(codes.map(({ code }) => code)).not.toContain('wrong-upstream')
  })

  test('is in no circle, with those in mind who are about to move', () => {
    const survey = [
      leader(),
      standbyNode('pg2', '0/5000000', receivesFrom('10.0.0.13')),
      standbyNode('pg3', '0/5000000', receivesFrom('10.0.0.11')),
    ]
    const { topology } = observed(survey, cascade)
    expect(() => refuseCircle(topology, pg3, pg2)).toThrow(/receives from it/)
    expect(() => refuseCircle(topology, pg3, pg2, new Map([[pg2, pg1]]))).not.toThrow()
  })

  test('of one that was removed is nobody’s to change', () => {
    const record = recordOf('pg1', ['pg1', 'pg2'])
    const survey = [
      leader({}, { record }),
      standbyNode('pg2', '0/6000000', {}, { record }),
      standbyNode('pg3', '0/6000000', receivesFrom('10.0.0.11')),
    ]
    const { inventory: three, topology } = observed(survey)
    const order = arrangeAfter(three, topology, { oldPrimary: pg1, candidate: pg2 })
    expect(order.following).toEqual([])
    expect([...order.roles.upstreams.keys()]).toEqual(['pg1'])
  })
})

test('a slot named for an archive is foreign while somebody receives through it and nothing is streamed', () => {
  const held = runningNode('pg1', { slots: [slot('shop_archive', '0/1')] }).instance
  const left = runningNode('pg1', { slots: [slot('shop_archive', '0/1', { isActive: false })] }).instance
  expect(ownSlots(inventoryOf(['pg1']), held)).toEqual([])
  expect(ownSlots(inventoryOf(['pg1']), left)).toEqual(['shop_archive'])
  const archive = { mode: 'stream' } as NonNullable<ReturnType<typeof inventoryOf>['archive']>
  expect(ownSlots({ ...inventoryOf(['pg1']), archive }, held)).toEqual(['shop_archive'])
})

describe('a cluster is not begun anew beside its data', () => {
  const mark = {
    ...{ cluster: 'shop', node: 'pg1', dataDirectory: '/data/pg', systemIdentifier: ours },
    ...{ inode: '7', phase: 'done' as const },
  }
  const record = recordOf('pg1', ['pg1', 'pg2'])
  const refusal = (own: NodeFacts, other: NodeFacts) => {
    const survey = [own, other]
    const { topology } = observed(survey)
    return () => refuseSecondPrimary({ survey, topology, resumed: null, unfinished: null } as never, 'pg1')
  }
  const unmounted = emptyNode('pg1', { mark, record })

  test('where the file system of the primary is not mounted', () => {
    const standby = standbyNode('pg2', '0/1', {}, { mark: { ...mark, node: 'pg2' }, record })
    expect(refusal(unmounted, standby)).toThrow(/begin the cluster anew/)
    expect(refusal(unmounted, { ...standby, instance: null })).toThrow(/begin the cluster anew/)
    expect(refusal(unmounted, unreachableNode('pg2'))).toThrow(/begin the cluster anew/)
    // Where all of it is gone, there is nothing left to be protected.
    expect(refusal(unmounted, emptyNode('pg2', { mark: { ...mark, node: 'pg2' } }))).not.toThrow()
    expect(refusal(emptyNode('pg1'), unreachableNode('pg2'))).not.toThrow()
  })

  test('by what stands there unfinished: a clone that was begun, or an initdb that another node overtook', () => {
    const leader = { mark: { ...mark, node: 'pg2' }, record: recordOf('pg2', ['pg2']) }
    const begun = (phase: 'initialising' | 'cloning' | 'cloned') =>
      stoppedNode('pg1', '0/1', { mark: { ...mark, phase, systemIdentifier: '' }, hasStandbySignal: true })
    for (const phase of ['initialising', 'cloning', 'cloned'] as const) {
      expect(refusal(begun(phase), stoppedNode('pg2', '0/1', leader))).toThrow(/begin the cluster anew/)
    }
    // A clone has a source, also where that cannot be asked.
    expect(refusal(begun('cloning'), unreachableNode('pg2'))).toThrow(/a clone was begun there/)
    expect(refusal(begun('cloned'), unreachableNode('pg2'))).toThrow(/a clone was begun there/)
    expect(refusal(begun('cloned'), emptyNode('pg2'))).toThrow(/a clone was begun there/)
    expect(refusal(begun('initialising'), unreachableNode('pg2'))).not.toThrow()
    const wiped = emptyNode('pg1', { mark: { ...mark, phase: 'cloning', systemIdentifier: '' } })
    expect(refusal(wiped, emptyNode('pg2'))).not.toThrow()
  })

  test('but a primary that leads by everybody’s word, and lost its mark alone, is put back', () => {
    const standby = standbyNode('pg2', '0/1', {}, { mark: { ...mark, node: 'pg2' }, record })
    const leads = (changes: object, facts: object = {}) =>
      runningNode('pg1', changes, { mark: null, ...facts })
    expect(refusal(leads({}), standby)).not.toThrow()
    expect(refusal(leads({ systemIdentifier: foreign }), standby)).toThrow(/begin the cluster anew/)
    const other = { ...standby, record: recordOf('pg2', ['pg1', 'pg2']) }
    expect(refusal(leads({}), other)).toThrow(/begin the cluster anew/)
  })

  test('and the hint is to look for the data, not to begin anew', () => {
    const { inventory, topology } = observed([unmounted, stoppedNode('pg2', '0/1', { mark, record })])
    const hint = diagnose(inventory, topology).find(({ code }) => code === 'node-not-built')?.hint
    expect(hint).toMatch(/mounted/)
    expect(hint).not.toMatch(/init primary/)
    const away = observed([unreachableNode('pg1'), emptyNode('pg2')])
    const other = diagnose(away.inventory, away.topology).find(({ code }) => code === 'node-not-built')?.hint
    expect(other).toBe('If nothing is built on pg1 either: replctl init primary pg2')
  })
})

test('a stopped standby without a primary is started by hand: no command of ours would', () => {
  const { inventory, topology } = observed([
    unreachableNode('pg1'),
    stoppedNode('pg2', '0/1', { hasStandbySignal: true }),
  ])
  const hint = diagnose(inventory, topology).find(({ code }) => code === 'instance-stopped')?.hint
  expect(hint).toMatch(/pg_ctl start -D .*replctl promote/)
})

test.each<[number, string, string, boolean]>([
  [11, "recovery_min_apply_delay = '1h'", '', true],
  [12, "recovery_min_apply_delay = '1h'", '', false],
  [12, "primary_slot_name = 'a'", "primary_slot_name = 'b'", true],
  [13, "primary_slot_name = 'a'", "primary_slot_name = 'b'", false],
  [13, "restore_command = 'a'", "restore_command = 'b'", true],
  [14, "restore_command = 'a'", "restore_command = 'b'", false],
  [11, "restore_command = 'a'", "restore_command = 'a'", false],
])('PostgreSQL %i takes %s over from "%s" by a restart only: %s', (major, before, after, expected) => {
  expect(needsRestart(before, after, capabilitiesOf(major))).toBe(expected)
})

describe('follow', () => {
  const named = (names: string, streaming: string[]) =>
    leader({ ...waitsFor(names), replication: streaming.map((name) => connection(name, 'quorum')) })
  const at = (name: string, changes = {}) =>
    standbyNode(name, '0/6000000', { ...receivesFrom('10.0.0.11'), timeline: timeline(3), ...changes })

  test('is refused below a standby that gets nothing itself', () => {
    const survey = [leader(), at('pg2', cut), at('pg3')]
    const { inventory, topology } = observed(survey)
    expect(() => judgeFollow(inventory, topology, { node: pg3, upstream: pg2 })).toThrow(
      /it does not receive itself/,
    )
  })

  test('leaves as many confirming as the inventory promises: one that does not stream is none', () => {
    const four = (pg2Changes: object, streaming: string[]) => {
      const all = named('ANY 2 ("shop_pg2", "shop_pg3", "shop_pg4")', streaming)
      const survey = [all, at('pg2', pg2Changes), at('pg3'), at('pg4')]
      const { inventory, topology } = observed(survey, {}, { mode: 'quorum', syncStandbys: 2 })
      return () => judgeFollow(inventory, topology, { node: pg3, upstream: nodeName('pg4') })
    }
    expect(four({}, ['pg2', 'pg3', 'pg4'])).not.toThrow()
    expect(four(cut, ['pg3', 'pg4'])).toThrow(/confirms commits/)
  })
})

test('what was in force when the record was written counts, if the inventory was raised since', () => {
  const survey = (confirmations?: number) => {
    const changes = confirmations === undefined ? {} : { confirmations }
    const record = recordOf('pg1', ['pg1', 'pg2', 'pg3'], changes)
    const pg3At = standbyNode(
      'pg3',
      '0/6000000',
      { ...receivesFrom('10.0.0.11'), receiver: null },
      { record },
    )
    return [unreachableNode('pg1'), unreachableNode('pg2'), pg3At]
  }
  const promote = (mode: 'async' | 'quorum', confirmations?: number) => {
    const { inventory, topology } = observed(survey(confirmations), {}, { mode, syncStandbys: 2 })
    const flags = { allowDataLoss: false, allowSplitBrain: true }
    return () => judgePromotion(inventory, topology, { node: pg3, told: undefined, ...flags })
  }
  expect(promote('quorum', 1)).toThrow(/may hold confirmed commits/)
  expect(promote('async', 1)).toThrow(/may hold confirmed commits/)
  expect(promote('quorum', 2)).not.toThrow()
  expect(promote('async', 0)).not.toThrow()
})

test('logical subscribers that are served wait for the standbys of synchronized_standby_slots that are away', () => {
  const settings = { synchronized_standby_slots: setting('shop_pg2, shop_pg3') }
  const served = (isActive: boolean) => [
    slot('shop_pg2', '0/1'),
    slot('shop_pg3', '0/1', { isActive: false }),
    slot('subscriber', '0/1', { type: 'logical', isFailover: true, isActive }),
  ]
  const away = (isActive: boolean) => awaitedAndAway(leader({ settings, slots: served(isActive) }).instance!)
  expect(away(true)).toEqual(['shop_pg3'])
  expect(away(false)).toEqual([])
  expect(awaitedAndAway(leader({ slots: served(true) }).instance!)).toEqual([])
})
