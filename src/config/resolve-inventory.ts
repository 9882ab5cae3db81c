import { dirname } from 'node:path'
import { type NodeName, nodeName } from '../cluster/names.ts'
import { applicationNameFor, slotNameFor } from '../cluster/replication-names.ts'
import { defaultStateDir } from '../cluster/state-directory.ts'
import type { Secret } from '../command.ts'
import type { ArchiveSettings, Inventory, NodeSettings, PostgresSettings, SshSettings } from './inventory.ts'
import { resolveLocalPath } from './local-path.ts'
import type { ArchiveFile, InventoryFile, NodeFile, PostgresFile, SshFile } from './schema.ts'

export interface ResolveOptions {
  /** Absolute path of the file. */
  readonly path: string
  readonly home: string
  /** Names of the nodes in the file's order. */
  readonly nodeNames: readonly string[]
  readonly password: Secret | undefined
}

type PathResolver = (path: string | undefined) => string | undefined

/** Applies defaults and each node's own settings to a file that was found to be valid. */
export function resolveInventory(file: InventoryFile, options: ResolveOptions): Inventory {
  const folder = dirname(options.path)
  const toPath: PathResolver = (path) =>
    path === undefined ? undefined : resolveLocalPath(path, folder, options.home)
  const nodes = options.nodeNames
    .map((name) => resolveNode(file, nodeName(name), file.nodes[name]!, toPath))
    .map((node, index, all) => ({
      ...node,
      stateDir: file.nodes[node.name]?.state_dir ?? defaultStateDir(file.cluster, node, all.slice(0, index)),
    }))
  const replication = file.replication ?? {}
  return {
    path: options.path,
    folder,
    cluster: file.cluster,
    nodes,
    replication: {
      user: replication.user ?? 'replicator',
      password: options.password,
      mode: replication.mode ?? 'async',
      syncStandbys: replication.sync_standbys ?? 1,
      slots: replication.slots ?? true,
      maxSlotWalKeepSize: replication.max_slot_wal_keep_size ?? '10GB',
      maxCandidateLagBytes: replication.max_candidate_lag ?? 16 * 2 ** 20,
    },
    archive: file.archive && resolveArchive(file, file.archive, nodes, toPath),
    fenceCommand: file.fence?.command,
    onEvent: file.hooks?.on_event,
  }
}

function resolveNode(
  file: InventoryFile,
  name: NodeName,
  node: NodeFile,
  toPath: PathResolver,
): Omit<NodeSettings, 'stateDir'> {
  return {
    name,
    host: node.host,
    address: node.address ?? defaultAddress(node.host),
    postgres: resolvePostgres([file.postgres, node.postgres, node]),
    ssh: resolveSsh([file.ssh, node.ssh], toPath),
    upstream: node.upstream === undefined ? undefined : nodeName(node.upstream),
    delayMs: node.delay ?? 0,
    priority: node.priority ?? 0,
    promotable: node.promotable ?? true,
    slotName: slotNameFor(file.cluster, name),
    applicationName: applicationNameFor(file.cluster, name),
  }
}

function defaultAddress(host: string): string {
  return host === 'local' ? '127.0.0.1' : host
}

type Layers<Section> = readonly (Partial<Section> | undefined)[]

/** The value of the last layer that has one. */
function last<Section, Key extends keyof Section>(
  layers: Layers<Section>,
  key: Key,
): Section[Key] | undefined {
  return layers.findLast((layer) => layer?.[key] !== undefined)?.[key]
}

function resolvePostgres(layers: Layers<PostgresFile>): PostgresSettings {
  const parameters = layers.flatMap((layer) => Object.entries(layer?.parameters ?? {}))
  return {
    version: last(layers, 'version'),
    binDir: last(layers, 'bin_dir'),
    dataDir: last(layers, 'data_dir')!,
    port: last(layers, 'port') ?? 5432,
    osUser: last(layers, 'os_user') ?? 'postgres',
    database: last(layers, 'database') ?? 'postgres',
    service: last(layers, 'service') ?? 'auto',
    // PostgreSQL ignores case in names; only so does a node's Work_Mem override the common work_mem.
    parameters: Object.fromEntries(parameters.map(([name, value]) => [name.toLowerCase(), value])),
    hba: layers.flatMap((layer) => layer?.hba ?? []),
  }
}

function resolveSsh(layers: Layers<SshFile>, toPath: PathResolver): SshSettings {
  return {
    user: last(layers, 'user'),
    port: last(layers, 'port'),
    identityFile: toPath(last(layers, 'identity_file')),
    configFile: toPath(last(layers, 'config_file')),
    knownHosts: toPath(last(layers, 'known_hosts')),
    hostKeyPolicy: last(layers, 'host_key_policy') ?? 'strict',
    connectTimeoutMs: last(layers, 'connect_timeout') ?? 5000,
  }
}

/**
 * `user` and `port` of the archive are how nodes log into it. replctl does the same on a host of its own;
 * on a node it logs in as it does into that node.
 */
function resolveArchive(
  file: InventoryFile,
  archive: ArchiveFile,
  nodes: readonly NodeSettings[],
  toPath: PathResolver,
): ArchiveSettings {
  const node = nodes.find(({ name }) => name === archive.host)
  const login: Partial<SshFile> = node ? {} : { user: archive.user, port: archive.port }
  const ssh = resolveSsh([file.ssh, node && file.nodes[node.name]?.ssh, login, archive.ssh], toPath)
  return {
    node: node?.name,
    host: node?.host ?? archive.host,
    address: archive.address ?? node?.address ?? defaultAddress(archive.host),
    user: archive.user ?? node?.postgres.osUser ?? file.postgres?.os_user ?? 'postgres',
    port: archive.port ?? ssh.port ?? 22,
    dir: archive.dir,
    mode: archive.mode ?? 'push',
    synchronous: archive.synchronous ?? false,
    compression: archive.compression ?? 'auto',
    maxBackupAgeMs: archive.max_backup_age ?? null,
    ssh,
  }
}
