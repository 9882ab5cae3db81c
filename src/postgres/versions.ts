import { ReplctlError } from '../errors.ts'

/** Major versions replctl is tested with, oldest first. */
export const supportedMajorVersions = [11, 12, 13, 14, 15, 16, 17, 18] as const

/** Each difference between major versions that matters here: from which version on, and up to which one. */
const capabilityTable = {
  /** Recovery settings live in recovery.conf, whose presence makes the instance a standby. */
  recoveryConf: { until: 11 },
  /** standby.signal and recovery.signal; recovery settings are ordinary settings. A recovery.conf refuses to start. */
  standbySignalFile: { since: 12 },
  /** `promote_trigger_file`. */
  promoteTriggerFile: { since: 12, until: 15 },
  /** Promotion by creating a file, under either name of the setting. */
  triggerFile: { until: 15 },
  /** Walsenders are no part of max_connections; before, they have to fit into it beside superuser_reserved_connections. */
  walsendersApart: { since: 12 },
  /** `pg_promote()`. */
  promoteFunction: { since: 12 },
  /** `primary_conninfo` and `primary_slot_name` change on reload; before, on restart. */
  reloadsPrimaryConninfo: { since: 13 },
  /** `wal_keep_size`; before, `wal_keep_segments`. */
  walKeepSize: { since: 13 },
  maxSlotWalKeepSize: { since: 13 },
  /** `pg_replication_slots.wal_status` and `safe_wal_size`. */
  slotWalStatus: { since: 13 },
  /** pg_basebackup writes backup_manifest; pg_verifybackup checks it. */
  backupManifest: { since: 13 },
  /** The manifest names the system, so that pg_verifybackup reads pg_control, which only that of the same version can. */
  manifestNamesSystem: { since: 17 },
  basebackupProgressView: { since: 13 },
  /** `pg_rewind --no-sync`. */
  rewindNoSync: { since: 12 },
  /** `pg_rewind --restore-target-wal` and `--write-recovery-conf`. */
  rewindRestoreTargetWal: { since: 13 },
  /** pg_rewind recovers a crashed target by itself, in single-user mode; `--no-ensure-shutdown` forbids it. */
  rewindEnsuresShutdown: { since: 13 },
  /** pg_rewind takes the timeline of a server that was just promoted from its minimum recovery point, too. */
  rewindKnowsFreshPromotion: { since: 16 },
  /** `restore_command` changes on reload. */
  reloadsRestoreCommand: { since: 14 },
  /** A standby pauses, instead of stopping, when the primary's parity settings grow beyond its own. */
  pausesOnLowSettings: { since: 14 },
  /** `pg_get_wal_replay_pause_state()`. */
  replayPauseState: { since: 14 },
  /** `pg_basebackup --compress=server-…`. */
  serverCompression: { since: 15 },
  /** A recovery that ends before its target stops the server; before, it opened it as if nothing were wrong. */
  refusesMissedTarget: { since: 13 },
  /** `pg_amcheck`. */
  amcheckProgram: { since: 14 },
  /** `pg_basebackup --incremental` and pg_combinebackup. */
  incrementalBackup: { since: 17 },
  /** `pg_rewind --config-file`, needed where postgresql.conf lies outside the data directory. */
  rewindConfigFile: { since: 15 },
  /** `pg_backup_start()` and `pg_backup_stop()`; before, `pg_start_backup()` and `pg_stop_backup()`. */
  backupStartFunction: { since: 15 },
  /** `archive_library`; with archive_command beside it, archiving stops (16 and newer: refuses to start). */
  archiveLibrary: { since: 15 },
  /** `include` directives in pg_hba.conf. */
  hbaIncludes: { since: 16 },
  /** `initdb --locale-provider=builtin`. */
  builtinLocaleProvider: { since: 17 },
  /** `--sync-method=syncfs` of initdb, pg_basebackup and pg_rewind. */
  syncMethodSyncfs: { since: 17 },
  /** A `dbname` in primary_conninfo is of use (slot synchronisation), and pg_basebackup -R writes it. */
  dbnameInConninfo: { since: 17 },
  /** `sync_replication_slots` and `synchronized_standby_slots`: logical slots survive a change of roles. */
  slotSynchronisation: { since: 17 },
  /** initdb computes data checksums unless told not to. */
  checksumsByDefault: { since: 18 },
} as const satisfies Record<string, { since?: number; until?: number }>

export type Capability = keyof typeof capabilityTable
export type Capabilities = Readonly<Record<Capability, boolean>>

/**
 * What an instance of this major version can do, by name: `capabilitiesOf(15).triggerFile` is true.
 * A version newer than all of `supportedMajorVersions` is taken to be like the newest.
 * @see https://www.postgresql.org/docs/release/
 */
export function capabilitiesOf(major: number): Capabilities {
  const rows = Object.entries(capabilityTable) as [Capability, { since?: number; until?: number }][]
  const flags = rows.map(([name, { since = 0, until = Number.POSITIVE_INFINITY }]) => [
    name,
    since <= major && major <= until,
  ])
  return Object.fromEntries(flags) as Capabilities
}

/** How a standby is promoted: by `--method`, or the best one there is. */
export const promotionMethods = ['auto', 'trigger-file', 'pg_promote'] as const
export type PromotionMethod = (typeof promotionMethods)[number]

/**
 * The method to promote a standby of this version with; `auto` is pg_promote() wherever there is one.
 * @throws {ReplctlError} `method-not-available` if the version does not have the wanted method
 */
export function choosePromotionMethod(
  major: number,
  wanted: PromotionMethod,
): Exclude<PromotionMethod, 'auto'> {
  const { promoteFunction, triggerFile } = capabilitiesOf(major)
  if (wanted === 'auto') return promoteFunction ? 'pg_promote' : 'trigger-file'
  if (wanted === 'trigger-file' && !triggerFile) {
    throw new ReplctlError('method-not-available', `cannot promote PostgreSQL ${major} by a trigger file`, {
      detail: 'PostgreSQL 16 removed promote_trigger_file.',
      hint: 'Use --method pg_promote, or leave --method out.',
    })
  }
  if (wanted === 'pg_promote' && !promoteFunction) {
    throw new ReplctlError('method-not-available', `cannot promote PostgreSQL ${major} by pg_promote()`, {
      detail: 'The function pg_promote() exists from PostgreSQL 12 on.',
      hint: 'Use --method trigger-file, or leave --method out.',
    })
  }
  return wanted
}

/** e.g. `{ major: 15, minor: 18, text: '15.18' }`; of a pre-release `{ major: 18, minor: 0, text: '18beta1' }`. */
export interface PostgresVersion {
  readonly major: number
  readonly minor: number
  readonly text: string
}

/**
 * Reads what `postgres --version`, any other program's `--version`, or `SHOW server_version` prints,
 * e.g. `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
 * @throws {ReplctlError} `version-mismatch` if there is no version of PostgreSQL 10 or later in it
 */
export function parsePostgresVersion(output: string): PostgresVersion {
  const match =
    /^(?:.*\(PostgreSQL\) )?(?<text>(?<major>\d\d+)(?:\.(?<minor>\d+)|devel|(?:alpha|beta|rc)\d+)?)\b/.exec(
      output.trim(),
    )
  if (!match?.groups) {
    throw new ReplctlError('version-mismatch', 'cannot read the version of PostgreSQL', {
      detail: `Expected "postgres (PostgreSQL) 15.18" or the like, got: ${JSON.stringify(output.slice(0, 200))}.`,
      hint: `Set postgres.bin_dir to the programs of PostgreSQL ${supportedMajorVersions[0]} or later.`,
    })
  }
  const { text = '', major, minor } = match.groups
  return { major: Number(major), minor: Number(minor ?? 0), text }
}
