import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { stringify } from 'yaml'
import type { Hosts } from './hosts.ts'
import { PostgresServer } from './postgres-server.ts'
import {
  type ReplctlOptions,
  type ReplctlResult,
  runReplctl,
  type StartedReplctl,
  startReplctl,
} from './replctl.ts'
import { describeFailure } from './run-process.ts'

/** A part of the inventory: merged into what TestCluster writes, folders of keys one by one. */
export interface InventoryPart {
  readonly [key: string]: unknown
}

export interface TestClusterOptions {
  /** Default `shop`. */
  readonly cluster?: string
  /** The hosts that are nodes, in this order. Default: all. */
  readonly nodes?: readonly string[]
  /** Merged into the inventory, e.g. `{ replication: { mode: 'sync' }, nodes: { pg2: { priority: 10 } } }`. */
  readonly inventory?: InventoryPart
}

let written = 0

/** A cluster on test hosts, as an operator sees it: an inventory, and replctl commands on it. */
export class TestCluster {
  readonly hosts: Hosts
  readonly nodes: readonly string[]
  /** Path of the inventory on the control host. */
  readonly inventoryFile: string

  private constructor(hosts: Hosts, nodes: readonly string[], inventoryFile: string) {
    this.hosts = hosts
    this.nodes = nodes
    this.inventoryFile = inventoryFile
  }

  /** Writes the inventory; touches no host. */
  static async create(hosts: Hosts, options: TestClusterOptions = {}): Promise<TestCluster> {
    const nodes = options.nodes ?? hosts.names
    written += 1
    const file = join(hosts.directory, `replctl-${written}.yaml`)
    const cluster = new TestCluster(hosts, nodes, file)
    await cluster.writeInventory({ cluster: options.cluster ?? 'shop', ...options.inventory })
    return cluster
  }

  /** Writes the inventory again, with other parts in it. */
  async writeInventory(part: InventoryPart): Promise<void> {
    await writeFile(this.inventoryFile, stringify(merge(inventoryFor(this.hosts, this.nodes), part)))
  }

  /** Runs replctl on this inventory, whatever its exit code: `replctl(['status', '--json'])`. */
  async replctl(args: readonly string[], options: ReplctlOptions = {}): Promise<ReplctlResult> {
    return runReplctl([...args, '--config', this.inventoryFile], options)
  }

  /** Starts replctl on this inventory and returns at once. */
  startReplctl(args: readonly string[], options: ReplctlOptions = {}): StartedReplctl {
    return startReplctl([...args, '--config', this.inventoryFile], options)
  }

  /** Runs replctl with `--json` and rejects, with all it printed, unless it exits 0. */
  async succeed(args: readonly string[], options: ReplctlOptions = {}): Promise<ReplctlResult> {
    const result = await this.replctl([...args, '--json'], options)
    if (result.exitCode !== 0) throw new Error(describeFailure(`replctl ${args.join(' ')}`, result))
    return result
  }

  /** `replctl init primary`: the first node unless another is named. */
  async init(primary = this.nodes[0]!): Promise<ReplctlResult> {
    return this.succeed(['init', 'primary', primary])
  }

  /** `replctl add-standby`: all nodes but the first unless some are named. */
  async addStandbys(standbys: readonly string[] = this.nodes.slice(1)): Promise<ReplctlResult> {
    return this.succeed(['add-standby', ...standbys])
  }

  /** The node's instance, driven without replctl. */
  server(node: string): PostgresServer {
    return new PostgresServer(this.hosts, node)
  }
}

function inventoryFor(hosts: Hosts, nodes: readonly string[]): InventoryPart {
  const first = hosts.postgresOf(nodes[0]!)
  const node = (name: string): InventoryPart => {
    const { port, dataDir, socketDirectory } = hosts.postgresOf(name)
    const access = hosts.sshConfigFor(name)
    return {
      host: access.host,
      ...(port === first.port ? {} : { port }),
      ...(dataDir === first.dataDir ? {} : { data_dir: dataDir }),
      ...(socketDirectory ? { parameters: { unix_socket_directories: socketDirectory } } : {}),
      ssh: { user: access.user, ...(access.port === 22 ? {} : { port: access.port }) },
    }
  }
  return {
    cluster: 'shop',
    postgres: { data_dir: first.dataDir, port: first.port, os_user: first.osUser },
    ssh: {
      identity_file: hosts.identityFile,
      known_hosts: hosts.knownHostsFile,
      connect_timeout: '6s',
    },
    nodes: Object.fromEntries(nodes.map((name) => [name, node(name)])),
  }
}

function merge(base: InventoryPart, part: InventoryPart): InventoryPart {
  const isPart = (value: unknown): value is InventoryPart =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
  const merged: Record<string, unknown> = { ...base }
  for (const [key, value] of Object.entries(part)) {
    const known = merged[key]
    merged[key] = isPart(known) && isPart(value) ? merge(known, value) : value
  }
  return merged
}
