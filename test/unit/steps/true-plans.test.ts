import { expect, test } from 'vitest'
import type { NodeFacts } from '../../../src/cluster/facts.ts'
import { nodeName } from '../../../src/cluster/names.ts'
import type { Step, StepContext } from '../../../src/engine/step.ts'
import { createNode, type Node } from '../../../src/node/node.ts'
import { asOnceStopped } from '../../../src/steps/as-it-will-be.ts'
import { ensureRecentCheckpoint } from '../../../src/steps/checkpoint.ts'
import { ensureMarkedAsBuilt } from '../../../src/steps/ensure-mark.ts'
import { startInstance } from '../../../src/steps/start-instance.ts'
import { createRecordingTransport } from '../../../src/transport/recording-transport.ts'
import { control, emptyNode, inventoryOf, ours, runningNode, stoppedNode } from '../some-cluster.ts'

// What a plan can know without looking at what the run will have made by then.

const names = [nodeName('pg1'), nodeName('pg2')] as const
const [pg1, pg2] = names

function context(facts: readonly NodeFacts[], isDryRun = true): StepContext {
  const nodes = inventoryOf(['pg1', 'pg2']).nodes.map((settings) => {
    const node = createNode(settings, 'shop', createRecordingTransport())
    const own = facts.find((one) => one.name === settings.name) ?? emptyNode(settings.name)
    // Seen at the end of time, so that it is never looked at anew.
    node.lastSurvey = { at: Number.MAX_VALUE, activity: 0, facts: Promise.resolve(own) }
    return node
  }) as [Node, Node]
  return {
    ...{ node: nodes[1], on: (name) => (name === pg1 ? nodes[0] : nodes[1]), timeoutMs: 5_000 },
    ...{ signal: new AbortController().signal, isDryRun, isChecking: true, seenAt: new Map() },
    ...{ progress: () => undefined, warn: () => undefined },
  }
}

const finding = async (step: Step, ctx: StepContext) => (await step.check(ctx)).is

test('a stopped standby is known as built by its own mark: a start does not change that', async () => {
  const mark = {
    ...{ cluster: 'shop', node: 'pg2', dataDirectory: '/data', systemIdentifier: ours },
    ...{ inode: '7', phase: 'done' as const },
  }
  const built = stoppedNode('pg2', '0/3000000', {
    ...{ mark, dataDirectoryInode: '7' },
    control: control({ systemIdentifier: ours }),
  })
  expect(await finding(ensureMarkedAsBuilt(pg2), context([built]))).toBe('satisfied')
  const other = { ...built, dataDirectoryInode: '8' }
  expect(await finding(ensureMarkedAsBuilt(pg2), context([other]))).toBe('pending')
})

test('a step after a stop is checked by a plan as if the node were stopped, and by a run as it is', async () => {
  const postmaster = {
    ...{ pid: 7, isAlive: true, isFrozen: false, port: 5432, socketDirectory: '/run', status: 'ready' },
  }
  const runs = { ...runningNode('pg2', { isInRecovery: true }), postmaster }
  const start = asOnceStopped(startInstance(pg2))
  expect(await finding(start, context([runs]))).toBe('pending')
  expect(await finding(start, context([runs], false))).toBe('satisfied')
})

test('a checkpoint before a stop is made whenever there is a stop to come, and never while nobody can write', async () => {
  const step = ensureRecentCheckpoint(pg2, { oldPrimary: pg1, candidate: pg2 })
  const standby = runningNode('pg2', { isInRecovery: true })
  expect(await finding(step, context([runningNode('pg1', {}), standby], false))).toBe('pending')
  expect(await finding(step, context([stoppedNode('pg1', '0/3000000'), standby], false))).toBe('satisfied')
})
