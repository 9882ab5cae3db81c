import { describe, expect, test } from 'vitest'
import type { NodeFacts } from '../../../src/cluster/facts.ts'
import { formerUpstream, foundAs } from '../../../src/cluster/former-primaries.ts'
import { nodeName } from '../../../src/cluster/names.ts'
import {
  control,
  emptyNode,
  fenceMark,
  observed,
  postmaster,
  receivesFrom,
  recordOf,
  runningNode,
  standbyNode,
  stoppedNode,
  unreachableNode,
} from '../some-cluster.ts'

describe('how an old primary is found, so that taking its fencing back leaves it so', () => {
  const signal = { hasStandbySignal: true } as const
  const silent = (facts: Partial<NodeFacts> = {}) =>
    emptyNode('pg1', { dataDirectoryState: 'instance', postmaster: postmaster(), ...facts })
  const stopped = (facts: Partial<NodeFacts> = {}) =>
    stoppedNode('pg1', '0/1', { control: control(), ...facts })
  const found = (wasRunning: boolean, wasStandby: boolean) => ({ wasRunning, wasStandby })
  const cases: readonly (readonly [string, NodeFacts, ReturnType<typeof found>])[] = [
    ['a writer', runningNode('pg1', {}), found(true, false)],
    ['a writer beside a stray standby signal', runningNode('pg1', {}, signal), found(true, false)],
    ['a silent postmaster', silent(), found(true, false)],
    ['a silent postmaster with a signal: never to be started read-write', silent(signal), found(false, true)],
    ['a stopped primary', stopped(), found(false, false)],
    ['a stopped standby that was told to promote', stopped(signal), found(false, true)],
    ['one fenced for another', stopped({ ...signal, fence: fenceMark('pg3') }), found(false, false)],
    [
      'one that this fencing stopped before it was interrupted',
      stopped({ ...signal, fence: { ...fenceMark('pg2'), wasRunning: true } }),
      found(true, false),
    ],
    [
      'a standby that this fencing has marked',
      stopped({ ...signal, fence: { ...fenceMark('pg2'), wasRunning: false, wasStandby: true } }),
      found(false, true),
    ],
  ]
  test.each(cases)('%s', (_, facts, expected) => {
    expect(foundAs(facts, nodeName('pg2'))).toEqual(expected)
  })
})

describe('whom the candidate received from, for the way back', () => {
  const record = { record: recordOf('pg1', ['pg1', 'pg2', 'pg3']) }
  const fenced = stoppedNode('pg1', '0/1', { hasStandbySignal: true, fence: fenceMark('pg2') })
  const fromPg3 = (facts = {}) => standbyNode('pg2', '0/1', receivesFrom('10.0.0.13'), facts)
  const of = (survey: readonly NodeFacts[], hasFetched: boolean, wish = {}) => {
    const { inventory, topology } = observed(survey, { pg2: wish })
    const reserves = [nodeName('pg3')]
    return formerUpstream(inventory, topology, inventory.nodes[1]!, { reserves, hasFetched })
  }
  const pg3 = standbyNode('pg3', '0/1')

  test('is whom its settings name', () => {
    expect(of([fenced, fromPg3(record), pg3], false)).toBe('pg3')
    expect(of([fenced, standbyNode('pg2', '0/1', receivesFrom('10.0.0.11')), pg3], true)).toBe('pg1')
    expect(of([fenced, standbyNode('pg2', '0/1'), pg3], true)).toBe(null)
  })

  test('is who led, where an interrupted run had it follow a reserve: by the record, else by the mark of the fenced one', () => {
    expect(of([unreachableNode('pg1'), fromPg3(record), pg3], true)).toBe('pg1')
    expect(of([fenced, fromPg3(), pg3], true)).toBe('pg1')
  })

  test('is the reserve where it is to follow that one anyway', () => {
    expect(of([fenced, fromPg3(record), pg3], true, { upstream: nodeName('pg3') })).toBe('pg3')
  })
})
