import { compareLsn, type Lsn, lsnDistance } from '../postgres/lsn.ts'
import { insufficientSettings, tellInsufficient } from './insufficient-settings.ts'
import type { NodeName } from './names.ts'
import { identifierOf, isForeign } from './record.ts'
import { whyItHasNoRoom } from './room-to-lead.ts'
import { isAstray, type ObservedNode, receivedLsn, type Topology, timelineOf } from './topology.ts'

/** How one node fares as a candidate for promotion, and why. */
export interface CandidateVerdict {
  readonly node: NodeName
  readonly canLead: boolean
  /** e.g. `received 0/5000148, priority 100`, `not reachable`. */
  readonly reason: string
  readonly receivedLsn: Lsn | null
}

export interface CandidateChoice {
  readonly best: NodeName | null
  /** Every node, the best first. */
  readonly verdicts: readonly CandidateVerdict[]
}

/**
 * Ranks the nodes for promotion: more WAL received, of the newest timeline, beats everything, then the larger priority, then
 * the inventory's order. A node that is not a running standby of this cluster, or that must never lead, cannot. One that
 * replays late on purpose is there to be late: it leads only where there is no other, or where it is named.
 */
export function chooseCandidate(topology: Topology): CandidateChoice {
  const ranked = topology.nodes
    .map((node, index) => ({
      ...{ node, index },
      refusal: whyItCannotLead(node, topology) ?? whyItWouldLose(node, topology),
    }))
    .toSorted((a, b) => {
      if ((a.refusal === null) !== (b.refusal === null)) return a.refusal === null ? -1 : 1
      if (isDelayed(a.node) !== isDelayed(b.node)) return isDelayed(a.node) ? 1 : -1
      return (
        compareWal(b.node, a.node) || b.node.settings.priority - a.node.settings.priority || a.index - b.index
      )
    })
  const verdicts = ranked.map(({ node, refusal }) => ({
    node: node.settings.name,
    canLead: refusal === null,
    reason:
      refusal ??
      `received ${receivedLsn(node.facts)}, priority ${node.settings.priority}${
        isDelayed(node) ? `, replays ${node.settings.delayMs / 1000} s late on purpose` : ''
      }`,
    receivedLsn: receivedLsn(node.facts),
  }))
  return { best: verdicts.find((verdict) => verdict.canLead)?.node ?? null, verdicts }
}

/**
 * Running standbys that are not chosen whatever they have (delayed, not promotable), while another one can lead: it gets
 * from them what it lacks, before it is promoted.
 */
export function reservesOf(topology: Topology, candidate: NodeName): readonly NodeName[] {
  const own = topology.nodes.find((node) => node.settings.name === candidate)
  if (own === undefined || isDelayed(own)) return []
  return topology.nodes
    .filter(
      (node) =>
        node !== own &&
        node.role === 'standby' &&
        (isDelayed(node) || !node.settings.promotable) &&
        identifierOf(node.facts) === identifierOf(own.facts) &&
        // Of a history that was given up there is nothing to get.
        !isAstray(node.facts, surveyOf(topology)),
    )
    .map((node) => node.settings.name)
}

const isDelayed = ({ settings }: ObservedNode) => settings.delayMs > 0

/** Nodes that hold WAL of the cluster's history which `candidate` lacks, with the bytes it lacks. */
export function nodesAhead(
  topology: Topology,
  candidate: NodeName,
): readonly { node: NodeName; bytes: number }[] {
  const own = topology.nodes.find((node) => node.settings.name === candidate)
  const ownLsn = own === undefined ? null : receivedLsn(own.facts)
  if (own === undefined || ownLsn === null) return []
  return topology.nodes.flatMap((node) => {
    const lsn = receivedLsn(node.facts)
    if (node === own || lsn === null || node.facts.instance?.isInRecovery !== true) return []
    if (identifierOf(node.facts) !== identifierOf(own.facts)) return []
    if (isAstray(node.facts, surveyOf(topology))) return []
    const bytes = lsnDistance(ownLsn, lsn)
    return bytes > 0 ? [{ node: node.settings.name, bytes }] : []
  })
}

/**
 * Why a running standby must not lead although it could: it is on a history that the cluster has given up, and what was
 * confirmed since would be gone. Null: nothing of that is known.
 */
export function whyItWouldLose({ facts }: ObservedNode, topology: Topology): string | null {
  if (facts.instance?.isInRecovery !== true) return null
  const { timeline } = facts.instance
  if (isAstray(facts, surveyOf(topology))) {
    return `it is on timeline ${timeline}, past the point where the cluster's history left that`
  }
  // One that has followed since is a standby like any other, whatever mark is left on it.
  if (facts.fence !== null && timeline <= facts.fence.timeline) {
    return `it was fenced for ${facts.fence.newPrimary} on timeline ${facts.fence.timeline}, and has not followed since`
  }
  return null
}

const surveyOf = ({ nodes }: Topology) => nodes.map((node) => node.facts)

/** Why a node cannot be promoted; null if it can. */
export function whyItCannotLead(node: ObservedNode, topology: Topology): string | null {
  const { facts, settings } = node
  if (facts.unreachable !== null) return 'its host cannot be reached'
  if (facts.dataDirectoryState !== 'instance') return 'it is not built yet'
  if (isForeign(facts, surveyOf(topology))) return 'it belongs to another cluster'
  const { postmaster } = facts
  if (postmaster?.isAlive === true && facts.instance === null) {
    if (postmaster.isFrozen) {
      return `it is frozen (SIGSTOP; "kill -CONT ${postmaster.pid}" lets its postmaster go on)`
    }
    return postmaster.status === 'starting' ? 'it is still starting' : 'it does not answer'
  }
  if (facts.instance === null) return facts.fence === null ? 'it is stopped' : 'it is fenced'
  if (!facts.instance.isInRecovery) return 'it accepts writes already'
  const low = insufficientSettings(facts)
  if (low.length > 0) return `${tellInsufficient(low)}; it has to be raised, and PostgreSQL restarted there`
  if (!settings.promotable) return 'the inventory says promotable: false'
  if (receivedLsn(facts) === null) return 'it has not received any WAL'
  return whyItHasNoRoom(facts)
}

function compareWal(a: ObservedNode, b: ObservedNode): number {
  const [lsnA, lsnB] = [receivedLsn(a.facts), receivedLsn(b.facts)]
  if (lsnA === null || lsnB === null) return (lsnA === null ? 0 : 1) - (lsnB === null ? 0 : 1)
  const newer = (timelineOf(a.facts) ?? 0) - (timelineOf(b.facts) ?? 0)
  if (newer !== 0) return newer
  return compareLsn(lsnA, lsnB)
}
