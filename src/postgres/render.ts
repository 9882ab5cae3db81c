import { hbaLine } from './hba.ts'
import { keptHeading } from './kept-settings.ts'
import { findSetting, type SettingGroup, settingGroups } from './settings.ts'
import { renderTemplate } from './template.ts'
import { capabilitiesOf } from './versions.ts'

export { renderTemplate } from './template.ts'

export interface PostgresqlConfValues {
  readonly major: number
  readonly cluster: string
  /** As `ownedSettings()` makes them. */
  readonly settings: ReadonlyMap<string, string>
  /** Names the operator set in postgres.parameters: they stand under a heading of their own. */
  readonly wished?: Iterable<string>
  /** Names whose values are the instance's own: they too stand under a heading of their own. */
  readonly kept?: Iterable<string>
  /** A file to include at the end, e.g. `replctl.standby.conf`, from PostgreSQL 12 on. */
  readonly standbyInclude?: string | undefined
}

/** The text of replctl.conf: settings by group, sorted by name within each. */
export function renderPostgresqlConf(template: string, values: PostgresqlConfValues): string {
  const { cluster, major, standbyInclude } = values
  const hasInclude = capabilitiesOf(major).standbySignalFile
  const standby_include = hasInclude ? (standbyInclude ?? null) : null
  return renderTemplate(
    template,
    { cluster, groups: groupSettings(values), standby_include },
    'templates/postgresql.conf',
  )
}

const groupTitles: Readonly<Record<SettingGroup | 'parameters' | 'kept', string>> = {
  connections: 'Connections',
  wal: 'Write-ahead log',
  replication: 'Replication',
  archiving: 'Archiving',
  parameters: 'postgres.parameters',
  kept: keptHeading,
}

function groupSettings({ settings, wished = [], kept = [], major }: PostgresqlConfValues) {
  const wishes = new Set([...wished].map((name) => name.toLowerCase()))
  const own = new Set(kept)
  const groupOf = (name: string) => {
    if (own.has(name)) return 'kept'
    return wishes.has(name) ? 'parameters' : (findSetting(name, major)?.group ?? 'parameters')
  }
  const sorted = [...settings].map(([name, value]) => ({ name, value, group: groupOf(name) })).sort(byName)
  return [...settingGroups, 'parameters' as const, 'kept' as const]
    .map((group) => ({
      title: groupTitles[group],
      settings: sorted.filter((setting) => setting.group === group),
    }))
    .filter((group) => group.settings.length > 0)
}

/** By code point, not by locale: the same file on every control host. */
const byName = (a: { name: string }, b: { name: string }) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0)

export interface PgHbaValues {
  readonly cluster: string
  /** As `replicationHbaLines()` makes them. */
  readonly replication: readonly string[]
  /** postgres.hba of the inventory, verbatim. */
  readonly clients: readonly string[]
  /** The role that the OS user of the same name may log in as through the socket; undefined: no line for it. */
  readonly localUser?: string | undefined
}

/** The lines for `ensureManagedBlock()`. */
export function renderPgHba(template: string, values: PgHbaValues): readonly string[] {
  const { cluster, replication, clients, localUser } = values
  const rule = { type: 'local', database: 'all', method: 'peer' } as const
  const local = localUser === undefined ? null : hbaLine({ ...rule, user: localUser })
  const text = renderTemplate(template, { cluster, replication, clients, local }, 'templates/pg_hba.conf')
  return text.trimEnd().split('\n')
}

export interface StandbyValues {
  readonly major: number
  readonly cluster: string
  /** As `buildConninfo()` makes it. Without the password: that stands in the passfile it names. */
  readonly primaryConninfo: string
  /** Undefined: streaming without a slot. */
  readonly primarySlotName?: string | undefined
  readonly restoreCommand?: string | undefined
  /** 0 or undefined: replay at once. */
  readonly recoveryMinApplyDelayMs?: number | undefined
  /** Logical slots of the primary are copied here (17 and newer). */
  readonly copiesLogicalSlots?: boolean | undefined
  /** How often it reports to its upstream; undefined: left to the operator. */
  readonly statusInterval?: string | undefined
  /** The file whose creation promotes; left out where the version knows no such setting. */
  readonly triggerFile?: string | undefined
}

/** The text of replctl.standby.conf, for PostgreSQL 12 and newer; a standby.signal must stand beside it. */
export function renderStandbySettings(template: string, values: StandbyValues): string {
  const hasTrigger = capabilitiesOf(values.major).promoteTriggerFile
  return renderTemplate(template, standbyValues(values, hasTrigger), 'templates/standby.conf')
}

/** The text of recovery.conf, for PostgreSQL 11; the file's presence makes the instance a standby. */
export function renderRecoveryConf(template: string, values: StandbyValues): string {
  return renderTemplate(template, standbyValues(values, true), 'templates/recovery.conf')
}

function standbyValues(values: StandbyValues, hasTrigger: boolean): Record<string, unknown> {
  const { cluster, primaryConninfo, primarySlotName, restoreCommand, recoveryMinApplyDelayMs, triggerFile } =
    values
  return {
    cluster,
    primary_conninfo: primaryConninfo,
    primary_slot_name: primarySlotName ?? null,
    recovery_target_timeline: 'latest',
    restore_command: restoreCommand ?? null,
    recovery_min_apply_delay: recoveryMinApplyDelayMs ? `${recoveryMinApplyDelayMs}ms` : null,
    status_interval: values.statusInterval ?? null,
    copies_logical_slots: values.copiesLogicalSlots === true,
    trigger_file: hasTrigger ? (triggerFile ?? null) : null,
  }
}
