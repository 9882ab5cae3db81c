import { describe, expect, test } from 'vitest'
import { parseLsn } from '../../../src/postgres/lsn.ts'
import {
  endOfLocalWal,
  historyFileName,
  isArchivableFile,
  isBackupHistoryFile,
  isHistoryFile,
  isPartialFile,
  isSegmentFile,
  lastWalFileName,
  nextWalFileName,
  parseHistoryFileName,
  parseWalFileName,
  walFileName,
  walFileNamesBetween,
  walFileStart,
} from '../../../src/postgres/wal-file.ts'
import { jsonFixture, majorsWith } from './fixture.ts'

const mebi = 1024 * 1024
const lsn = parseLsn

interface Captured {
  readonly segmentSizeBytes: number
  readonly timeline: number
  readonly rows: readonly { lsn: string; name: string }[]
}

describe.each(majorsWith('wal-files.json'))('pg_walfile_name() of PostgreSQL %i', (major) => {
  const { rows, timeline, segmentSizeBytes } = jsonFixture<Captured>(`pg${major}/wal-files.json`)
  // At a segment's first byte 17 and newer name that segment, older versions the one before.
  const nameOf = major >= 17 ? walFileName : lastWalFileName
  test.each(rows)('$lsn is in $name', ({ lsn: at, name }) => {
    expect(nameOf(timeline, lsn(at), segmentSizeBytes)).toBe(name)
  })
})

test.each([
  [1, '0/0', 16, '000000010000000000000000'],
  [1, '1/0', 16, '000000010000000100000000'],
  [10, '16/B374D848', 16, '0000000A00000016000000B3'],
  [1, '16/B374D848', 1, '000000010000001600000B37'],
  [1, '16/B374D848', 1024, '000000010000001600000002'],
])('timeline %i, %s with segments of %i MiB: %s', (timeline, at, size, name) => {
  expect(walFileName(timeline, lsn(at), size * mebi)).toBe(name)
  expect(parseWalFileName(name).timeline).toBe(timeline)
})

test('a segment starts at its first byte and is followed by the next, over the 4 GiB border too', () => {
  expect(walFileStart('0000000A00000016000000B3', 16 * mebi)).toBe('16/B3000000')
  expect(nextWalFileName('0000000200000016000000FF', 16 * mebi)).toBe('000000020000001700000000')
  expect(nextWalFileName('000000020000001600000003', 1024 * mebi)).toBe('000000020000001700000000')
})

test.each([
  ['0/1000000', '0/1000000', []],
  ['0/1000000', '0/1000001', ['000000010000000000000001']],
  ['0/1FFFFFF', '0/2000000', ['000000010000000000000001']],
  ['0/1FFFFFF', '0/2000001', ['000000010000000000000001', '000000010000000000000002']],
  ['0/2000000', '0/1000000', []],
])('the segments that hold [%s, %s)', (from, to, names) => {
  expect(walFileNamesBetween(1, lsn(from), lsn(to), 16 * mebi)).toEqual(names)
})

test.each([
  ['000000010000000000000001', 'segment'],
  ['000000010000000000000001.partial', 'partial'],
  ['00000002.history', 'history'],
  ['000000010000000000000002.00000028.backup', 'backup history'],
  ['00000001000000000000000g', 'nothing'],
  ['000000010000000000000001.gz', 'nothing'],
  ['../00000002.history', 'nothing'],
  ['archive_status', 'nothing'],
  ['000000010000000000000001\n', 'nothing'],
])('%j is: %s', (name, kind) => {
  expect(isSegmentFile(name)).toBe(kind === 'segment')
  expect(isPartialFile(name)).toBe(kind === 'partial')
  expect(isHistoryFile(name)).toBe(kind === 'history')
  expect(isBackupHistoryFile(name)).toBe(kind === 'backup history')
  expect(isArchivableFile(name)).toBe(kind !== 'nothing')
})

test('history files carry their timeline in hexadecimal', () => {
  expect(historyFileName(26)).toBe('0000001A.history')
  expect(parseHistoryFileName('0000001A.history')).toBe(26)
  expect(() => parseHistoryFileName('1A.history')).toThrow(RangeError)
})

test('a name that is no segment is refused', () => {
  expect(() => parseWalFileName('00000002.history')).toThrow(RangeError)
})

describe('where a standby’s own WAL ends', () => {
  const mib = 1024 * 1024
  const place = (log: number, segment: number) =>
    [log, segment].map((part) => part.toString(16).toUpperCase().padStart(8, '0')).join('')
  const cases: readonly (readonly [string, readonly (readonly [string, number])[], string, string])[] = [
    ['it has nothing there', [], place(0, 5), place(0, 5)],
    [
      'the last one without a gap',
      [
        [place(0, 4), 1],
        [place(0, 5), 2],
        [place(0, 6), 3],
        [place(0, 8), 4],
      ],
      place(0, 5),
      place(0, 6),
    ],
    [
      'not one that is kept for reuse: it is older',
      [
        [place(0, 5), 20],
        [place(0, 6), 21],
        [place(0, 7), 3],
        [place(0, 8), 4],
      ],
      place(0, 5),
      place(0, 6),
    ],
    [
      'over the end of a log',
      [
        [place(0, 255), 1],
        [place(1, 0), 2],
      ],
      place(0, 255),
      place(1, 0),
    ],
  ]
  test.each(cases)('%s', (_, segments, from, end) => {
    expect(endOfLocalWal(segments, from, 16 * mib)).toBe(end)
  })
})
