import { ReplctlError } from '../errors.ts'
import { segmentEnd } from '../postgres/archive-content.ts'
import { lsnDistance } from '../postgres/lsn.ts'
import { isSegmentFile, parseWalFileName, walFileName, walFileStart } from '../postgres/wal-file.ts'
import { archiveClosed } from './archive-closed.ts'
import type { BackupCatalog } from './backup-catalog.ts'
import type { Archiver, InstanceFacts, NodeFacts } from './facts.ts'
import type { ArchiveSettings, Inventory } from './inventory.ts'
import { archiveConnection, judgeArchiving } from './judge-archiving.ts'
import { archiveHost } from './names.ts'
import { type BackupState, observeBackups } from './observe-backups.ts'
import { type Problem, problemOf } from './problem.ts'
import { fullBytes } from './room.ts'

/** What was seen on the archive host. */
export interface ArchiveMeasure {
  readonly isThere: boolean
  readonly isWritable: boolean
  readonly files: number
  readonly sizeBytes: number
  /** Since the last file came in; null: there is none. */
  readonly newestSeconds: number | null
  /** By what came in within the last day; null: too early to tell. */
  readonly bytesPerDay: number | null
  readonly totalBytes: number | null
  readonly usedBytes: number | null
  readonly freeBytes: number | null
}

/** `archive` of `status`, and the result of `archive status`. */
export interface ArchiveState extends BackupState {
  readonly host: string
  readonly dir: string
  readonly mode: 'push' | 'stream'
  /** WAL reaches it. Whether there are backups is said by `last_backup`. */
  readonly ok: boolean
  readonly reachable: boolean
  readonly system_identifier: string | null
  readonly last_archived: string | null
  /** By the primary's word; where it says nothing, since the last file came in on the archive host. */
  readonly last_archived_seconds: number | null
  /** Finished segments that wait, and WAL that would be lost with the primary's disk. */
  readonly lag_segments: number | null
  readonly lag_bytes: number | null
  readonly lag_seconds: number | null
  readonly last_failure: {
    readonly file: string | null
    readonly failures: number
    readonly message: string | null
    readonly failing: boolean
  } | null
  readonly files: number | null
  readonly size_bytes: number | null
  readonly bytes_per_day: number | null
  readonly free_bytes: number | null
  readonly total_bytes: number | null
  /** At the pace of the last day. */
  readonly until_full_seconds: number | null
}

export interface ArchiveObservation {
  readonly inventory: Inventory
  /** Facts of the node that leads; undefined where there is none. */
  readonly primary: NodeFacts | undefined
  readonly systemIdentifier: string | null
  readonly measured: ArchiveMeasure | ReplctlError
  /** Null: it could not be read. */
  readonly catalog: BackupCatalog | null
  readonly nowMs: number
}

/** The archive as it is now, and what is wrong on its host. What fails on the primary is told by `judgeArchiving`. */
export function observeArchive(seen: ArchiveObservation): {
  readonly state: ArchiveState | null
  readonly problems: readonly Problem[]
} {
  const { archive } = seen.inventory
  if (archive === undefined) return { state: null, problems: [] }
  const measure = seen.measured instanceof ReplctlError ? null : seen.measured
  const problems = problemsOf(seen, archive)
  const instance = seen.primary?.instance
  const line = instance == null ? null : { timeline: instance.timeline, history: instance.history }
  const backups = observeBackups(seen.catalog, archive.maxBackupAgeMs, seen.nowMs, line)
  const isStream = archive.mode === 'stream'
  const archiver = isStream ? null : (instance?.archiver ?? null)
  const stream =
    isStream && seen.primary !== undefined
      ? archiveConnection(seen.inventory.cluster, seen.primary)
      : undefined
  const segmentSize = Number(instance?.settings.wal_segment_size?.value ?? 0)
  const last = archiver?.lastArchivedWal ?? null
  const lagOfStream =
    stream?.flushLsn == null || instance?.currentLsn == null
      ? null
      : Math.max(0, lsnDistance(stream.flushLsn, instance.currentLsn))
  const lagOfPush = instance == null || segmentSize === 0 ? null : lagBehind(archiver, instance, segmentSize)
  const onPrimary = seen.primary === undefined ? [] : judgeArchiving(seen.inventory, seen.primary)
  const lagBytes = isStream ? lagOfStream : lagOfPush
  const perDay = measure?.bytesPerDay ?? null
  const free = measure?.freeBytes ?? null
  const round = (seconds: number | null | undefined) =>
    seconds == null ? null : Math.round(seconds * 10) / 10
  const state: ArchiveState = {
    host: archive.host,
    dir: archive.dir,
    mode: archive.mode,
    ok:
      !problems.some((one) => one.severity === 'error') &&
      !onPrimary.some(([, severity]) => severity === 'error') &&
      (!isStream || stream !== undefined),
    reachable: measure !== null,
    system_identifier: seen.systemIdentifier,
    last_archived: last,
    last_archived_seconds: round(archiver?.lastArchivedSeconds ?? measure?.newestSeconds),
    lag_segments:
      lagOfStream !== null && segmentSize > 0
        ? Math.floor(lagOfStream / segmentSize)
        : (archiver?.readyCount ?? null),
    lag_bytes: lagBytes,
    lag_seconds: lagBytes === 0 ? 0 : round(archiver?.lastArchivedSeconds ?? archiver?.oldestReadySeconds),
    last_failure:
      archiver === null || archiver.failedCount === 0
        ? null
        : {
            file: archiver.lastFailedWal,
            failures: archiver.failedCount,
            message: seen.primary?.archiveError?.message ?? null,
            failing: archiver.isFailing,
          },
    files: measure?.isThere === true ? measure.files : null,
    size_bytes: measure?.isThere === true ? measure.sizeBytes : null,
    bytes_per_day: perDay,
    free_bytes: free,
    total_bytes: measure?.totalBytes ?? null,
    until_full_seconds:
      perDay === null || perDay === 0 || free === null ? null : Math.round((free / perDay) * 86_400),
    ...backups.state,
  }
  return { state, problems: [...problems, ...backups.problems] }
}

/** WAL that is on the primary alone. A label or a history file that was archived last does not say where that begins. */
function lagBehind(
  archiver: Archiver | null,
  { currentLsn, timeline }: InstanceFacts,
  segmentSize: number,
): number | null {
  const last = archiver?.lastArchivedWal ?? null
  if (last === null || currentLsn === null) return null
  if (isSegmentFile(last) && parseWalFileName(last).timeline === timeline) {
    return Math.max(0, lsnDistance(segmentEnd(last, segmentSize), currentLsn))
  }
  // Nothing waits: all that was finished is archived.
  const begin = walFileStart(walFileName(timeline, currentLsn, segmentSize), segmentSize)
  return archiver?.readyCount === 0 ? lsnDistance(begin, currentLsn) : null
}

function problemsOf({ measured, systemIdentifier }: ArchiveObservation, archive: ArchiveSettings): Problem[] {
  const { dir } = archive
  if (measured instanceof ReplctlError) return [problemOf(measured.with({ node: archiveHost }))]
  // A cluster that is still to be built finds out while nothing is.
  if (systemIdentifier === null) return measured.isWritable ? [] : [problemOf(archiveClosed(archive))]
  if (!measured.isThere || !measured.isWritable) {
    const error = new ReplctlError(
      'archive-failing',
      `the archive ${dir} ${measured.isThere ? 'is not writable' : 'is not there'}`,
      {
        detail: `It should hold ${systemIdentifier}/wal.`,
        hint: 'Is its file system mounted? "replctl init primary" and "replctl add-standby" set it up again.',
        node: archiveHost,
      },
    )
    return [problemOf(error)]
  }
  const { freeBytes, bytesPerDay } = measured
  if (freeBytes === null) return []
  const isFull = freeBytes < fullBytes
  const isSoonFull = bytesPerDay !== null && freeBytes < bytesPerDay
  if (!isFull && !isSoonFull) return []
  const error = new ReplctlError(
    'disk-full',
    `the archive's disk ${isFull ? 'is full' : 'will be full within a day'}`,
    {
      detail: `${freeBytes} bytes are free in ${dir}${bytesPerDay === null ? '' : `, ${bytesPerDay} came in within the last day`}.`,
      hint: 'Make room: replctl backup expire, or replctl archive prune. PostgreSQL keeps its WAL meanwhile, until its own disk is full.',
      node: archiveHost,
    },
  )
  return [problemOf(error, isFull ? 'error' : 'warning')]
}
