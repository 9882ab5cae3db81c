import { describe, expect, test } from 'vitest'
import type { NodeFacts, PeerAnswer } from '../../../src/cluster/facts.ts'
import { nodeName } from '../../../src/cluster/names.ts'
import { refusalBesideUnknownLeader, unknownLeader } from '../../../src/cluster/unknown-leader.ts'
import {
  control,
  fenceMark,
  observed,
  ours,
  receivesFrom,
  recordOf,
  runningNode,
  standbyNode,
  stoppedNode,
  timeline,
  unreachableNode,
} from '../some-cluster.ts'

const record = recordOf('db1', ['db1', 'pg1', 'pg2'])
const outside = receivesFrom('10.9.9.9')
const candidate = nodeName('pg1')
const pg1 = standbyNode('pg1', '0/3000000', outside, { record })
const pg2 = standbyNode('pg2', '0/3000000', outside, { record })
const of = (survey: readonly NodeFacts[], told: readonly string[] = []) => {
  const { inventory, topology } = observed(survey)
  return unknownLeader(inventory, topology, candidate, told)
}
const addressOf = (standby: string) => ({ standby, host: '10.9.9.9', port: 5432 })

describe('who may lead and is no node of the inventory', () => {
  test('is who led by the record, with the addresses that the standbys know', () => {
    expect(of([pg1, pg2])).toEqual({
      ...{ names: ['db1'], isAnybody: false, addresses: [addressOf('pg1'), addressOf('pg2')] },
    })
  })

  test('is where the standbys are told to receive from, although no record says who leads', () => {
    const bare = [standbyNode('pg1', '0/3000000', outside), standbyNode('pg2', '0/3000000', outside)]
    expect(of(bare)).toMatchObject({ names: [], isAnybody: true })
    const several = receivesFrom('10.0.0.11,10.9.9.9')
    expect(of([standbyNode('pg1', '0/3000000'), standbyNode('pg2', '0/3000000', several)])).toMatchObject({
      addresses: [addressOf('pg2')],
    })
  })

  test('is whom an operation that stopped part-way had told to promote, or for whom one was fenced', () => {
    const known = { record: recordOf('pg2', ['pg1', 'pg2']) }
    const lost = unreachableNode('pg2')
    const follower = standbyNode('pg1', '0/3000000', receivesFrom('10.0.0.12'), known)
    expect(of([follower, lost], ['pg1', 'pg2'])).toBeNull()
    expect(of([follower, lost], ['db1'])).toMatchObject({ names: ['db1'] })
    const fenced = stoppedNode('pg2', '0/3000000', {
      ...{ ...known, hasStandbySignal: true, fence: fenceMark('db1', 3), control: control() },
    })
    expect(of([follower, fenced])).toMatchObject({ names: ['db1'] })
  })

  test('is nobody where the recorded one is a node that was given another name', () => {
    const follower = standbyNode('pg1', '0/3000000', receivesFrom('10.0.0.12'), { record })
    expect(of([follower, unreachableNode('pg2')])).toMatchObject({ names: ['db1'] })
    expect(of([{ ...follower, record: recordOf('db1', ['db1', 'pg1']) }, unreachableNode('pg2')])).toBeNull()
  })

  test('is nobody where a primary answers that is to be stopped: the address may be another one of its own', () => {
    const known = { record: recordOf('pg2', ['pg1', 'pg2']) }
    const leads = runningNode('pg2', {}, known)
    expect(of([standbyNode('pg1', '0/3000000', outside, known), leads])).toBeNull()
  })
})

describe('nobody is promoted beside it', () => {
  const answer = (changes: Partial<PeerAnswer>) => ({
    ...{ from: nodeName('pg2'), role: 'primary', systemIdentifier: ours, timeline: timeline(3), said: '' },
    ...{ at: '10.9.9.9:5432', ...changes },
  })
  const refusal = (
    answers: readonly Partial<PeerAnswer>[],
    survey: readonly NodeFacts[] = [pg1, pg2],
    allowSplitBrain = false,
  ) => {
    const { inventory, topology } = observed(survey)
    const leader = unknownLeader(inventory, topology, candidate)
    if (leader === null) throw new Error('expected somebody')
    const heard = answers.map(answer) as Parameters<typeof refusalBesideUnknownLeader>[3]
    return refusalBesideUnknownLeader(inventory, topology, leader, heard, {
      ...{ candidate, what: 'promote pg1', allowSplitBrain },
    })
  }

  test('while it answers, whatever flags are given', () => {
    for (const allowSplitBrain of [false, true]) {
      const refused = refusal([{}], undefined, allowSplitBrain)
      expect(refused).toMatchObject({ code: 'primary-alive' })
      expect(refused?.message).toBe(
        'refused to promote pg1: 10.9.9.9:5432 accepts writes, and the inventory lacks it',
      )
      expect(refused?.hint).toMatch(/^Put db1 into \/etc\/replctl\/replctl.yaml/)
      expect(refusal([{ role: 'unknown', timeline: null }], undefined, allowSplitBrain)?.code).toBe(
        'primary-alive',
      )
      expect(refusal([{ role: 'standby', timeline: timeline(4) }], undefined, allowSplitBrain)?.code).toBe(
        'primary-alive',
      )
    }
  })

  test('while it says nothing, but at the operator’s own risk', () => {
    expect(refusal([])).toMatchObject({ code: 'primary-unproven' })
    expect(refusal([])?.message).toBe(
      'cannot prove that the old primary db1 is stopped: the inventory lacks it',
    )
    expect(refusal([{ role: 'standby' }])?.code).toBe('primary-unproven')
    expect(refusal([], undefined, true)).toBeNull()
  })

  test('but what is silent at an address is in nobody’s way where another one is known to have led', () => {
    const known = { record: recordOf('pg2', ['pg1', 'pg2']) }
    const survey = [standbyNode('pg1', '0/3000000', outside, known), unreachableNode('pg2')]
    expect(refusal([], survey)).toBeNull()
    expect(refusal([{ role: 'standby' }], survey)).toBeNull()
    expect(refusal([{ role: 'unknown', timeline: null }], survey)?.code).toBe('primary-unproven')
    expect(refusal([{ role: 'unknown', timeline: null }], survey, true)).toBeNull()
    expect(refusal([{}], survey, true)?.code).toBe('primary-alive')
  })
})
