import { expect, test } from 'vitest'
import { nodeName } from '../../../src/cluster/names.ts'
import type { StepContext } from '../../../src/engine/step.ts'
import { createNode } from '../../../src/node/node.ts'
import { fetchMissingWal } from '../../../src/steps/fetch-missing-wal.ts'
import { createRecordingTransport } from '../../../src/transport/recording-transport.ts'
import { inventoryOf, standbyNode, timeline } from '../some-cluster.ts'

test('nothing is fetched from one whose timeline is older than the candidate’s: it would be waited for for ever', async () => {
  const inventory = inventoryOf(['pg1', 'pg2', 'pg3'], { pg3: { promotable: false } })
  const [, pg2, pg3] = inventory.nodes
  const step = fetchMissingWal(pg2!, [pg3!], null, { inventory, templates: {} as never })
  const found = async (id: number) => {
    const survey = [
      standbyNode('pg2', '0/5000000'),
      standbyNode('pg3', '0/7000000', { timeline: timeline(id) }),
    ]
    const nodes = survey.map((facts) => {
      const settings = inventory.nodes.find(({ name }) => name === facts.name)!
      const node = createNode(settings, 'shop', createRecordingTransport())
      node.lastSurvey = { at: Number.MAX_VALUE, activity: 0, facts: Promise.resolve(facts) }
      return node
    })
    const on = (name: string) => nodes.find((node) => node.settings.name === name)
    return await step.check({
      ...{ node: nodes[0], on, timeoutMs: 1_000, signal: new AbortController().signal },
      ...{ isDryRun: false, isChecking: true, seenAt: new Map() },
    } as unknown as StepContext)
  }
  expect(await found(3)).toMatchObject({ is: 'pending', because: 'pg3 has WAL up to 0/7000000' })
  expect(await found(4)).toMatchObject({ is: 'pending' })
  expect(await found(2)).toMatchObject({ is: 'satisfied' })
  expect(step.node).toBe(nodeName('pg2'))
})
