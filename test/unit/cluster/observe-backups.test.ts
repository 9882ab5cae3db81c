import { expect, test } from 'vitest'
import { observeBackups } from '../../../src/cluster/observe-backups.ts'
import type { Lsn } from '../../../src/postgres/lsn.ts'
import { foundBackup, someBackup, someCatalog } from '../some-backup.ts'

const nowMs = Date.parse('2026-11-26T12:00:00Z')
const hour = 3_600_000
const backupAt = (at: string) => someBackup(at, { finishedAt: `2026-11-${at.slice(6, 8)}T06:00:00.000Z` })
const young = backupAt('20261126T055900Z')
const old = backupAt('20261124T055900Z')

test('P-38: the age is that of the newest backup that can be relied on', () => {
  const damaged = foundBackup(young, { check: { checkedAt: '', damage: ['base.tar.zst is damaged'] } })
  const tiny = foundBackup(young, { files: new Map([['base.tar.zst', 0]]) })
  expect(observeBackups(someCatalog([old, young]), null, nowMs, null)).toEqual({
    state: {
      ...{ backups: 2, last_backup: young.id, last_backup_seconds: 21_600 },
      max_backup_age_seconds: null,
    },
    problems: [],
  })
  for (const bad of [damaged, tiny]) {
    const { state, problems } = observeBackups(someCatalog([old, bad]), 25 * hour, nowMs, null)
    expect(state).toMatchObject({ backups: 1, last_backup: old.id, last_backup_seconds: 194_400 })
    expect(problems.map(({ code, severity }) => [code, severity])).toEqual([
      ['backup-too-old', 'error'],
      ['backup-damaged', 'warning'],
    ])
    expect(problems[0]?.message).toBe('the last verified backup is 54 h old')
  }
})

test('P-38: an older one than the inventory allows is a problem, and so is none; without a limit neither is', () => {
  const judge = (catalog: ReturnType<typeof someCatalog> | null, limit: number | null) =>
    observeBackups(catalog, limit, nowMs, null).problems.map(({ code, message }) => `${code}: ${message}`)
  expect(judge(someCatalog([young]), 6 * hour)).toEqual([])
  expect(judge(someCatalog([young]), 6 * hour - 1000)).toEqual([
    'backup-too-old: the last verified backup is 6 h old',
  ])
  expect(judge(someCatalog([]), 25 * hour)).toEqual(['backup-too-old: there is no verified backup'])
  expect(judge(someCatalog([]), null)).toEqual([])
  expect(judge(someCatalog([old]), null)).toEqual([])
  // Where nobody could look, that is told elsewhere.
  expect(judge(null, 25 * hour)).toEqual([])
})

test('clocks that differ make no backup of the future', () => {
  const ahead = someBackup('20261126T120500Z', { finishedAt: '2026-11-26T12:05:00.000Z' })
  expect(observeBackups(someCatalog([ahead]), hour, nowMs, null)).toMatchObject({
    state: { last_backup_seconds: 0 },
    problems: [],
  })
})

test('P-38: after a restore into the past a backup of the abandoned timeline does not count, however young it is', () => {
  const onLine = backupAt('20261124T055900Z')
  const abandoned = someBackup('20261126T055900Z', {
    finishedAt: '2026-11-26T06:00:00.000Z',
    startLsn: '0/9000028' as Lsn,
    stopLsn: '0/9000100' as Lsn,
  })
  const histories = new Map([[2, '1\t0/5000148\tbefore 2026-11-25 00:00:00+00\n']])
  const { state, problems } = observeBackups(
    someCatalog([onLine, abandoned], { histories }),
    25 * hour,
    nowMs,
    null,
  )
  expect(state).toMatchObject({ backups: 2, last_backup: onLine.id, last_backup_seconds: 194_400 })
  expect(problems.map(({ code }) => code)).toEqual(['backup-too-old'])
  // The primary itself has its history, also where the archive has not got it yet.
  const primary = { timeline: 2, history: histories.get(2) ?? null }
  expect(observeBackups(someCatalog([onLine, abandoned]), null, nowMs, primary).state.last_backup).toBe(
    onLine.id,
  )
  // One that leads on timeline 1 has nothing to do with a timeline 2 that somebody made.
  const leading = { timeline: 1, history: null }
  expect(
    observeBackups(someCatalog([onLine, abandoned], { histories }), null, nowMs, leading).state.last_backup,
  ).toBe(abandoned.id)
})
