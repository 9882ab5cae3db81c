import { ReplctlError } from '../errors.ts'
import type { BackupMetadata } from '../postgres/backup-metadata.ts'
import { compareLsn } from '../postgres/lsn.ts'
import { walFileName } from '../postgres/wal-file.ts'
import { type BackupCatalog, byFinish, chainOf, type JudgedBackup, judgeBackups } from './backup-catalog.ts'

export interface ExpiryWish {
  /** So many full backups, the newest, with all that builds on them. */
  readonly keepFull: number | undefined
  /** Every moment of so many days can be restored. */
  readonly keepDays: number | undefined
  readonly nowMs: number
}

export interface Expiry {
  /** The oldest first; what builds on another one comes before it. */
  readonly remove: readonly string[]
  readonly keep: readonly string[]
  /** The first segment that a kept backup needs; null: nothing is pruned. */
  readonly firstSegment: string | null
}

/**
 * Decides what retention removes. Both rules together keep what either of them keeps. Only good backups count; the last
 * good full one is kept whatever the rules say. A damaged one goes when it is older than every good one that is kept.
 * @throws {ReplctlError} `no-backup` if there is no good one: then nothing may be removed
 */
export function judgeExpiry(catalog: BackupCatalog, wish: ExpiryWish): Expiry {
  const judged = judgeBackups(catalog)
  const good = judged.flatMap(({ isGood, metadata }) => (isGood && metadata !== null ? [metadata] : []))
  const fulls = good
    .filter((one) => one.kind === 'full')
    .toSorted(byFinish)
    .toReversed()
  if (fulls.length === 0) {
    throw new ReplctlError('no-backup', 'there is no good full backup, so nothing is removed', {
      hint: 'Take one first: replctl backup',
    })
  }
  const kept = new Set(keptFulls(fulls, wish).map(({ id }) => id))
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

/** Newest first. */
function keptFulls(fulls: readonly BackupMetadata[], wish: ExpiryWish): readonly BackupMetadata[] {
  const count = Math.max(1, wish.keepFull ?? 0)
  const inDays = fulls.filter((one) => isWithin(one, wish))
  // The moments before the first backup of the window need the one before it.
  const before = wish.keepDays === undefined ? [] : fulls.slice(inDays.length, inDays.length + 1)
  return [...new Set([...fulls.slice(0, count), ...inDays, ...before])]
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
