import { describe, expect, test } from 'vitest'
import type { ClusterSession } from '../../../../src/cli/cluster-session.ts'
import type { Decision, Observation } from '../../../../src/cli/operation.ts'
import * as addStandby from '../../../../src/cli/runs/add-standby.ts'
import * as follow from '../../../../src/cli/runs/follow.ts'
import * as removeStandby from '../../../../src/cli/runs/remove-standby.ts'
import type { NodeFacts } from '../../../../src/cluster/facts.ts'
import { nodeName } from '../../../../src/cluster/names.ts'
import { stepsOf } from '../../../../src/engine/step.ts'
import { emptyNode, foreign, observed, ours, recordOf, runningNode, standbyNode } from '../../some-cluster.ts'

/** pg1 leads, pg2 follows; pg3 runs, too: as a standby of this cluster, or of another. */
function clusterWith(systemIdentifier: string, pg4: NodeFacts) {
  const record = recordOf('pg1', ['pg1', 'pg2', 'pg3'])
  const survey = [
    runningNode('pg1', {}, { record }),
    standbyNode('pg2', '0/3000000', {}, { record }),
    standbyNode('pg3', '0/3000000', { systemIdentifier }),
    pg4,
  ]
  const { inventory, topology } = observed(survey)
  return {
    session: { inventory, templates: {} } as unknown as ClusterSession,
    observation: { survey, topology, resumed: null, unfinished: null } as Observation,
    node: (name: string) => inventory.nodes.find((one) => one.name === name)!,
  }
}

type Cluster = ReturnType<typeof clusterWith>
const nodesOf = ({ plan }: Decision) => [...new Set(stepsOf(plan).map((step) => step.node))].sort()

describe('a running standby of another cluster, where the inventory names a node, is not written to', () => {
  test.each<[string, NodeFacts, (cluster: Cluster) => Decision]>([
    [
      'add-standby',
      emptyNode('pg4'),
      ({ session, observation, node }) =>
        addStandby.decide(session, observation, [node('pg4')], undefined, false),
    ],
    [
      'remove-standby',
      standbyNode('pg4', '0/3000000'),
      ({ session, observation, node }) =>
        removeStandby.decide(session, observation, { node: node('pg4'), isPurge: false }),
    ],
    [
      'follow',
      standbyNode('pg4', '0/3000000'),
      ({ session, observation }) =>
        follow.decide(session, observation, { node: nodeName('pg4'), upstream: nodeName('pg2') }),
    ],
  ])('by %s', (_command, pg4, decide) => {
    expect(nodesOf(decide(clusterWith(ours, pg4)))).toContain('pg3')
    expect(nodesOf(decide(clusterWith(foreign, pg4)))).not.toContain('pg3')
  })

  test('nor is anything cloned from it', () => {
    const { session, observation, node } = clusterWith(foreign, emptyNode('pg4'))
    expect(() => addStandby.decide(session, observation, [node('pg4')], node('pg3'), false)).toThrow(
      'cannot clone pg4 from pg3',
    )
  })
})
