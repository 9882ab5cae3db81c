import { ReplctlError } from '../errors.ts'
import { compareLsn } from '../postgres/lsn.ts'
import {
  type ParsedSynchronousStandbys,
  parseSynchronousStandbyNames,
} from '../postgres/synchronous-standby-names.ts'
import type { InstanceFacts, ReplicationConnection } from './facts.ts'
import type { Inventory } from './inventory.ts'
import type { NodeName } from './names.ts'
import { confirmingArchive } from './roles.ts'
import { isDeafForDelay, nodeOf, type ObservedNode, type Topology } from './topology.ts'

/** A healthy standby confirms within milliseconds. Whoever waited this long waits for one that is cut off. */
const patienceSeconds = 3

/**
 * Whether commits wait for ever on the primary, and whether as many standbys confirm as the inventory wishes. What the
 * server does decides, not the mode of the inventory: an adopted instance may wait as well.
 */
export function diagnoseSynchronous(inventory: Inventory, topology: Topology): ReplctlError | null {
  const primary = topology.nodes.find((node) => node.settings.name === topology.primary)
  const instance = primary?.facts.instance ?? null
  if (primary === undefined || instance === null) return null
  const { mode, syncStandbys } = inventory.replication
  const live = parseSynchronousStandbyNames(instance.settings.synchronous_standby_names?.value ?? '')
  const isSilent = silentStandbys(topology, confirmingArchive(inventory), instance)
  const confirming = instance.replication.filter(
    (one) => (one.syncState === 'sync' || one.syncState === 'quorum') && !isSilent(one),
  )
  const wanted = mode === 'async' ? 0 : syncStandbys
  const name = primary.settings.name
  if (live !== null && confirming.length < live.count) {
    return blocked(
      { inventory, topology, primary: name },
      live,
      instance,
      confirming,
      Math.max(wanted, live.count),
    )
  }
  const held = replayAwaited(topology, confirming, instance)
  if (live !== null && confirming.length - held.length < live.count && held[0] !== undefined) {
    return blockedByReplay(primary, instance, held)
  }
  const count = Math.min(confirming.length, live?.count ?? 0)
  if (count < wanted) return reduced(inventory, topology, name, live, count)
  return wanted > 0 && isNobodyAwaited(instance) ? unawaited(primary) : null
}

/** Who leads once an operation is done, and whom its commits will wait for. */
export interface SynchronousToCome {
  readonly primary: NodeName
  readonly confirming: readonly NodeName[]
  /** Standbys that will stream from it. */
  readonly running: readonly NodeName[]
}

/** What {@link diagnoseSynchronous} will say of commits that wait for ever, as far as a plan can tell. */
export function foreseeSynchronous(
  inventory: Inventory,
  { primary, confirming, running }: SynchronousToCome,
): ReplctlError | null {
  const { mode, syncStandbys } = inventory.replication
  const archives = confirmingArchive(inventory) === null ? 0 : 1
  const missing = confirming.filter((name) => !running.includes(name))
  const here = confirming.length - missing.length + archives
  const needed = Math.max(1, Math.min(syncStandbys, confirming.length + archives))
  if (mode === 'async' || missing.length === 0 || here >= needed) return null
  const names = missing.join(', ')
  const free = missing.map((name) => `replctl remove-standby ${name}`).join(', ')
  return new ReplctlError(
    'writes-blocked',
    `writes will be blocked on ${primary}: ${here} of ${Math.max(syncStandbys, needed)} sync standbys`,
    {
      detail: `Its commits will wait for ${names}, and PostgreSQL does not answer there.`,
      hint: `Bring ${names} back; or, to set writes free without, once ${primary} leads: ${free}`,
      node: primary,
    },
  )
}

/** Nobody waits for a standby, whoever is named, unless a session asks for it. */
const isNobodyAwaited = ({ synchronousCommit }: InstanceFacts): boolean =>
  synchronousCommit === 'off' || synchronousCommit === 'local'

/**
 * Standbys that have the WAL and do not replay it, while sessions wait: with `remote_apply` a commit waits for that. How old the
 * last transaction is that one has replayed tells a standstill from what is under way at every moment of a busy cluster.
 */
function replayAwaited(
  topology: Topology,
  confirming: readonly ReplicationConnection[],
  { waitingForSyncSeconds }: InstanceFacts,
): readonly ObservedNode[] {
  if ((waitingForSyncSeconds ?? 0) < patienceSeconds) return []
  return confirming.flatMap(({ applicationName, flushLsn, replayLsn }) => {
    if (flushLsn === null || replayLsn === null || compareLsn(replayLsn, flushLsn) >= 0) return []
    const node = topology.nodes.find((one) => one.settings.applicationName === applicationName)
    const standby = node?.facts.instance ?? null
    if (node === undefined || standby === null) return []
    const isStill = standby.isReplayPaused || (standby.replayLagSeconds ?? 0) >= patienceSeconds
    return isStill ? [node] : []
  })
}

/** A standby whose link is cut stays in pg_stat_replication for up to wal_sender_timeout: it is known by its own silence. */
export function silentStandbys(
  topology: Topology,
  archive: string | null,
  { waitingForSyncSeconds }: InstanceFacts,
): (connection: ReplicationConnection) => boolean {
  if ((waitingForSyncSeconds ?? 0) < patienceSeconds) return () => false
  return ({ applicationName, sentLsn, flushLsn }) => {
    if (flushLsn !== null && flushLsn === sentLsn) return false
    const node = topology.nodes.find((one) => one.settings.applicationName === applicationName)
    // The archive cannot be asked here; who has not confirmed for so long does not.
    if (node === undefined) return applicationName === archive
    const receiver = node.facts.instance?.receiver ?? null
    // Its connection is one of earlier: it receives from another node now.
    if (node.upstream !== topology.primary) return true
    return receiver === null || (receiver.silenceSeconds ?? 0) >= patienceSeconds
  }
}

function blocked(
  {
    inventory,
    topology,
    primary,
  }: { readonly inventory: Inventory; readonly topology: Topology; readonly primary: NodeName },
  live: ParsedSynchronousStandbys,
  instance: InstanceFacts,
  confirming: readonly ReplicationConnection[],
  wanted: number,
): ReplctlError {
  const isHere = (name: string) => confirming.some((one) => one.applicationName === name)
  const missing = inventory.nodes
    .filter((node) => live.names.includes(node.applicationName) && !isHere(node.applicationName))
    .map((node) => node.name)
  const archive = confirmingArchive(inventory)
  const isArchiveMissing = archive !== null && live.names.includes(archive) && !isHere(archive)
  const partners = [...missing, ...(isArchiveMissing ? [`the archive on ${inventory.archive?.host}`] : [])]
  const waysOut = [
    ...missing.flatMap((node) => [
      // Nobody is taken out whom another one is told to receive from; that one may do for a confirmation itself.
      ...downstreamsOf(topology, node).map((below) => `replctl follow ${below} --upstream ${primary}`),
      `replctl remove-standby ${node}`,
    ]),
    ...(isArchiveMissing
      ? [`archive.synchronous: false in the inventory, then replctl init primary ${primary}`]
      : []),
  ]
  const value = instance.settings.synchronous_standby_names?.value
  const late = missing.filter((name) => isDeafForDelay(nodeOf(topology, name).facts.instance))
  const returning = partners.filter((name) => !late.some((one) => one === name))
  const others = topology.nodes
    .filter(({ settings }) => !live.names.includes(settings.applicationName) && settings.name !== primary)
    .filter(isToRejoin)
  const waysBack = [
    ...(returning.length === 0 ? [] : [`bring ${returning.join(', ')} back`]),
    ...(late.length === 0 ? [] : [`wait until ${late.join(', ')} has replayed it`]),
    ...(others.length === 0
      ? []
      : [
          `let another one confirm: ${others.map(({ settings }) => `replctl rejoin ${settings.name}`).join(', ')}`,
        ]),
  ].join(', or ')
  return new ReplctlError(
    'writes-blocked',
    `writes blocked: ${confirming.length} of ${wanted} sync standbys`,
    {
      detail: [
        `${tellWaiting(instance)} synchronous_standby_names is ${value}.`,
        ...late.map(
          (name) => `${name} holds a transaction back on purpose, and receives nothing until then.`,
        ),
      ].join(' '),
      hint:
        partners.length === 0
          ? `Correct synchronous_standby_names on ${primary}: it names nobody who streams.`
          : `${waysBack.charAt(0).toUpperCase()}${waysBack.slice(1)}; or, to set writes free without: ${waysOut.join(', ')}`,
      node: primary,
    },
  )
}

const isToRejoin = ({ role, facts }: ObservedNode) => role === 'diverged' || facts.fence !== null

const downstreamsOf = ({ nodes }: Topology, node: NodeName): readonly NodeName[] =>
  nodes.filter(({ upstream }) => upstream === node).map(({ settings }) => settings.name)

function tellWaiting({ waitingForSync, waitingForSyncSeconds: since }: InstanceFacts): string {
  if (waitingForSync === 0) return 'No session waits yet: the next commit will.'
  const first = since === null ? '' : `, the first for ${Math.round(since)} s`
  return `${waitingForSync} session(s) wait for a synchronous standby${first}.`
}

function blockedByReplay(
  primary: ObservedNode,
  instance: InstanceFacts,
  held: readonly ObservedNode[],
): ReplctlError {
  const names = held.map(({ settings }) => settings.name).join(', ')
  const where = held.map(({ settings, facts }) => {
    const { isReplayPaused, replayLsn, receiveLsn } = facts.instance ?? {}
    return `${settings.name} has received ${receiveLsn} and replayed ${replayLsn}${isReplayPaused === true ? ': replay is paused there' : ''}.`
  })
  const paused = held.filter(({ facts }) => facts.instance?.isReplayPaused === true)
  const busy = held.filter((node) => !paused.includes(node))
  const hints = [
    ...paused.map(({ settings }) => `On ${settings.name}: SELECT pg_wal_replay_resume();`),
    ...busy.map(
      ({ settings }) =>
        `On ${settings.name}, end the query that holds replay up (pg_stat_activity, the oldest backend_xmin), or lower max_standby_streaming_delay.`,
    ),
  ]
  return new ReplctlError('writes-blocked', `writes blocked: commits wait for replay on ${names}`, {
    detail: [tellWaiting(instance), ...where].join(' '),
    hint: hints.join(' '),
    node: primary.settings.name,
  })
}

function unawaited({ settings, facts }: ObservedNode): ReplctlError {
  const { name, postgres } = settings
  const live = facts.instance?.synchronousCommit
  const isWished = postgres.parameters.synchronous_commit?.toLowerCase() === live
  return new ReplctlError('durability-reduced', `synchronous_commit is ${live} on ${name}`, {
    detail:
      'Commits wait for no standby there, unless a session sets it: a failover may lose what was confirmed.',
    hint: isWished
      ? `Take synchronous_commit out of postgres.parameters in the inventory, then: replctl init primary ${name}`
      : `Set it on ${name}: ALTER SYSTEM SET synchronous_commit = 'on'; SELECT pg_reload_conf();`,
    node: name,
  })
}

function reduced(
  inventory: Inventory,
  { nodes }: Topology,
  primary: NodeName,
  live: ParsedSynchronousStandbys | null,
  count: number,
): ReplctlError {
  const { syncStandbys } = inventory.replication
  const others = nodes.filter(
    ({ settings: { name, applicationName } }) =>
      name !== primary && live?.names.includes(applicationName) !== true,
  )
  const namesOf = (some: readonly ObservedNode[]) => some.map(({ settings }) => settings.name)
  const [back, added] = [
    namesOf(others.filter(isToRejoin)),
    namesOf(others.filter((one) => !isToRejoin(one))),
  ]
  const ways = [
    ...back.map((name) => `replctl rejoin ${name}`),
    ...(added.length > 0 || back.length === 0 ? [`replctl add-standby ${added.join(' ') || 'NODE'}`] : []),
  ]
  return new ReplctlError('durability-reduced', `${count} of ${syncStandbys} sync standbys`, {
    detail:
      live === null
        ? `synchronous_standby_names is empty on ${primary}: commits are confirmed without a standby.`
        : `Commits on ${primary} wait for ${live.count} standby(s): there are no more.`,
    hint: `${back.length > 0 ? 'Bring a standby back' : 'Add a standby'}: ${ways.join(', or ')}`,
    node: primary,
  })
}
