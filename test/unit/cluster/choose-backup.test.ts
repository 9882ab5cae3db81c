import { describe, expect, it } from 'vitest'
import { chooseBackup } from '../../../src/cluster/choose-backup.ts'
import type { Lsn, TimelineId } from '../../../src/postgres/lsn.ts'
import { parseRecoveryTarget } from '../../../src/postgres/recovery-target.ts'
import { foundBackup, segments, someBackup, someCatalog } from '../some-backup.ts'

const early = someBackup('20261126T010000Z', { finishedAt: '2026-11-26T01:00:10.000Z' })
const late = someBackup('20261126T050000Z', {
  finishedAt: '2026-11-26T05:00:10.000Z',
  startLsn: '0/6000028' as Lsn,
  stopLsn: '0/6000100' as Lsn,
})
const after = someBackup('20261126T070000Z', {
  finishedAt: '2026-11-26T07:00:10.000Z',
  startLsn: '0/8000028' as Lsn,
  stopLsn: '0/8000100' as Lsn,
  timeline: 2 as TimelineId,
})

/** Timeline 1 was left within its segment 7; what the old primary wrote in segments 7 to 9 is on nobody's line. */
const forked = {
  segments: new Set([...segments(1, 1, 9), ...segments(2, 7, 9)]),
  histories: new Map([[2, '1\t0/7000148\tno recovery target specified\n']]),
}

const choose = (
  catalog: Parameters<typeof chooseBackup>[0],
  flags: Parameters<typeof parseRecoveryTarget>[0] = {},
  part: { backup?: string; timeline?: number; primary?: { timeline: number; history: string | null } } = {},
) =>
  chooseBackup(catalog, {
    target: parseRecoveryTarget(flags),
    backup: undefined,
    timeline: undefined,
    primary: null,
    ...part,
  })

const codeOf = (work: () => unknown): string => {
  try {
    work()
    return 'nothing'
  } catch (thrown) {
    return (thrown as { code: string }).code
  }
}

const hintOf = (work: () => unknown): string => {
  try {
    work()
    return 'nothing'
  } catch (thrown) {
    return (thrown as { hint: string }).hint
  }
}

describe('the choice of a backup to restore', () => {
  it('is the newest one, for the latest', () => {
    const choice = choose(someCatalog([early, late]))
    expect([choice.backup.id, choice.timeline, choice.lastSegment]).toEqual([
      late.id,
      1,
      segments(1, 9, 9)[0],
    ])
  })

  it('is the newest one that ended before the target', () => {
    const catalog = someCatalog([early, late])
    expect(choose(catalog, { toTime: '2026-11-26 05:00:09Z' }).backup.id).toBe(early.id)
    expect(choose(catalog, { toTime: '2026-11-26 05:00:11Z' }).backup.id).toBe(late.id)
    expect(choose(catalog, { toLsn: '0/60000FF' }).backup.id).toBe(early.id)
    expect(choose(catalog, { toLsn: '0/6000100' }).backup.id).toBe(late.id)
  })

  it('P-33: before the oldest backup there is nothing, and the oldest usable time is named', () => {
    const catalog = someCatalog([early, late])
    expect(() => choose(catalog, { toTime: '2026-11-26 01:00:00Z' })).toThrow(
      /oldest usable time is 2026-11-26T01:00:10.000Z/,
    )
    expect(codeOf(() => choose(catalog, { toLsn: '0/1000000' }))).toBe('target-too-early')
    expect(codeOf(() => choose(catalog, { toTime: '2026-11-26 03:00:00Z' }, { backup: late.id }))).toBe(
      'target-too-early',
    )
  })

  it('K15: follows the line of the newest timeline, also to a moment before the failover', () => {
    const catalog = someCatalog([early, late, after], forked)
    expect(choose(catalog, { toTime: '2026-11-26 02:00:00Z' })).toMatchObject({ backup: early, timeline: 2 })
    expect(choose(catalog)).toMatchObject({ backup: after, timeline: 2, lastSegment: segments(2, 9, 9)[0] })
    expect(choose(catalog, {}, { timeline: 1 })).toMatchObject({ backup: late, timeline: 1 })
  })

  it('K15: a backup that was taken after the lines had parted is not used for the other line', () => {
    const astray = someBackup('20261126T060000Z', {
      startLsn: '0/8000028' as Lsn,
      stopLsn: '0/8000200' as Lsn,
    })
    const catalog = someCatalog([early, astray], forked)
    expect(choose(catalog)).toMatchObject({ backup: early, timeline: 2 })
    expect(choose(catalog, {}, { backup: astray.id })).toMatchObject({ backup: astray, timeline: 1 })
    expect(codeOf(() => choose(catalog, {}, { backup: astray.id, timeline: 2 }))).toBe('wrong-timeline')
  })

  it('K15: an older, abandoned timeline is not restored unless it is asked for', () => {
    const astray = someBackup('20261126T060000Z', {
      startLsn: '0/8000028' as Lsn,
      stopLsn: '0/8000200' as Lsn,
    })
    const catalog = someCatalog([astray], forked)
    expect(codeOf(() => choose(catalog))).toBe('wrong-timeline')
    expect(() => choose(catalog)).toThrow(/no good backup leads to timeline 2/)
    expect(hintOf(() => choose(catalog, { toTime: '2026-11-26 09:00:00Z' }))).toContain('--timeline 1')
    expect(choose(catalog, {}, { timeline: 1 })).toMatchObject({ backup: astray, timeline: 1 })
    expect(choose(catalog, {}, { backup: astray.id })).toMatchObject({ backup: astray, timeline: 1 })
  })

  it('follows the line of the primary, where one answers: a higher timeline in the archive is somebody else’s', () => {
    const catalog = someCatalog([early, after], forked)
    const leads = (timeline: number, history: string | null) => ({ primary: { timeline, history } })
    expect(choose(catalog, {}, leads(1, null))).toMatchObject({ backup: early, timeline: 1 })
    expect(choose(catalog, {}, leads(2, null))).toMatchObject({ backup: after, timeline: 2 })
    expect(choose(catalog, {}, { ...leads(1, null), timeline: 2 })).toMatchObject({
      backup: after,
      timeline: 2,
    })
    // Its history file may not be in the archive yet: the recovery would not find its way.
    const bare = someCatalog([early], { ...forked, histories: new Map() })
    expect(codeOf(() => choose(bare, {}, leads(2, forked.histories.get(2) ?? null)))).toBe('wrong-timeline')
  })

  it('P-34: a damaged backup is never chosen, and not taken when it is named', () => {
    const damaged = foundBackup(late, { check: { checkedAt: '', damage: ['base.tar.zst is damaged'] } })
    expect(choose(someCatalog([early, damaged])).backup.id).toBe(early.id)
    expect(() => choose(someCatalog([early, damaged]), {}, { backup: late.id })).toThrow(/cannot be restored/)
    expect(codeOf(() => choose(someCatalog([damaged])))).toBe('no-backup')
    expect(codeOf(() => choose(someCatalog([])))).toBe('no-backup')
    expect(codeOf(() => choose(someCatalog([early]), {}, { backup: 'x' }))).toBe('no-backup')
  })

  it('a gap in the archive is no end of it', () => {
    const gap = { segments: new Set([...segments(1, 1, 4), ...segments(1, 6, 9)]) }
    expect(codeOf(() => choose(someCatalog([early], gap)))).toBe('wal-missing')
    expect(codeOf(() => choose(someCatalog([early], gap), { toLsn: '0/5000100' }))).toBe('target-unreachable')
    expect(choose(someCatalog([early], gap), { toLsn: '0/4000100' }).backup.id).toBe(early.id)
    // A newer backup has nothing to do with an older gap.
    expect(choose(someCatalog([early, late], gap)).backup.id).toBe(late.id)
    expect(choose(someCatalog([early], gap), { toImmediate: true }).backup.id).toBe(early.id)
  })

  it('what a gap leaves to be reached is told, as a target that is reached', () => {
    const hintOf = (segmentsThere: string[]): string => {
      try {
        choose(someCatalog([early], { segments: new Set(segmentsThere) }))
        return ''
      } catch (thrown) {
        return (thrown as { hint: string }).hint
      }
    }
    const hint = hintOf([...segments(1, 1, 4), ...segments(1, 6, 9)])
    expect(hint).toContain('--to-lsn 0/4000000.')
    const gap = someCatalog([early], { segments: new Set([...segments(1, 1, 4), ...segments(1, 6, 9)]) })
    expect(choose(gap, { toLsn: '0/4000000' }).backup.id).toBe(early.id)
    expect(hintOf([...segments(1, 1, 2), ...segments(1, 6, 9)])).toContain(
      `--backup ${early.id} --to-immediate`,
    )
  })

  it('a backup brings the WAL of its own range along', () => {
    const pruned = { segments: new Set(segments(1, 3, 9)) }
    expect(choose(someCatalog([early], pruned)).backup.id).toBe(early.id)
  })

  it('an LSN beyond the archive is refused before anything is copied', () => {
    // A target is reached by a record that begins at it or later: where the last segment ends, none does.
    expect(codeOf(() => choose(someCatalog([early]), { toLsn: '0/A000000' }))).toBe('target-unreachable')
    expect(choose(someCatalog([early]), { toLsn: '0/9FFFFFF' }).backup.id).toBe(early.id)
  })

  it('mode stream: an LSN in the segment under way can be reached, as long as there is no newer timeline', () => {
    const partials = new Set(segments(1, 10, 10))
    const streamed = someCatalog([early], { partials })
    expect(choose(streamed, { toLsn: '0/A000100' }).backup.id).toBe(early.id)
    expect(codeOf(() => choose(streamed, { toLsn: '0/B000001' }))).toBe('target-unreachable')
    const gap = someCatalog([early], { partials: new Set(segments(1, 11, 11)) })
    expect(codeOf(() => choose(gap, { toLsn: '0/A000100' }))).toBe('target-unreachable')
    const left = someCatalog([early], { ...forked, partials })
    expect(codeOf(() => choose(left, { toLsn: '0/A000100' }, { timeline: 1 }))).toBe('target-unreachable')
    const next = { ...forked, segments: new Set(segments(1, 1, 6)), partials: new Set(segments(2, 7, 7)) }
    expect(choose(someCatalog([early], next), { toLsn: '0/7000200' })).toMatchObject({ timeline: 2 })
  })

  it('K15: a line of which only the history file is there is not recovered through what was abandoned', () => {
    const bare = { ...forked, segments: new Set(segments(1, 1, 9)) }
    const told = () => choose(someCatalog([early], bare))
    expect(codeOf(told)).toBe('wal-missing')
    expect(told).toThrow(new RegExp(segments(1, 7, 7)[0] ?? ''))
    expect(codeOf(() => choose(someCatalog([early], bare), { toTime: '2026-11-26 09:00:00Z' }))).toBe(
      'wal-missing',
    )
    expect(choose(someCatalog([early], bare), { toLsn: '0/6FFFFFF' }).timeline).toBe(2)
    expect(choose(someCatalog([early], bare), { toImmediate: true }).timeline).toBe(2)
    // Where the old primary had not gone on, the archive just ends there; what is streamed counts.
    expect(choose(someCatalog([early], { ...bare, segments: new Set(segments(1, 1, 6)) })).timeline).toBe(2)
    expect(choose(someCatalog([early], { ...bare, partials: new Set(segments(2, 7, 7)) })).timeline).toBe(2)
  })

  it('a timeline without its history file is not guessed', () => {
    const catalog = someCatalog([early], { ...forked, histories: new Map() })
    expect(codeOf(() => choose(catalog))).toBe('wrong-timeline')
    expect(choose(catalog, {}, { timeline: 1 }).timeline).toBe(1)
  })

  it('P-36: an incremental backup comes with its chain', () => {
    const next = someBackup('20261126T060000Z', {
      kind: 'incremental',
      parent: late.id,
      stopLsn: '0/7000000' as Lsn,
      startLsn: '0/6000200' as Lsn,
    })
    expect(choose(someCatalog([late, next])).chain.map(({ id }) => id)).toEqual([late.id, next.id])
  })
})
