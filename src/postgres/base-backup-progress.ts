export const baseBackupPhases = [
  'waiting-for-checkpoint',
  'copying',
  'waiting-for-wal',
  'syncing',
  'done',
] as const
export type BaseBackupPhase = (typeof baseBackupPhases)[number]

export interface BaseBackupProgress {
  readonly phase: BaseBackupPhase
  /** Undefined in phases that count nothing. */
  readonly doneBytes?: number
  /** An estimate from the start of the backup; the database may grow meanwhile. */
  readonly totalBytes?: number
  /** Whole, at most 100. */
  readonly percent?: number
}

const phrases: readonly (readonly [RegExp, BaseBackupPhase])[] = [
  [/waiting for checkpoint/, 'waiting-for-checkpoint'],
  [/checkpoint completed|write-ahead log start point|starting background WAL receiver/, 'copying'],
  [/waiting for background process to finish/, 'waiting-for-wal'],
  [/syncing data to disk/, 'syncing'],
  [/base backup completed/, 'done'],
]

/**
 * Reads a line that `pg_basebackup -P -v` writes to standard error with LC_ALL=C; undefined: it tells no progress.
 * Shape: ` 23456/46912 kB (50%), 0/1 tablespace (/var/lib/postgresql/15/shop/base/5/1249)`. Split at `\r` as well as `\n`.
 */
export function parseBaseBackupProgress(line: string): BaseBackupProgress | undefined {
  const counted = /^\s*(\d+)\/(\d+) kB \((\d+)%\)/.exec(line)
  if (counted) {
    const [done, total, percent] = counted.slice(1, 4).map(Number)
    return {
      phase: 'copying',
      doneBytes: done! * 1024,
      totalBytes: total! * 1024,
      percent: Math.min(100, percent!),
    }
  }
  const phase = phrases.find(([phrase]) => phrase.test(line))?.[1]
  return phase && { phase }
}
