import { describe, expect, test } from 'vitest'
import { ownHistory, parseWalEnd, walKeptFrom } from '../../../src/node/own-wal.ts'
import { control, lsn, stoppedNode, timeline } from '../some-cluster.ts'

describe('the end of WAL, as pg_waldump shows it', () => {
  const record =
    'rmgr: Transaction len (rec/tot):     34/    34, tx:        725, lsn: 0/0316D338, prev 0/0316D2F8, desc: COMMIT 2026-11-26 05:49:06 UTC'
  test.each([
    [
      'the last record, and where the next would begin',
      record,
      'pg_waldump: error: error in WAL record at 0/316D338: invalid record length at 0/316D360: wanted 24, got 0',
      { lastRecord: '0/316D338', endLsn: '0/316D360' },
    ],
    [
      'the last record of a segment after which there is none',
      record,
      'pg_waldump: error: could not find file "000000010000000000000004": No such file or directory',
      { lastRecord: '0/316D338', endLsn: '0/316D360' },
    ],
    [
      'nothing after the fork',
      '',
      'pg_waldump: error: could not find a valid record after 0/3000000',
      { lastRecord: 'none', endLsn: null },
    ],
    [
      'a program that is missing tells nothing',
      '',
      'sh: 1: pg_waldump: not found',
      { lastRecord: 'unknown', endLsn: null },
    ],
    ['nothing at all tells nothing', '', '', { lastRecord: 'unknown', endLsn: null }],
  ])('%s', (_, records, complaint, expected) => {
    expect(parseWalEnd(records, complaint)).toEqual(expected)
  })
})

test('WAL is kept from the first segment on after which none is missing', () => {
  const names = [
    '000000010000000000000001',
    '000000010000000000000003',
    '000000020000000000000004',
    '00000002.history',
  ]
  expect(walKeptFrom(names, lsn('0/4000100'), 16 * 1024 * 1024)).toBe('0/3000000')
  expect(walKeptFrom(names, lsn('0/9000100'), 16 * 1024 * 1024)).toBeNull()
})

test('a segment that is left of a timeline from which the node was rewound is not taken for the timeline it is on', () => {
  const files = {
    segments: ['00000002000000000000000A', '00000003000000000000000A'],
    histories: new Map([[2, '1\t0/9000000\tno recovery target specified\n']]),
    ...{ hasRewindProgram: true, hasWaldumpProgram: true, bootId: '1' },
  }
  const node = stoppedNode('pg1', '0/A000028', { control: control({ timeline: timeline(1) }) })
  expect(ownHistory(node, files).timeline).toBe(2)
  expect(ownHistory(node, { ...files, histories: new Map([...files.histories, [3, '']]) }).timeline).toBe(3)
})
