import { describe, expect, it } from 'vitest'
import { judgeExpiry } from '../../../src/cluster/judge-expiry.ts'
import type { BackupMetadata } from '../../../src/postgres/backup-metadata.ts'
import type { Lsn, TimelineId } from '../../../src/postgres/lsn.ts'
import { foundBackup, segments, someBackup, someCatalog } from '../some-backup.ts'

const nowMs = Date.parse('2026-11-30T00:00:00Z')
/** Taken at noon of a day of November, beginning in the segment of that number. */
const backupOf = (day: number, part: Partial<BackupMetadata> = {}) =>
  someBackup(`202611${day}T120000Z`, {
    finishedAt: `2026-11-${day}T12:00:10.000Z`,
    startLsn: `0/${day.toString(16)}000028` as Lsn,
    stopLsn: `0/${day.toString(16)}000100` as Lsn,
    ...part,
  })
const days = [24, 25, 26, 27, 28, 29] as const
const all = days.map((day) => backupOf(day))
const expire = (backups: Parameters<typeof someCatalog>[0], keepFull?: number, keepDays?: number) =>
  judgeExpiry(someCatalog(backups), { keepFull, keepDays, nowMs, primary: null })
const ids = (...some: number[]) => some.map((day) => `202611${day}T120000Z`)

describe('retention', () => {
  it('keeps the newest full ones, and WAL from the first of them on', () => {
    expect(expire(all, 2)).toEqual({
      remove: ids(27, 26, 25, 24),
      keep: ids(28, 29),
      firstSegment: segments(1, 28, 28)[0],
    })
  })

  it('by days keeps the one before the window too: its moments need it', () => {
    expect(expire(all, undefined, 2).keep).toEqual(ids(27, 28, 29))
    expect(expire(all, 1, 0).keep).toEqual(ids(29))
    expect(expire(all, undefined, 100).remove).toEqual([])
  })

  describe('after a restore into the past, onto timeline 2', () => {
    /** Left between the backups of the 24th and the 25th: those from the 25th on lead to a past that was given up. */
    const histories = new Map([[2, '1\t0/18800000\tbefore 2026-11-24 13:00:00+00\n']])
    const onTwo = (day: number, hour = 13) =>
      backupOf(day, {
        ...{ id: `202611${day}T${hour}0000Z`, finishedAt: `2026-11-${day}T${hour}:00:10.000Z` },
        timeline: 2 as TimelineId,
        startLsn: `0/${(day - 4).toString(16)}000028` as Lsn,
        stopLsn: `0/${(day - 4).toString(16)}000100` as Lsn,
      })
    const expireAfter = (
      backups: readonly BackupMetadata[],
      wish: { keepFull?: number; keepDays?: number },
      primary: { timeline: number; history: string | null } | null = null,
    ) =>
      judgeExpiry(
        someCatalog(backups, {
          ...{ histories, segments: new Set([...segments(1, 24, 30), ...segments(2, 24, 26)]) },
        }),
        { keepFull: wish.keepFull, keepDays: wish.keepDays, nowMs, primary },
      )

    it('P-37: the only backup of the line stays, although a later one of the abandoned timeline is there', () => {
      const kept = expireAfter([backupOf(24), backupOf(29)], { keepFull: 1 })
      expect(kept).toMatchObject({ remove: [], keep: ids(24, 29), firstSegment: segments(1, 24, 24)[0] })
      // Neither does the rule of days take it. When timeline 1 was left nobody can tell: its last one stays as well.
      expect(expireAfter([backupOf(24), backupOf(29)], { keepDays: 0 }).keep).toEqual(ids(24, 29))
    })

    it('the number counts on the line alone; an abandoned one goes when so many newer ones are there', () => {
      const restored = onTwo(29)
      expect(expireAfter([...all, restored], { keepFull: 2 })).toEqual({
        remove: ids(28, 27, 26, 25),
        keep: [...ids(24, 29), restored.id],
        firstSegment: segments(1, 24, 24)[0],
      })
      const two = [onTwo(29, 14), onTwo(29, 15)]
      expect(expireAfter([...all, ...two], { keepFull: 2 }).keep).toEqual(two.map(({ id }) => id))
    })

    it('by days keeps every moment of the window, on the line that was lived on then', () => {
      // The window begins on the 28th: then timeline 1 was lived on, and its moments need the backup of the 27th.
      const restored = onTwo(29)
      expect(expireAfter([...all, restored], { keepDays: 2 }).keep).toEqual([
        ...ids(24, 27, 28, 29),
        restored.id,
      ])
      // A day later the window holds nothing of timeline 1 before its last backups.
      const later = [onTwo(28, 14), onTwo(29)]
      expect(expireAfter([...all.slice(0, 4), ...later], { keepDays: 1 }).keep).toEqual(
        later.map(({ id }) => id),
      )
    })

    it('the primary says which line it is, not the highest number in the archive', () => {
      const kept = expireAfter(
        [backupOf(24), backupOf(28), onTwo(29)],
        { keepFull: 1 },
        { timeline: 1, history: null },
      )
      expect(kept.keep).toEqual([...ids(28), onTwo(29).id])
    })

    it('nothing is removed where nobody knows the line, or nothing leads to it', () => {
      const expireOn = (timeline: number, history: string | null) => () =>
        expireAfter(all, { keepFull: 1 }, { timeline, history })
      expect(expireOn(3, null)).toThrow(/cannot tell which backups lead to timeline 3/)
      expect(expireOn(3, '1\t0/1000000\tx\n')).toThrow(/no good full backup leads to timeline 3/)
    })
  })

  it('both rules together keep what either keeps', () => {
    expect(expire(all, 4, 1).keep).toEqual(ids(26, 27, 28, 29))
  })

  it('P-37: the last good full one stays, whatever the rules say', () => {
    expect(expire([backupOf(24)], 1, 0)).toMatchObject({ remove: [], keep: ids(24) })
    expect(expire(all, undefined, 0).keep).toEqual(ids(29))
  })

  it('P-37: damaged ones do not count, and go only when every kept one is newer', () => {
    const damaged = (day: number) =>
      foundBackup(backupOf(day), { check: { checkedAt: '', damage: ['base.tar.zst is damaged'] } })
    const found = [damaged(24), backupOf(25), backupOf(26), damaged(27), damaged(28)]
    expect(expire(found, 2)).toMatchObject({ remove: ids(24), keep: ids(25, 26, 27, 28) })
    expect(expire(found, 1)).toMatchObject({ remove: ids(25, 24), keep: ids(26, 27, 28) })
    expect(() => expire([damaged(24), damaged(25)], 1)).toThrow(/nothing is removed/)
  })

  it('P-36: keeps what an incremental backup builds on, and removes what builds on a removed one', () => {
    const chain = [
      backupOf(24),
      backupOf(25, { kind: 'incremental', parent: ids(24)[0] ?? null }),
      backupOf(26),
      backupOf(27, { kind: 'incremental', parent: ids(26)[0] ?? null }),
      backupOf(28, { kind: 'incremental', parent: ids(27)[0] ?? null }),
    ]
    expect(expire(chain, 1)).toEqual({
      remove: ids(25, 24),
      keep: ids(26, 27, 28),
      firstSegment: segments(1, 26, 26)[0],
    })
    // Young enough to be kept, it keeps its full one although that is old.
    expect(expire(chain.slice(0, 2), undefined, 6).keep).toEqual(ids(24, 25))
  })
})
