import { ReplctlError } from '../errors.ts'
import { compareLsn } from '../postgres/lsn.ts'
import { capabilitiesOf } from '../postgres/versions.ts'
import type { NodeFacts } from './facts.ts'
import { primaryWaitsForStandbys } from './failover-slots.ts'
import { senderOf } from './find-upstream.ts'
import { refuseInsufficient } from './insufficient-settings.ts'
import type { Inventory } from './inventory.ts'
import type { NodeName } from './names.ts'
import { commonRecord, identifierOf, isForeign } from './record.ts'
import { confirmingStandbys, liveRoles, neverConfirming, type Roles } from './roles.ts'
import {
  hasDiverged,
  isReceivingFrom,
  isRunningStandby,
  isSupplied,
  nodeOf,
  type ObservedNode,
  placeFor,
  receivedLsn,
  type Topology,
} from './topology.ts'
import { twoWriters } from './two-writers.ts'
import { wayBack } from './way-back.ts'

/** What `follow` will do, decided from one survey. */
export interface FollowDecision {
  /** Whom it receives from (or is told to) until now; null where that is nobody of the inventory, or unknown. */
  readonly formerUpstream: NodeName | null
  /** Who leads; null where nobody does at the moment. */
  readonly primary: NodeName | null
  /** Whom each standby receives from afterwards; null where nobody leads. */
  readonly rolesAfter: Roles | null
  /** Who confirms commits before and afterwards; empty where nobody is waited for. */
  readonly confirming: {
    readonly before: readonly NodeName[]
    readonly after: readonly NodeName[]
  }
  /** Whom the inventory wishes it to receive from, where that is somebody else. */
  readonly otherWish: NodeName | null
}

/**
 * Decides whether a standby may be pointed at another upstream: both run, belong together, and the upstream's history
 * holds all that the standby has. Nothing of it needs to be tried; what does is left to the steps.
 * @throws {ReplctlError} `two-writers`, `primary-alive`, `not-a-standby`, `node-diverged`, `foreign-cluster`,
 * `orphan-standby`, `not-streaming`, `wrong-upstream`, `wrong-timeline`, `version-mismatch`, `standby-ahead`, `replay-paused`, `settings-too-low`, `durability-reduced`
 */
export function judgeFollow(
  inventory: Inventory,
  topology: Topology,
  wish: {
    readonly node: NodeName
    readonly upstream: NodeName
    /** It was begun earlier, and is gone on with or taken back. */
    readonly isResumed?: boolean
  },
): FollowDecision {
  if (topology.writers.length > 1) throw twoWriters(topology)
  const [node, upstream] = [nodeOf(topology, wish.node), nodeOf(topology, wish.upstream)]
  const survey = topology.nodes.map((one) => one.facts)
  const primary = topology.primary
  refuseUnfitNode(node, topology, survey)
  refuseUnfitUpstream(node, upstream, topology, survey)
  refuseCircle(topology, wish.node, wish.upstream)
  refuseOtherHistory(node, upstream, topology)
  // What was begun can be ended in any case: by going back, too.
  if (wish.isResumed !== true) refusePaused(inventory, node, wish.upstream)
  const formerUpstream = formerUpstreamOf(inventory, topology, node, wish.upstream)
  const rolesWith = (at: NodeName | null): Roles | null =>
    primary === null
      ? null
      : liveRoles(inventory, topology, primary, new Map(at === null ? [] : [[wish.node, at]]))
  const rolesAfter = rolesWith(wish.upstream)
  const confirming = whoConfirms(inventory, topology, rolesWith(formerUpstream), rolesAfter)
  refuseTooFewConfirming(inventory, topology, wish, confirming)
  const expected = primary === null ? null : placeFor(inventory, node.settings, primary, topology)
  return {
    formerUpstream,
    primary,
    rolesAfter,
    confirming,
    otherWish: expected === wish.upstream ? null : expected,
  }
}

function refuseUnfitNode(node: ObservedNode, topology: Topology, survey: readonly NodeFacts[]): void {
  const { facts, settings } = node
  const { name } = settings
  if (facts.unreachable !== null) throw facts.unreachable
  if (topology.primary === name) {
    throw new ReplctlError('primary-alive', `${name} is the primary: it receives from nobody`, {
      hint: 'Name a standby. To exchange the roles: replctl switchover',
      node: name,
    })
  }
  if (isForeign(facts, survey)) throw foreignTo(facts, survey)
  if (node.role === 'diverged') {
    throw new ReplctlError('node-diverged', `${name} has WAL that ${topology.primary} never had`, {
      detail: `It is on timeline ${facts.instance?.timeline} past the point where the primary's history left it.`,
      hint: wayBack(name),
      node: name,
    })
  }
  if (!isRunningStandby(facts))
    throw notRunning(node, `cannot re-point ${name}: it is not a running standby`, topology)
}

function refuseUnfitUpstream(
  node: ObservedNode,
  upstream: ObservedNode,
  topology: Topology,
  survey: readonly NodeFacts[],
): void {
  const { facts, settings, role } = upstream
  const { name } = settings
  const refusal = `${node.settings.name} cannot follow ${name}`
  if (facts.unreachable !== null) throw facts.unreachable
  if (isForeign(facts, survey)) throw foreignTo(facts, survey)
  if (role === 'diverged') {
    throw new ReplctlError('node-diverged', `${refusal}: it has WAL that ${topology.primary} never had`, {
      hint: `Choose another upstream. ${wayBack(name)}`,
      node: name,
    })
  }
  if (facts.instance === null) throw notRunning(upstream, `${refusal}: it is not running`, topology)
  if (topology.primary !== null && isRunningStandby(facts) && !isSupplied(upstream)) {
    throw new ReplctlError('not-streaming', `${refusal}: it does not receive itself`, {
      detail: `Its state is ${upstream.state}; below it ${node.settings.name} would get nothing of what ${topology.primary} writes.`,
      hint: `Choose another upstream, or mend ${name} first: "replctl doctor ${name}" tries its login for real.`,
      node: name,
    })
  }
  const members = commonRecord(survey)?.members
  if (members !== undefined && !members.includes(name)) {
    throw new ReplctlError('orphan-standby', `${refusal}: it was removed from the cluster`, {
      hint: `Take it in again first: replctl add-standby ${name}`,
      node: name,
    })
  }
  const [own, there] = [majorOf(node), majorOf(upstream)]
  if (own !== there) {
    throw new ReplctlError('version-mismatch', `${refusal}: they are of different major versions`, {
      detail: `${node.settings.name} runs PostgreSQL ${own}, ${name} runs ${there}.`,
      hint: 'Streaming replication works between equal major versions only.',
      node: node.settings.name,
    })
  }
}

/**
 * Following the upstreams upwards from the new one must not come back to the node. `except`: who is about to receive from whom
 * instead.
 * @throws {ReplctlError} `wrong-upstream`
 */
export function refuseCircle(
  topology: Topology,
  node: NodeName,
  upstream: NodeName,
  except: ReadonlyMap<NodeName, NodeName> = new Map(),
): void {
  const path: NodeName[] = []
  for (let at: NodeName | null = upstream; at !== null && !path.includes(at); ) {
    path.push(at)
    if (at === node) {
      throw new ReplctlError('wrong-upstream', `${node} cannot follow ${upstream}: that receives from it`, {
        detail: `It would make a circle: ${[node, ...path].join(' → ')}. Nobody in it would get WAL from the primary.`,
        hint: `Point ${upstream} elsewhere first: replctl follow ${upstream} --upstream ${topology.primary ?? 'NODE'}`,
        node,
      })
    }
    at = except.get(at) ?? topology.nodes.find((one) => one.settings.name === at)?.upstream ?? null
  }
}

/** Whatever the standby has received must be part of what the upstream has, or will have. */
function refuseOtherHistory(node: ObservedNode, upstream: ObservedNode, topology: Topology): void {
  const [own, there] = [node.facts.instance, upstream.facts.instance]
  if (own === null || there === null) return
  const [name, at] = [node.settings.name, upstream.settings.name]
  if (own.timeline > there.timeline) {
    throw new ReplctlError('wrong-timeline', `${name} is on a newer timeline than ${at}`, {
      detail: `${name} is on timeline ${own.timeline}, ${at} on ${there.timeline}.`,
      hint: `Wait until ${at} has followed the primary, or choose another upstream.`,
      node: name,
    })
  }
  if (hasDiverged(node.facts, upstream.facts)) {
    throw new ReplctlError('node-diverged', `${name} has WAL that ${at} never had`, {
      hint: wayBack(name),
      node: name,
    })
  }
  const [received, offered] = [receivedLsn(node.facts), receivedLsn(upstream.facts)]
  const isAhead = received !== null && offered !== null && compareLsn(received, offered) > 0
  // While somebody leads, an upstream that streams gets what it lacks in a moment.
  if (isAhead && own.timeline === there.timeline && topology.primary === null) {
    throw new ReplctlError('standby-ahead', `${name} has more WAL than ${at}`, {
      detail: `${name} has received ${received}, ${at} ${offered}, and no primary is there to give it the rest.`,
      hint: `Let ${at} follow ${name}: replctl follow ${at} --upstream ${name}`,
      node: name,
    })
  }
}

/**
 * A paused startup process reads its settings, and asks nobody else for WAL until it goes on. (A restart, by which older versions
 * change over, ends the pause.)
 */
function refusePaused(inventory: Inventory, node: ObservedNode, upstream: NodeName): void {
  const { instance } = node.facts
  const { name } = node.settings
  if (instance?.isReplayPaused !== true || !capabilitiesOf(majorOf(node)).reloadsPrimaryConninfo) return
  if (isReceivingFrom(inventory, instance, upstream)) return
  const what = `cannot re-point ${name}`
  throw (
    refuseInsufficient(node.facts, what) ??
    new ReplctlError('replay-paused', `${what}: its replay is paused`, {
      detail: `It has received ${instance.receiveLsn} and replayed ${instance.replayLsn}. Until it goes on it asks no other node for WAL.`,
      hint: 'Resume it there: SELECT pg_wal_replay_resume();',
      node: name,
    })
  )
}

/** Where it receives from now, else where a slot still waits for it: an interrupted `follow` finds its way back. */
function formerUpstreamOf(
  inventory: Inventory,
  topology: Topology,
  node: ObservedNode,
  upstream: NodeName,
): NodeName | null {
  if (node.upstream !== null && node.upstream !== upstream) return node.upstream
  const sender = senderOf(inventory, node.facts.instance)
  if (sender !== null && sender !== upstream) return sender
  const holder = topology.nodes.find(
    (one) =>
      one.settings.name !== upstream &&
      one.settings.name !== node.settings.name &&
      one.facts.instance?.slots.some((slot) => slot.name === node.settings.slotName),
  )
  return holder?.settings.name ?? null
}

function whoConfirms(
  inventory: Inventory,
  topology: Topology,
  before: Roles | null,
  after: Roles | null,
): FollowDecision['confirming'] {
  if (!primaryWaitsForStandbys(inventory) || before === null || after === null) {
    return { before: [], after: [] }
  }
  const except = neverConfirming(topology)
  return {
    before: confirmingStandbys(inventory, before, except),
    after: confirmingStandbys(inventory, after, except),
  }
}

/** Fewer confirmations than the inventory promises is for the operator to decide, not for us. */
function refuseTooFewConfirming(
  { replication }: Inventory,
  topology: Topology,
  { node, upstream }: { readonly node: NodeName; readonly upstream: NodeName },
  { before, after }: FollowDecision['confirming'],
): void {
  if (replication.mode === 'async' || upstream === topology.primary) return
  const isStreaming = (name: NodeName) => nodeOf(topology, name).connection?.state === 'streaming'
  const left = after.filter(isStreaming)
  if (left.length >= replication.syncStandbys || left.length >= before.filter(isStreaming).length) return
  throw new ReplctlError(
    'durability-reduced',
    `${node} confirms commits: below ${upstream} it could not any more`,
    {
      detail: `Only standbys of the primary itself confirm. ${left.length} of ${replication.syncStandbys} sync standbys would be left.`,
      hint: 'Add a standby that receives from the primary, or lower replication.sync_standbys.',
      node,
    },
  )
}

function majorOf({ facts }: ObservedNode): number {
  return Math.floor((facts.instance?.serverVersionNumber ?? 0) / 10_000)
}

function notRunning(
  { facts, role, settings }: ObservedNode,
  message: string,
  { primary }: Topology,
): ReplctlError {
  const { name } = settings
  const isStandby = facts.hasStandbySignal || role === 'empty'
  // Where nobody leads there is nobody whom it could come back to.
  const way =
    primary === null ? `If ${name} is the primary, start it; if it is lost: replctl promote` : wayBack(name)
  return new ReplctlError('not-a-standby', message, {
    detail: `Its role is ${role}.`,
    hint: isStandby ? `Bring it up first: replctl add-standby ${name}` : way,
    node: name,
  })
}

function foreignTo(facts: NodeFacts, survey: readonly NodeFacts[]): ReplctlError {
  return new ReplctlError('foreign-cluster', `${facts.name} belongs to another cluster`, {
    detail: `Its system identifier is ${identifierOf(facts)}, the cluster's is ${commonRecord(survey)?.systemIdentifier ?? 'another one'}.`,
    hint: 'Correct the inventory: it is left alone.',
    node: facts.name,
  })
}
