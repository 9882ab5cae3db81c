import { describe, expect, test } from 'vitest'
import type { NodeFacts } from '../../../src/cluster/facts.ts'
import { comeBackHint, refusalToDiscard } from '../../../src/cluster/way-back.ts'
import {
  control,
  emptyNode,
  fenceMark,
  foreign,
  lsn,
  runningNode,
  standbyNode,
  timeline,
} from '../some-cluster.ts'

const primary = runningNode('pg1', {
  timeline: timeline(3),
  history: '1\t0/3000000\tpromoted\n2\t0/4000000\tpromoted\n',
})
const stopped = (changes: Parameters<typeof control>[0], facts: Partial<NodeFacts> = {}) =>
  emptyNode('pg2', { dataDirectoryState: 'instance', control: control(changes), ...facts })

describe('a member comes back as it is', () => {
  const cases: readonly (readonly [string, NodeFacts])[] = [
    ['a standby that streams', standbyNode('pg2', '0/5000148')],
    ['a standby that was stopped', stopped({ state: 'shut down in recovery' }, { hasStandbySignal: true })],
    [
      'a standby that was killed: what it received is not its own',
      stopped({ state: 'in archive recovery' }, { hasStandbySignal: true }),
    ],
    [
      'a former primary that was shut down before the fork',
      stopped({ timeline: timeline(2), checkpointLsn: lsn('0/4000000') }, { fence: fenceMark('pg1') }),
    ],
    [
      'an instance of another cluster: other checks refuse it',
      stopped({ systemIdentifier: foreign, state: 'in production' }),
    ],
    ['an empty node', emptyNode('pg2')],
  ]
  test.each(cases)('%s', (_, facts) => {
    expect(refusalToDiscard(facts, primary)).toBeNull()
    expect(comeBackHint(facts, primary)).toBe('Bring it back as a standby: replctl add-standby pg2')
  })
})

describe('a member may hold what nobody else has', () => {
  const cases: readonly (readonly [string, NodeFacts, string])[] = [
    [
      'a former primary that was shut down past the fork',
      stopped({ timeline: timeline(2), checkpointLsn: lsn('0/4000028') }),
      'node-diverged',
    ],
    [
      'a fenced former primary whose pg_control cannot be read',
      emptyNode('pg2', { dataDirectoryState: 'instance', hasStandbySignal: true, fence: fenceMark('pg1') }),
      'node-fenced',
    ],
    [
      'a standby that received past the fork',
      standbyNode('pg2', '0/4000028', { timeline: timeline(2) }),
      'node-diverged',
    ],
    [
      'one that led a timeline of the same number, and was shut down in order',
      stopped({ timeline: timeline(3), checkpointLsn: lsn('0/4100000') }, { fence: fenceMark('pg1') }),
      'node-fenced',
    ],
    [
      'a former primary that crashed: its last checkpoint is not the end of its WAL',
      stopped({ state: 'in production', timeline: timeline(2), checkpointLsn: lsn('0/3F00000') }),
      'node-fenced',
    ],
    [
      'a fenced one that crashed, although it has a standby.signal by now',
      stopped(
        { state: 'in production', timeline: timeline(2), checkpointLsn: lsn('0/3F00000') },
        { fence: fenceMark('pg1'), hasStandbySignal: true },
      ),
      'node-fenced',
    ],
  ]
  test.each(cases)('%s', (_, facts, code) => {
    expect(refusalToDiscard(facts, primary)).toMatchObject({ code, node: 'pg2' })
    expect(comeBackHint(facts, primary)).toContain('transactions that nobody else has')
  })

  test('without a primary nobody can say', () => {
    expect(comeBackHint(standbyNode('pg2', '0/5000148'), undefined)).toContain('that nobody else has')
  })
})
