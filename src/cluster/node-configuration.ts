import { buildConninfo } from '../postgres/conninfo.ts'
import { replicationHbaLines } from '../postgres/hba.ts'
import { type ConnectionLimits, ownedSettings } from '../postgres/owned-settings.ts'
import {
  renderPgHba,
  renderPostgresqlConf,
  renderRecoveryConf,
  renderStandbySettings,
} from '../postgres/render.ts'
import { synchronousStandbyNames } from '../postgres/synchronous-standby-names.ts'
import { capabilitiesOf } from '../postgres/versions.ts'
import { copiesLogicalSlots, keepsLogicalSlots, synchronizedStandbySlots } from './failover-slots.ts'
import type { Inventory, NodeSettings } from './inventory.ts'
import type { NodeName } from './names.ts'
import { confirmingArchive } from './roles.ts'
import { stateDirectoryOf } from './state-directory.ts'

/** The templates that make up an instance's configuration. */
export interface ConfigurationTemplates {
  readonly postgresqlConf: string
  readonly pgHba: string
  readonly standbyConf: string
  readonly recoveryConf: string
}

/** Replctl's own files beside (or included by) what the operator wrote. */
export const ownedConfigFile = 'replctl.conf'
export const ownedStandbyFile = 'replctl.standby.conf'

export interface ConfigurationWish {
  readonly inventory: Inventory
  readonly node: NodeSettings
  readonly templates: ConfigurationTemplates
  readonly major: number
  /** Home of the PostgreSQL OS user on the node. */
  readonly home: string
  /** Nodes that are (or are about to be) standbys beside this one, should it lead. */
  readonly standbys: readonly NodeName[]
  /** It is a standby, and this plan does not make it lead. */
  readonly isStandby?: boolean | undefined
  /** Socket directory to render; undefined: the packager's default. */
  readonly socketDirectory?: string | undefined
  /** How many connections the instance takes without the inventory; see `ownedSettings`. */
  readonly connectionLimits?: ConnectionLimits | undefined
  /** Undefined where archiving is not set up. */
  readonly archiveCommand?: string | undefined
  /** Values that the instance had before and that are as good as the needed ones. */
  readonly kept?: ReadonlyMap<string, string> | undefined
}

/** What replctl.conf sets, unless the instance has something as good. */
export function neededSettings(wish: Omit<ConfigurationWish, 'templates' | 'kept'>): Map<string, string> {
  const { inventory, node } = wish
  // Up to 17.6, and in 18.0, a name without a slot on this very server ends each parallel query there.
  const awaited = wish.isStandby === true ? [] : wish.standbys
  return ownedSettings({
    major: wish.major,
    cluster: inventory.cluster,
    nodeCount: inventory.nodes.length,
    port: node.postgres.port,
    synchronousStandbyNames: synchronousNamesFor(inventory, node.name, wish.standbys),
    synchronizedStandbySlots: synchronizedStandbySlots(inventory, node, awaited, wish.major),
    maxSlotWalKeepSize: inventory.replication.maxSlotWalKeepSize,
    archiveCommand: wish.archiveCommand,
    unixSocketDirectories: wish.socketDirectory,
    connectionLimits: wish.connectionLimits,
    parameters: node.postgres.parameters,
  })
}

/** The text of replctl.conf: right for a primary and a standby alike. */
export function nodeConfigText(wish: ConfigurationWish): string {
  const { inventory, node, major, kept = new Map() } = wish
  return renderPostgresqlConf(wish.templates.postgresqlConf, {
    major,
    cluster: inventory.cluster,
    settings: new Map([...neededSettings(wish), ...kept]),
    wished: Object.keys(node.postgres.parameters),
    kept: kept.keys(),
    standbyInclude: ownedStandbyFile,
  })
}

/**
 * Value of synchronous_standby_names for a node, should it lead: these standbys, never itself. Those that could take over
 * come first, then the larger priority. Who they are to be says `confirmingStandbys`. A synchronous archive is one more, the last.
 */
export function synchronousNamesFor(
  inventory: Inventory,
  node: NodeName,
  standbys: readonly NodeName[],
): string {
  const names = inventory.nodes
    .filter((one) => one.name !== node && standbys.includes(one.name))
    .toSorted((a, b) => Number(canTakeOver(b)) - Number(canTakeOver(a)) || b.priority - a.priority)
    .map((one) => one.applicationName)
  const archive = confirmingArchive(inventory)
  return synchronousStandbyNames({
    mode: inventory.replication.mode,
    count: inventory.replication.syncStandbys,
    names: archive === null ? names : [...names, archive],
  })
}

const canTakeOver = ({ promotable, delayMs }: NodeSettings) => promotable && delayMs === 0

/** The lines of replctl's block in pg_hba.conf, the same on every node. */
export function nodeHbaLines(
  wish: Pick<ConfigurationWish, 'inventory' | 'node' | 'templates' | 'major'>,
): readonly string[] {
  const { inventory, node, templates, major } = wish
  return renderPgHba(templates.pgHba, {
    cluster: inventory.cluster,
    replication: replicationHbaLines({
      addresses: replicationAddresses(inventory),
      user: inventory.replication.user,
      // Whoever copies logical slots logs in to a database as well.
      database: keepsLogicalSlots(inventory, node, major) ? node.postgres.database : undefined,
    }),
    clients: node.postgres.hba,
    localUser: node.postgres.osUser,
  })
}

/** Where replication connections come from: every node, and the archive host, which takes base backups and streams WAL. */
function replicationAddresses({ nodes, archive }: Inventory): readonly string[] {
  const addresses = nodes.map((one) => one.address)
  return [...new Set(archive === undefined ? addresses : [...addresses, archive.address])]
}

/** Path of the file whose creation promotes this node (15 and older). */
export function triggerFileOf(home: string, node: NodeSettings): string {
  return `${stateDirectoryOf(home, node)}/promote`
}

/** Path of the passfile on a node. */
export function passfileOf(home: string, node: NodeSettings): string {
  return `${stateDirectoryOf(home, node)}/pgpass`
}

/** How a node connects to its upstream. The password stands in the passfile that it names. */
export function upstreamConninfo(
  inventory: Inventory,
  home: string,
  node: NodeSettings,
  upstream: NodeSettings,
  { database }: { readonly database?: string } = {},
): string {
  return buildConninfo({
    host: upstream.address,
    port: String(upstream.postgres.port),
    user: inventory.replication.user,
    ...(database === undefined ? {} : { dbname: database }),
    passfile: passfileOf(home, node),
    application_name: node.applicationName,
    connect_timeout: '5',
    keepalives_idle: '10',
    keepalives_interval: '5',
    keepalives_count: '3',
  })
}

export interface StandbyWish extends ConfigurationWish {
  readonly upstream: NodeSettings
  readonly restoreCommand?: string | undefined
  /** wal_level as the instance runs with it, or will be started with; null: not known. What the inventory says may wait for a restart. */
  readonly walLevel: string | null
}

/** The text that makes a node a standby of its upstream: recovery.conf (11) or replctl.standby.conf (12 and newer). */
export function standbyConfigText(wish: StandbyWish): string {
  const { inventory, node, major, home, templates } = wish
  const copiesSlots = copiesLogicalSlots(inventory, node, major)
  const access = copiesSlots ? { database: node.postgres.database } : {}
  const values = {
    major,
    cluster: inventory.cluster,
    primaryConninfo: upstreamConninfo(inventory, home, node, wish.upstream, access),
    // Below logical the postmaster of 17.0 to 17.5 ends as soon as it is told to copy slots; that of 19 does not start.
    copiesLogicalSlots: copiesSlots && wish.walLevel === 'logical',
    primarySlotName: inventory.replication.slots ? node.slotName : undefined,
    restoreCommand: wish.restoreCommand,
    recoveryMinApplyDelayMs: node.delayMs,
    statusInterval: hasParameter(node, 'wal_receiver_status_interval') ? undefined : '1s',
    triggerFile: triggerFileOf(home, node),
  }
  return capabilitiesOf(major).recoveryConf
    ? renderRecoveryConf(templates.recoveryConf, values)
    : renderStandbySettings(templates.standbyConf, values)
}

const hasParameter = ({ postgres }: NodeSettings, name: string): boolean =>
  Object.keys(postgres.parameters).some((one) => one.toLowerCase() === name)
