import { expect, test } from 'vitest'
import { type NodeName, nodeName } from '../../../src/cluster/names.ts'
import type { StepContext } from '../../../src/engine/step.ts'
import { awaitBystander, awaitStreaming } from '../../../src/steps/await-streaming.ts'
import {
  connection,
  inventoryOf,
  lsn,
  receiverFrom,
  receivesFrom,
  runningNode,
  standbyNode,
} from '../some-cluster.ts'

const inventory = inventoryOf(['pg1', 'pg2', 'pg3'])
const [pg1, pg2] = [nodeName('pg1'), nodeName('pg2')]

/** pg1 shows a connection of pg2, which is told to receive from there, and receives from this address. */
function contextWith(
  senderHost: string,
  {
    isAwaitingDelay = false,
    isReplayPaused = false,
    state = 'streaming',
    status = 'streaming',
  }: { isAwaitingDelay?: boolean; isReplayPaused?: boolean; state?: string; status?: string } = {},
): StepContext {
  const at = lsn('0/5000148')
  const row = connection('pg2', 'async', { state, sentLsn: at, replayLsn: at })
  const survey = [
    runningNode('pg1', { currentLsn: at, replication: [row] }),
    standbyNode('pg2', at, {
      ...receivesFrom('10.0.0.11'),
      ...receiverFrom('pg2', senderHost, { status }),
      isAwaitingDelay,
      isReplayPaused,
    }),
  ]
  const on = (name: string) => ({
    name,
    settings: inventory.nodes.find((one) => one.name === name),
    openSql: async () => null,
    lastSurvey: { at: performance.now(), facts: survey.find((one) => one.name === name) },
  })
  return { on, node: on('pg2'), seenAt: new Map(), isChecking: true } as unknown as StepContext
}

test('it streams where both say so', async () => {
  expect(await awaitStreaming(pg2, pg1).check(contextWith('10.0.0.11'))).toMatchObject({ is: 'satisfied' })
})

// A walsender shows a standby that is gone until wal_sender_timeout; a walreceiver goes on until its settings are read again.
test('a bystander that somebody promoted meanwhile is not waited for, and is told of', async () => {
  const leads = runningNode('pg2', { currentLsn: lsn('0/5000148') })
  const told: string[] = []
  const ctx = contextWith('10.0.0.11')
  const on = (name: NodeName) => ({
    ...ctx.on(name),
    ...(name === pg2 ? { lastSurvey: { at: performance.now(), facts: leads } } : {}),
  })
  await awaitBystander(pg2, pg1).apply?.({
    ...{ ...ctx, on, node: on(pg2), timeoutMs: 60_000, signal: new AbortController().signal },
    ...{ progress: () => undefined, warn: ({ code }: { code: string }) => void told.push(code) },
  } as unknown as StepContext)
  expect(told).toEqual(['two-writers'])
})

test('a connection of earlier is no proof while it still receives from another one', async () => {
  expect(await awaitStreaming(pg2, pg1).check(contextWith('10.0.0.13'))).toEqual({
    is: 'pending',
    because: 'it still receives from 10.0.0.13',
  })
})

// Its sender went over to a new timeline beneath it; it is told where to go on once it has replayed what it holds back.
test('one whose walreceiver waits at the end of a timeline is waited for, but not for as long as its delay is', async () => {
  const atTheEnd = { state: 'startup', status: 'waiting' }
  expect(await awaitStreaming(pg2, pg1).check(contextWith('10.0.0.11', atTheEnd))).toEqual({
    is: 'pending',
    because: 'its state is startup',
  })
  const late = contextWith('10.0.0.11', { ...atTheEnd, isAwaitingDelay: true })
  expect(await awaitStreaming(pg2, pg1).check(late)).toMatchObject({
    is: 'satisfied',
    because: expect.stringContaining('holds a transaction back on purpose'),
  })
})

test('one whose replay is paused is known by that, not by what its former sender still shows', async () => {
  for (const paused of [
    contextWith('10.0.0.11', { isReplayPaused: true, state: 'startup', status: 'waiting' }),
    contextWith('10.0.0.13', { isReplayPaused: true }),
  ]) {
    expect(await awaitStreaming(pg2, pg1).check(paused)).toMatchObject({
      is: 'pending',
      because: 'its replay is paused: until that goes on it asks nobody for WAL',
    })
  }
})
