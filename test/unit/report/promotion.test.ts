import { describe, expect, test } from 'vitest'
import { nodeName } from '../../../src/cluster/names.ts'
import { createPaint } from '../../../src/report/paint.ts'
import { type PromotionResult, promotionText } from '../../../src/report/promotion.ts'
import { lsn } from '../some-cluster.ts'

const plain = createPaint(0)
const failover: PromotionResult = {
  old_primary: 'pg1',
  new_primary: 'pg2',
  timeline: 2,
  lsn: '0/5000148',
  repointed: ['pg3', 'pg4'],
  fenced: true,
  write_outage_ms: 2_345,
  lost_bytes: 16_777_216,
}
const verdict = (node: string, canLead: boolean, reason: string) => ({
  node: nodeName(node),
  canLead,
  reason,
  receivedLsn: canLead ? lsn('0/5000148') : null,
})

test('a failover says why it is this node, what it cost, and what to do next', () => {
  const verdicts = [
    verdict('pg2', true, 'received 0/5000148, priority 100'),
    verdict('pg3', true, 'received 0/5000148, priority 0'),
    verdict('pg1', false, 'its host cannot be reached'),
  ]
  expect(promotionText(failover, verdicts, plain)).toBe(
    `✓ pg2 is the primary now, on timeline 2, from 0/5000148 on.
  pg2  chosen          received 0/5000148, priority 100
  pg3  not chosen      received 0/5000148, priority 0
  pg1  could not lead  its host cannot be reached
pg3 and pg4 follow it.
Writes were not possible for 2.3 s.
At least 16 MiB of WAL is missing on it (16777216 bytes).
The old primary pg1 is fenced. It comes back with: replctl rejoin pg1
`,
  )
})

test('a switchover loses nothing, and its old primary follows', () => {
  const switchover = { ...failover, repointed: ['pg1'], fenced: false, write_outage_ms: 400, lost_bytes: 0 }
  expect(promotionText(switchover, [], plain)).toBe(
    `✓ pg2 is the primary now, on timeline 2, from 0/5000148 on.
pg1 follows it.
Writes were not possible for 0.4 s.
Nothing is lost.
`,
  )
})

describe('after a failover', () => {
  const lines = (changes: Partial<PromotionResult>) =>
    promotionText({ ...failover, repointed: [], write_outage_ms: null, ...changes }, [], plain)
      .split('\n')
      .slice(1, -1)

  test('an old primary that is not known to be fenced is a danger', () => {
    expect(lines({ fenced: false, lost_bytes: null })).toEqual([
      'How much WAL it lacks is not known.',
      'The old primary pg1 is not known to be fenced: make sure that it cannot accept writes.',
      'When its host is back: replctl status',
    ])
  })

  test('no known gap is not called no loss', () => {
    expect(lines({ lost_bytes: 0 })[0]).toBe('It is not known to lack any WAL.')
  })

  test('what the disk of the old primary told is said as such', () => {
    const measured = (lost_bytes: number) =>
      promotionText({ ...failover, write_outage_ms: null, lost_bytes }, [], plain, true)
    expect(measured(0)).toContain('\nNothing is lost.\n')
    expect(measured(62_368)).toContain(
      '\nIt lacks 61 KiB of WAL that pg1 has (62368 bytes): what was committed there is saved by its rejoin.\n',
    )
  })

  test('a node that was the primary before has nothing to tell', () => {
    expect(lines({ old_primary: null, fenced: false, lost_bytes: null })).toEqual([])
    expect(lines({ old_primary: 'pg2', fenced: false, lost_bytes: 0 })).toEqual([])
  })
})
