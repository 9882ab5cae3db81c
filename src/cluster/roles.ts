import { parseSynchronousStandbyNames } from '../postgres/synchronous-standby-names.ts'
import type { InstanceFacts, ReplicationSlot } from './facts.ts'
import type { Inventory, NodeSettings } from './inventory.ts'
import type { NodeName } from './names.ts'
import { commonRecord } from './record.ts'
import { archiveStreamNames } from './replication-names.ts'
import { isRunningStandby, type ObservedNode, type Topology } from './topology.ts'

/** Who leads, and whom every standby receives from: as it is meant to be, which may not be as it is. */
export interface Roles {
  readonly primary: NodeName
  /** Standby → its upstream. Whoever comes back only by a rejoin (fenced, diverged) is not in it. */
  readonly upstreams: ReadonlyMap<NodeName, NodeName>
  /** Slots of standbys that were taken out, as recorded: nobody is meant to have them. */
  readonly removedSlots?: readonly string[]
}

export interface MeantRoles {
  readonly primary: NodeName
  /** Standbys that run, or will: others may receive from them. */
  readonly running: readonly NodeName[]
  /** Standbys that are away and come back by themselves: WAL is kept for them where they will ask for it. */
  readonly away?: readonly NodeName[]
  /** Where the operator says otherwise than the inventory. */
  readonly except?: ReadonlyMap<NodeName, NodeName>
  /** As recorded. */
  readonly removedSlots?: readonly string[] | undefined
}

/** The roles that the inventory wishes, given who leads and who runs: a wished upstream that does not run is passed over. */
export function meantRoles(inventory: Inventory, meant: MeantRoles): Roles {
  const { primary, running, away = [], except, removedSlots = [] } = meant
  const upstreamOf = ({ name, upstream: wish }: NodeSettings): NodeName => {
    const said = except?.get(name)
    if (said !== undefined) return said
    return wish !== undefined && wish !== name && running.includes(wish) ? wish : primary
  }
  const standbys = inventory.nodes.filter(
    ({ name }) => name !== primary && (running.includes(name) || away.includes(name)),
  )
  return { primary, upstreams: new Map(standbys.map((node) => [node.name, upstreamOf(node)])), removedSlots }
}

/**
 * The roles as they are now: every standby that runs receives from where it does. One that is away will come back to where
 * a slot waits for it, else to where the inventory wishes. `except`: who is about to receive from whom instead.
 */
export function liveRoles(
  inventory: Inventory,
  topology: Topology,
  primary: NodeName,
  except: ReadonlyMap<NodeName, NodeName> = new Map(),
): Roles {
  const survey = topology.nodes.map((node) => node.facts)
  const record = commonRecord(survey)
  const isMember = (name: NodeName) => record?.members.includes(name) ?? true
  const running = survey
    .filter((facts) => isRunningStandby(facts) && isMember(facts.name))
    .map((facts) => facts.name)
  // A fenced one comes back by a rejoin: it has no place yet, but a slot that was made for that is left to it.
  const isAway = (node: ObservedNode) =>
    node.facts.instance === null &&
    isMember(node.settings.name) &&
    (node.facts.fence === null || slotHolder(topology, node) !== null)
  const away = topology.nodes.filter(isAway)
  const live = topology.nodes.flatMap((node) => {
    const { settings, upstream } = node
    const from = upstream ?? (isAway(node) ? slotHolder(topology, node) : null)
    return from === null ? [] : [[settings.name, from] as const]
  })
  return meantRoles(inventory, {
    primary,
    running: [...running, ...except.keys()],
    away: away.map((node) => node.settings.name),
    except: new Map([...live, ...except]),
    removedSlots: record?.removedSlots,
  })
}

/**
 * Nodes that a commit must not wait for: fenced, or with WAL that the primary lacks (they stream only after a rejoin), and those
 * that are away and not waited for now. Such a one was left out on purpose, by a failover say, and may be the lost primary itself:
 * to wait for it would block every write.
 */
export function neverConfirming(
  { nodes, primary: leader }: Topology,
  primary: NodeName | null = leader,
): readonly NodeName[] {
  const waited = waitedFor(nodes.find(({ settings }) => settings.name === primary)?.facts.instance)
  const isLeftOut = ({ facts, settings: { applicationName, slotName } }: ObservedNode) =>
    facts.instance === null &&
    waited !== null &&
    !waited.names.includes(applicationName) &&
    !waited.slots.includes(slotName)
  return nodes
    .filter((node) => node.facts.fence !== null || node.role === 'diverged' || isLeftOut(node))
    .map(({ settings }) => settings.name)
}

/** Whom a primary, and its logical subscribers (17 and newer), wait for at this moment; null where that is not known. */
function waitedFor(primary: InstanceFacts | null | undefined) {
  if (primary?.isInRecovery !== false) return null
  const { synchronous_standby_names: names, synchronized_standby_slots: slots } = primary.settings
  if (names === undefined) return null
  return {
    names: parseSynchronousStandbyNames(names.value)?.names ?? [],
    slots: (slots?.value ?? '').split(/[\s,]+/),
  }
}

/** The one node where a slot waits for this standby. */
function slotHolder({ nodes }: Topology, { settings }: ObservedNode): NodeName | null {
  const holders = nodes.filter(
    (one) =>
      one.settings.name !== settings.name &&
      one.facts.instance?.slots.some((slot) => slot.name === settings.slotName),
  )
  return holders.length === 1 ? (holders[0]?.settings.name ?? null) : null
}

/**
 * Names of the slots of replctl's own that a node is to have: one for each standby that receives from it, and on the primary
 * one for an archive to which WAL is streamed. Exactly these: a slot that nobody uses keeps WAL until the disk is full.
 */
export function wantedSlots(inventory: Inventory, roles: Roles, node: NodeName): readonly string[] {
  const archive = roles.primary === node ? archiveSlot(inventory) : null
  const standbys = inventory.nodes.filter(({ name }) => roles.upstreams.get(name) === node)
  return [
    ...(inventory.replication.slots ? standbys.map((one) => one.slotName) : []),
    ...(archive === null ? [] : [archive]),
  ]
}

/** The slot of an archive to which WAL is streamed; null where it is pushed, or there is none. */
export function archiveSlot({ archive, cluster }: Inventory): string | null {
  return archive?.mode === 'stream' ? archiveStreamNames(cluster).slot : null
}

/**
 * Slots of replctl's own on a node: physical, and named for a node of the inventory or its archive. All others are foreign, as is
 * one named for an archive to which nothing is streamed, or for a standby that was taken out (`removed`), once somebody receives
 * through it.
 */
export function ownSlots(
  inventory: Inventory,
  instance: Pick<InstanceFacts, 'slots'> | null,
  removed: readonly string[] = [],
): readonly string[] {
  const names = inventory.nodes.map((node) => node.slotName)
  const ofArchive = archiveStreamNames(inventory.cluster).slot
  const isOwn = ({ name, isActive }: ReplicationSlot) =>
    names.includes(name) ||
    (removed.includes(name) && !isActive) ||
    (name === ofArchive && (archiveSlot(inventory) !== null || !isActive))
  return (instance?.slots ?? [])
    .filter((slot) => slot.type === 'physical' && !slot.isTemporary && isOwn(slot))
    .map((slot) => slot.name)
}

/** Slots of replctl's own that a node has and is not to have. */
export function staleSlots(
  inventory: Inventory,
  roles: Roles,
  node: NodeName,
  instance: Pick<InstanceFacts, 'slots'> | null,
): readonly string[] {
  const wanted = wantedSlots(inventory, roles, node)
  return ownSlots(inventory, instance, roles.removedSlots).filter((name) => !wanted.includes(name))
}

/**
 * Standbys that are to confirm commits in sync and quorum mode: those that receive from the primary itself, for only they
 * can confirm to it, and that could take over. One that is delayed or not promotable confirms only where there would be
 * too few otherwise: a commit that nobody else has would be out of reach when the primary is lost.
 * `except`: who must not be waited for. Give the result to `ensureSettings` of the primary.
 */
export function confirmingStandbys(
  inventory: Inventory,
  roles: Roles,
  except: readonly NodeName[] = [],
): readonly NodeName[] {
  const direct = inventory.nodes.filter(
    ({ name }) => roles.upstreams.get(name) === roles.primary && !except.includes(name),
  )
  const enough = inventory.replication.syncStandbys - (confirmingArchive(inventory) === null ? 0 : 1)
  const chosen = direct.filter((node) => node.promotable && node.delayMs === 0)
  const spare = [
    ...direct.filter((node) => !node.promotable && node.delayMs === 0),
    ...direct.filter((node) => node.delayMs > 0),
  ]
  const added = spare.slice(0, Math.max(0, enough - chosen.length))
  return [...chosen, ...added].map((node) => node.name)
}

/**
 * The application_name of an archive that confirms commits in sync and quorum mode, as one of `sync_standbys`; null: it does
 * not. It is as good as a standby: a candidate gets from it what it lacks before it is promoted.
 */
export function confirmingArchive({ archive, cluster, replication }: Inventory): string | null {
  if (archive?.mode !== 'stream' || !archive.synchronous || replication.mode === 'async') return null
  return archiveStreamNames(cluster).application
}
