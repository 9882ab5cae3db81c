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
