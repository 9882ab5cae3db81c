import { describe, expect, test } from 'vitest'
import { chooseCandidate, nodesAhead } from '../../../src/cluster/choose-candidate.ts'
import type { NodeFacts } from '../../../src/cluster/facts.ts'
import type { NodeSettings } from '../../../src/cluster/inventory.ts'
import { nodeName } from '../../../src/cluster/names.ts'
import {
  emptyNode,
  fenceMark,
  foreign,
  lowStandby,
  lsn,
  observed,
  postmaster,
  runningNode,
  standbyNode,
  stoppedNode,
  unreachableNode,
} from '../some-cluster.ts'

type Wishes = Record<string, Partial<NodeSettings>>
const built = { dataDirectoryState: 'instance' } as const

function choose(survey: readonly NodeFacts[], wishes: Wishes = {}) {
  return chooseCandidate(observed(survey, wishes).topology)
}

describe('the best candidate', () => {
  const cases: readonly (readonly [string, readonly NodeFacts[], Wishes, string | null])[] = [
    [
      'more WAL beats priority',
      [standbyNode('pg2', '0/5000000'), standbyNode('pg3', '0/5000008')],
      { pg2: { priority: 1000 } },
      'pg3',
    ],
    [
      'one that replays late on purpose comes last, whatever WAL and priority it has',
      [standbyNode('pg2', '0/5000000'), standbyNode('pg3', '0/5000008')],
      { pg3: { delayMs: 3_600_000, priority: 1000 } },
      'pg2',
    ],
    [
      'one that replays late on purpose leads where there is no other',
      [standbyNode('pg2', '0/5000000'), standbyNode('pg3', '0/5000008')],
      { pg3: { delayMs: 3_600_000 }, pg2: { promotable: false } },
      'pg3',
    ],
    [
      'WAL is compared as a number, not as text',
      [standbyNode('pg2', 'F/FFFFFFFF'), standbyNode('pg3', '10/0')],
      {},
      'pg3',
    ],
    [
      'among equals the larger priority wins',
      [standbyNode('pg2', '0/5000000'), standbyNode('pg3', '0/5000000')],
      { pg3: { priority: 1 } },
      'pg3',
    ],
    [
      'a negative priority loses against the default',
      [standbyNode('pg2', '0/5000000'), standbyNode('pg3', '0/5000000')],
      { pg2: { priority: -1 } },
      'pg3',
    ],
    [
      'among equals of one priority the first of the inventory wins',
      [standbyNode('pg3', '0/5000000'), standbyNode('pg2', '0/5000000')],
      {},
      'pg3',
    ],
    [
      'WAL received counts, not WAL replayed',
      [
        standbyNode('pg2', '0/5000000'),
        standbyNode('pg3', '0/1000000', { receiveLsn: lsn('0/5000008'), isReplayPaused: true }),
      ],
      {},
      'pg3',
    ],
    [
      'promotable: false never leads, however much WAL it has',
      [standbyNode('pg2', '0/5000000'), standbyNode('pg3', '0/9000000')],
      { pg3: { promotable: false, priority: 1000 } },
      'pg2',
    ],
    [
      'nobody, where all standbys are promotable: false',
      [standbyNode('pg2', '0/5000000')],
      { pg2: { promotable: false } },
      null,
    ],
    [
      'a standby of another cluster never leads',
      [
        standbyNode('pg2', '0/5000000'),
        standbyNode('pg3', '0/5000000'),
        standbyNode('pg4', '9/0', { systemIdentifier: foreign }),
      ],
      {},
      'pg2',
    ],
    ['nobody, where no standby runs', [unreachableNode('pg1'), stoppedNode('pg2', '0/9000000')], {}, null],
  ]
  test.each(cases)('%s', (_, survey, wishes, best) => {
    expect(choose(survey, wishes).best).toBe(best)
  })
})

describe('why a node cannot lead', () => {
  const cases: readonly (readonly [NodeFacts, string])[] = [
    [unreachableNode('pg2'), 'its host cannot be reached'],
    [emptyNode('pg2'), 'it is not built yet'],
    [
      emptyNode('pg2', { ...built, postmaster: postmaster({ isFrozen: true }) }),
      'it is frozen (SIGSTOP; "kill -CONT 4711" lets its postmaster go on)',
    ],
    [emptyNode('pg2', { ...built, postmaster: postmaster({ status: 'starting' }) }), 'it is still starting'],
    [emptyNode('pg2', { ...built, postmaster: postmaster() }), 'it does not answer'],
    [
      emptyNode('pg2', { ...built, postmaster: postmaster({ status: 'starting', isFrozen: true }) }),
      'it is frozen (SIGSTOP; "kill -CONT 4711" lets its postmaster go on)',
    ],
    [stoppedNode('pg2', '0/9000000'), 'it is stopped'],
    [stoppedNode('pg2', '0/9000000', { fence: fenceMark('pg1') }), 'it is fenced'],
    [runningNode('pg2', { currentLsn: lsn('0/9000000') }), 'it accepts writes already'],
    [standbyNode('pg2', '0/1', { receiveLsn: null, replayLsn: null }), 'it has not received any WAL'],
    [standbyNode('pg2', '9/0', { systemIdentifier: foreign }), 'it belongs to another cluster'],
    [
      lowStandby('pg2', '0/9000000'),
      'its max_connections is 100, and the WAL that it replays needs 200; it has to be raised, and PostgreSQL restarted there',
    ],
  ]
  test.each(cases.map(([facts, reason]) => [reason, facts] as const))('%s', (reason, facts) => {
    const others = [standbyNode('pg3', '0/5000148'), standbyNode('pg4', '0/5000148')]
    const { verdicts } = choose([facts, ...others], { pg3: { priority: 7 } })
    expect(verdicts.find((verdict) => verdict.node === 'pg2')).toMatchObject({ canLead: false, reason })
    expect(verdicts[0]).toEqual({
      node: 'pg3',
      canLead: true,
      reason: 'received 0/5000148, priority 7',
      receivedLsn: '0/5000148',
    })
  })

  test('those that can lead come first, the best before the others', () => {
    const { verdicts } = choose(
      [
        unreachableNode('pg1'),
        standbyNode('pg2', '0/9000000'),
        standbyNode('pg3', '0/5000000'),
        standbyNode('pg4', '0/6000000'),
      ],
      { pg2: { promotable: false } },
    )
    expect(verdicts.map((verdict) => verdict.node)).toEqual(['pg4', 'pg3', 'pg2', 'pg1'])
  })
})

describe('who holds more WAL than a candidate', () => {
  const ahead = (survey: readonly NodeFacts[], candidate = 'pg2') =>
    nodesAhead(observed(survey).topology, nodeName(candidate))

  test('is told with the bytes', () => {
    const survey = [
      standbyNode('pg2', '0/5000000'),
      standbyNode('pg3', '0/5000148'),
      standbyNode('pg4', '0/4000000'),
    ]
    expect(ahead(survey)).toEqual([{ node: 'pg3', bytes: 328 }])
    expect(ahead(survey, 'pg4')).toHaveLength(2)
  })

  test('one that may not lead counts as well: its WAL would be lost', () => {
    const survey = [standbyNode('pg2', '0/5000000'), standbyNode('pg3', '0/5000008')]
    const { topology } = observed(survey, { pg3: { promotable: false } })
    expect(nodesAhead(topology, nodeName('pg2'))).toEqual([{ node: 'pg3', bytes: 8 }])
  })

  test('a standby of another cluster does not count', () => {
    expect(
      ahead([standbyNode('pg2', '0/5000000'), standbyNode('pg3', '9/0', { systemIdentifier: foreign })]),
    ).toEqual([])
  })

  test('nothing is known of stopped nodes, and nothing about one that is none', () => {
    expect(ahead([standbyNode('pg2', '0/5000000'), stoppedNode('pg3', '0/9000000')])).toEqual([])
    expect(ahead([standbyNode('pg2', '0/5000000')], 'pg9')).toEqual([])
  })
})
