import { expect, test } from 'vitest'
import type { Observation } from '../../../../src/cli/operation.ts'
import { wishFor } from '../../../../src/cli/runs/init-primary.ts'
import type { NodeMark } from '../../../../src/cluster/facts.ts'
import { nodeName } from '../../../../src/cluster/names.ts'
import type { StepContext } from '../../../../src/engine/step.ts'
import { createNode } from '../../../../src/node/node.ts'
import { ensureClusterRecord } from '../../../../src/steps/ensure-cluster-record.ts'
import { ensureMarkedAsBuilt } from '../../../../src/steps/ensure-mark.ts'
import { createRecordingTransport } from '../../../../src/transport/recording-transport.ts'
import { createShellTransport } from '../../node/shell-transport.ts'
import {
  emptyNode,
  inventoryOf,
  observed,
  ours,
  recordOf,
  runningNode,
  standbyNode,
} from '../../some-cluster.ts'

const [settings] = inventoryOf(['pg1', 'pg2']).nodes
const node = createNode(settings!, 'shop', createShellTransport('/nowhere'))
const mark: NodeMark = {
  ...{ cluster: 'shop', node: 'pg1', dataDirectory: '/data', systemIdentifier: ours, inode: '7' },
  phase: 'done',
}

const wishOf = async (survey: Observation['survey']) => {
  const { inventory, topology } = observed(survey)
  return await wishFor({ survey, topology, resumed: null, unfinished: null } as Observation, inventory, node)
}

test('a primary that is begun anew leads nobody of its earlier life, and its record wins over the old ones', async () => {
  const record = recordOf('pg1', ['pg1', 'pg2'], { generation: 5 })
  const wiped = [emptyNode('pg1', { mark, record }), emptyNode('pg2', { record })]
  expect(await wishOf(wiped)).toMatchObject({ members: ['pg1'], generation: 6 })
  const there = [runningNode('pg1', {}, { mark, record }), standbyNode('pg2', '0/1', {}, { record })]
  expect(await wishOf(there)).toMatchObject({ members: ['pg1', 'pg2'], generation: 5 })
})

/** Steps look at these facts. */
function contextWith(facts: Observation['survey'][number]): StepContext {
  const on = createNode(settings!, 'shop', createRecordingTransport())
  on.lastSurvey = { at: Number.MAX_VALUE, activity: 0, facts: Promise.resolve(facts) }
  return {
    ...{ node: on, on: () => on, timeoutMs: 1_000, signal: new AbortController().signal },
    ...{ isDryRun: false, isChecking: true, seenAt: new Map() },
    ...{ progress: () => undefined, warn: () => undefined },
  }
}

test('a record that is right but older than one elsewhere is written anew, and then is right', async () => {
  const record = recordOf('pg1', ['pg1'], { generation: 1, isPrimaryGuarded: false, confirmations: 0 })
  const ctx = contextWith(runningNode('pg1', {}, { mark, record }))
  const wish = { primary: nodeName('pg1'), members: [nodeName('pg1')] }
  expect(await ensureClusterRecord(node.name, { ...wish, generation: 6 }).check(ctx)).toMatchObject({
    is: 'pending',
  })
  expect(await ensureClusterRecord(node.name, { ...wish, generation: 1 }).check(ctx)).toMatchObject({
    is: 'satisfied',
  })
})

test('an instance in recovery is never marked as the new primary', async () => {
  const step = ensureMarkedAsBuilt(node.name, { isNewPrimary: true, mustLead: true })
  const standby = standbyNode('pg1', '0/1', {}, { mark: { ...mark, phase: 'cloned' } })
  expect(await step.check(contextWith(standby))).toMatchObject({
    is: 'refused',
    error: { code: 'foreign-cluster' },
  })
  expect(await step.check(contextWith(runningNode('pg1', {})))).toMatchObject({ is: 'pending' })
})
