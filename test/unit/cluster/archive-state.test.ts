import { describe, expect, test } from 'vitest'
import { type ArchiveMeasure, observeArchive } from '../../../src/cluster/archive-state.ts'
import type { Archiver, NodeFacts } from '../../../src/cluster/facts.ts'
import type { Inventory } from '../../../src/cluster/inventory.ts'
import { judgeArchiving } from '../../../src/cluster/judge-archiving.ts'
import { ReplctlError } from '../../../src/errors.ts'
import { someCatalog } from '../some-backup.ts'
import { connection, inventoryOf, lsn, ours, runningNode, setting, slot } from '../some-cluster.ts'

const gigabyte = 2 ** 30
const measure: ArchiveMeasure = {
  isThere: true,
  isWritable: true,
  files: 10,
  sizeBytes: 5 * gigabyte,
  newestSeconds: 30,
  bytesPerDay: 2 * gigabyte,
  totalBytes: 100 * gigabyte,
  usedBytes: 50 * gigabyte,
  freeBytes: 50 * gigabyte,
}
const archiver: Archiver = {
  archivedCount: 10,
  failedCount: 0,
  lastArchivedWal: '000000010000000000000004',
  lastFailedWal: null,
  isFailing: false,
  readyCount: 1,
  oldestReady: '000000010000000000000005',
  oldestReadySeconds: 2,
  lastArchivedSeconds: 31.25,
}
const inventory = (mode: 'push' | 'stream' = 'push') =>
  ({
    ...inventoryOf(['pg1']),
    archive: { host: 'backup1', dir: '/a', mode, maxBackupAgeMs: 3_600_000 },
  }) as unknown as Inventory
const primary = (changes: object = {}): NodeFacts =>
  runningNode('pg1', {
    currentLsn: lsn('0/6000100'),
    timeline: 1 as never,
    settings: { wal_segment_size: setting(String(16 * 2 ** 20)) },
    archiver,
    ...changes,
  })
const observe = (measured: ArchiveMeasure | ReplctlError, facts = primary(), mode?: 'stream') =>
  observeArchive({
    inventory: inventory(mode),
    primary: facts,
    systemIdentifier: ours,
    measured,
    catalog: null,
    nowMs: 0,
  })

test('a cluster that is not built yet has no archive where its directory cannot be made', () => {
  const seen = { inventory: inventory(), primary: undefined, systemIdentifier: null, catalog: null, nowMs: 0 }
  const closed = observeArchive({ ...seen, measured: { ...measure, isThere: false, isWritable: false } })
  expect(closed.state?.ok).toBe(false)
  expect(closed.problems).toMatchObject([
    { code: 'archive-failing', message: 'cannot write to the archive /a on backup1' },
  ])
  expect(closed.problems[0]?.hint).toContain('install -d')
  const open = observeArchive({ ...seen, measured: { ...measure, isThere: false } })
  expect(open).toMatchObject({ state: { ok: true }, problems: [] })
})

test('lag is what would be lost with the disk of the primary, time to full by the pace of a day', () => {
  const { state, problems } = observe(measure)
  expect(problems).toEqual([])
  expect(state).toMatchObject({
    ok: true,
    reachable: true,
    last_archived: '000000010000000000000004',
    last_archived_seconds: 31.3,
    lag_segments: 1,
    lag_bytes: 16 * 2 ** 20 + 0x100,
    lag_seconds: 31.3,
    last_failure: null,
    until_full_seconds: 25 * 86_400,
  })
})

test('a label that was archived last says nothing of the lag: that all is archived does', () => {
  const label = { ...archiver, lastArchivedWal: '000000010000000000000003.00000028.backup' }
  expect(observe(measure, primary({ archiver: label })).state?.lag_bytes).toBeNull()
  const quiet = { ...label, readyCount: 0 }
  expect(observe(measure, primary({ archiver: quiet })).state?.lag_bytes).toBe(0x100)
})

test('what keeps the primary from archiving is no good state, whether an attempt failed or not', () => {
  expect(observe(measure, primary({ archiver: { ...archiver, isFailing: true } })).state?.ok).toBe(false)
  const waits = { ...archiver, oldestReadySeconds: 700 }
  expect(observe(measure, primary({ archiver: waits })).state?.ok).toBe(true)
  const hangs = { ...waits, lastArchivedSeconds: 700 }
  expect(observe(measure, primary({ archiver: hangs })).state?.ok).toBe(false)
  const off = { wal_segment_size: setting('16777216'), archive_mode: setting('off') }
  expect(observe(measure, primary({ settings: off })).state?.ok).toBe(false)
})

test('P-38: without a word of the primary, the newest file there says when something was archived last', () => {
  const away = observeArchive({
    ...{ inventory: inventory(), primary: undefined, systemIdentifier: ours, measured: measure },
    ...{ catalog: someCatalog([]), nowMs: 0 },
  })
  expect(away.state).toMatchObject({
    last_archived: null,
    last_archived_seconds: 30,
    max_backup_age_seconds: 3600,
  })
  expect(away.problems.map(({ code }) => code)).toEqual(['backup-too-old'])
  // WAL arrives all the same.
  expect(away.state?.ok).toBe(true)
})

describe('what is wrong on the archive host is told', () => {
  const codes = (measured: ArchiveMeasure | ReplctlError) =>
    observe(measured).problems.map((one) => [one.code, one.severity, one.node])

  test.each([
    ['a host that cannot be reached', new ReplctlError('host-unreachable', 'x'), 'host-unreachable', 'error'],
    ['a changed key', new ReplctlError('host-key-changed', 'x'), 'host-key-changed', 'error'],
    ['a disk that is not mounted', { ...measure, isThere: false }, 'archive-failing', 'error'],
    ['a directory that cannot be written', { ...measure, isWritable: false }, 'archive-failing', 'error'],
    ['a full disk', { ...measure, freeBytes: 4096 }, 'disk-full', 'error'],
    ['a disk that is full tomorrow', { ...measure, freeBytes: gigabyte }, 'disk-full', 'warning'],
  ] as const)('%s', (_what, measured, code, severity) => {
    expect(codes(measured)).toEqual([[code, severity, 'archive host']])
    expect(observe(measured).state?.ok).toBe(severity === 'warning')
  })
})

describe('WAL that is streamed', () => {
  const receiver = connection('archive', 'async', { flushLsn: lsn('0/6000000') })

  const quiet = { ...archiver, readyCount: 0, oldestReady: null }

  test('is behind by what is not yet on disk there', () => {
    const { state } = observe(measure, primary({ replication: [receiver] }), 'stream')
    expect(state).toMatchObject({ ok: true, mode: 'stream', lag_bytes: 0x100, lag_segments: 0 })
  })

  test('is missed when nobody receives it, with what its slot keeps', () => {
    const judge = (changes: object) =>
      judgeArchiving(inventory('stream'), primary({ archiver: quiet, ...changes }))
    expect(judge({ replication: [receiver] })).toEqual([])
    const told = (changes: object) => judge(changes)[0]?.[0]
    expect(told({})).toMatchObject({ code: 'archive-failing', node: 'pg1' })
    expect(told({})?.detail).toContain('There is no slot')
    expect(told({ slots: [slot('shop_archive', '0/5000000')] })?.detail).toContain('keeps the WAL')
    expect(observe(measure, primary(), 'stream').state?.ok).toBe(false)
  })
})
