import { ReplctlError } from '../errors.ts'
import { settingNumber } from './setting-value.ts'
import { capabilitiesOf } from './versions.ts'
import { defaultWalSegmentSizeBytes } from './wal-file.ts'

/** How many connections an instance takes, as it runs or is configured; what is absent is PostgreSQL's default. */
export interface ConnectionLimits {
  readonly max_connections?: string | undefined
  readonly superuser_reserved_connections?: string | undefined
}

export interface OwnedSettingsInput {
  readonly major: number
  readonly cluster: string
  /** Nodes of the inventory, the primary included. */
  readonly nodeCount: number
  readonly port: number
  /** As `synchronousStandbyNames()` makes it; `''`: asynchronous. */
  readonly synchronousStandbyNames: string
  /** Slots that logical walsenders wait for; undefined: not rendered. */
  readonly synchronizedStandbySlots?: string | undefined
  /** e.g. `10GB`. Left out where the version has no such setting. */
  readonly maxSlotWalKeepSize?: string | undefined
  /** Undefined: archiving is left as it is. */
  readonly archiveCommand?: string | undefined
  /** Comma-separated; undefined: the packager's default. */
  readonly unixSocketDirectories?: string | undefined
  /** What wal_keep_segments counts in; 16 MiB unless initdb was told otherwise. */
  readonly walSegmentSizeBytes?: number | undefined
  /** What the instance has without the inventory; of use before PostgreSQL 12. */
  readonly connectionLimits?: ConnectionLimits | undefined
  /** postgres.parameters of the inventory. */
  readonly parameters: Readonly<Record<string, string>>
}

/**
 * The settings of an instance that do not depend on its role, the same on every node so that any can become primary:
 * replctl's own with the operator's parameters over them. What safety rests on the operator cannot lower:
 * `wal_level` may be `logical` but not `minimal`, hints are always logged. Counts of walsenders and slots are the
 * operator's where given: `add-standby` says when they are too low.
 * Names not in it stay as the instance has them, e.g. hot_standby_feedback.
 * @throws {ReplctlError} `inventory-invalid` if a parameter is no setting's name or is one of `reservedParameters`,
 * `settings-too-low` if a server of 11 would not start with so many walsenders among so few connections
 */
export function ownedSettings(input: OwnedSettingsInput): Map<string, string> {
  const parameters = readParameters(input.parameters)
  const merged = new Map([...defaultsOf(input), ...parameters])
  for (const [name, value] of guaranteesOf(input, parameters)) merged.set(name, value)
  return merged
}

/** What replctl sets unless the operator says otherwise. */
function defaultsOf(input: OwnedSettingsInput): [string, string][] {
  const { major, maxSlotWalKeepSize, unixSocketDirectories, synchronizedStandbySlots } = input
  const { maxSlotWalKeepSize: hasSlotLimit, slotSynchronisation } = capabilitiesOf(major)
  return [
    ['listen_addresses', '*'],
    ['password_encryption', 'scram-sha-256'],
    walToKeep(input),
    ...pairIf(hasSlotLimit, 'max_slot_wal_keep_size', maxSlotWalKeepSize),
    ...pairIf(slotSynchronisation, 'synchronized_standby_slots', synchronizedStandbySlots),
    ...pairIf(true, 'unix_socket_directories', unixSocketDirectories),
  ]
}

/** What the operator cannot take away. */
function guaranteesOf(input: OwnedSettingsInput, wished: ReadonlyMap<string, string>): [string, string][] {
  const { archiveCommand, major, nodeCount } = input
  const { archiveLibrary } = capabilitiesOf(major)
  // Each node may stream to all others, and so may pg_basebackup (two connections) and pg_receivewal meanwhile.
  // Generous, because raising it later needs a restart of the primary.
  const connections = Math.max(32, nodeCount * 2 + 8)
  const atLeast = (name: string, needed: number) => wished.get(name) ?? String(needed)
  return [
    ['cluster_name', input.cluster],
    ['port', String(input.port)],
    ['wal_level', wished.get('wal_level')?.toLowerCase() === 'logical' ? 'logical' : 'replica'],
    ['max_wal_senders', walsenders(input, wished, connections)],
    ['max_replication_slots', atLeast('max_replication_slots', connections)],
    ['hot_standby', 'on'],
    // pg_rewind needs hints in WAL. Checksums would do as well, but pg_checksums --disable takes them away silently.
    ['wal_log_hints', 'on'],
    ['synchronous_standby_names', input.synchronousStandbyNames],
    ...pairIf(
      archiveCommand !== undefined,
      'archive_mode',
      wished.get('archive_mode') === 'always' ? 'always' : 'on',
    ),
    ...pairIf(true, 'archive_command', archiveCommand),
    ...pairIf(archiveCommand !== undefined && archiveLibrary, 'archive_library', ''),
  ]
}

/**
 * Walsenders as wished, or as many as are needed. Before PostgreSQL 12 they are among max_connections, and the server starts only
 * where superuser_reserved_connections and max_wal_senders together are less; `postgres -C` prints a value without looking.
 * @see src/backend/postmaster/postmaster.c of 11, PostmasterMain
 */
function walsenders(input: OwnedSettingsInput, wished: ReadonlyMap<string, string>, needed: number): string {
  const { major, nodeCount, connectionLimits = {} } = input
  const wish = wished.get('max_wal_senders')
  if (capabilitiesOf(major).walsendersApart) return wish ?? String(needed)
  const limit = (name: keyof ConnectionLimits, usual: number) =>
    settingNumber(wished.get(name) ?? connectionLimits[name] ?? '') ?? usual
  const free = limit('max_connections', 100) - limit('superuser_reserved_connections', 3)
  // Some are left for clients; each node may still stream to all others, with a base backup on its way.
  const fitting = Math.max(free - 5, nodeCount * 2 + 2)
  const value = wish ?? String(Math.min(needed, fitting))
  if ((settingNumber(value) ?? 0) >= free) throw tooFewConnections(value, free, limit('max_connections', 100))
  return value
}

function tooFewConnections(walsenders: string, free: number, connections: number): ReplctlError {
  const least = connections - free + Number(walsenders) + 1
  return new ReplctlError('settings-too-low', 'max_connections leaves no room for max_wal_senders', {
    detail: `max_connections is ${connections}, ${connections - free} of them are superuser_reserved_connections, and max_wal_senders is to be ${walsenders}. Before PostgreSQL 12 walsenders are among the connections: a server where the two together are not less does not start.`,
    hint: `Set max_connections to more than ${least} under postgres.parameters, so that clients get in as well.`,
  })
}

/** 256 MB, so that a standby without a slot, or one that lost it, survives a short outage. */
function walToKeep({
  major,
  walSegmentSizeBytes = defaultWalSegmentSizeBytes,
}: OwnedSettingsInput): [string, string] {
  const keptBytes = 256 * 1024 * 1024
  return capabilitiesOf(major).walKeepSize
    ? ['wal_keep_size', '256MB']
    : ['wal_keep_segments', String(Math.ceil(keptBytes / walSegmentSizeBytes))]
}

/** Names that cannot stand in postgres.parameters → what to use instead. */
export const reservedParameters: ReadonlyMap<string, string> = new Map([
  ['port', 'Set postgres.port.'],
  ['cluster_name', 'It is the cluster of the inventory.'],
  ['synchronous_standby_names', 'Set replication.mode and replication.sync_standbys.'],
  ['data_directory', 'Set postgres.data_dir.'],
  ['config_file', 'It is where the instance has it.'],
  ['primary_conninfo', 'replctl renders it for each standby.'],
  ['primary_slot_name', 'replctl renders it for each standby.'],
  ['recovery_min_apply_delay', "Set the node's delay."],
  ['recovery_target', 'Use replctl restore.'],
  ['recovery_target_action', 'Use replctl restore.'],
  ['recovery_target_inclusive', 'Use replctl restore.'],
  ['recovery_target_lsn', 'Use replctl restore --to-lsn.'],
  ['recovery_target_name', 'Use replctl restore --to-name.'],
  ['recovery_target_time', 'Use replctl restore --to-time.'],
  ['recovery_target_timeline', 'A standby follows the latest timeline.'],
  ['recovery_target_xid', 'Use replctl restore.'],
  ['promote_trigger_file', 'replctl renders it where promotion by trigger file is possible.'],
  ['trigger_file', 'replctl renders it where promotion by trigger file is possible.'],
  ['standby_mode', 'replctl renders it for each standby.'],
  ['include', 'Put it into postgresql.conf.'],
  ['include_if_exists', 'Put it into postgresql.conf.'],
  ['include_dir', 'Put it into postgresql.conf.'],
])

function readParameters(parameters: Readonly<Record<string, string>>): Map<string, string> {
  return new Map(
    Object.entries(parameters).map(([name, value]) => {
      const lowerCased = name.toLowerCase()
      const instead = reservedParameters.get(lowerCased)
      if (instead) throw invalidParameter(name, 'It belongs to replctl.', instead)
      if (!/^[a-z_]\w*(\.[a-z_]\w*)?$/.test(lowerCased)) {
        throw invalidParameter(name, 'No setting of PostgreSQL is called so.', 'Correct the name.')
      }
      return [lowerCased, value] as const
    }),
  )
}

function invalidParameter(name: string, detail: string, hint: string): ReplctlError {
  return new ReplctlError('inventory-invalid', `cannot set ${JSON.stringify(name)} in postgres.parameters`, {
    detail,
    hint,
  })
}

function pairIf(wanted: boolean, name: string, value: string | undefined): [string, string][] {
  return wanted && value !== undefined ? [[name, value]] : []
}
