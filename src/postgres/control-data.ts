import { ReplctlError } from '../errors.ts'
import { type Lsn, parseLsn, type TimelineId } from './lsn.ts'

/** What pg_control says. LSNs and `timeline` are those of the latest checkpoint (on a standby: restartpoint). */
export interface ControlData {
  /** 64-bit, in decimal, e.g. `7412345678901234567`. Text, because a number cannot hold it. */
  readonly systemIdentifier: string
  /** Verbatim, e.g. `in production`, `shut down`, `shut down in recovery`, `in archive recovery`. */
  readonly state: string
  readonly timeline: TimelineId
  readonly previousTimeline: TimelineId
  readonly checkpointLsn: Lsn
  readonly redoLsn: Lsn
  /** How far a standby must replay before it is consistent; null: none. */
  readonly minRecoveryEndLsn: Lsn | null
  readonly minRecoveryEndTimeline: TimelineId | null
  /** Set while a base backup has not yet been replayed to its end. */
  readonly backupStartLsn: Lsn | null
  readonly backupEndRequired: boolean
  readonly dataChecksums: boolean
  readonly walLogHints: boolean
  readonly walSegmentSizeBytes: number
  readonly walLevel: string
  readonly maxConnections: number
  readonly maxWorkerProcesses: number
  /** Null before PostgreSQL 12, where it counted as part of max_connections. */
  readonly maxWalSenders: number | null
  readonly maxPreparedTransactions: number
  readonly maxLocksPerTransaction: number
  /** e.g. 1300 for PostgreSQL 13 to 16. */
  readonly pgControlVersion: number
  /** e.g. 202209061 for PostgreSQL 15. */
  readonly catalogVersion: number
}

/**
 * Parses what pg_controldata prints. Run it with LC_ALL=C: labels are translated otherwise.
 * @throws {ReplctlError} `control-data-unreadable` if a needed label is missing
 * @see https://www.postgresql.org/docs/current/app-pgcontroldata.html
 */
export function parseControlData(text: string): ControlData {
  const values = readLabels(text)
  const needed = (label: string): string => values.get(label) ?? missing(label, text)
  const optional = (label: string): string | null => values.get(label) ?? null
  return {
    systemIdentifier: needed('Database system identifier'),
    state: needed('Database cluster state'),
    timeline: timeline(needed("Latest checkpoint's TimeLineID")),
    previousTimeline: timeline(needed("Latest checkpoint's PrevTimeLineID")),
    checkpointLsn: parseLsn(needed('Latest checkpoint location')),
    redoLsn: parseLsn(needed("Latest checkpoint's REDO location")),
    minRecoveryEndLsn: lsnOrNull(needed('Minimum recovery ending location')),
    minRecoveryEndTimeline: timelineOrNull(needed("Min recovery ending loc's timeline")),
    backupStartLsn: lsnOrNull(needed('Backup start location')),
    backupEndRequired: needed('End-of-backup record required') === 'yes',
    dataChecksums: needed('Data page checksum version') !== '0',
    walLogHints: needed('wal_log_hints setting') === 'on',
    walSegmentSizeBytes: Number(needed('Bytes per WAL segment')),
    walLevel: needed('wal_level setting'),
    maxConnections: Number(needed('max_connections setting')),
    maxWorkerProcesses: Number(needed('max_worker_processes setting')),
    maxWalSenders: numberOrNull(optional('max_wal_senders setting')),
    maxPreparedTransactions: Number(needed('max_prepared_xacts setting')),
    maxLocksPerTransaction: Number(needed('max_locks_per_xact setting')),
    pgControlVersion: Number(needed('pg_control version number')),
    catalogVersion: Number(needed('Catalog version number')),
  }
}

/**
 * Whether the instance wrote its shutdown checkpoint, so that nothing is left to recover.
 * `shut down in recovery` is a standby's; a primary that was killed says `in production`, as if it still ran.
 */
export function isCleanShutdown(state: string): boolean {
  return state === 'shut down' || state === 'shut down in recovery'
}

function readLabels(text: string): Map<string, string> {
  const lines = text.split('\n').map((line) => /^([^:]+):\s*(.*?)\s*$/.exec(line))
  return new Map(lines.flatMap((match) => (match ? [[match[1]!, match[2]!] as const] : [])))
}

function missing(label: string, text: string): never {
  throw new ReplctlError('control-data-unreadable', 'cannot read what pg_controldata printed', {
    detail: `The line "${label}" is missing. The output begins: ${JSON.stringify(text.slice(0, 200))}.`,
    hint: 'Check that bin_dir holds the programs of the version that made the data directory.',
  })
}

const timeline = (text: string) => Number(text) as TimelineId
const timelineOrNull = (text: string) => (text === '0' ? null : timeline(text))
const lsnOrNull = (text: string) => (/^0\/0+$/.test(text) ? null : parseLsn(text))
const numberOrNull = (text: string | null) => (text === null ? null : Number(text))
