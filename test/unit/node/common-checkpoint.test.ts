import { expect, test } from 'vitest'
import { firstKeptAfterStop, segmentsBefore } from '../../../src/node/common-checkpoint.ts'
import { parseTimelineHistory } from '../../../src/postgres/timeline-history.ts'
import { lsn, runningNode, setting, stoppedNode } from '../some-cluster.ts'

const size = 16 * 1024 * 1024
const history = parseTimelineHistory('1\t0/3000148\tpromoted\n', 2)
const files = ['00000001', '00000002'].flatMap((timeline) =>
  [1, 2, 3, 4, 5, 7].map((number) => `${timeline}00000000${number.toString(16).padStart(8, '0')}`),
)

test.each([
  [
    'from the fork back, each under the timeline that the node has it by',
    '0/5000100',
    0n,
    [
      '000000020000000000000005',
      '000000020000000000000004',
      '000000020000000000000003',
      '000000010000000000000002',
      '000000010000000000000001',
    ],
    '0/1000000',
  ],
  ['not what goes when it is stopped', '0/5000100', 5n, ['000000020000000000000005'], '0/5000000'],
  ['not beyond a gap', '0/7000100', 0n, ['000000020000000000000007'], '0/7000000'],
  ['none where that of the fork is gone', '0/6000100', 0n, [], '0/6000100'],
] as const)('WAL of before the fork: %s', (_, fork, first, segments, from) => {
  expect(segmentsBefore({ fork: lsn(fork), history, files }, size, first)).toEqual({ segments, from })
})

test('what a writer keeps when it is stopped: its last segment, and what something holds', () => {
  const settings = { archive_mode: setting('off'), wal_keep_size: setting('32MB') }
  const slot = { name: 'shop_pg2', type: 'physical', restartLsn: lsn('0/4000100'), walStatus: 'reserved' }
  const writer = (changes: object) =>
    runningNode('pg1', { currentLsn: lsn('0/9000100'), settings, slots: [], ...changes })
  expect(firstKeptAfterStop(writer({}), size)).toBe(7n)
  expect(firstKeptAfterStop(writer({ settings: { archive_mode: setting('off') } }), size)).toBe(9n)
  expect(firstKeptAfterStop(writer({ slots: [slot] }), size)).toBe(4n)
  expect(firstKeptAfterStop(writer({ slots: [{ ...slot, walStatus: 'lost' }] }), size)).toBe(7n)
  // What its archive lacks, it keeps.
  expect(firstKeptAfterStop(writer({ settings: { archive_mode: setting('on') } }), size)).toBe(0n)
  expect(firstKeptAfterStop(stoppedNode('pg1', '0/9000100'), size)).toBe(0n)
})
