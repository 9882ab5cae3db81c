import { capabilitiesOf } from './versions.ts'

export interface Rewind {
  readonly major: number
  readonly dataDirectory: string
  /** Of the new primary, without a password. */
  readonly conninfo: string
  /** Where postgresql.conf lies outside of the data directory (Debian). */
  readonly configFile?: string | undefined
  /** The target's restore_command fetches WAL that its pg_wal no longer has. */
  readonly restoresWal: boolean
}

/**
 * The arguments of pg_rewind. It is not to recover a crashed target by itself: that would be in single-user mode, without
 * its standby.signal. Nor to fsync each file of the data directory, which costs by the size of the database: the
 * caller syncs the file systems once.
 * @see https://www.postgresql.org/docs/current/app-pgrewind.html
 */
export function rewindArgs(rewind: Rewind): readonly string[] {
  const { major, dataDirectory, conninfo, configFile, restoresWal } = rewind
  const has = capabilitiesOf(major)
  return [
    ...['-D', dataDirectory, `--source-server=${conninfo}`, '--progress'],
    ...(has.rewindNoSync ? ['--no-sync'] : []),
    ...(has.rewindEnsuresShutdown ? ['--no-ensure-shutdown'] : []),
    ...(canRestoreWal(rewind) && restoresWal ? ['--restore-target-wal'] : []),
    ...(has.rewindConfigFile && configFile !== undefined ? [`--config-file=${configFile}`] : []),
  ]
}

/** pg_rewind asks the server's own files for restore_command: they must be where it finds them. */
function canRestoreWal({ major, configFile }: Rewind): boolean {
  const has = capabilitiesOf(major)
  return has.rewindRestoreTargetWal && (configFile === undefined || has.rewindConfigFile)
}

/** What pg_rewind says of its progress: `12345/45678 kB (27%) copied`. */
export function parseRewindProgress(line: string): { doneBytes: number; totalBytes: number } | undefined {
  const match = /^\s*(\d+)\/(\d+) kB \(\d+%\) copied/.exec(line)
  return match === null
    ? undefined
    : { doneBytes: Number(match[1]) * 1024, totalBytes: Number(match[2]) * 1024 }
}

/**
 * A server as a client wants it to come up when nobody may reach it and it must write nothing of its own: a standby of
 * nobody, which replays what lies in its pg_wal and then waits. For `postgres -D … -c …`; not for PostgreSQL 11, whose
 * recovery settings stand in recovery.conf.
 */
export function isolatedStandbySettings(major: number, socketDirectory: string): readonly string[] {
  const has = capabilitiesOf(major)
  const settings: Record<string, string> = {
    listen_addresses: '',
    unix_socket_directories: socketDirectory,
    hot_standby: 'on',
    archive_mode: 'off',
    logging_collector: 'off',
    log_destination: 'stderr',
    ssl: 'off',
    // A restartpoint when it is stopped would remove WAL that pg_rewind needs.
    checkpoint_timeout: '1d',
    max_wal_size: '1TB',
    ...(has.walKeepSize ? { wal_keep_size: '1TB' } : { wal_keep_segments: '60000' }),
    ...(has.recoveryConf
      ? {}
      : {
          primary_conninfo: '',
          primary_slot_name: '',
          restore_command: '',
          recovery_target_timeline: 'current',
          recovery_min_apply_delay: '0',
          ...(has.promoteTriggerFile ? { promote_trigger_file: '' } : {}),
        }),
  }
  return Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])
}

/**
 * Text for recovery.conf of an isolated standby of PostgreSQL 11: of its own timeline, which is what `current` is without
 * the setting.
 */
export const isolatedRecoveryConf = "standby_mode = 'on'\n"
