import { describe, expect, test } from 'vitest'
import type { NodeFacts } from '../../../src/cluster/facts.ts'
import { foundAs } from '../../../src/cluster/former-primaries.ts'
import { nodeName } from '../../../src/cluster/names.ts'
import { control, emptyNode, fenceMark, postmaster, runningNode, stoppedNode } from '../some-cluster.ts'

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
