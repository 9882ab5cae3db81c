import { describe, expect, test } from 'vitest'
import { parseLsn } from '../../../src/postgres/lsn.ts'
import {
  commonAncestor,
  forkPoint,
  isInHistory,
  parseTimelineHistory,
  segmentOnLine,
  segmentsOffLine,
  timelinesPast,
} from '../../../src/postgres/timeline-history.ts'
import { fixture, majorsWith } from './fixture.ts'

const lsn = parseLsn
const reason = 'no recovery target specified'
const history = (timeline: number, ...switches: [number, string][]) =>
  parseTimelineHistory(switches.map(([from, at]) => `${from}\t${at}\t${reason}\n`).join('\n'), timeline)

describe.each(majorsWith('00000003.history'))('history files of PostgreSQL %i', (major) => {
  test('timeline 3 remembers both promotions', () => {
    const second = parseTimelineHistory(fixture(`pg${major}/00000002.history`), 2)
    const third = parseTimelineHistory(fixture(`pg${major}/00000003.history`), 3)
    expect(third.switches).toHaveLength(2)
    expect(third.switches[0]).toEqual(second.switches[0])
    expect(third.switches[1]).toMatchObject({ timeline: 2, reason })
    expect(forkPoint(third, 1)).toBe(forkPoint(second, 1))
  })
})

test('timeline 1 has no history', () => {
  expect(parseTimelineHistory('', 1)).toEqual({ timeline: 1, switches: [] })
})

test('comments and blank lines are passed over', () => {
  const text = '# made by hand\n\n1\t0/3000148\tat restore point "before"\n'
  expect(parseTimelineHistory(text, 2).switches).toEqual([
    { timeline: 1, leftAt: '0/3000148', reason: 'at restore point "before"' },
  ])
})

test.each([
  ['1\n', 'a line without an LSN'],
  ['one\t0/1\tx\n', 'a timeline that is no number'],
  ['2\t0/3000148\tx\n1\t0/4000000\tx\n', 'timelines that fall'],
  ['5\t0/3000148\tx\n', 'an ancestor later than the timeline itself'],
])('%j is refused: %s', (text) => {
  expect(() => parseTimelineHistory(text, 5)).toThrow(
    expect.objectContaining({ code: 'control-data-unreadable' }),
  )
})

describe('a node that was on another timeline', () => {
  const current = history(4, [1, '0/3000148'], [3, '0/5000000'])

  test.each([
    [1, '0/3000148', true],
    [1, '0/3000149', false],
    [2, '0/100', false],
    [3, '0/4FFFFFF', true],
    [3, '1/0', false],
    [4, '9/0', true],
  ])('at timeline %i, LSN %s: it can follow: %s', (timeline, at, canFollow) => {
    expect(isInHistory(current, timeline, lsn(at))).toBe(canFollow)
  })

  test('a timeline that is no ancestor has no fork point', () => {
    expect(forkPoint(current, 2)).toBeUndefined()
    expect(forkPoint(current, 4)).toBeUndefined()
  })
})

describe('under which name recovery asks for a segment', () => {
  const line = history(4, [1, '0/3000148'], [3, '0/5000000'])
  test.each([
    ['before the first promotion', 2n, '000000010000000000000002'],
    ['in which the second timeline began: it is whole there', 3n, '000000030000000000000003'],
    ['between two promotions', 4n, '000000030000000000000004'],
    ['at whose first byte a timeline began', 5n, '000000040000000000000005'],
    ['after the last promotion', 300n, '00000004000000010000002C'],
  ])('%s', (_name, number, name) => {
    expect(segmentOnLine(line, number, 16 * 1024 * 1024)).toBe(name)
  })
})

describe('where two histories part', () => {
  test.each([
    ['the same timeline', history(2, [1, '0/30']), history(2, [1, '0/30']), { timeline: 2, lsn: null }],
    ['one went on', history(1), history(2, [1, '0/30']), { timeline: 1, lsn: '0/30' }],
    ['both were promoted', history(2, [1, '0/40']), history(3, [1, '0/30']), { timeline: 1, lsn: '0/30' }],
    [
      'both were promoted from timeline 2',
      history(3, [1, '0/30'], [2, '0/50']),
      history(4, [1, '0/30'], [2, '0/100']),
      { timeline: 2, lsn: '0/50' },
    ],
    [
      'two timelines 2 of different origin share timeline 1 only',
      history(2, [1, '0/30']),
      history(2, [1, '0/40']),
      { timeline: 1, lsn: '0/30' },
    ],
  ])('%s', (_name, a, b, expected) => {
    expect(commonAncestor(a, b)).toEqual(expected)
    expect(commonAncestor(b, a)).toEqual(expected)
  })
})

test('segments of a dead timeline, and of an ancestor past the point where it was left, are off the line', () => {
  const history = parseTimelineHistory('1\t0/3000148\tno recovery target specified\n', 3)
  const onLine = ['000000010000000000000002', '000000010000000000000003', '000000030000000000000009']
  const off = ['000000010000000000000004', '000000020000000000000003', '000000040000000000000003']
  const others = ['00000002.history', '000000010000000000000003.partial']
  const size = 16 * 1024 * 1024
  expect(segmentsOffLine([...onLine, ...off, ...others], history, size)).toEqual(off)
  expect(segmentsOffLine(off, parseTimelineHistory('', 3), size)).toEqual([])
  expect(segmentsOffLine(off, parseTimelineHistory('', 1), size)).toEqual(off.slice(1))
})

test('timelines that a node went on to beside the primary', () => {
  const own = history(5, [1, '0/3000148'], [4, '0/5000148'])
  expect(timelinesPast(own, history(3, [1, '0/3000148']))).toEqual([4, 5])
  expect(timelinesPast(own, history(5, [1, '0/3000148']))).toEqual([])
})
