import { quoteConfigValue, removeSettings } from './config-file.ts'
import type { ControlData } from './control-data.ts'
import { leastSettings } from './least-settings.ts'
import { type RecoveryTarget, recoveryTargetSettings } from './recovery-target.ts'
import { capabilitiesOf } from './versions.ts'

/** Settings as lines of a configuration file. */
type Settings = readonly (readonly [string, string])[]

/** What no instance that joins the cluster may keep of the copied postgresql.auto.conf, which would win over replctl.conf. */
const recoveryNames = [
  ...['restore_command', 'archive_cleanup_command', 'recovery_end_command', 'recovery_target'],
  ...['recovery_target_time', 'recovery_target_lsn', 'recovery_target_name', 'recovery_target_xid'],
  ...['recovery_target_inclusive', 'recovery_target_action', 'recovery_target_timeline'],
  ...['primary_conninfo', 'primary_slot_name', 'promote_trigger_file', 'recovery_min_apply_delay'],
]
/** What replctl renders for each node, or what belongs to the host that the copy was taken from. */
const nodeNames = [
  ...['listen_addresses', 'unix_socket_directories', 'port', 'archive_mode', 'archive_command'],
  ...['archive_library', 'hot_standby', 'synchronous_standby_names', 'cluster_name'],
  ...['sync_replication_slots', 'synchronized_standby_slots'],
  ...['hba_file', 'ident_file', 'external_pid_file'],
]

/** Our own lines of postgresql.auto.conf stand below it, at the end, where they win; everything above is the operator's. */
const heading = '# While replctl restores; these lines go when it is done.'
const lastHeading = '# Restored by replctl beside the cluster: it archives nowhere and follows nobody.'

export interface RecoveryWish {
  readonly major: number
  readonly target: RecoveryTarget
  readonly timeline: number
  readonly restoreCommand: string
  readonly port: number
  /** Private to the OS user: nobody else gets in while it recovers. */
  readonly socketDirectory: string
  readonly hbaFile: string
  /** It will archive later: what the recovery makes (its history file) is noted for that. */
  readonly willArchive: boolean
  /** Of the copy as it is now: what the WAL up to there asks for. Null: not known. */
  readonly control: ControlData | null
}

/**
 * Text of postgresql.auto.conf, which overrides every other file, for an instance that recovers alone: no network, no
 * archiving, nobody to follow, no subscription of the copy that would take the original's place, and none of the
 * operator's programs, which would act on production (move an address, clean up the archive). On PostgreSQL 11 the
 * recovery's own settings stand in recovery.conf instead.
 */
export function recoveryAutoConf(before: string, wish: RecoveryWish): string {
  const own: Settings = [
    ['listen_addresses', ''],
    ['unix_socket_directories', wish.socketDirectory],
    // The group, the certificates and the huge pages may be those of another host.
    ['unix_socket_group', ''],
    ['ssl', 'off'],
    ['huge_pages', 'try'],
    ['port', String(wish.port)],
    // Without a command, what is to be archived waits.
    ['archive_mode', wish.willArchive ? 'on' : 'off'],
    ['archive_command', ''],
    ...(capabilitiesOf(wish.major).archiveLibrary ? [['archive_library', ''] as const] : []),
    ['hot_standby', 'on'],
    ['synchronous_standby_names', ''],
    ...withoutSlots(wish.major),
    ['logging_collector', 'off'],
    ['log_destination', 'stderr'],
    // replctl reads the log.
    ['lc_messages', 'C'],
    // A subscription of the copy would take over the slot of the original.
    ['max_logical_replication_workers', '0'],
    ['hba_file', wish.hbaFile],
    ['external_pid_file', ''],
    ...besideOthers(wish.willArchive),
    ...(wish.control === null ? [] : leastSettings(wish.control)),
    ...(capabilitiesOf(wish.major).recoveryConf ? [] : recoverySettings(wish)),
  ]
  return `${withoutOurs(before)}${heading}\n${lines(own)}`
}

const targetNames = ['', '_time', '_lsn', '_name', '_xid'].map((kind) => `recovery_target${kind}`)

/** Text of recovery.conf (PostgreSQL 11). */
export function recoveryConfText(wish: RecoveryWish): string {
  return lines(recoverySettings(wish))
}

function recoverySettings({ major, target, timeline, restoreCommand }: RecoveryWish): Settings {
  const ours = recoveryTargetSettings(target)
  return [
    ...(capabilitiesOf(major).recoveryConf ? [] : undoneSettings(major, ours)),
    ['restore_command', restoreCommand],
    ['recovery_target_timeline', String(timeline)],
    ...ours,
  ]
}

/**
 * From 12 on these may stand in any configuration file of the copy. Targets that are not ours come before ours: two that
 * are set at once end the start.
 */
function undoneSettings(major: number, ours: Settings): Settings {
  const others = targetNames.filter((name) => !ours.some(([own]) => own === name))
  return [
    ['primary_conninfo', ''],
    ['primary_slot_name', ''],
    ['archive_cleanup_command', ''],
    ['recovery_end_command', ''],
    ['recovery_min_apply_delay', '0'],
    ...(capabilitiesOf(major).promoteTriggerFile ? [['promote_trigger_file', ''] as const] : []),
    ...others.map((name) => [name, ''] as const),
  ]
}

export interface StandaloneWish {
  readonly major: number
  readonly port: number
  readonly hbaFile: string
  /** What may be of another host (addresses, certificates, folders) is not taken from the configuration of the copy. */
  readonly isElsewhere?: boolean
}

/** What a host may lack that another one has: a server that needs it does not start. */
const anyHost: Settings = [
  ['listen_addresses', 'localhost'],
  ['unix_socket_directories', '/tmp'],
  ['unix_socket_group', ''],
  ['ssl', 'off'],
  ['logging_collector', 'off'],
  ['log_destination', 'stderr'],
]

/** Names of the settings that {@link StandaloneWish.isElsewhere} leaves out. */
export const settingsOfHost = anyHost.map(([name]) => name)

/** The same file for good, of an instance that stands beside the cluster: it can never be taken for a member of it. */
export function standaloneAutoConf(
  before: string,
  { major, port, hbaFile, isElsewhere = false }: StandaloneWish,
): string {
  const own: Settings = [
    ['port', String(port)],
    ['cluster_name', 'restored'],
    ['archive_mode', 'off'],
    ['archive_command', ''],
    ...(capabilitiesOf(major).archiveLibrary ? [['archive_library', ''] as const] : []),
    ['synchronous_standby_names', ''],
    ...withoutSlots(major),
    ['hba_file', hbaFile],
    ['external_pid_file', ''],
    ...besideOthers(false),
    ['huge_pages', 'try'],
    ...(isElsewhere ? anyHost : []),
    // Its subscriptions are copies: they would take over the slots of the originals.
    ['max_logical_replication_workers', '0'],
    ...(capabilitiesOf(major).standbySignalFile
      ? ([
          ['primary_conninfo', ''],
          ['primary_slot_name', ''],
          ['restore_command', ''],
          ['archive_cleanup_command', ''],
          ['recovery_end_command', ''],
          ['recovery_min_apply_delay', '0'],
        ] as const)
      : []),
  ]
  return `${withoutOurs(before)}${lastHeading}\n${lines(own)}`
}

/** The file without our own lines: as the operator had it. */
function withoutOurs(before: string): string {
  const all = before.split('\n')
  const begin = all.findIndex((line) => line === heading || line === lastHeading)
  const kept = (begin < 0 ? all : all.slice(0, begin)).join('\n').trimEnd()
  return kept === '' ? '' : `${kept}\n`
}

/**
 * The file for an instance that joins the cluster: what ALTER SYSTEM had set is as it was, without what replctl.conf has
 * for each node and what belongs to a recovery.
 */
export function memberAutoConf(before: string): string {
  return withoutOurs(removeSettings(withoutOurs(before), [...recoveryNames, ...nodeNames]))
}

/** A copy has none of the slots that its configuration names: up to 17.6, and in 18.0, each parallel query would fail for that. */
const withoutSlots = (major: number): Settings =>
  capabilitiesOf(major).slotSynchronisation
    ? [
        ['sync_replication_slots', 'off'],
        ['synchronized_standby_slots', ''],
      ]
    : []

/** Two full-sized instances may not fit on one host. */
const besideOthers = (isMember: boolean): Settings => (isMember ? [] : [['shared_buffers', '128MB']])

/**
 * What the log says where a setting was raised on the primary after the backup: the recovery pauses there (14 and newer), or ends.
 * pg_control has the new values by then, so it goes on when it is started with these. Null: it says nothing of the kind.
 * @see src/backend/access/transam/xlogrecovery.c, RecoveryRequiresIntParameter
 */
export function findRaisedSetting(log: string): string | null {
  return /\w+ = \d+ is a lower setting than on the (?:primary|master) server.*/.exec(log)?.[0] ?? null
}

/**
 * The last line by which the server tells that a recovery gets on: null where there is none. What is told of clients that knock
 * (we do, to see whether it answers yet), or by the program that waits for the archive, is none.
 */
export function lastProgressOf(log: string): string | null {
  const words = 'restored|redo|recover|checkpoint|restartpoint|timeline|syncing'
  return (
    log.match(new RegExp(`^.*\\bLOG: {2}(?!connection|statement|duration).*(?:${words}).*$`, 'gm'))?.at(-1) ??
    null
  )
}

/** A postgresql.conf for a copy that came without one, as one whose configuration lies elsewhere does. */
export function leastPostgresqlConf(control: ControlData): string {
  return lines([...leastSettings(control), ['wal_level', control.walLevel]])
}

const lines = (settings: Settings): string =>
  settings.map(([name, value]) => `${name} = ${quoteConfigValue(value)}\n`).join('')
