import { ReplctlError } from '../errors.ts'
import type { BackupMetadata } from '../postgres/backup-metadata.ts'
import { compareLsn } from '../postgres/lsn.ts'
import type { TimelineHistory } from '../postgres/timeline-history.ts'
import { walFileName } from '../postgres/wal-file.ts'
import {
  type BackupCatalog,
  byFinish,
  chainOf,
  historyOf,
  isBackupOn,
  type JudgedBackup,
  judgeBackups,
} from './backup-catalog.ts'
import { livingLine, livingTimeline, type PrimaryLine } from './living-line.ts'

export interface ExpiryWish {
  /** So many full backups, the newest of the cluster's line, with all that builds on them. */
  readonly keepFull: number | undefined
  /** Every moment of so many days can be restored. */
  readonly keepDays: number | undefined
  readonly nowMs: number
  /** The line that counts; null: no primary answers, then it is the newest one of the archive. */
  readonly primary: PrimaryLine | null
}

export interface Expiry {
  /** The oldest first; what builds on another one comes before it. */
  readonly remove: readonly string[]
  readonly keep: readonly string[]
  /** The first segment that a kept backup needs; null: nothing is pruned. */
  readonly firstSegment: string | null
}

/**
 * Decides what retention removes. Both rules together keep what either of them keeps. Only good backups count, and only
 * those of the line that the cluster is on: after a restore into the past, what was taken behind that moment restores a
 * past that was given up. The last good full one of the line is kept whatever the rules say. A damaged one goes when it is older than
 * every good one that is kept.
 * @throws {ReplctlError} `no-backup` if there is no good one on the line, `wrong-timeline` if the line is unknown: then
 *   nothing may be removed
 */
export function judgeExpiry(catalog: BackupCatalog, wish: ExpiryWish): Expiry {
  const judged = judgeBackups(catalog)
  const good = judged.flatMap(({ isGood, metadata }) => (isGood && metadata !== null ? [metadata] : []))
  const fulls = good
    .filter((one) => one.kind === 'full')
    .toSorted(byFinish)
    .toReversed()
  if (fulls.length === 0) throw noFull('there is no good full backup, so nothing is removed')
  const line = livingLine(catalog, wish.primary)
  if (line === null) throw unknownLine(livingTimeline(catalog, wish.primary))
  if (!fulls.some((one) => isBackupOn(line, one))) {
    throw noFull(`no good full backup leads to timeline ${line.timeline}, so nothing is removed`)
  }
  const kept = new Set(keptFulls(catalog, fulls, line, wish).map(({ id }) => id))
  // Incremental ones go with the full one they build on, unless they are young enough to keep it.
  for (const one of good.toSorted(byFinish)) {
    const chain = chainOf(one.id, catalog)
    if (chain.is === 'broken') continue
    const isYoung = one.kind === 'incremental' && isWithin(one, wish)
    if (isYoung) for (const { id } of chain.backups) kept.add(id)
    else if (chain.backups.every(({ id }) => id === one.id || kept.has(id)) && one.kind === 'incremental') {
      kept.add(one.id)
    }
  }
  const oldestKept = [...kept].toSorted()[0] ?? ''
  const stays = ({ id, isGood }: JudgedBackup) => (isGood ? kept.has(id) : id >= oldestKept)
  const keep = judged.filter(stays)
  return {
    remove: judged
      .filter((one) => !stays(one))
      .map(({ id }) => id)
      .toSorted()
      .toReversed(),
    keep: keep.map(({ id }) => id),
    firstSegment: firstSegmentOf(keep.flatMap(({ metadata }) => metadata ?? [])),
  }
}

/**
 * `fulls`: newest first. The number counts on the cluster's line alone; beside that an abandoned one stays as long as it is
 * one of so many newest of all, for who restored a moment ago may want to go back.
 */
function keptFulls(
  catalog: BackupCatalog,
  fulls: readonly BackupMetadata[],
  line: TimelineHistory,
  wish: ExpiryWish,
): readonly BackupMetadata[] {
  const onLine = fulls.filter((one) => isBackupOn(line, one))
  const count = Math.max(1, wish.keepFull ?? 0)
  const byNumber = [...onLine.slice(0, count), ...fulls.slice(0, wish.keepFull ?? 0)]
  return [...new Set([...byNumber, ...keptByDays(catalog, fulls, line, wish)])]
}

/**
 * The moments before the first backup of the window need the one before it: of the cluster's line, and of every other one
 * that was still lived on within the window. It was left before where a backup of a later timeline is older than that.
 */
function keptByDays(
  catalog: BackupCatalog,
  fulls: readonly BackupMetadata[],
  line: TimelineHistory,
  wish: ExpiryWish,
): readonly BackupMetadata[] {
  if (wish.keepDays === undefined) return []
  const older = fulls.filter((one) => !isWithin(one, wish))
  const livedOn = Math.max(0, ...older.map(({ timeline }) => timeline))
  const others = [...new Set(fulls.map(({ timeline }) => timeline))]
    .filter((timeline) => timeline >= livedOn && timeline !== line.timeline)
    .flatMap((timeline) => historyOf(catalog, timeline) ?? { timeline, switches: [] })
  const before = [line, ...others].flatMap((one) => older.find((backup) => isBackupOn(one, backup)) ?? [])
  return [...fulls.filter((one) => isWithin(one, wish)), ...before]
}

function isWithin(backup: BackupMetadata, { keepDays, nowMs }: ExpiryWish): boolean {
  return keepDays !== undefined && Date.parse(backup.finishedAt) >= nowMs - keepDays * 86_400_000
}

function firstSegmentOf(kept: readonly BackupMetadata[]): string | null {
  const oldest = kept.toSorted((a, b) => compareLsn(a.startLsn, b.startLsn))[0]
  return oldest === undefined
    ? null
    : walFileName(oldest.timeline, oldest.startLsn, oldest.walSegmentSizeBytes)
}

function noFull(message: string): ReplctlError {
  return new ReplctlError('no-backup', message, { hint: 'Take one first: replctl backup' })
}

function unknownLine(timeline: number): ReplctlError {
  return new ReplctlError(
    'wrong-timeline',
    `cannot tell which backups lead to timeline ${timeline}, so nothing is removed`,
    {
      detail: 'Neither a primary nor the archive has its history file.',
      hint: 'Make the primary reachable, then run the command again.',
    },
  )
}
