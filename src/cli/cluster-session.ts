import type { Inventory, NodeSettings } from '../cluster/inventory.ts'
import { archiveHost, type NodeName, nodeName } from '../cluster/names.ts'
import { didYouMean } from '../cluster/nearest-word.ts'
import { commandLine } from '../command.ts'
import { findInventoryPath } from '../config/find-inventory.ts'
import { loadInventory } from '../config/load-inventory.ts'
import { loadTemplate } from '../config/load-template.ts'
import { ReplctlError } from '../errors.ts'
import { createNode, type Node, stateDirectoryScript, stateVariableScript } from '../node/node.ts'
import type { Templates } from '../steps/cluster-input.ts'
import { createLocalTransport } from '../transport/local-transport.ts'
import { createSshTransport } from '../transport/ssh-transport.ts'
import type { Transport, TransportObserver } from '../transport/transport.ts'
import type { Call } from './command-spec.ts'

/** An inventory, and a way to each of its nodes. Nothing is contacted before a node is used. */
export interface ClusterSession {
  readonly inventory: Inventory
  readonly templates: Templates
  readonly nodes: ReadonlyMap<NodeName, Node>
  /** The nodes and the archive host, each logged into only when a step wants it. */
  readonly hosts: ReadonlyMap<NodeName, Node>
  /** Resolves when connections to all nodes that are reached by SSH are being made. */
  readonly dialled: Promise<void>
  close(): Promise<void>
}

/** Opens the cluster of a call. @throws {ReplctlError} `inventory-missing`, `inventory-invalid` */
export async function openCluster(call: Call): Promise<ClusterSession> {
  const { env, cwd, home } = call.io
  call.found.isSought = true
  const path = findInventoryPath({ flag: call.flags.config, env, cwd, home })
  const inventory = await loadInventory(path, { env, home, cwd, signal: call.signal })
  call.found.name = inventory.cluster
  return await openInventory(call, inventory)
}

/**
 * Begins to log in everywhere; resolves when all connections are being made, so that what else the command needs can be
 * loaded meanwhile. What fails is told by whoever waits for it.
 */
export async function connectEarly({ nodes, dialled }: ClusterSession): Promise<void> {
  const connecting = [...nodes.values()].map((node) => node.transport.connect().catch(() => undefined))
  await Promise.race([dialled, Promise.all(connecting)])
}

/** Makes the nodes of an inventory. */
export async function openInventory(call: Call, inventory: Inventory): Promise<ClusterSession> {
  const observer = call.flags.isVerbose ? verboseObserver(call) : undefined
  let left = inventory.nodes.filter(({ host }) => host !== 'local').length
  let allDialled: () => void = () => undefined
  const dialled = new Promise<void>((resolve) => {
    allDialled = resolve
  })
  const onDialling = () => {
    left -= 1
    if (left === 0) allDialled()
  }
  if (left === 0) allDialled()
  const activity = { count: 0 }
  const nodes = new Map(
    inventory.nodes.map((settings) => [
      settings.name,
      createNode(
        settings,
        inventory.cluster,
        transportTo(settings, call, observer, onDialling),
        activity,
        observer,
      ),
    ]),
  )
  const archiveSettings = archiveHostSettings(inventory)
  const hosts = new Map(nodes)
  if (archiveSettings !== null) {
    const transport = transportTo(archiveSettings, call, observer)
    hosts.set(archiveHost, createNode(archiveSettings, inventory.cluster, transport, activity))
  }
  const names = ['postgresql.conf', 'pg_hba.conf', 'standby.conf', 'recovery.conf']
  const archive = ['push', 'receive', 'fetch', 'stream'].map((name) => `archive/archive-${name}.sh`)
  const guard = ['guard/start-guard.sh', 'guard/guarded-postgres.sh', 'guard/systemd-drop-in.conf']
  const texts = await Promise.all([...names, ...archive, ...guard].map(loadTemplate))
  const [postgresqlConf = '', pgHba = '', standbyConf = '', recoveryConf = ''] = texts
  const [archivePush = '', archiveReceive = '', archiveFetch = '', archiveStream = ''] = texts.slice(
    names.length,
  )
  const [startGuard = '', guardedPostgres = '', guardDropIn = ''] = texts.slice(names.length + archive.length)
  return {
    inventory,
    templates: {
      postgresqlConf,
      pgHba,
      standbyConf,
      recoveryConf,
      archivePush,
      archiveReceive,
      archiveFetch,
      startGuard,
      guardedPostgres,
      guardDropIn,
      archiveStream,
    },
    nodes,
    hosts,
    dialled,
    close: async () => {
      await Promise.all([...hosts.values()].map((node) => node.close().catch(() => undefined)))
    },
  }
}

/** The archive host as something to log into: with its own user, and its own way in. */
function archiveHostSettings({ archive, nodes, cluster }: Inventory): NodeSettings | null {
  const like = nodes.find((node) => node.name === archive?.node) ?? nodes[0]
  if (archive === undefined || like === undefined) return null
  return {
    ...like,
    name: archiveHost,
    host: archive.host,
    address: archive.address,
    ssh: archive.ssh,
    postgres: { ...like.postgres, osUser: archive.user },
    stateDir: `.replctl/${cluster}`,
  }
}

function transportTo(
  node: NodeSettings,
  call: Call,
  observer: TransportObserver | undefined,
  onDialling?: () => void,
): Transport {
  const { osUser } = node.postgres
  const { env, home, userName, uid } = call.io
  if (node.host === 'local') return createLocalTransport({ osUser, username: userName, uid, observer })
  return createSshTransport({ host: node.host, settings: node.ssh, osUser, observer, env, home, onDialling })
}

/** Each command as it runs: host, what, its command line, how long, how it ended. Secrets are part of neither. */
function verboseObserver(call: Call): TransportObserver {
  return {
    commandStarted: (host, command) => {
      const line = commandLine(command, [stateDirectoryScript, stateVariableScript])
      const shown = line === command.title ? '' : `    ${line}\n`
      call.io.writeError(`${host}$ ${command.title}\n${shown}`)
    },
    commandFinished: (host, command, result, ms) =>
      call.io.writeError(
        `${host}$ ${command.title}: ${result.signal ?? `exit status ${result.status}`}, ${Math.round(ms)} ms\n`,
      ),
  }
}

/** The settings of a node that the operator named. @throws {ReplctlError} `unknown-node` */
export function findNode(inventory: Inventory, name: string): NodeSettings {
  const found = inventory.nodes.find((node) => node.name === name)
  if (found !== undefined) return found
  const names = inventory.nodes.map((node) => node.name)
  const guess = didYouMean(name, names)
  throw new ReplctlError('unknown-node', `there is no node "${name}" in the inventory`, {
    detail: `Its nodes are ${names.join(', ')}.`,
    hint: guess ?? `Add it to ${inventory.path}, or name one of these.`,
  })
}

/** The same for several names; each is meant once. */
export function findNodes(inventory: Inventory, names: readonly string[]): readonly NodeSettings[] {
  return [...new Set(names)].map((name) => findNode(inventory, nodeName(name)))
}
