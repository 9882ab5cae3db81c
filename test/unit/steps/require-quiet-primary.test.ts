import { afterEach, expect, test, vi } from 'vitest'
import type { ReplicationSlot } from '../../../src/cluster/facts.ts'
import { nodeName } from '../../../src/cluster/names.ts'
import type { StepContext } from '../../../src/engine/step.ts'
import { requireServedSubscribers } from '../../../src/steps/require-quiet-primary.ts'
import { inventoryOf, lsn, runningNode, slot } from '../some-cluster.ts'

const inventory = inventoryOf(['pg1', 'pg2'])
const pg1 = nodeName('pg1')
const subscriber = slot('feed', '0/5000000', { type: 'logical' })

/** pg1 leads with these slots; its server says of its logical walsenders what `late` holds. */
function contextWith(slots: readonly ReplicationSlot[], late: readonly object[]): StepContext {
  const facts = runningNode('pg1', { currentLsn: lsn('0/5000148'), slots })
  const node = {
    name: 'pg1',
    settings: inventory.nodes[0],
    sql: async () => ({ value: async () => '0/5000148', json: async () => late }),
    lastSurvey: { at: performance.now(), facts },
  }
  const signal = new AbortController().signal
  return { on: () => node, node, signal, seenAt: new Map(), isChecking: true } as unknown as StepContext
}

afterEach(() => vi.useRealTimers())

// The server writes its shutdown checkpoint only when logical subscribers have confirmed everything.
test('a connected logical subscriber that is far behind is known before the primary is stopped, with what to do', async () => {
  const step = requireServedSubscribers(pg1, inventory)
  const late = [{ slot: 'feed', pid: 4711, bytes: 32_163_248 }]
  vi.useFakeTimers({ toFake: ['Date', 'setTimeout'] })
  const asked = step.check(contextWith([subscriber], late))
  // It may only be about to say how far it is.
  await vi.advanceTimersByTimeAsync(13_000)
  const found = await asked
  vi.useRealTimers()
  expect(found).toMatchObject({ is: 'refused', error: { code: 'lag-too-high', node: 'pg1' } })
  const error = found.is === 'refused' ? found.error : undefined
  expect(error?.message).toContain('"feed"')
  expect(error?.detail).toContain('32163248 bytes')
  expect(error?.hint).toContain('process 4711')
  expect(await step.check(contextWith([subscriber], []))).toMatchObject({ is: 'satisfied' })
  const idle = { ...subscriber, isActive: false }
  expect(await step.check(contextWith([idle], late))).toMatchObject({ is: 'satisfied' })
})
