import { describe, expect, test } from 'vitest'
import type { NodeFacts } from '../../../src/cluster/facts.ts'
import type { NodeSettings, ReplicationSettings } from '../../../src/cluster/inventory.ts'
import { judgeFollow } from '../../../src/cluster/judge-follow.ts'
import { nodeName } from '../../../src/cluster/names.ts'
import { ReplctlError } from '../../../src/errors.ts'
import {
  connection,
  foreign,
  lsn,
  observed,
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

/** pg1 leads; pg2 and pg3 receive from it. */
const pg1 = (streaming = ['pg2', 'pg3'], changes = {}) =>
  runningNode('pg1', {
    currentLsn: lsn('0/5000000'),
    replication: streaming.map((name) => connection(name)),
    slots: streaming.map((name) => slot(`shop_${name}`, '0/5000000')),
    ...changes,
  })
const pg2 = (changes = {}, facts = {}) =>
  standbyNode('pg2', '0/5000000', { ...receivesFrom('10.0.0.11'), ...changes }, facts)
const pg3 = (changes = {}, facts = {}) =>
  standbyNode('pg3', '0/5000000', { ...receivesFrom('10.0.0.11'), ...changes }, facts)
/** pg3 hangs below pg2. */
const cascade = () => [
  pg1(['pg2']),
  pg2({ replication: [connection('pg3')], slots: [slot('shop_pg3', '0/5000000')] }),
  pg3(receivesFrom('10.0.0.12')),
]

function judge(
  survey: readonly NodeFacts[],
  node: string,
  upstream: string,
  changes: Record<string, Partial<NodeSettings>> = {},
  replication: Partial<ReplicationSettings> = {},
) {
  const { inventory, topology } = observed(survey, changes, replication)
  return judgeFollow(inventory, topology, { node: nodeName(node), upstream: nodeName(upstream) })
}
function refusal(...args: Parameters<typeof judge>): ReplctlError {
  try {
    judge(...args)
  } catch (thrown) {
    if (thrown instanceof ReplctlError) return thrown
    throw thrown
  }
  throw new Error('was not refused')
}

describe('a paused replay', () => {
  const paused = (changes = {}) => pg3({ isReplayPaused: true, ...changes })

  test('changes over to nobody where a reload is what changes it over', () => {
    const error = refusal([pg1(), pg2(), paused()], 'pg3', 'pg2')
    expect(error).toMatchObject({ code: 'replay-paused', exitCode: 3, node: 'pg3' })
    expect(error.hint).toContain('SELECT pg_wal_replay_resume()')
  })

  test('keeps nobody from ending what was begun', () => {
    const { inventory, topology } = observed([pg1(), pg2(), paused()])
    const wish = { node: nodeName('pg3'), upstream: nodeName('pg2'), isResumed: true }
    expect(judgeFollow(inventory, topology, wish).formerUpstream).toBe('pg1')
  })

  test('goes on by the restart that an older version needs', () => {
    const older = { serverVersionNumber: 120022, isReplayPaused: true }
    const nodes = [pg1(undefined, older), pg2(older), pg3(older)]
    expect(judge(nodes, 'pg3', 'pg2').formerUpstream).toBe('pg1')
  })

  test('is no matter where it receives from that one already', () => {
    const receiver = {
      ...{ status: 'streaming', senderHost: '10.0.0.11', senderPort: 5432, slotName: 'shop_pg3' },
      ...{ receivedTimeline: timeline(1), latestEndLsn: lsn('0/5000000'), silenceSeconds: 0.1 },
    }
    expect(judge([pg1(), pg2(), paused({ receiver })], 'pg3', 'pg1').otherWish).toBeNull()
  })
})

describe('a standby may be pointed elsewhere', () => {
  test('at another standby: its slot and its place move', () => {
    const judged = judge([pg1(), pg2(), pg3()], 'pg3', 'pg2')
    expect(judged).toMatchObject({ formerUpstream: 'pg1', primary: 'pg1', otherWish: 'pg1' })
    expect(Object.fromEntries(judged.rolesAfter!.upstreams)).toEqual({ pg2: 'pg1', pg3: 'pg2' })
    expect(
      judge([pg1(), pg2(), pg3()], 'pg3', 'pg2', { pg3: { upstream: nodeName('pg2') } }).otherWish,
    ).toBeNull()
  })

  test('back at the primary, when the middle node is lost', () => {
    const [leader, , orphan] = cascade()
    const lost = { pg3: { upstream: nodeName('pg2') } }
    for (const middle of [
      stoppedNode('pg2', '0/4000000', { hasStandbySignal: true }),
      unreachableNode('pg2'),
    ]) {
      const judged = judge(
        [leader!, middle, { ...orphan!, instance: { ...orphan!.instance!, receiver: null } }],
        'pg3',
        'pg1',
        lost,
      )
      expect(judged).toMatchObject({ formerUpstream: 'pg2', otherWish: null })
      expect(judged.rolesAfter!.upstreams.get(nodeName('pg3'))).toBe('pg1')
    }
  })

  test('where it is already: an interrupted change finds by the slot where it came from', () => {
    const [, middle, child] = cascade()
    const leader = pg1(['pg2'], {
      slots: [slot('shop_pg2', '0/5000000'), slot('shop_pg3', '0/4000000', { isActive: false })],
    })
    expect(judge([leader, middle!, child!], 'pg3', 'pg2').formerUpstream).toBe('pg1')
  })

  test('without a primary, at a standby that has all it has', () => {
    const dead = stoppedNode('pg1', '0/4000000')
    expect(judge([dead, pg2(), pg3()], 'pg3', 'pg2')).toMatchObject({ primary: null, rolesAfter: null })
    expect(
      refusal([dead, pg2({ receiveLsn: lsn('0/4FFFF00'), replayLsn: lsn('0/4FFFF00') }), pg3()], 'pg3', 'pg2')
        .code,
    ).toBe('standby-ahead')
  })
})

describe('it is refused', () => {
  const diverged = { timeline: timeline(2), receiveLsn: lsn('0/6000000'), replayLsn: lsn('0/6000000') }
  const history = { history: '1\t0/2000000\t\n2\t0/4000000\t\n' }
  const cases: readonly (readonly [string, readonly NodeFacts[], string, string, string])[] = [
    ['the primary receives from nobody', [pg1(), pg2(), pg3()], 'pg1', 'pg2', 'primary-alive'],
    ['a circle', cascade(), 'pg2', 'pg3', 'wrong-upstream'],
    ['two writers', [pg1(), runningNode('pg2', {}), pg3()], 'pg3', 'pg1', 'two-writers'],
    [
      'the standby is stopped',
      [pg1(), pg2(), stoppedNode('pg3', '0/4000000', { hasStandbySignal: true })],
      'pg3',
      'pg2',
      'not-a-standby',
    ],
    [
      'the upstream is stopped',
      [pg1(), stoppedNode('pg2', '0/4000000', { hasStandbySignal: true }), pg3()],
      'pg3',
      'pg2',
      'not-a-standby',
    ],
    ['the standby’s host is dead', [pg1(), pg2(), unreachableNode('pg3')], 'pg3', 'pg2', 'host-unreachable'],
    ['the upstream’s host is dead', [pg1(), unreachableNode('pg2'), pg3()], 'pg3', 'pg2', 'host-unreachable'],
    [
      'the standby has diverged',
      [pg1(undefined, history), pg2(), pg3(diverged)],
      'pg3',
      'pg2',
      'node-diverged',
    ],
    [
      'the upstream has diverged',
      [pg1(undefined, history), pg2(diverged), pg3()],
      'pg3',
      'pg2',
      'node-diverged',
    ],
    [
      'the upstream has not followed the newest timeline yet',
      [
        pg1(undefined, history),
        pg2({ timeline: timeline(2), receiveLsn: lsn('0/3000000'), replayLsn: lsn('0/3000000') }),
        pg3(),
      ],
      'pg3',
      'pg2',
      'wrong-timeline',
    ],
    [
      'the upstream is another cluster',
      [pg1(), pg2({ systemIdentifier: foreign }), pg3()],
      'pg3',
      'pg2',
      'foreign-cluster',
    ],
    [
      'the upstream was removed',
      [{ ...pg1(), record: recordOf('pg1', ['pg1', 'pg3']) }, pg2(), pg3()],
      'pg3',
      'pg2',
      'orphan-standby',
    ],
    [
      'an upstream of an older major version',
      [pg1(), pg2({ serverVersionNumber: 140010 }), pg3()],
      'pg3',
      'pg2',
      'version-mismatch',
    ],
  ]
  test.each(cases)('%s', (_, survey, node, upstream, code) => {
    const error = refusal(survey, node, upstream)
    expect(error.code, error.message).toBe(code)
  })
})

describe('who confirms commits', () => {
  const sync = { mode: 'sync' as const, syncStandbys: 1 }
  const named = { settings: { synchronous_standby_names: setting('FIRST 1 ("shop_pg2", "shop_pg3")') } }

  test('one that hangs below another standby confirms no more, and again when it is back', () => {
    expect(judge([pg1(undefined, named), pg2(), pg3()], 'pg3', 'pg2', {}, sync).confirming).toEqual({
      before: ['pg2', 'pg3'],
      after: ['pg2'],
    })
    expect(judge(cascade(), 'pg3', 'pg1', {}, sync).confirming).toEqual({
      before: ['pg2'],
      after: ['pg2', 'pg3'],
    })
    expect(judge([pg1(), pg2(), pg3()], 'pg3', 'pg2').confirming).toEqual({ before: [], after: [] })
  })

  test('fewer confirmations than the inventory promises are refused', () => {
    const two = { mode: 'quorum' as const, syncStandbys: 2 }
    expect(refusal([pg1(), pg2(), pg3()], 'pg3', 'pg2', {}, two).code).toBe('durability-reduced')
    expect(judge(cascade(), 'pg3', 'pg1', {}, two).confirming.after).toEqual(['pg2', 'pg3'])
  })
})

test('a stopped primary is not told to come back while nobody leads: it is started, or another one promoted', () => {
  const stopped = stoppedNode('pg1', '0/5000000', { control: null, hasStandbySignal: false })
  const { code, hint } = refusal([stopped, pg2(), pg3()], 'pg3', 'pg1')
  expect([code, hint]).toEqual([
    'not-a-standby',
    'If pg1 is the primary, start it; if it is lost: replctl promote',
  ])
})
