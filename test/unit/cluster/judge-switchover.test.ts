import { describe, expect, test } from 'vitest'
import type { NodeFacts } from '../../../src/cluster/facts.ts'
import type { NodeSettings } from '../../../src/cluster/inventory.ts'
import {
  arrangeAfter,
  type Exchange,
  hasHandedOver,
  inWaves,
  judgeSwitchover,
} from '../../../src/cluster/judge-switchover.ts'
import { nodeName } from '../../../src/cluster/names.ts'
import { ReplctlError } from '../../../src/errors.ts'
import {
  connection,
  control,
  emptyNode,
  fenceMark,
  foreign,
  lowStandby,
  lsn,
  observed,
  recordOf,
  runningNode,
  standbyNode,
  stoppedNode,
  unreachableNode,
} from '../some-cluster.ts'

const at = '0/5000000'
const primary = (name: string, ...standbys: string[]) =>
  runningNode(name, { currentLsn: lsn(at), replication: standbys.map((one) => connection(one)) })
const roles = (oldPrimary: string, candidate: string): Exchange => ({
  oldPrimary: nodeName(oldPrimary),
  candidate: nodeName(candidate),
})

type Changes = Record<string, Partial<NodeSettings>>
interface Wish {
  readonly node?: string
  readonly begun?: Exchange
  readonly changes?: Changes
}

function judge(survey: readonly NodeFacts[], { node, begun, changes }: Wish = {}) {
  const { inventory, topology } = observed(survey, changes)
  return judgeSwitchover(inventory, topology, {
    node: node === undefined ? undefined : nodeName(node),
    begun: begun ?? null,
  })
}

function refusal(survey: readonly NodeFacts[], wish: Wish = {}): string {
  try {
    judge(survey, wish)
  } catch (error) {
    if (error instanceof ReplctlError) return error.code
    throw error
  }
  return 'not refused'
}

describe('who takes over', () => {
  const trio = [primary('pg1', 'pg2', 'pg3'), standbyNode('pg2', at), standbyNode('pg3', at)]

  test('the standby that was named', () => {
    expect(judge(trio, { node: 'pg3' })).toMatchObject({ is: 'to-do', oldPrimary: 'pg1', candidate: 'pg3' })
  })

  test('the primary itself: it is so already', () => {
    expect(judge(trio, { node: 'pg1' })).toMatchObject({ is: 'already', primary: 'pg1' })
  })

  test('by default the first of the inventory, among equals the larger priority', () => {
    expect(judge(trio)).toMatchObject({ candidate: 'pg2' })
    expect(judge(trio, { changes: { pg3: { priority: 10 } } })).toMatchObject({ candidate: 'pg3' })
  })

  test('what a standby lacks for a moment does not count against its priority, real lag does', () => {
    const ahead = [primary('pg1', 'pg2', 'pg3'), standbyNode('pg2', '0/4FFFF00'), standbyNode('pg3', at)]
    expect(judge(ahead, { changes: { pg2: { priority: 10 } } })).toMatchObject({ candidate: 'pg2' })
    const behind = [primary('pg1', 'pg2', 'pg3'), standbyNode('pg2', '0/4E00000'), standbyNode('pg3', at)]
    expect(judge(behind, { changes: { pg2: { priority: 10 } } })).toMatchObject({ candidate: 'pg3' })
  })

  test.each<[string, Changes, Partial<NonNullable<NodeFacts['instance']>>]>([
    ['must never lead', { pg2: { promotable: false } }, {}],
    ['is late on purpose', { pg2: { delayMs: 3_600_000 } }, {}],
    ['has its replay paused', {}, { isReplayPaused: true }],
    ['does not stream', {}, { receiver: null }],
  ])('by default never one that %s', (_what, changes, instance) => {
    const survey = [primary('pg1', 'pg2', 'pg3'), standbyNode('pg2', at, instance), standbyNode('pg3', at)]
    expect(judge(survey, { changes })).toMatchObject({ candidate: 'pg3' })
  })

  test('where none is fit, the one whose refusal can be mended is named', () => {
    const survey = [
      primary('pg1', 'pg2', 'pg3'),
      standbyNode('pg2', at),
      standbyNode('pg3', at, { isReplayPaused: true }),
    ]
    expect(judge(survey, { changes: { pg2: { promotable: false } } })).toMatchObject({ candidate: 'pg3' })
  })
})

describe('refused', () => {
  test('without any standby', () => {
    expect(refusal([primary('pg1'), emptyNode('pg2')])).toBe('no-candidate')
  })

  test('where PostgreSQL has paused the only standby for a setting that is too low, named or not', () => {
    const low = lowStandby('pg2', at)
    expect(refusal([primary('pg1', 'pg2'), low])).toBe('settings-too-low')
    expect(refusal([primary('pg1', 'pg2'), low], { node: 'pg2' })).toBe('settings-too-low')
    expect(judge([primary('pg1', 'pg2', 'pg3'), low, standbyNode('pg3', at)])).toMatchObject({
      candidate: 'pg3',
    })
  })

  test('to a node that is no standby: stopped, not built, of another cluster, not reachable', () => {
    const trio = (pg2: NodeFacts) => [primary('pg1', 'pg3'), pg2, standbyNode('pg3', at)]
    expect(refusal(trio(stoppedNode('pg2', at, { control: control() })), { node: 'pg2' })).toBe(
      'not-a-standby',
    )
    expect(refusal(trio(emptyNode('pg2')), { node: 'pg2' })).toBe('not-a-standby')
    expect(refusal(trio(standbyNode('pg2', at, { systemIdentifier: foreign })), { node: 'pg2' })).toBe(
      'not-a-standby',
    )
    expect(refusal(trio(unreachableNode('pg2')), { node: 'pg2' })).toBe('host-unreachable')
  })

  test('with two writers, or with none', () => {
    expect(refusal([primary('pg1'), primary('pg2'), standbyNode('pg3', at)])).toBe('two-writers')
    expect(refusal([stoppedNode('pg1', at, { control: control() }), standbyNode('pg2', at)])).toBe(
      'no-primary',
    )
  })

  test('where the recorded primary cannot be reached, that is the reason', () => {
    const record = recordOf('pg1', ['pg1', 'pg2'])
    expect(refusal([unreachableNode('pg1'), standbyNode('pg2', at, {}, { record })])).toBe('host-unreachable')
  })
})

describe('a switchover that was begun', () => {
  const begun = roles('pg1', 'pg2')

  test('goes on with the same two, whatever of it is done', () => {
    const stopped = stoppedNode('pg1', at, {
      fence: fenceMark('pg2'),
      hasStandbySignal: true,
      control: control(),
    })
    expect(judge([stopped, standbyNode('pg2', at)], { begun })).toMatchObject(begun)
    expect(judge([stopped, primary('pg2')], { begun })).toMatchObject(begun)
    expect(judge([standbyNode('pg1', at), primary('pg2', 'pg1')], { begun })).toMatchObject(begun)
  })

  test('does not go on when a third node leads meanwhile', () => {
    expect(refusal([standbyNode('pg1', at), standbyNode('pg2', at), primary('pg3')], { begun })).toBe(
      'operation-unfinished',
    )
  })

  test('has handed over once the old primary does not accept writes any more and its mark names the candidate', () => {
    const stopped = stoppedNode('pg1', at, { fence: fenceMark('pg2') })
    expect(hasHandedOver(stopped, standbyNode('pg2', at))).toBe(true)
    expect(hasHandedOver({ ...stopped, fence: fenceMark('pg3') }, standbyNode('pg2', at))).toBe(false)
    expect(hasHandedOver({ ...primary('pg1'), fence: fenceMark('pg2') }, standbyNode('pg2', at))).toBe(false)
    expect(hasHandedOver({ ...stopped, fence: null }, primary('pg2'))).toBe(true)
  })
})

describe('the new order', () => {
  const places = (survey: readonly NodeFacts[], pair: Exchange, changes: Changes = {}) => {
    const { inventory, topology } = observed(survey, changes)
    const order = arrangeAfter(inventory, topology, pair)
    const upstreams = [order.returning, ...order.following].map(
      ({ node, upstream }) => [node.name, upstream.name] as const,
    )
    return { inventory, order, upstreams: Object.fromEntries(upstreams) }
  }
  const quartet = ['pg1', 'pg2', 'pg3', 'pg4'].map((name, index) =>
    index === 0 ? primary(name, 'pg2', 'pg3', 'pg4') : standbyNode(name, at),
  )

  test('everybody receives from the new primary', () => {
    expect(places(quartet, roles('pg1', 'pg2')).upstreams).toEqual({ pg1: 'pg2', pg3: 'pg2', pg4: 'pg2' })
  })

  test('a wished upstream is kept, also where it is the old primary, which is a standby then', () => {
    const changes = { pg3: { upstream: nodeName('pg1') }, pg4: { upstream: nodeName('pg3') } }
    const { upstreams, order } = places(quartet, roles('pg1', 'pg2'), changes)
    expect(upstreams).toEqual({ pg1: 'pg2', pg3: 'pg1', pg4: 'pg3' })
    const waves = inWaves(order.following, [nodeName('pg2'), nodeName('pg1')])
    expect(waves.map((wave) => wave.map(({ node }) => node.name))).toEqual([['pg3'], ['pg4']])
  })

  test('it is the same while the old primary is stopped', () => {
    const changes = { pg3: { upstream: nodeName('pg1') } }
    const stopped = stoppedNode('pg1', at, { fence: fenceMark('pg2'), control: control() })
    expect(places([stopped, ...quartet.slice(1)], roles('pg1', 'pg2'), changes).upstreams).toEqual(
      places(quartet, roles('pg1', 'pg2'), changes).upstreams,
    )
  })

  test('the old primary itself may wish for another upstream', () => {
    const changes = { pg1: { upstream: nodeName('pg3') } }
    expect(places(quartet, roles('pg1', 'pg2'), changes).upstreams).toEqual({
      pg1: 'pg3',
      pg3: 'pg2',
      pg4: 'pg2',
    })
  })

  test('a member that is down gets a slot on the new primary; one that was never built, or is fenced, does not', () => {
    const record = recordOf('pg1', ['pg1', 'pg2', 'pg3', 'pg5'])
    const survey = [
      { ...primary('pg1', 'pg2'), record },
      standbyNode('pg2', at),
      unreachableNode('pg3'),
      emptyNode('pg4'),
      stoppedNode('pg5', at, { fence: fenceMark('pg1'), control: control() }),
    ]
    const { order } = places(survey, roles('pg1', 'pg2'))
    expect(order.away.map(({ node }) => node.name)).toEqual(['pg3'])
    expect(order.confirming).toEqual(['pg1', 'pg3'])
    expect(order.members).toEqual(['pg1', 'pg2', 'pg3', 'pg5'])
  })

  test('a standby that left the history follows nobody, and never confirms', () => {
    const survey = [
      primary('pg1', 'pg2'),
      standbyNode('pg2', at),
      standbyNode('pg3', '0/6000000', { timeline: 4 as never, receiver: null }),
    ]
    const { order } = places(survey, roles('pg1', 'pg2'))
    expect(order).toMatchObject({ following: [], astray: ['pg3'], confirming: ['pg1'] })
  })
})

test('a candidate whose disk is too full for WAL is refused as such, and another one is chosen before it', () => {
  const full = { ...standbyNode('pg2', at), freeBytes: 0, walFreeBytes: 0 }
  const survey = [primary('pg1', 'pg2', 'pg3'), full]
  expect(refusal(survey)).toBe('disk-full')
  expect(refusal(survey, { node: 'pg2' })).toBe('disk-full')
  expect(judge([...survey, standbyNode('pg3', at)])).toMatchObject({ candidate: 'pg3' })
})
