import { expect, test } from 'vitest'
import type { Problem } from '../../../src/cluster/problem.ts'
import { createPaint } from '../../../src/report/paint.ts'
import { type VerifyResult, verifyPlanText, verifyText } from '../../../src/report/verify.ts'

const plain = createPaint(0)
const good: VerifyResult = {
  token: 'f3a9',
  lsn: '0/5000148',
  nodes: [
    { name: 'pg2', ok: true, latency_ms: 12, timeline: 3 },
    { name: 'pg3', ok: true, latency_ms: 1_400, timeline: 3 },
  ],
  archive: { ok: true, segment: '000000030000000000000005', latency_ms: 420 },
}

test('every standby and the archive with its latency', () => {
  expect(verifyText(good, [], plain)).toBe(
    `✓ pg2      row read back after 12 ms                      timeline 3
✓ pg3      row read back after 1.4 s                      timeline 3
✓ archive  000000030000000000000005 archived after 0.4 s
2 of 2 standbys replicated the row; the archive has it.
Test row f3a9 at 0/5000148.
`,
  )
})

test('a standby that replays late on purpose proves that it has received the row', () => {
  const late = { name: 'pg4', ok: true, latency_ms: null, timeline: 3 }
  const proof = { proof: 'received' as const, received_ms: 12, delay_seconds: 3_600 }
  const text = verifyText({ ...good, nodes: [...good.nodes, { ...late, ...proof }] }, [], plain)
  expect(text).toContain('✓ pg4      row received after 12 ms, replay delayed by 1 h')
  expect(text).toContain('3 of 3 standbys replicated the row')
})

test('a standby that has the row, and that something else is wrong with, is marked and said to have it', () => {
  const ill = { name: 'pg3', ok: false, latency_ms: 5, timeline: 3, proof: 'read' as const }
  const text = verifyText({ ...good, nodes: [good.nodes[0]!, ill], archive: null }, [], plain)
  expect(text).toContain('✗ pg3  row read back after 5 ms')
  expect(text).toContain('2 of 2 standbys replicated the row (something else is wrong with pg3).')
  const lost = { ...ill, latency_ms: null, proof: null }
  const without = verifyText({ ...good, nodes: [good.nodes[0]!, lost], archive: null }, [], plain)
  expect(without).toContain('✗ pg3  row not read back')
  expect(without).toContain('1 of 2 standbys replicated the row.')
})

test('without a standby nothing counts as proved', () => {
  const text = verifyText({ ...good, nodes: [], archive: null }, [], plain)
  expect(text).toContain('No standby was asked for the row: no replication was proved.')
  expect(text).not.toContain('0 of 0')
})

test('what failed is told with its problem', () => {
  const bad: VerifyResult = {
    token: 'f3a9',
    lsn: null,
    nodes: [{ name: 'pg2', ok: false, latency_ms: null, timeline: null }],
    archive: { ok: false, segment: null, latency_ms: null },
  }
  const problems: Problem[] = [
    {
      code: 'not-streaming',
      severity: 'error',
      node: 'pg2',
      message: 'pg2 does not stream from pg1',
      hint: 'Look.',
    },
  ]
  expect(verifyText(bad, problems, plain)).toBe(
    `✗ pg2      row not read back
✗ archive  the segment not archived
0 of 1 standby replicated the row; the archive did not get it.
Test row f3a9.

error: pg2 does not stream from pg1
hint: Look.
`,
  )
})

test('without an archive nothing is said of one', () => {
  expect(verifyText({ ...good, archive: null }, [], plain)).toContain('2 of 2 standbys replicated the row.\n')
})

test('a dry run tells what it would do, and no failure', () => {
  const tell = (primary: string | null, standbys: string[], hasArchive: boolean) =>
    verifyPlanText({ primary, standbys, hasArchive }, [], plain)
  expect(tell('pg1', ['pg2', 'pg3'], true)).toBe(
    'Would write a row on pg1, read it back on pg2, pg3, await a WAL segment in the archive, and remove the row again.\n',
  )
  expect(tell('pg1', [], false)).toBe('Would write a row on pg1, and remove the row again.\n')
  expect(tell(null, ['pg2'], false)).toBe('Would write nothing: no node accepts writes.\n')
})
