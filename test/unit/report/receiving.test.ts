import { expect, test } from 'vitest'
import { receivingText } from '../../../src/report/receiving.ts'
import { observed, runningNode, standbyNode } from '../some-cluster.ts'

test('a standby that holds a transaction back, and asks nobody for WAL, is not said to stream', () => {
  const late = standbyNode('pg3', '0/5000148', { isAwaitingDelay: true, receiver: null })
  const { topology } = observed([runningNode('pg1', {}), standbyNode('pg2', '0/6000000'), late])
  const text = (name: string) =>
    receivingText(
      topology.nodes.find((one) => one.settings.name === name),
      'pg1',
    )
  expect(text('pg2')).toBe('streams from pg1')
  expect(text('pg3')).toBe(
    'follows pg1, which it asks for WAL once it has replayed the transaction that it holds back on purpose',
  )
})
