import { describe, expect, test } from 'vitest'
import type { InstanceFacts, NodeFacts } from '../../../src/cluster/facts.ts'
import { lagOf } from '../../../src/cluster/lag.ts'
import {
  control,
  emptyNode,
  foreign,
  lsn,
  postmaster,
  recordOf,
  runningNode,
  standbyNode,
  timeline,
  unreachableNode,
} from '../some-cluster.ts'

/** pg1 led by the record, and was stopped in order: its last record begins here. */
const checkpointLsn = lsn('0/5000028')
const stopped = (changes: Partial<NodeFacts> = {}): NodeFacts =>
  emptyNode('pg1', {
    dataDirectoryState: 'instance',
    control: control({ checkpointLsn }),
    record: recordOf('pg1', ['pg1', 'pg2', 'pg3']),
    ...changes,
  })
const crashed = stopped({ control: control({ checkpointLsn, state: 'in production' }) })
/** Its walreceiver ended, and its last transaction is 40 s old. */
const standby = (changes: Partial<InstanceFacts> = {}) =>
  standbyNode('pg2', '0/50000A0', {
    ...{ receiver: null, replayLagSeconds: 40, lastReplayedSeconds: 40 },
    ...changes,
  })
const lag = (own: NodeFacts, ...others: readonly NodeFacts[]) => lagOf(own, [...others, own], null, false)

const none = { lagBytes: 0, lagSeconds: 0 }
const unknown = { lagBytes: null, lagSeconds: null }
const late = { lagBytes: null, lagSeconds: 40 }

describe('while nobody leads', () => {
  test('one that has replayed the last record of a primary that was stopped in order lacks nothing', () => {
    expect(lag(standby(), stopped())).toEqual(none)
    expect(lag(standby(), stopped(), standbyNode('pg3', '0/50000A0'))).toEqual(none)
    expect(lag(standby(), stopped({ postmaster: postmaster({ isAlive: false }) }))).toEqual(none)
  })

  const before = { replayLsn: checkpointLsn, receiveLsn: checkpointLsn }
  test.each<[string, NodeFacts, readonly NodeFacts[]]>([
    ['it lacks that record', standby(before), [stopped()]],
    ['the primary crashed', standby(), [crashed]],
    ['it is of another timeline', standby({ timeline: timeline(2) }), [stopped()]],
    ['what is stopped there is of another cluster', standby({ systemIdentifier: foreign }), [stopped()]],
    ['who led is not known', standby(), [stopped({ record: null })]],
    [
      'another one has a newer timeline',
      standby(),
      [stopped(), standbyNode('pg3', '0/1', { timeline: timeline(4) })],
    ],
    [
      'another one, which cannot be asked, may have led since',
      standby(),
      [stopped(), unreachableNode('pg3')],
    ],
  ])('what is old is no lag, and whether it lacks anything is not known, where %s', (_, own, others) => {
    expect(lag(own, ...others)).toEqual(unknown)
  })

  test.each<[string, NodeFacts]>([
    ['cannot be asked', unreachableNode('pg1')],
    ['runs and does not answer', stopped({ postmaster: postmaster() })],
    ['runs elsewhere', stopped({ strayInstance: runningNode('pg1', {}).instance! })],
  ])('one that is cut off is as late as its last transaction is old, where the primary %s', (_, primary) => {
    expect(lag(standby(), primary)).toEqual(late)
    // What it has received itself and not replayed is late in any case.
    expect(lag(standby({ receiveLsn: lsn('0/6000000') }), primary)).toEqual(late)
  })

  test('what it has received and not replayed is late, whatever became of the primary', () => {
    const behind = { receiveLsn: lsn('0/50000A0'), replayLsn: lsn('0/4000000') }
    for (const primary of [stopped(), crashed]) expect(lag(standby(behind), primary)).toEqual(late)
  })

  test('while two write it is as late as its last transaction is old', () => {
    const writers = [runningNode('pg1', {}), runningNode('pg3', {})]
    expect(lag(standby(), ...writers)).toEqual(late)
    expect(lag(standby(), stopped(), ...writers.slice(1))).toEqual(late)
  })
})

test('while somebody leads, one that believes it streams and gets nothing is as late as its last transaction is old', () => {
  const primary = runningNode('pg1', { currentLsn: lsn('0/6000000') })
  const own = standbyNode('pg2', '0/5000000', { lastReplayedSeconds: 40 })
  const lagBytes = 0x1000000
  expect(lagOf(own, [primary, own], primary, true)).toEqual({ lagBytes, lagSeconds: 40 })
  expect(lagOf(own, [primary, own], primary, false)).toEqual({ lagBytes, lagSeconds: 0 })
})
