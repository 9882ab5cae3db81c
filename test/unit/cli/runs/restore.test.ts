import { expect, test } from 'vitest'
import { besideOf, requireAbsolute } from '../../../../src/cli/runs/restore.ts'
import { decisionOf } from '../../../../src/cli/runs/restore-answer.ts'
import type { Outcome } from '../../../../src/engine/run-outcome.ts'
import { inOrder } from '../../../../src/engine/step.ts'
import { createNode } from '../../../../src/node/node.ts'
import { createRecordingTransport } from '../../../../src/transport/recording-transport.ts'
import { inventoryOf } from '../../some-cluster.ts'

const node = inventoryOf(['pg1']).nodes[0]!

test('a restore or drill beside a node goes to an absolute path that is not the node’s own', () => {
  for (const path of ['scratch', '', './x', '/']) {
    expect(() => requireAbsolute(path)).toThrow('is not an absolute path')
  }
  expect(() => besideOf(`${node.postgres.dataDir}/`, node)).toThrow('is the node’s own data directory')
  expect(besideOf('/srv/scratch/', node)).toBe('/srv/scratch')
})

const record = { backup: '20261126T010000Z', timeline: 1, target: 'latest', phase: 'opened' }
const earlier = JSON.stringify({ ...record, newTimeline: 2, reachedLsn: '0/2000000' })

/** What is told: `begun` stands in restore.json, the record of an earlier restore in restored.json. */
async function toldOf(begun: string, state: 'planned' | 'applied', hasCrossed = false) {
  const transport = createRecordingTransport().answer('look how far the restore is', ({ args }) =>
    args.includes('restored.json') ? earlier : begun,
  )
  const told = { node, backup: record.backup, target: { kind: 'latest' }, isMember: true } as const
  const decision = decisionOf(told, createNode(node, 'shop', transport), inOrder([]))
  const outcome = { steps: [{ state }], hasCrossed, error: null } as unknown as Outcome
  return await decision.result!({} as never, outcome)
}

test('what an earlier restore had reached is not told of one that is only planned, or not over', async () => {
  expect(await toldOf('', 'planned')).toMatchObject({ timeline: null, reached_lsn: null })
  const now = JSON.stringify({ ...record, newTimeline: 3, reachedLsn: '0/3000000' })
  expect(await toldOf(now, 'applied', true)).toMatchObject({ timeline: 3, reached_lsn: '0/3000000' })
  expect(await toldOf('', 'applied')).toMatchObject({ timeline: 2, reached_lsn: '0/2000000' })
})
