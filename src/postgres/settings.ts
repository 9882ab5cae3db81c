import type { ConfigEntry } from './config-file.ts'
import { isSameSettingValue, settingNumber, withUnit } from './setting-value.ts'
import { capabilitiesOf } from './versions.ts'

export { type OwnedSettingsInput, ownedSettings, reservedParameters } from './owned-settings.ts'

/** What it takes for a new value to count; which it is may depend on the version. */
export type SettingChange = 'reload' | 'restart'

/** Under which heading a setting stands in the rendered file. */
export const settingGroups = ['connections', 'wal', 'replication', 'archiving'] as const
export type SettingGroup = (typeof settingGroups)[number]

export interface Setting {
  readonly name: string
  readonly change: SettingChange
  /** The first major version that has it; 11 stands for all supported ones. */
  readonly since: number
  /** The last major version that has it. */
  readonly until?: number
  /** From this major version on a reload is enough. */
  readonly reloadsSince?: number
  readonly group: SettingGroup
  /** Which live values are as good as the needed one; by default only an equal one. */
  readonly sufficient?: (live: string, needed: string, others: LiveSettings) => boolean
  /** The cluster works without it: adopting an instance need not restart it for this alone. */
  readonly canWait?: true
}

/** What SHOW prints, by name: `{ wal_level: 'replica', wal_keep_size: '256MB' }`. */
export type LiveSettings = Readonly<Record<string, string>>

const atLeast = (live: string, needed: string) => (settingNumber(live) ?? 0) >= (settingNumber(needed) ?? 0)
const anything = () => true

/**
 * The settings replctl renders or judges. What an operator adds in postgres.parameters needs no row.
 * @see https://www.postgresql.org/docs/current/view-pg-settings.html, `context`
 */
export const settings: readonly Setting[] = [
  {
    name: 'listen_addresses',
    change: 'restart',
    since: 11,
    group: 'connections',
    sufficient: (live, needed) => live === needed || (needed === '*' && listensBeyondLoopback(live)),
  },
  { name: 'port', change: 'restart', since: 11, group: 'connections' },
  { name: 'unix_socket_directories', change: 'restart', since: 11, group: 'connections' },
  { name: 'password_encryption', change: 'reload', since: 11, group: 'connections', sufficient: anything },
  { name: 'max_connections', change: 'restart', since: 11, group: 'connections', sufficient: atLeast },
  { name: 'max_worker_processes', change: 'restart', since: 11, group: 'connections', sufficient: atLeast },
  {
    name: 'max_prepared_transactions',
    change: 'restart',
    since: 11,
    group: 'connections',
    sufficient: atLeast,
  },
  {
    name: 'max_locks_per_transaction',
    change: 'restart',
    since: 11,
    group: 'connections',
    sufficient: atLeast,
  },
  {
    name: 'wal_level',
    change: 'restart',
    since: 11,
    group: 'wal',
    sufficient: (live, needed) => live === needed || live === 'logical',
  },
  {
    name: 'wal_log_hints',
    change: 'restart',
    since: 11,
    group: 'wal',
    // With data checksums hints are logged whatever this says.
    sufficient: (live, _needed, others) => live === 'on' || others.data_checksums === 'on',
  },
  { name: 'wal_keep_segments', change: 'reload', since: 11, until: 12, group: 'wal', sufficient: atLeast },
  { name: 'wal_keep_size', change: 'reload', since: 13, group: 'wal', sufficient: atLeast },
  { name: 'max_slot_wal_keep_size', change: 'reload', since: 13, group: 'wal' },
  { name: 'cluster_name', change: 'restart', since: 11, group: 'replication', canWait: true },
  { name: 'hot_standby', change: 'restart', since: 11, group: 'replication' },
  { name: 'max_wal_senders', change: 'restart', since: 11, group: 'replication', sufficient: atLeast },
  { name: 'max_replication_slots', change: 'restart', since: 11, group: 'replication', sufficient: atLeast },
  {
    name: 'synchronous_standby_names',
    change: 'reload',
    since: 11,
    group: 'replication',
    // Whom commits wait for by somebody else's choice, until there are standbys of ours for it.
    sufficient: (_live, needed) => needed === '',
  },
  { name: 'sync_replication_slots', change: 'reload', since: 17, group: 'replication' },
  { name: 'synchronized_standby_slots', change: 'reload', since: 17, group: 'replication' },
  { name: 'primary_conninfo', change: 'restart', since: 12, reloadsSince: 13, group: 'replication' },
  { name: 'primary_slot_name', change: 'restart', since: 12, reloadsSince: 13, group: 'replication' },
  { name: 'recovery_target_timeline', change: 'restart', since: 12, group: 'replication' },
  { name: 'recovery_min_apply_delay', change: 'reload', since: 12, group: 'replication' },
  { name: 'promote_trigger_file', change: 'reload', since: 12, until: 15, group: 'replication' },
  { name: 'restore_command', change: 'restart', since: 12, reloadsSince: 14, group: 'archiving' },
  {
    name: 'archive_mode',
    change: 'restart',
    since: 11,
    group: 'archiving',
    sufficient: (live, needed) => live === needed || live === 'always',
  },
  { name: 'archive_library', change: 'reload', since: 15, group: 'archiving' },
  { name: 'archive_command', change: 'reload', since: 11, group: 'archiving' },
]

/** The row of a setting in this version; undefined: no such row, or not in this version. */
export function findSetting(name: string, major: number): Setting | undefined {
  const wanted = name.toLowerCase()
  return settings.find(
    ({ name, since, until = Number.POSITIVE_INFINITY }) =>
      name === wanted && since <= major && major <= until,
  )
}

/**
 * Whether a new value counts after a reload or only after a restart; of a setting without a row, undefined:
 * ask pg_settings (`context = 'postmaster'`, or `pending_restart` after a reload).
 */
export function changeOf(name: string, major: number): SettingChange | undefined {
  const setting = findSetting(name, major)
  return setting && (major >= (setting.reloadsSince ?? Number.POSITIVE_INFINITY) ? 'reload' : setting.change)
}

/**
 * A standby refuses to start (from 14 on: pauses replay) while any of these is lower than the primary's was when it
 * wrote the WAL. So a raise is applied to standbys first, a reduction to the primary first.
 * @see https://www.postgresql.org/docs/current/hot-standby.html#HOT-STANDBY-ADMIN
 */
export const standbyParityParameters = [
  'max_connections',
  'max_worker_processes',
  'max_wal_senders',
  'max_prepared_transactions',
  'max_locks_per_transaction',
] as const

/** The settings that make an instance a standby: written by replctl for each node, never by the operator. */
export function recoverySettingNames(major: number): readonly string[] {
  const names = [
    'primary_conninfo',
    'primary_slot_name',
    'restore_command',
    'recovery_min_apply_delay',
    'recovery_target_timeline',
    'recovery_target',
    'recovery_target_name',
    'recovery_target_time',
    'recovery_target_xid',
    'recovery_target_lsn',
    'recovery_target_inclusive',
    'recovery_target_action',
  ]
  return capabilitiesOf(major).promoteTriggerFile ? [...names, 'promote_trigger_file'] : names
}

/**
 * What of postgresql.auto.conf would win over the settings of a standby. A standby that takes no queries cannot be observed: it
 * would never be seen to follow.
 */
export function overridesStandby(
  entries: readonly ConfigEntry[],
  names: readonly string[],
): readonly ConfigEntry[] {
  return entries.filter(
    ({ name, value }) => names.includes(name) || (name === 'hot_standby' && !isSameSettingValue(value, 'on')),
  )
}

/** A live value that must change. */
export interface SettingVerdict {
  readonly name: string
  /** Undefined: the instance does not know the setting (e.g. of an extension not yet loaded). */
  readonly live: string | undefined
  readonly needed: string
  readonly change: SettingChange
  /** The cluster works without it until the next restart. */
  readonly canWait: boolean
}

export interface JudgeOptions {
  /** Names the operator set in postgres.parameters: there the written value counts, not one as good. */
  readonly wished?: Iterable<string>
  /** `pg_settings.context` by name, for settings without a row; without it they are taken to need a restart. */
  readonly contexts?: Readonly<Record<string, string>>
  /** Names of settings that take one of a list of words: for them capitals are the same. */
  readonly enums?: Iterable<string>
  /** `pg_settings.unit` by name, to compare numbers written without one. */
  readonly units?: Readonly<Record<string, string | null>>
}

/** Which live settings must change for an instance to serve in the cluster; what is good enough is left out. */
export function judgeSettings(
  live: LiveSettings,
  needed: ReadonlyMap<string, string>,
  options: JudgeOptions = {},
): readonly SettingVerdict[] {
  return [...needed]
    .filter(([name, value]) => !isSufficient(name, live, value, options))
    .map(([name, value]) => ({
      name,
      live: live[name],
      needed: value,
      change: changeInContext(name, options),
      canWait: rowOf(name)?.canWait ?? false,
    }))
}

/** The needed settings, with each live value kept that is as good: what to render when an instance is adopted. */
export function keepSufficient(
  live: LiveSettings,
  needed: ReadonlyMap<string, string>,
  options: JudgeOptions = {},
): Map<string, string> {
  return new Map(
    [...needed].map(([name, value]) => [
      name,
      isSufficient(name, live, value, options) ? (live[name] ?? value) : value,
    ]),
  )
}

function isSufficient(name: string, live: LiveSettings, needed: string, options: JudgeOptions): boolean {
  const value = live[name]
  if (value === undefined) return false
  if (isSameSettingValue(value, needed, options.units?.[name])) return true
  const isSameWord = value.toLowerCase() === needed.trim().toLowerCase()
  if (isSameWord && new Set(options.enums).has(name)) return true
  if (new Set(options.wished).has(name)) return false
  return rowOf(name)?.sufficient?.(withUnit(value, options.units?.[name]), needed, live) ?? false
}

function changeInContext(name: string, { contexts = {} }: JudgeOptions): SettingChange {
  const context = contexts[name]
  if (context !== undefined) return context === 'postmaster' ? 'restart' : 'reload'
  return rowOf(name)?.change ?? 'restart'
}

const rowOf = (name: string) => settings.find((setting) => setting.name === name)

function listensBeyondLoopback(addresses: string): boolean {
  const loopback = /^(localhost|127\.[\d.]+|::1|)$/
  return addresses.split(',').some((address) => !loopback.test(address.trim()))
}
