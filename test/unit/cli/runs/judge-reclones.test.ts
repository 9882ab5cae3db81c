import { expect, test } from 'vitest'
import type { ClusterSession } from '../../../../src/cli/cluster-session.ts'
import type { Observation } from '../../../../src/cli/operation.ts'
import { decide } from '../../../../src/cli/runs/add-standby.ts'
import { judgeReclones } from '../../../../src/cli/runs/judge-reclones.ts'
import type { NodeFacts, NodeMark } from '../../../../src/cluster/facts.ts'
import { stepsOf } from '../../../../src/engine/step.ts'
import { emptyNode, observed, recordOf, runningNode, standbyNode } from '../../some-cluster.ts'

const mark = (phase: NodeMark['phase']): Partial<NodeFacts> => ({
  ...{ dataDirectoryInode: '7', mark: { phase, inode: '7' } as NodeMark },
})
const built = ['pg2: stop the old standby and move its data directory aside', 'pg2: mark the node as built']
const streams = standbyNode('pg2', '0/3000000', {}, mark('done'))

interface Scene {
  readonly pg2: NodeFacts
  readonly begun?: readonly string[]
  readonly isFinal?: boolean
  readonly isAside?: boolean
  readonly isMount?: boolean
  readonly isAbort?: boolean
}

function sceneOf({ pg2, begun, isFinal = false, isAside = false, isMount = false }: Scene) {
  const survey = [runningNode('pg1', {}, { record: recordOf('pg1', ['pg1', 'pg2']) }), pg2]
  const { inventory, topology } = observed(survey)
  const read = async ({ title }: { title: string }) => ({
    status: 0,
    stdout: title.startsWith('look for') ? (isAside ? 'there\n' : '') : isMount ? '' : 'yes\n',
  })
  const nodes = new Map(
    inventory.nodes.map((settings) => [settings.name, { name: settings.name, settings, read }]),
  )
  const resumed = begun === undefined ? null : { begun, isFinal }
  return {
    session: { inventory, templates: {}, nodes } as unknown as ClusterSession,
    observation: { survey, topology, resumed, unfinished: null } as unknown as Observation,
    targets: inventory.nodes.slice(1),
  }
}

test.each<[string, Scene, { isReclone: boolean; isReplacing: boolean }]>([
  ['a standby', { pg2: streams }, { isReclone: true, isReplacing: true }],
  ['nothing', { pg2: emptyNode('pg2') }, { isReclone: true, isReplacing: false }],
  [
    'a clone that was begun',
    { pg2: standbyNode('pg2', '0/3000000', {}, mark('cloning')) },
    { isReclone: true, isReplacing: false },
  ],
  [
    'nothing any more: this operation had deleted it in place',
    { pg2: emptyNode('pg2'), begun: built.slice(0, 1) },
    { isReclone: true, isReplacing: true },
  ],
  [
    'what this operation built, beside the old data: it is not cloned again',
    { pg2: streams, begun: built, isAside: true },
    { isReclone: false, isReplacing: true },
  ],
  [
    'the same, of which the old data is being deleted',
    { pg2: streams, begun: built, isFinal: true },
    { isReclone: false, isReplacing: true },
  ],
  [
    'the same, where the old data had to be deleted in place',
    { pg2: streams, begun: built, isMount: true },
    { isReclone: false, isReplacing: true },
  ],
  [
    'the old standby, which a failure had put back',
    { pg2: streams, begun: built },
    { isReclone: true, isReplacing: true },
  ],
  [
    'a copy that does not stream yet',
    { pg2: standbyNode('pg2', '0/3000000', {}, mark('cloned')), begun: built, isAside: true },
    { isReclone: true, isReplacing: true },
  ],
  [
    'what this operation built where nothing was before',
    { pg2: standbyNode('pg2', '0/3000000', {}, mark('cloned')), begun: [], isAbort: true },
    { isReclone: true, isReplacing: false },
  ],
  [
    'what this operation built, and is to be taken back',
    { pg2: streams, begun: built, isAside: true, isAbort: true },
    { isReclone: true, isReplacing: true },
  ],
])('a reclone finds %s', async (_, scene, expected) => {
  const { session, observation, targets } = sceneOf(scene)
  const judged = await judgeReclones(session, observation, targets, scene.isAbort !== true)
  expect([...judged.values()]).toEqual([expected])
})

test('the old data is deleted last of all, and nothing is taken back from then on', async () => {
  const { session, observation, targets } = sceneOf({ pg2: streams })
  const reclones = await judgeReclones(session, observation, targets, true)
  const steps = stepsOf(decide(session, observation, targets, undefined, true, { reclones }).plan)
  const last = steps.findIndex((step) => step.cannotBeUndone === true)
  expect(steps.slice(last).map((step) => step.title)).toEqual([
    'delete the old data directory that was moved aside',
    'remove the old data directory, unless it holds what is nowhere else',
  ])
})
