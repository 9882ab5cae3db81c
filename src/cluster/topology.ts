import type { ControlData } from '../postgres/control-data.ts'
import { compareLsn, type Lsn, lsnDistance, type TimelineId } from '../postgres/lsn.ts'
import { commonAncestor, forkPoint, parseTimelineHistory } from '../postgres/timeline-history.ts'
import type { InstanceFacts, NodeFacts, ReplicationConnection, ReplicationSlot, Survey } from './facts.ts'
import { findUpstream, noUpstream, senderOf } from './find-upstream.ts'
import type { Inventory, NodeSettings } from './inventory.ts'
import { lagOf } from './lag.ts'
import type { NodeName } from './names.ts'
import { isForeign } from './record.ts'

export const nodeRoles = ['primary', 'standby', 'stopped', 'fenced', 'diverged', 'empty', 'unknown'] as const
export type NodeRole = (typeof nodeRoles)[number]

export const nodeStates = [
  'running',
  'streaming',
  'catchup',
  'archive',
  'paused',
  'disconnected',
  'stopped',
  'unknown',
] as const
export type NodeState = (typeof nodeStates)[number]

/** One node as it is now, seen together with the others. */
export interface ObservedNode {
  readonly facts: NodeFacts
  readonly settings: NodeSettings
  readonly role: NodeRole
  readonly state: NodeState
  /** Whom it receives from, as far as that is a node of the inventory: by its own word, else by that of who sends to it. */
  readonly upstream: NodeName | null
  /** `host:port` of an upstream that is not in the inventory. */
  readonly foreignUpstream: string | null
  /** Its row in the upstream's pg_stat_replication. */
  readonly connection: ReplicationConnection | null
  /** The slot that it should use, as its upstream has it; of one that does not run, as anybody has it. */
  readonly slot: ReplicationSlot | null
  readonly lagBytes: number | null
  readonly lagSeconds: number | null
}

/** The cluster as one survey saw it. */
export interface Topology {
  readonly cluster: string
  /** The one node that accepts writes; null where there is none, or more than one. */
  readonly primary: NodeName | null
  /** Every node of this cluster that is out of recovery. More than one is a split brain. */
  readonly writers: readonly NodeName[]
  readonly nodes: readonly ObservedNode[]
}

/** Makes the topology of a survey: who leads, who follows whom, how far behind. */
export function observeTopology(inventory: Inventory, survey: Survey): Topology {
  const writers = survey
    .filter((facts) => isWriter(facts) && !isForeign(facts, survey))
    .map((facts) => facts.name)
  const primary = writers.length === 1 ? (writers[0] ?? null) : null
  const primaryFacts = survey.find((facts) => facts.name === primary) ?? null
  const nodes = inventory.nodes.map((settings) => {
    const facts = factsOf(survey, settings.name)
    const { upstream, foreign, connection, isCutOff } = isRunningStandby(facts)
      ? findUpstream(inventory, survey, settings, facts)
      : noUpstream
    const isBehindFork = primaryFacts !== null && hasDiverged(facts, primaryFacts)
    const role = isForeign(facts, survey) ? 'unknown' : roleOf(facts, isBehindFork)
    const holds = (one: NodeFacts) => one.instance?.slots.some((slot) => slot.name === settings.slotName)
    const holder = survey.find((one) =>
      upstream === null ? holds(one) && one.name !== settings.name : one.name === upstream,
    )?.instance
    return {
      facts,
      settings,
      role,
      state: stateOf(facts, role, connection, isCutOff),
      upstream,
      foreignUpstream: foreign,
      connection,
      slot: holder?.slots.find((slot) => slot.name === settings.slotName) ?? null,
      ...lagOf(facts, survey, primaryFacts, isCutOff),
    }
  })
  return { cluster: inventory.cluster, primary, writers, nodes }
}

/** The facts of one node; the survey holds every node of the inventory. */
export function factsOf(survey: Survey, name: NodeName): NodeFacts {
  const facts = survey.find((one) => one.name === name)
  if (facts === undefined) throw new RangeError(`the survey lacks node ${name}`)
  return facts
}

export function nodeOf(topology: Topology, name: NodeName): ObservedNode {
  const node = topology.nodes.find((one) => one.settings.name === name)
  if (node === undefined) throw new RangeError(`the topology lacks node ${name}`)
  return node
}

/**
 * Those of these nodes that follow somebody, by the sender's word. One that holds a transaction back on purpose connects after
 * that.
 */
export function thoseThatFollow(topology: Topology, names: readonly NodeName[]): readonly NodeName[] {
  return names.filter((name) => {
    const { role, connection, facts } = nodeOf(topology, name)
    return role === 'standby' && (connection !== null || facts.instance?.isAwaitingDelay === true)
  })
}

/** Whether this instance accepts writes now. */
export function isWriter(facts: NodeFacts): boolean {
  return facts.instance !== null && !facts.instance.isInRecovery
}

/** Whether this is a running standby that answers. */
export function isRunningStandby(facts: NodeFacts): boolean {
  return facts.instance?.isInRecovery === true
}

/**
 * How much later than the primary a node replays on purpose, ms: what its instance goes by. Of one that is not in recovery, or
 * that does not show it (11: recovery.conf), the wish.
 */
export function delayMsOf({ facts, settings }: Pick<ObservedNode, 'facts' | 'settings'>): number {
  const live = facts.instance?.isInRecovery === true ? liveDelayMs(facts.instance) : null
  return live ?? settings.delayMs
}

/** recovery_min_apply_delay as pg_settings has it, in ms; null where it is no setting. */
function liveDelayMs({ settings }: InstanceFacts): number | null {
  const value = settings.recovery_min_apply_delay?.value
  return value === undefined || !/^\d+$/.test(value) ? null : Number(value)
}

/** Whether a standby's walreceiver streams, as far as it knows: its sender may be gone without a word. */
export function isReceiving(facts: NodeFacts): boolean {
  return facts.instance?.receiver?.status === 'streaming'
}

/**
 * Whether a running standby gets what the primary writes, so that others may receive from it. One that holds a transaction back
 * on purpose asks for more after that.
 */
export function isSupplied({ facts, state }: Pick<ObservedNode, 'facts' | 'state'>): boolean {
  return (isReceiving(facts) && state !== 'disconnected') || facts.instance?.isAwaitingDelay === true
}

/**
 * Whether a standby asks nobody for WAL until it has replayed what it holds back on purpose: its walreceiver has ended, or waits at
 * the end of a timeline to be told where to go on. Its sender, which has gone over to the next one, says "startup" of it then.
 * @see PostgreSQL, src/backend/replication/walreceiver.c, WalRcvWaitForStartPosition
 */
export function isDeafForDelay(instance: InstanceFacts | null | undefined): boolean {
  if (instance?.isAwaitingDelay !== true) return false
  return instance.receiver === null || instance.receiver.status === 'waiting'
}

/** Whether a standby's walreceiver streams from this node of the inventory, by its own word. */
export function isReceivingFrom(
  inventory: Inventory,
  instance: InstanceFacts | null,
  sender: NodeName,
): boolean {
  return senderOf(inventory, instance) === sender
}

/** WAL that a standby holds: received, or replayed where nothing was received since its start. */
export function receivedLsn(facts: NodeFacts): Lsn | null {
  const { receiveLsn, replayLsn } = facts.instance ?? { receiveLsn: null, replayLsn: null }
  if (receiveLsn === null || replayLsn === null) return receiveLsn ?? replayLsn
  return compareLsn(receiveLsn, replayLsn) >= 0 ? receiveLsn : replayLsn
}

/**
 * Whom a standby should receive from, given who leads: the wished upstream where that is a running node with nothing that
 * the primary lacks, else the primary.
 */
export function expectedUpstream(
  inventory: Inventory,
  node: NodeSettings,
  primary: NodeName,
  survey: Survey,
): NodeName {
  const wish = node.upstream
  if (wish === undefined || wish === node.name || wish === primary) return primary
  const facts = survey.find((one) => one.name === wish)
  if (facts === undefined || !isRunningStandby(facts)) return primary
  const leader = survey.find((one) => one.name === primary)
  if (leader !== undefined && hasDiverged(facts, leader)) return primary
  // Following the wishes upwards must end at the primary: a circle would receive from nobody.
  const wished = inventory.nodes.find((one) => one.name === wish)
  return wished?.upstream === node.name ? primary : wish
}

/**
 * Where a command puts a standby, given who leads: as {@link expectedUpstream}, but not anew below one that gets nothing itself.
 */
export function placeFor(
  inventory: Inventory,
  node: NodeSettings,
  primary: NodeName,
  topology: Topology,
): NodeName {
  const survey = topology.nodes.map((one) => one.facts)
  const wish = expectedUpstream(inventory, node, primary, survey)
  const isThere = topology.nodes.some(
    ({ settings, upstream }) => settings.name === node.name && upstream === wish,
  )
  const isLed = isWriter(factsOf(survey, primary))
  return wish === primary || isThere || !isLed || isSupplied(nodeOf(topology, wish)) ? wish : primary
}

/**
 * Whether a node holds WAL that the primary's history does not: it wrote or received something on a timeline after
 * the primary had left it. Such a node cannot follow; it needs a rewind or a new clone.
 */
export function hasDiverged(facts: NodeFacts, primary: NodeFacts): boolean {
  if (facts.name === primary.name || primary.instance === null) return false
  const own = facts.instance
  const systemIdentifier = own?.systemIdentifier ?? facts.control?.systemIdentifier
  if (systemIdentifier !== primary.instance.systemIdentifier) return false
  const stopped = facts.control === null ? null : reachedOnDisk(facts.control)
  const timeline = own?.timeline ?? stopped?.timeline
  const reached = own === null ? (stopped?.lsn ?? null) : (receivedLsn(facts) ?? own.currentLsn)
  if (timeline === undefined || reached === null) return false
  const { history, timeline: leading } = primary.instance
  if (own !== null && history !== null && own.history !== null && timeline > 1) {
    // Two promotions without an archive in between give two timelines the same number: what they come from tells.
    const common = commonAncestor(
      parseTimelineHistory(own.history, timeline),
      parseTimelineHistory(history, leading),
    )
    if (common?.timeline !== timeline) return true
  }
  if (timeline === leading) return false
  if (timeline > leading) return true
  if (history === null) return false
  const fork = forkPoint(parseTimelineHistory(history, leading), timeline)
  // A timeline that is no ancestor at all is a branch of its own: two standbys were promoted.
  return fork === undefined || (compareLsn(reached, fork) > 0 && !hasOnlyTornRecord(facts, reached, fork))
}

/** The timeline that a node is on: what its instance says, else its pg_control. */
export function timelineOf({ instance, control }: NodeFacts): TimelineId | null {
  return instance?.timeline ?? (control === null ? null : reachedOnDisk(control).timeline)
}

/**
 * Whether a node holds WAL past the point where a newer timeline, of a node that runs, left its own. However large its LSN
 * is, that is of a history that the cluster has given up.
 */
export function isAstray(facts: NodeFacts, survey: Survey): boolean {
  const own = timelineOf(facts)
  return survey.some((other) => {
    const newer = other.instance?.timeline ?? null
    return own !== null && newer !== null && newer > own && hasDiverged(facts, other)
  })
}

/** How far a stopped node came for certain. A standby's pages may hold what was written long after its last restartpoint. */
function reachedOnDisk(control: ControlData): { readonly timeline: TimelineId; readonly lsn: Lsn } {
  const { timeline, checkpointLsn, minRecoveryEndLsn, minRecoveryEndTimeline } = control
  if (minRecoveryEndLsn === null || minRecoveryEndTimeline === null || minRecoveryEndTimeline < timeline) {
    return { timeline, lsn: checkpointLsn }
  }
  const isOnSame = minRecoveryEndTimeline === timeline
  const isLater = !isOnSame || compareLsn(minRecoveryEndLsn, checkpointLsn) > 0
  return { timeline: minRecoveryEndTimeline, lsn: isLater ? minRecoveryEndLsn : checkpointLsn }
}

/** A standby's own unit of WAL; a server built with another only loses the tolerance. */
const walPageBytes = 8192

/**
 * A primary that crashes may have sent the first pages of a record whose end nobody got: the standbys received up to a
 * page boundary past the last whole record, where the new timeline begins. Such a piece is overwritten when they follow.
 */
function hasOnlyTornRecord({ instance }: NodeFacts, received: Lsn, fork: Lsn): boolean {
  const replayed = instance?.replayLsn ?? null
  if (instance?.isInRecovery !== true || instance.isReplayPaused || replayed === null) return false
  // One that replays late has not come to what it has received: whole records may lie there.
  const delay = instance.settings.recovery_min_apply_delay?.value ?? '0'
  if (instance.isAwaitingDelay || !/^0\D*$/.test(delay)) return false
  const isPageBoundary = Number.parseInt(received.split('/')[1] ?? '1', 16) % walPageBytes === 0
  return isPageBoundary && lsnDistance(fork, received) <= 2 * walPageBytes && compareLsn(replayed, fork) <= 0
}

function roleOf(facts: NodeFacts, hasLeftHistory: boolean): NodeRole {
  if (facts.unreachable !== null) return 'unknown'
  if (facts.instance !== null) {
    if (!facts.instance.isInRecovery) return 'primary'
    return hasLeftHistory ? 'diverged' : 'standby'
  }
  if (facts.postmaster?.isAlive === true) return 'unknown'
  if (facts.dataDirectoryState === 'not-an-instance') return 'unknown'
  if (facts.dataDirectoryState !== 'instance') return 'empty'
  if (facts.fence !== null) return 'fenced'
  return 'stopped'
}

function stateOf(
  facts: NodeFacts,
  role: NodeRole,
  connection: ReplicationConnection | null,
  isCutOff: boolean,
): NodeState {
  const { instance } = facts
  if (instance === null) {
    const isStopped = role === 'stopped' || role === 'fenced' || role === 'empty'
    return isStopped ? 'stopped' : 'unknown'
  }
  if (!instance.isInRecovery) return 'running'
  if (instance.isReplayPaused) return 'paused'
  const isComing = connection?.state === 'catchup' || connection?.state === 'startup'
  if (isComing && !isDeafForDelay(instance)) return 'catchup'
  if (isCutOff) return 'disconnected'
  if (instance.receiver?.status === 'streaming') return 'streaming'
  return (instance.settings.restore_command?.value ?? '') === '' ? 'disconnected' : 'archive'
}
