import { describe, expect, test } from 'vitest'
import type { ClusterRecord, NodeFacts } from '../../../src/cluster/facts.ts'
import type { NodeSettings, ReplicationSettings } from '../../../src/cluster/inventory.ts'
import { judgePromotion } from '../../../src/cluster/judge-promotion.ts'
import { nodeName } from '../../../src/cluster/names.ts'
import { ReplctlError } from '../../../src/errors.ts'
import {
  control,
  emptyNode,
  fenceMark,
  observed,
  receivesFrom,
  recordOf,
  standbyNode,
  stoppedNode,
  timeline,
  unreachableNode,
} from '../some-cluster.ts'

const members = ['pg1', 'pg2', 'pg3', 'pg4']
/** pg2 took over from pg1: its commits wait for pg3. The standbys are on its timeline, 3. */
const record = (changes: Partial<ClusterRecord> = {}) =>
  recordOf('pg2', members, { confirmations: 1, confirmers: ['shop_pg3'], generation: 7, ...changes })
/** As an older replctl wrote it. */
const countOnly = (): ClusterRecord => {
  const { confirmers: _, ...older } = record()
  return older
}
const atPg2 = receivesFrom('10.0.0.12')
const pg3 = (recorded = record()) =>
  standbyNode('pg3', '0/6000000', { ...atPg2, receiver: null }, { record: recorded })
/** Fenced when pg2 took over, and not rejoined since. */
const pg1 = (facts: Partial<NodeFacts> = {}) =>
  stoppedNode('pg1', '0/5000000', {
    control: control({ timeline: timeline(2) }),
    hasStandbySignal: true,
    fence: fenceMark('pg2', 2),
    record: recordOf('pg1', members, { timeline: 2, generation: 6 }),
    ...facts,
  })
const lost = unreachableNode('pg2')
/** Its host answers, PostgreSQL does not run. */
const stopped = (name: string, recorded: ClusterRecord | null = record()) =>
  stoppedNode(name, '0/6000000', { hasStandbySignal: true, control: control(), record: recorded })

interface Case {
  readonly survey: readonly NodeFacts[]
  readonly nodes?: Record<string, Partial<NodeSettings>>
  readonly replication?: Partial<ReplicationSettings>
  readonly told?: string
}

/** Who is said to be missing; null: the failover goes on. */
function missing({ survey, nodes, replication, told }: Case): string | null {
  const { inventory, topology } = observed(survey, nodes, { mode: 'quorum', syncStandbys: 1, ...replication })
  const flags = { allowDataLoss: false, allowSplitBrain: true }
  try {
    judgePromotion(inventory, topology, {
      node: nodeName('pg3'),
      ...flags,
      told: told === undefined ? undefined : nodeName(told),
    })
    return null
  } catch (thrown) {
    if (thrown instanceof ReplctlError && thrown.code === 'confirmed-commits-at-risk') {
      return /refused to promote pg3: (.*) may hold/.exec(thrown.message)?.[1] ?? thrown.message
    }
    throw thrown
  }
}

describe('a second failover, before the node that was lost first is rejoined', () => {
  const cases: readonly (readonly [string, Case, string | null])[] = [
    [
      'what is fenced since the last primary took over holds nothing of it',
      { survey: [pg1(), lost, pg3()] },
      null,
    ],
    [
      'a record of an older replctl, which has only the count, is enough for that',
      { survey: [pg1(), lost, pg3(countOnly())] },
      null,
    ],
    [
      'also when this failover was begun before and has fenced it once more',
      {
        survey: [
          pg1({ fence: { ...fenceMark('pg3', 2), before: { ...fenceMark('pg2', 2) } } }),
          lost,
          pg3(countOnly()),
        ],
      },
      null,
    ],
    [
      'its data directory is gone: it holds nothing at all',
      {
        survey: [
          emptyNode('pg1', { fence: fenceMark('pg2', 2), record: countOnly() }),
          lost,
          pg3(countOnly()),
        ],
      },
      null,
    ],
    [
      'one that was rejoined since may have confirmed',
      { survey: [stopped('pg1', countOnly()), lost, pg3(countOnly())] },
      'pg1',
    ],
    [
      'one that only this failover has fenced, for it was told to promote, may have confirmed',
      {
        survey: [pg1({ fence: { ...fenceMark('pg3', 2), wasStandby: true } }), lost, pg3(countOnly())],
      },
      'pg1',
    ],
    [
      'one with a mark of then that has come to the last primary’s timeline may have confirmed',
      { survey: [pg1({ control: control({ timeline: timeline(3) }) }), lost, pg3(countOnly())] },
      'pg1',
    ],
    [
      'one with a mark of then that commits waited for may have confirmed',
      { survey: [pg1(), lost, pg3(record({ confirmers: ['shop_pg1', 'shop_pg3'] }))] },
      'pg1',
    ],
    [
      'a member that was waited for is away as well: that one is missing, the fenced one is not',
      {
        survey: [pg1(), lost, pg3(record({ confirmers: ['shop_pg3', 'shop_pg4'] })), unreachableNode('pg4')],
      },
      'pg4',
    ],
    [
      'quorum 2 of 2, one of them away: the candidate has all that it confirmed',
      {
        survey: [
          pg1(),
          lost,
          pg3(record({ confirmers: ['shop_pg3', 'shop_pg4'], confirmations: 2 })),
          unreachableNode('pg4'),
        ],
        replication: { syncStandbys: 2 },
      },
      null,
    ],
  ]
  test.each(cases)('%s', (_, given, names) => expect(missing(given)).toBe(names))
})

describe('a member that is away and was not waited for', () => {
  const later = (changes: Partial<NodeFacts> = {}): NodeFacts => ({ ...unreachableNode('pg4'), ...changes })
  const leads = stoppedNode('pg2', '0/6000000', { control: control(), record: record() })
  const cases: readonly (readonly [string, Case, string | null])[] = [
    [
      'its host answers, and what it was told itself does not name it',
      { survey: [pg1(), lost, pg3(), stopped('pg4')] },
      null,
    ],
    [
      'its host answers, and it was told by nobody',
      { survey: [pg1(), lost, pg3(), stopped('pg4', null)] },
      'pg4',
    ],
    [
      'its host answers, and its own record is newer and names it',
      {
        survey: [
          pg1(),
          lost,
          pg3(),
          stopped('pg4', record({ generation: 8, confirmers: ['shop_pg3', 'shop_pg4'] })),
        ],
      },
      'pg4',
    ],
    [
      'its host is off, and the lost primary’s own record does not name it',
      { survey: [pg1(), leads, pg3(), later()] },
      null,
    ],
    [
      'its host is off, and so is the primary’s: the candidate may not have been told of it',
      { survey: [pg1(), lost, pg3(), later()] },
      'pg4',
    ],
    [
      'its host is off, and the primary’s record is older than another: that is not the last word',
      {
        survey: [pg1(), { ...leads, record: record({ generation: 6 }) }, pg3(), later()],
      },
      'pg4',
    ],
    [
      'its host is off, and it replays late on purpose',
      { survey: [pg1(), lost, pg3(), later()], nodes: { pg4: { delayMs: 3_600_000 } } },
      null,
    ],
    [
      'its host is off, and it must not lead',
      { survey: [pg1(), lost, pg3(), later()], nodes: { pg4: { promotable: false } } },
      null,
    ],
    [
      'the same, but commits waited for it: there were too few others',
      {
        survey: [pg1(), lost, pg3(record({ confirmers: ['shop_pg3', 'shop_pg4'] })), later()],
        nodes: { pg4: { promotable: false } },
      },
      'pg4',
    ],
    [
      'a record of an older replctl does not say who was waited for',
      { survey: [pg1(), lost, pg3(countOnly()), stopped('pg4', countOnly())] },
      'pg4',
    ],
    [
      'the record names nobody: the inventory’s mode may be in force by now',
      { survey: [pg1(), lost, pg3(record({ confirmers: [] })), stopped('pg4', record({ confirmers: [] }))] },
      'pg4',
    ],
    [
      'the record names somebody who is no node of the inventory',
      {
        survey: [pg1(), lost, pg3(record({ confirmers: ['shop_pg3', '*'] })), stopped('pg4')],
      },
      'pg4',
    ],
    [
      'somebody is on a newer timeline than the record: another one led since',
      { survey: [pg1(), lost, pg3(record({ timeline: 2 })), stopped('pg4', record({ timeline: 2 }))] },
      'pg1, pg4',
    ],
    [
      'another one had been told to promote, and may have led',
      { survey: [pg1(), lost, pg3(), stopped('pg4')], told: 'pg4' },
      'pg4',
    ],
    [
      'names are matched as PostgreSQL does, without regard to case',
      { survey: [pg1(), lost, pg3(record({ confirmers: ['SHOP_PG3', 'Shop_pg4'] })), later()] },
      'pg4',
    ],
  ]
  test.each(cases)('%s', (_, given, names) => expect(missing(given)).toBe(names))
})

test('one that the inventory lacks may hold confirmed commits where commits may have waited for it', () => {
  const lost = unreachableNode('pg2')
  const promotion = (changes: Partial<ClusterRecord>, allowDataLoss = false) => {
    const { inventory, topology } = observed([pg1(), lost, pg3(record(changes))], {}, { mode: 'quorum' })
    return () =>
      judgePromotion(inventory, topology, {
        ...{ node: nodeName('pg3'), allowDataLoss, allowSplitBrain: true },
      })
  }
  const waited = { confirmers: ['shop_pg3', 'shop_pg4'] }
  expect(promotion(waited)).toThrow('refused to promote pg3: pg4 may hold confirmed commits that it lacks')
  expect(promotion(waited, true)).not.toThrow()
  expect(promotion({ confirmers: ['shop_pg3'] })).not.toThrow()
})
