import { describe, expect, test } from 'vitest'
import type { NodeFacts } from '../../../src/cluster/facts.ts'
import { refuseReclone, suppliedBy } from '../../../src/cluster/judge-reclone.ts'
import { nodeName } from '../../../src/cluster/names.ts'
import {
  connection,
  emptyNode,
  lsn,
  observed,
  postmaster,
  receivesFrom,
  runningNode,
  standbyNode,
  stoppedNode,
  timeline,
  unreachableNode,
} from '../some-cluster.ts'

const receiver = (senderHost: string | null) => ({
  ...{ status: 'streaming', senderHost, senderPort: senderHost === null ? null : 5432, slotName: null },
  ...{ receivedTimeline: timeline(3), latestEndLsn: null, silenceSeconds: 0 },
})
const pg1 = runningNode('pg1', { currentLsn: lsn('0/5000000'), replication: [connection('pg2')] })
const pg2 = (changes = {}, facts = {}) =>
  standbyNode(
    'pg2',
    '0/5000000',
    { receiver: receiver('10.0.0.11'), replication: [connection('pg3')], ...changes },
    facts,
  )
/** Told to receive from pg2, as it does. */
const pg3 = (changes = {}) =>
  standbyNode('pg3', '0/5000000', {
    ...receivesFrom('10.0.0.12'),
    receiver: receiver('10.0.0.12'),
    ...changes,
  })

function supplied(...survey: readonly NodeFacts[]): readonly string[] {
  return suppliedBy(observed(survey).topology, nodeName('pg2'))
}

describe('who gets by way of pg2 what the primary writes', () => {
  test.each<[string, readonly NodeFacts[]]>([
    ['by both views', [pg1, pg2(), pg3()]],
    ['by its own word alone', [pg1, pg2({ replication: [] }), pg3()]],
    ['by another name of pg2', [pg1, pg2(), pg3({ receiver: receiver('pg2.example.com') })]],
    [
      'while it catches up',
      [pg1, pg2({ replication: [connection('pg3', 'async', { state: 'catchup' })] }), pg3()],
    ],
    ['with its replay paused', [pg1, pg2(), pg3({ isReplayPaused: true })]],
    [
      'and holds a transaction back',
      [pg1, pg2({ replication: [] }), pg3({ receiver: null, isAwaitingDelay: true })],
    ],
    ['by pg2’s word, where its host cannot be reached', [pg1, pg2(), unreachableNode('pg3')]],
    [
      'by pg2’s word, where it does not answer',
      [pg1, pg2(), { ...emptyNode('pg3'), postmaster: postmaster() }],
    ],
    [
      'by its own word, where pg2 does not answer',
      [pg1, { ...emptyNode('pg2'), postmaster: postmaster() }, pg3()],
    ],
    ['while pg2 holds a transaction back', [pg1, pg2({ receiver: null, isAwaitingDelay: true }), pg3()]],
  ])('pg3 does, %s', (_, survey) => {
    expect(supplied(...survey)).toEqual(['pg3'])
  })

  test.each<[string, readonly NodeFacts[]]>([
    ['pg2 gets nothing itself', [pg1, pg2({ receiver: null }), pg3()]],
    ['pg2 does not run, whatever pg3 still believes', [pg1, stoppedNode('pg2', '0/5000000'), pg3()]],
    ['nothing is on pg2 any more', [pg1, emptyNode('pg2'), pg3({ receiver: null })]],
    ['it is cut off', [pg1, pg2({ replication: [] }), pg3({ receiver: null })]],
    ['it is stopped, whatever pg2 still believes', [pg1, pg2(), stoppedNode('pg3', '0/5000000')]],
    ['it receives from pg1 by now', [pg1, pg2(), pg3({ receiver: receiver('10.0.0.11') })]],
    [
      'it copies pg2',
      [pg1, pg2({ replication: [connection('pg3', 'async', { state: 'backup' })] }), unreachableNode('pg3')],
    ],
    ['pg2 went another way', [pg1, pg2({ timeline: timeline(4) }), pg3({ timeline: timeline(4) })]],
  ])('nobody does, where %s', (_, survey) => {
    expect(supplied(...survey)).toEqual([])
  })
})

test('a refusal names everybody who would be cut off, and how each goes to the primary and back', () => {
  const { inventory, topology } = observed([
    pg1,
    pg2({ replication: [connection('pg3'), connection('pg4')] }),
    pg3(),
    unreachableNode('pg4'),
  ])
  const wish = { replaced: [nodeName('pg2')], command: 'replctl rejoin pg2 --reclone' }
  expect(() => refuseReclone(inventory, topology, wish)).toThrow(
    expect.objectContaining({
      code: 'wrong-upstream',
      message: 'pg3, pg4 receive from pg2: a new clone would cut them off',
      detail: expect.stringContaining('pg4 cannot be reached from here'),
      hint: 'First: replctl follow pg3 --upstream pg1, replctl follow pg4 --upstream pg1, then replctl rejoin pg2 --reclone; and back when it streams: replctl follow pg3 --upstream pg2, replctl follow pg4 --upstream pg2',
    }),
  )
  expect(() => refuseReclone(inventory, topology, { ...wish, replaced: [nodeName('pg3')] })).not.toThrow()
})
