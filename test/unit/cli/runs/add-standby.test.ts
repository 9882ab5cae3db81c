import { expect, test } from 'vitest'
import type { ClusterSession } from '../../../../src/cli/cluster-session.ts'
import type { Decision, Observation } from '../../../../src/cli/operation.ts'
import { decide } from '../../../../src/cli/runs/add-standby.ts'
import type { NodeFacts } from '../../../../src/cluster/facts.ts'
import type { ReplicationSettings } from '../../../../src/cluster/inventory.ts'
import { stepsOf } from '../../../../src/engine/step.ts'
import { emptyNode, observed, recordOf, runningNode } from '../../some-cluster.ts'

interface Scene {
  readonly survey: readonly NodeFacts[]
  readonly targets: readonly string[]
  readonly isReclone?: boolean
  readonly isAbort?: boolean
  readonly replication?: Partial<ReplicationSettings>
}

function decided({ survey, targets, isReclone = true, isAbort = false, replication }: Scene): Decision {
  const { inventory, topology } = observed(survey, {}, replication)
  const session = { inventory, templates: {} } as unknown as ClusterSession
  const observation: Observation = { survey, topology, resumed: null, unfinished: null }
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
