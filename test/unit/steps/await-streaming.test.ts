import { expect, test } from 'vitest'
import { nodeName } from '../../../src/cluster/names.ts'
import type { StepContext } from '../../../src/engine/step.ts'
import { awaitStreaming } from '../../../src/steps/await-streaming.ts'
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
function contextWith(senderHost: string): StepContext {
  const at = lsn('0/5000148')
  const row = connection('pg2', 'async', { sentLsn: at, replayLsn: at })
  const survey = [
    runningNode('pg1', { currentLsn: at, replication: [row] }),
    standbyNode('pg2', at, { ...receivesFrom('10.0.0.11'), ...receiverFrom('pg2', senderHost) }),
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
test('a connection of earlier is no proof while it still receives from another one', async () => {
  expect(await awaitStreaming(pg2, pg1).check(contextWith('10.0.0.13'))).toEqual({
    is: 'pending',
    because: 'it still receives from 10.0.0.13',
  })
})
