import type {
  ClusterRecord,
  FenceMark,
  InstanceFacts,
  NodeFacts,
  PeerAnswer,
  PostmasterFacts,
  ReplicationConnection,
  ReplicationSlot,
  Setting,
  WalReceiver,
} from '../../src/cluster/facts.ts'
import type { Inventory, NodeSettings, ReplicationSettings } from '../../src/cluster/inventory.ts'
import { nodeName } from '../../src/cluster/names.ts'
import { observeTopology, type Topology } from '../../src/cluster/topology.ts'
import { ReplctlError } from '../../src/errors.ts'
import type { ControlData } from '../../src/postgres/control-data.ts'
import { parseLsn, type TimelineId } from '../../src/postgres/lsn.ts'

export const lsn = parseLsn
export const timeline = (id: number) => id as TimelineId

/** Of every instance of the cluster `shop`, and of another cluster's. */
export const ours = '7412345678901234567'
export const foreign = '7999999999999999999'

/** An inventory of the cluster `shop`. */
export function inventoryOf(
  names: readonly string[],
  changes: Record<string, Partial<NodeSettings>> = {},
  replication: Partial<ReplicationSettings> = {},
) {
  const ssh = {
    user: undefined,
    port: undefined,
    identityFile: undefined,
    configFile: undefined,
    knownHosts: undefined,
    hostKeyPolicy: 'strict',
    connectTimeoutMs: 5_000,
  } as const
  const nodes = names.map((name, index): NodeSettings => {
    const address = `10.0.0.${11 + index}`
    return {
      name: nodeName(name),
      host: address,
      address,
      postgres: {
        version: undefined,
        binDir: undefined,
        dataDir: '/var/lib/postgresql/15/shop',
        port: 5432,
        osUser: 'postgres',
        database: 'postgres',
        service: 'auto',
        parameters: {},
        hba: [],
      },
      ssh,
      upstream: undefined,
      delayMs: 0,
      priority: 0,
      promotable: true,
      slotName: `shop_${name}`,
      applicationName: `shop_${name}`,
      stateDir: '.replctl/shop',
      ...changes[name],
    }
  })
  const inventory: Inventory = {
    path: '/etc/replctl/replctl.yaml',
    folder: '/etc/replctl',
    cluster: 'shop',
    nodes,
    replication: {
      user: 'replicator',
      password: undefined,
      mode: 'async',
      syncStandbys: 1,
      slots: true,
      maxSlotWalKeepSize: '10GB',
      maxCandidateLagBytes: 16_777_216,
      ...replication,
    },
    archive: undefined,
    fenceCommand: undefined,
    onEvent: undefined,
  }
  return inventory
}

/** A node without a data directory. */
export function emptyNode(name: string, changes: Partial<NodeFacts> = {}): NodeFacts {
  return {
    name: nodeName(name),
    unreachable: null,
    hostName: name,
    home: '/var/lib/postgresql',
    clockOffsetMs: 0,
    dataDirectoryState: 'missing',
    dataDirectoryInode: '',
    configDirectory: '',
    installed: [],
    binaries: { directory: '/usr/lib/postgresql/15/bin', major: 15, minor: 18, version: '15.18' },
    dataMajor: null,
    control: null,
    postmaster: null,
    hasStandbySignal: false,
    recoveryConf: '',
    standbyConf: '',
    autoConf: '',
    hasRewindInProgress: false,
    rejoin: null,
    freeBytes: null,
    mark: null,
    record: null,
    fence: null,
    journal: null,
    ended: [],
    holder: null,
    instance: null,
    instanceError: null,
    hasPassfile: true,
    hasGuardScript: false,
    isStartGuarded: false,
    ...changes,
  }
}

/** A node whose instance was stopped at this checkpoint. */
export function stoppedNode(name: string, checkpoint: string, changes: Partial<NodeFacts> = {}): NodeFacts {
  const control = { timeline: timeline(2), checkpointLsn: lsn(checkpoint), state: 'shut down' } as ControlData
  return emptyNode(name, { dataDirectoryState: 'instance', dataMajor: 15, control, ...changes })
}

function instance(changes: Partial<InstanceFacts>): InstanceFacts {
  return {
    serverVersionNumber: 150018,
    systemIdentifier: ours,
    isInRecovery: false,
    timeline: timeline(3),
    currentLsn: null,
    receiveLsn: null,
    replayLsn: null,
    replayLagSeconds: null,
    lastReplayedSeconds: null,
    isReplayPaused: false,
    isAwaitingDelay: false,
    receiver: null,
    replication: [],
    slots: [],
    settings: {},
    archiver: null,
    tablespaces: [],
    history: null,
    preparedTransactions: 0,
    waitingForSync: 0,
    waitingForSyncSeconds: null,
    ...changes,
  }
}

export function slot(name: string, restartLsn: string, changes: Partial<ReplicationSlot> = {}) {
  return {
    name,
    type: 'physical',
    isActive: true,
    isTemporary: false,
    isFailover: false,
    isSynced: false,
    restartLsn: lsn(restartLsn),
    walStatus: 'reserved',
    invalidationReason: null,
    ...changes,
  } as const
}

/** A sender's row in pg_stat_replication. */
export function connection(
  name: string,
  syncState = 'async',
  changes: Partial<ReplicationConnection> = {},
): ReplicationConnection {
  return {
    applicationName: `shop_${name}`,
    clientAddress: null,
    state: 'streaming',
    syncState,
    sentLsn: null,
    flushLsn: null,
    replayLsn: null,
    ...changes,
  }
}

export function runningNode(
  name: string,
  changes: Partial<InstanceFacts>,
  facts: Partial<NodeFacts> = {},
): NodeFacts {
  return emptyNode(name, {
    dataDirectoryState: 'instance',
    dataMajor: 15,
    instance: instance(changes),
    ...facts,
  })
}

/** A standby that PostgreSQL has paused: its max_connections is 100, and the WAL that it replays needs 200. */
export function lowStandby(name: string, replayed: string, changes: Partial<InstanceFacts> = {}): NodeFacts {
  const reached = control({ checkpointLsn: lsn(replayed), minRecoveryEndLsn: null })
  const needs = {
    ...{ maxConnections: 200, maxWorkerProcesses: 8, maxWalSenders: 10 },
    ...{ maxPreparedTransactions: 0, maxLocksPerTransaction: 64 },
  }
  const settings = { max_connections: setting('100'), max_worker_processes: setting('8') }
  const paused = { isReplayPaused: true, settings, ...changes }
  return standbyNode(name, replayed, paused, { control: { ...reached, ...needs } })
}

/** The walreceiver of a node, which streams and does not say from whom. */
export function receiver(name: string, changes: Partial<WalReceiver> = {}): WalReceiver {
  return {
    status: 'streaming',
    senderHost: null,
    senderPort: null,
    slotName: `shop_${name}`,
    receivedTimeline: timeline(3),
    latestEndLsn: null,
    silenceSeconds: 0,
    ...changes,
  }
}

/** The same of one that says from whom it streams. */
export function receiverFrom(name: string, senderHost: string, changes: Partial<WalReceiver> = {}) {
  return { receiver: receiver(name, { senderHost, senderPort: 5432, ...changes }) }
}

export function standbyNode(
  name: string,
  replayed: string,
  changes: Partial<InstanceFacts> = {},
  facts: Partial<NodeFacts> = {},
): NodeFacts {
  return runningNode(
    name,
    {
      isInRecovery: true,
      replayLsn: lsn(replayed),
      receiveLsn: lsn(replayed),
      replayLagSeconds: 0,
      lastReplayedSeconds: 0,
      receiver: receiver(name),
      ...changes,
    },
    facts,
  )
}

/** A node whose host does not answer. */
export function unreachableNode(name: string, changes: Partial<NodeFacts> = {}): NodeFacts {
  return emptyNode(name, {
    unreachable: new ReplctlError('host-unreachable', `could not reach ${name}`, { node: name }),
    binaries: null,
    ...changes,
  })
}

/** The same, and what it told pg2 at its port. */
export function heardNode(name: string, answer: Partial<PeerAnswer>): NodeFacts {
  const usual = { from: nodeName('pg2'), role: 'primary', timeline: timeline(3), said: '' } as const
  return unreachableNode(name, { seenByOthers: { ...usual, systemIdentifier: ours, ...answer } })
}

/** Its server runs and refuses every login, for the reason with this SQLSTATE. */
export function closedNode(name: string, sqlState: string, changes: Partial<NodeFacts> = {}): NodeFacts {
  const said = 'the server refused a statement: sorry, too many clients already'
  return emptyNode(name, {
    ...{
      dataDirectoryState: 'instance',
      postmaster: postmaster(),
      control: control({ state: 'in production' }),
    },
    instanceError: new ReplctlError('sql-failed', said, { node: name, cause: { sqlState } }),
    ...changes,
  })
}

/** What pg_control says of a stopped instance of ours. */
export function control(changes: Partial<ControlData> = {}): ControlData {
  const common = { systemIdentifier: ours, state: 'shut down', timeline: timeline(3) }
  const recovery = { minRecoveryEndLsn: null, minRecoveryEndTimeline: null }
  return { ...common, ...recovery, checkpointLsn: lsn('0/5000000'), ...changes } as ControlData
}

/** A postmaster that runs. */
export function postmaster(changes: Partial<PostmasterFacts> = {}): PostmasterFacts {
  const process = { pid: 4711, isAlive: true, isFrozen: false, status: 'ready' }
  return { ...process, port: 5432, socketDirectory: '/var/run/postgresql', ...changes }
}

/** replctl's record that `primary` leads these members. */
export function recordOf(
  primary: string,
  members: readonly string[],
  changes: Partial<ClusterRecord> = {},
): ClusterRecord {
  return {
    systemIdentifier: ours,
    primary: nodeName(primary),
    timeline: 3,
    members: members.map(nodeName),
    generation: 1,
    ...changes,
  }
}

/** The mark that a promotion leaves on the old primary. */
export function fenceMark(newPrimary: string, timeline = 2): FenceMark {
  return { newPrimary, timeline, at: '2026-03-01T12:00:00.000Z' }
}

/** A value of pg_settings. */
export function setting(value: string): Setting {
  return { value, source: '', sourceFile: null, isPendingRestart: false }
}

/** Settings of a standby that is told to receive from this address. */
export function receivesFrom(address: string, port = 5432): Pick<InstanceFacts, 'settings'> {
  return { settings: { primary_conninfo: setting(`host=${address} port=${port}`) } }
}

/** The topology of these nodes, and the inventory it was made with. */
export function observed(
  survey: readonly NodeFacts[],
  changes: Record<string, Partial<NodeSettings>> = {},
  replication: Partial<ReplicationSettings> = {},
): { inventory: Inventory; topology: Topology } {
  const inventory = inventoryOf(
    survey.map((facts) => facts.name),
    changes,
    replication,
  )
  return { inventory, topology: observeTopology(inventory, survey) }
}
