import { describe, expect, test } from 'vitest'
import type { ClusterSession } from '../../../../src/cli/cluster-session.ts'
import type { Decision, Observation } from '../../../../src/cli/operation.ts'
import { decide } from '../../../../src/cli/runs/add-standby.ts'
import type { NodeFacts, NodeMark, ReplicationConnection } from '../../../../src/cluster/facts.ts'
import type { ReplicationSettings } from '../../../../src/cluster/inventory.ts'
import { nodeName } from '../../../../src/cluster/names.ts'
import type { Journal } from '../../../../src/engine/journal.ts'
import { stepsOf } from '../../../../src/engine/step.ts'
import {
  connection,
  emptyNode,
  observed,
  receivesFrom,
  recordOf,
  runningNode,
  setting,
  slot,
  standbyNode,
} from '../../some-cluster.ts'

interface Scene {
  readonly upstreams?: Readonly<Record<string, string>>
  readonly isResumed?: boolean
  readonly survey: readonly NodeFacts[]
  readonly targets: readonly string[]
  readonly isReclone?: boolean
  readonly isAbort?: boolean
  readonly replication?: Partial<ReplicationSettings>
}

function decided(scene: Scene): Decision {
  const { survey, targets, isReclone = true, isAbort = false, replication, upstreams = {} } = scene
  const wishes = Object.entries(upstreams).map(([name, of]) => [name, { upstream: nodeName(of) }] as const)
  const { inventory, topology } = observed(survey, Object.fromEntries(wishes), replication)
  const session = { inventory, templates: {} } as unknown as ClusterSession
  const resumed = scene.isResumed === true ? ({ begun: [] } as unknown as Journal) : null
  const observation: Observation = { survey, topology, resumed, unfinished: resumed }
  const nodes = inventory.nodes.filter((node) => targets.includes(node.name))
  return decide(session, observation, nodes, undefined, isReclone, { isAbort })
}

const titlesOf = ({ plan }: Decision) => stepsOf(plan).map((step) => `${step.node}: ${step.title}`)

test('what is quick to answer is asked of all new standbys before room is measured on any', () => {
  const record = recordOf('pg1', ['pg1'])
  const survey = [runningNode('pg1', {}, { record }), emptyNode('pg2'), emptyNode('pg3')]
  const titles = titlesOf(decided({ survey, targets: ['pg2', 'pg3'], isReclone: false }))
  const last = Math.max(...['pg2', 'pg3'].map((name) => titles.indexOf(`${name}: require a free port`)))
  const first = titles.findIndex((title) => title.includes('require disk space'))
  expect(last).toBeGreaterThan(0)
  expect(first).toBeGreaterThan(last)
})

describe('a standby that commits wait for is cloned anew', () => {
  const record = recordOf('pg1', ['pg1', 'pg2', 'pg3'])
  const standby = (name: string) => standbyNode(name, '0/3000000', {}, { record })
  const waits = (
    names: string,
    replication: readonly ReplicationConnection[],
    others: readonly NodeFacts[] = [standby('pg2'), standby('pg3')],
  ) => {
    const settings = { synchronous_standby_names: setting(names) }
    return [runningNode('pg1', { replication, settings }, { record }), ...others]
  }
  const two = [connection('pg2', 'sync'), connection('pg3', 'potential')]

  test.each<[string, Scene]>([
    [
      'another one confirms in its place',
      { survey: waits('FIRST 1 ("shop_pg2", "shop_pg3")', two), targets: ['pg2'] },
    ],
    [
      'an archive does',
      {
        survey: waits('ANY 1 ("shop_pg2", "shop_archive")', [
          connection('pg2', 'quorum'),
          connection('archive', 'quorum'),
        ]),
        targets: ['pg2'],
      },
    ],
    ['it does not stream', { survey: waits('FIRST 1 ("shop_pg2")', []), targets: ['pg2'] }],
    [
      'it has not caught up',
      {
        survey: waits('FIRST 1 ("shop_pg2")', [connection('pg2', 'potential', { state: 'catchup' })]),
        targets: ['pg2'],
      },
    ],
    ['nobody is waited for', { survey: waits('', [connection('pg2'), connection('pg3')]), targets: ['pg2'] }],
    [
      'it is not cloned anew, only seen to',
      { survey: waits('FIRST 1 ("shop_pg2")', two.slice(0, 1)), targets: ['pg2'], isReclone: false },
    ],
    [
      'what was begun is taken back',
      { survey: waits('FIRST 1 ("shop_pg2")', two.slice(0, 1)), targets: ['pg2'], isAbort: true },
    ],
  ])('where %s', (_, scene) => {
    expect(titlesOf(decided(scene))).not.toEqual([])
  })

  test.each<[string, Scene, string, string]>([
    [
      'it is the only one',
      {
        survey: waits('FIRST 1 ("shop_pg2")', two.slice(0, 1), [standby('pg2'), emptyNode('pg3')]),
        targets: ['pg2'],
      },
      'Without pg2, 0 of 1 sync standbys would be left.',
      'Add another standby first: replctl add-standby pg3; or, to let commits do without meanwhile: replctl remove-standby pg2, then replctl add-standby pg2 --reclone',
    ],
    [
      'both are at once',
      { survey: waits('ANY 1 ("shop_pg2", "shop_pg3")', two), targets: ['pg2', 'pg3'] },
      'Without pg2, pg3, 0 of 1 sync standbys would be left.',
      'replctl remove-standby pg2, replctl remove-standby pg3, then replctl add-standby pg2 pg3 --reclone',
    ],
    [
      'as many are waited for as there are',
      { survey: waits('ANY 2 ("shop_pg2", "shop_pg3")', two), targets: ['pg3'] },
      'Without pg3, 1 of 2 sync standbys would be left.',
      'Add another standby to the inventory and to the cluster first',
    ],
    [
      'the other one receives from it',
      {
        survey: waits('FIRST 1 ("shop_pg2")', two.slice(0, 1), [
          standbyNode('pg2', '0/3000000', { replication: [connection('pg3')] }, { record }),
          standby('pg3'),
        ]),
        targets: ['pg2'],
      },
      'Without pg2, 0 of 1 sync standbys would be left.',
      'Let pg3 confirm first: replctl follow pg3 --upstream pg1; or',
    ],
  ])('never where %s: every write would hang meanwhile', (_, scene, detail, hint) => {
    expect(() => decided(scene)).toThrow(
      expect.objectContaining({
        code: 'writes-blocked',
        detail: expect.stringContaining(detail),
        hint: expect.stringContaining(hint),
      }),
    )
  })
})

describe('the middle node of a cascade is cloned anew', () => {
  const record = recordOf('pg1', ['pg1', 'pg2', 'pg3'])
  const pg1 = runningNode('pg1', { replication: [connection('pg2')] }, { record })
  const pg2 = (facts: Partial<NodeFacts> = {}) =>
    standbyNode(
      'pg2',
      '0/3000000',
      { replication: [connection('pg3')], slots: [slot('shop_pg3', '0/3000000')] },
      { record, ...facts },
    )
  const pg3 = standbyNode('pg3', '0/3000000', receivesFrom('10.0.0.12'), { record })
  const cutOff = standbyNode('pg3', '0/3000000', { ...receivesFrom('10.0.0.12'), receiver: null }, { record })
  const served = [
    'pg2: have the replication slot "shop_pg3" for pg3',
    'pg2: see whether pg3 streams from it again',
  ]
  const servedIn = (decision: Decision) => titlesOf(decision).filter((title) => served.includes(title))

  test('never while a standby is supplied by it', () => {
    expect(() => decided({ survey: [pg1, pg2(), pg3], targets: ['pg2'] })).toThrow(
      expect.objectContaining({
        code: 'wrong-upstream',
        node: 'pg2',
        hint: 'First: replctl follow pg3 --upstream pg1, then replctl add-standby pg2 --reclone; and back when it streams: replctl follow pg3 --upstream pg2',
      }),
    )
  })

  test.each<[string, Scene]>([
    ['it is lost', { survey: [pg1, emptyNode('pg2'), cutOff], targets: ['pg2'] }],
    [
      'it is lost, and the command does not say so',
      { survey: [pg1, emptyNode('pg2'), cutOff], targets: ['pg2'], isReclone: false },
    ],
    [
      'who received from it is off, by the inventory',
      {
        survey: [pg1, emptyNode('pg2'), { ...emptyNode('pg3'), dataDirectoryState: 'instance' }],
        targets: ['pg2'],
        upstreams: { pg3: 'pg2' },
      },
    ],
    [
      'an earlier run has made the copy, from which pg3 streams again',
      {
        survey: [
          pg1,
          pg2({ dataDirectoryInode: '7', mark: { phase: 'cloned', inode: '7' } as NodeMark }),
          pg3,
        ],
        targets: ['pg2'],
        isResumed: true,
      },
    ],
  ])('where %s: it gets the slot, and what comes of it is looked at', (_, scene) => {
    expect(servedIn(decided(scene))).toEqual(served)
  })

  test.each<[string, Scene]>([
    ['together with who receives from it', { survey: [pg1, pg2(), pg3], targets: ['pg2', 'pg3'] }],
    [
      'while nobody receives from it',
      {
        survey: [
          pg1,
          standbyNode('pg2', '0/3000000', {}, { record }),
          standbyNode('pg3', '0/3000000', receivesFrom('10.0.0.11'), { record }),
        ],
        targets: ['pg2'],
      },
    ],
    ['never: it is only seen to', { survey: [pg1, pg2(), pg3], targets: ['pg2'], isReclone: false }],
  ])('%s: nobody is to come back by himself', (_, scene) => {
    expect(servedIn(decided(scene)).filter((title) => title.includes('again'))).toEqual([])
  })
})
