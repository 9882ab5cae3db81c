import { ReplctlError } from '../errors.ts'
import type { BackupMetadata } from '../postgres/backup-metadata.ts'
import { bytesToLsn, compareLsn, type Lsn, lsnToBytes } from '../postgres/lsn.ts'
import { describeTarget, type RecoveryTarget } from '../postgres/recovery-target.ts'
import type { TimelineHistory } from '../postgres/timeline-history.ts'
import type { WalChain } from '../postgres/wal-chain.ts'
import { parseWalFileName, walFileStart } from '../postgres/wal-file.ts'
import {
  type BackupCatalog,
  byStop,
  chainFrom,
  chainOf,
  historyOf,
  isBackupOn,
  judgeBackups,
  streamedAfter,
  timelinesOf,
} from './backup-catalog.ts'
import { livingTimeline, type PrimaryLine } from './living-line.ts'

export interface RestoreWish {
  readonly target: RecoveryTarget
  /** A backup that the operator named. */
  readonly backup: string | undefined
  /** The line to follow; undefined: the one that the cluster is on, or, for a named backup, the newest one it leads to. */
  readonly timeline: number | undefined
  /** Null: no primary answers; then the cluster's line is the newest one that the archive knows. */
  readonly primary: PrimaryLine | null
}

/** What to restore, and along which line. */
export interface RestoreChoice {
  readonly systemIdentifier: string
  readonly backup: BackupMetadata
  /** The backup with those it builds on, the full one first. */
  readonly chain: readonly BackupMetadata[]
  /** Said outright to the server, never `latest`: what another line holds must not slip in. */
  readonly timeline: number
  /** The last segment that the recovery can read. */
  readonly lastSegment: string | null
}

/**
 * Chooses the newest good backup that ended before the target, on the line that leads to where the cluster is: an older, abandoned
 * timeline is taken only when it is asked for.
 * @throws {ReplctlError} `no-backup`, `target-too-early`, `target-unreachable`, `wal-missing`, `wrong-timeline`
 */
export function chooseBackup(catalog: BackupCatalog, wish: RestoreWish): RestoreChoice {
  const judged = judgeBackups(catalog)
  const named = judged.find(({ id }) => id === wish.backup)
  if (wish.backup !== undefined && named === undefined) throw noSuchBackup(wish.backup, catalog)
  if (named !== undefined && !named.isGood) throw notRestorable(named.id, named.damage)
  const good = judged.flatMap(({ isGood, metadata }) => (isGood && metadata !== null ? [metadata] : []))
  if (good.length === 0) throw noBackup(judged.length)
  const wanted = named?.metadata ?? undefined
  const history = lineOf(catalog, wish, wanted)
  const onLine = (wanted === undefined ? good : [wanted])
    .filter((backup) => isBackupOn(history, backup))
    .toSorted(byStop)
  if (onLine.length === 0) throw offLine(history, wanted?.id, otherLines(catalog, good))
  const backup = onLine.filter((one) => endsBefore(one, wish.target)).at(-1)
  if (backup === undefined) throw tooEarly(wish.target, onLine[0] as BackupMetadata)
  const found = chainFrom(catalog, backup, history)
  const { last } = found
  const streamed = found.missing.length > 0 ? null : streamedAfter(catalog, backup, history, last)
  refuseShortWal(wish.target, backup, { ...found, streamed })
  const chain = chainOf(backup.id, catalog)
  return {
    systemIdentifier: catalog.systemIdentifier,
    backup,
    chain: chain.is === 'whole' ? chain.backups : [backup],
    timeline: history.timeline,
    lastSegment: last,
  }
}

/** The line that was asked for; else the cluster's; else, where a backup off it was named, the newest that this one leads to. */
function lineOf(
  catalog: BackupCatalog,
  { timeline: wished, primary }: RestoreWish,
  named: BackupMetadata | undefined,
): TimelineHistory {
  if (wished !== undefined) {
    const history = historyOf(catalog, wished)
    if (history === null) throw unknownLine(wished)
    return history
  }
  // By the archive's own history file: the recovery has no other.
  const living = historyOf(catalog, livingTimeline(catalog, primary))
  if (living !== null && (named === undefined || isBackupOn(living, named))) return living
  if (named === undefined) throw unknownLine(livingTimeline(catalog, primary))
  for (const timeline of timelinesOf(catalog).toReversed()) {
    const history = historyOf(catalog, timeline)
    if (history !== null && isBackupOn(history, named)) return history
  }
  throw unknownLine(named.timeline)
}

/** Timelines that good backups lead to, the newest first. */
function otherLines(catalog: BackupCatalog, good: readonly BackupMetadata[]): readonly number[] {
  return timelinesOf(catalog)
    .toReversed()
    .filter((timeline) => {
      const history = historyOf(catalog, timeline)
      return history !== null && good.some((backup) => isBackupOn(history, backup))
    })
}

function endsBefore(backup: BackupMetadata, target: RecoveryTarget): boolean {
  if (target.kind === 'time') return Date.parse(backup.finishedAt) <= target.atMs
  if (target.kind === 'lsn') return compareLsn(backup.stopLsn, target.lsn) <= 0
  return true
}

/** A recovery would end at the gap, or follow what was abandoned: never silently, and better before anything is copied. */
function refuseShortWal(
  target: RecoveryTarget,
  backup: BackupMetadata,
  { last, missing, astray, streamed }: WalChain & { readonly streamed: string | null },
): void {
  if (target.kind === 'immediate') return
  const reached = streamed ?? last
  const end = reached === null ? backup.stopLsn : endOf(reached, backup.walSegmentSizeBytes)
  // A target is reached by a record that begins there, or after it.
  if (target.kind === 'lsn' && compareLsn(target.lsn, end) >= 0) {
    throw new ReplctlError('target-unreachable', `the archive does not reach ${describeTarget(target)}`, {
      detail: `From backup ${backup.id} on its WAL reaches to ${end}${missing.length === 0 ? '' : `; then ${missing[0]} is missing`}.`,
      hint: 'Choose an earlier target, or wait until more WAL is archived.',
    })
  }
  if (target.kind !== 'lsn' && streamed === null && astray !== null) throw wouldGoAstray(backup, astray)
  if (target.kind === 'latest' && missing.length > 0) {
    throw new ReplctlError(
      'wal-missing',
      `WAL is missing in the archive: ${missing.slice(0, 3).join(', ')}`,
      {
        detail: `A recovery from backup ${backup.id} would end at ${end}, although the archive holds later WAL.`,
        hint: `To restore what can be reached, up to the last segment before the gap: ${asFarAs(backup, reached)}. Or take a newer backup: --backup ID.`,
      },
    )
  }
}

/** The furthest target that is certainly reached: in the last segment, some record begins. */
function asFarAs({ id, stopLsn, walSegmentSizeBytes }: BackupMetadata, segment: string | null): string {
  const start = segment === null ? stopLsn : walFileStart(segment, walSegmentSizeBytes)
  return compareLsn(start, stopLsn) > 0 ? `--to-lsn ${start}` : `--backup ${id} --to-immediate`
}

/** PostgreSQL looks for a segment on each timeline of the line. */
function wouldGoAstray(backup: BackupMetadata, astray: string): ReplctlError {
  return new ReplctlError(
    'wal-missing',
    `WAL of the timeline that followed is missing in place of ${astray}`,
    {
      detail: `A recovery from backup ${backup.id} would read ${astray} instead, which was written after its timeline had been left.`,
      hint: `Once the primary has archived its segment of that number, it goes on: SELECT pg_switch_wal() there. Else restore to what lies before (--to-lsn), or along the timeline that was left: --timeline ${parseWalFileName(astray).timeline}.`,
    },
  )
}

function endOf(segment: string, size: number): Lsn {
  return bytesToLsn(lsnToBytes(walFileStart(segment, size)) + BigInt(size))
}

function noSuchBackup(id: string, catalog: BackupCatalog): ReplctlError {
  const ids = catalog.backups.map((one) => one.id)
  return new ReplctlError('no-backup', `there is no backup ${id}`, {
    detail: ids.length === 0 ? 'The archive holds none.' : `There are ${ids.join(', ')}.`,
    hint: 'List them: replctl backup list',
  })
}

function notRestorable(id: string, damage: readonly string[]): ReplctlError {
  return new ReplctlError('no-backup', `backup ${id} cannot be restored`, {
    detail: `${damage.join('; ')}.`,
    hint: 'Choose another one: replctl backup list',
  })
}

function noBackup(bad: number): ReplctlError {
  return new ReplctlError('no-backup', 'there is no backup that could be restored', {
    detail: bad === 0 ? 'The archive holds none of this cluster.' : `All ${bad} are damaged.`,
    hint: bad === 0 ? 'Take one: replctl backup' : 'replctl backup list says what is wrong with each.',
  })
}

function offLine(
  { timeline }: TimelineHistory,
  id: string | undefined,
  others: readonly number[],
): ReplctlError {
  const other =
    others[0] === undefined
      ? 'Look: replctl backup list'
      : `To go back to an abandoned timeline say so: --timeline ${others[0]}`
  return new ReplctlError(
    'wrong-timeline',
    id === undefined
      ? `no good backup leads to timeline ${timeline}`
      : `backup ${id} does not lead to timeline ${timeline}`,
    {
      detail: `It ended after the timelines had parted. Good backups lead to ${others.length === 0 ? 'none' : `timeline ${others.join(', ')}`}.`,
      hint: id === undefined ? other : 'Leave --timeline out, or name another --backup.',
    },
  )
}

function unknownLine(timeline: number): ReplctlError {
  return new ReplctlError('wrong-timeline', `the archive does not know how timeline ${timeline} came about`, {
    detail: 'Its history file is missing or damaged there.',
    hint: 'Copy it from pg_wal of a node that has it, or name an older line: --timeline N',
  })
}

function tooEarly(target: RecoveryTarget, oldest: BackupMetadata): ReplctlError {
  const usable =
    target.kind === 'time'
      ? `the oldest usable time is ${oldest.finishedAt}`
      : `the oldest usable LSN is ${oldest.stopLsn}`
  return new ReplctlError(
    'target-too-early',
    `no backup is old enough for ${describeTarget(target)}: ${usable}`,
    {
      detail: `A backup can only be restored to a moment after its end. The oldest one here is ${oldest.id}.`,
      hint:
        target.kind === 'time'
          ? `Restore to ${oldest.finishedAt} or later.`
          : `Restore to ${oldest.stopLsn} or later.`,
    },
  )
}
