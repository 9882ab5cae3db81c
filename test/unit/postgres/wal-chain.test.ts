import { describe, expect, it } from 'vitest'
import type { Lsn } from '../../../src/postgres/lsn.ts'
import { parseTimelineHistory } from '../../../src/postgres/timeline-history.ts'
import { isOnLine, walChain } from '../../../src/postgres/wal-chain.ts'
import { segments } from '../some-backup.ts'

const chain = (names: readonly string[], history: string, timeline: number, from = '0/2000028') =>
  walChain({
    segments: new Set(names),
    history: parseTimelineHistory(history, timeline),
    from: from as Lsn,
    fromTimeline: 1,
    segmentSizeBytes: 16 * 2 ** 20,
  })

describe('the chain of WAL in an archive', () => {
  it('reaches to the newest segment', () => {
    expect(chain(segments(1, 1, 9), '', 1)).toMatchObject({ last: segments(1, 9, 9)[0], missing: [] })
  })

  it('ends before a gap, and names what is missing', () => {
    const names = [...segments(1, 1, 4), ...segments(1, 6, 9)]
    expect(chain(names, '', 1)).toMatchObject({ last: segments(1, 4, 4)[0], missing: segments(1, 5, 5) })
  })

  it('does not need what lies before its start', () => {
    expect(chain(segments(1, 2, 3), '', 1).missing).toEqual([])
    expect(chain(segments(1, 3, 3), '', 1)).toMatchObject({ last: null, missing: segments(1, 2, 2) })
  })

  it('goes over to the next timeline in the segment in which the old one was left', () => {
    const names = [...segments(1, 1, 4), ...segments(2, 5, 7)]
    expect(chain(names, '1\t0/5000148\tno recovery target specified\n', 2)).toMatchObject({
      last: segments(2, 7, 7)[0],
      missing: [],
    })
    // What the old primary wrote after the fork is not part of the line.
    expect(chain([...names, ...segments(1, 5, 9)], '1\t0/5000148\tx\n', 2).last).toBe(segments(2, 7, 7)[0])
  })

  it('misses the end of a timeline that never reached the archive', () => {
    const names = [...segments(1, 1, 3), ...segments(2, 5, 5)]
    expect(chain(names, '1\t0/5000148\tx\n', 2)).toMatchObject({
      last: segments(1, 3, 3)[0],
      missing: segments(1, 4, 4),
    })
  })

  it('ends where a timeline was left of which nothing else is there yet', () => {
    expect(chain(segments(1, 1, 4), '1\t0/5000000\tx\n', 2)).toMatchObject({
      last: segments(1, 4, 4)[0],
      missing: [],
    })
  })

  it('K15: tells of what was abandoned and would be read in the place of what is not there', () => {
    const fork = '1\t0/5000148\tno recovery target specified\n'
    const astrayOf = (...args: Parameters<typeof chain>) => chain(...args).astray
    // Timeline 2 has only its history file, and the old primary had gone on.
    expect(astrayOf(segments(1, 1, 9), fork, 2)).toBe(segments(1, 5, 5)[0])
    expect(astrayOf(segments(1, 1, 4), fork, 2)).toBeNull()
    // Its first segment is missing, later ones are there.
    expect(astrayOf([...segments(1, 1, 9), ...segments(2, 6, 8)], fork, 2)).toBe(segments(1, 5, 5)[0])
    // Behind its first one nothing leads back.
    expect(astrayOf([...segments(1, 1, 9), ...segments(2, 5, 6)], fork, 2)).toBeNull()
    expect(astrayOf([...segments(1, 1, 9), ...segments(2, 5, 5), ...segments(2, 7, 7)], fork, 2)).toBeNull()
    // Of three the middle one is what is found.
    const twice = `${fork}2\t0/7000148\tx\n`
    expect(astrayOf([...segments(1, 1, 4), ...segments(2, 5, 9)], twice, 3)).toBe(segments(2, 7, 7)[0])
    // A segment missing in the middle of a timeline is an end, and no way elsewhere.
    expect(astrayOf([...segments(1, 1, 2), ...segments(1, 4, 9)], fork, 2)).toBeNull()
  })

  it('has nothing where there is nothing', () => {
    expect(chain([], '', 1)).toMatchObject({ last: null, missing: [] })
  })

  it('a backup is on a line if it ended before its timeline was left', () => {
    const history = parseTimelineHistory('1\t0/5000148\tx\n', 3)
    expect(isOnLine(history, 1, '0/5000148' as Lsn)).toBe(true)
    expect(isOnLine(history, 1, '0/6000000' as Lsn)).toBe(false)
    expect(isOnLine(history, 2, '0/4000000' as Lsn)).toBe(false)
    expect(isOnLine(history, 3, '0/9000000' as Lsn)).toBe(true)
  })
})
