import { compareLsn, type Lsn, lsnDistance } from '../postgres/lsn.ts'
import { forkPoint, parseTimelineHistory } from '../postgres/timeline-history.ts'
import type { NodeFacts } from './facts.ts'
import type { NodeName } from './names.ts'
import { isForeign } from './record.ts'
import { isAstray, nodeOf, receivedLsn, type Topology } from './topology.ts'

/**
 * Bytes that somebody is known to have had beyond the candidate: where a former primary writes or last checkpointed, a
 * sender's last word.
 */
export function knownGap(
  topology: Topology,
  candidate: NodeName,
  reserves: readonly NodeName[],
): number | null {
  const own = receivedLsn(nodeOf(topology, candidate).facts)
  if (own === null) return null
  const survey = topology.nodes.map((node) => node.facts)
  const known: Lsn[] = topology.nodes.flatMap((node) => {
    const { facts } = node
    if (isForeign(facts, survey) || reserves.includes(node.settings.name)) return []
    if (isAstray(facts, survey)) return []
    if (node.settings.name === candidate) {
      return facts.instance?.receiver?.latestEndLsn === null || facts.instance?.receiver === null
        ? []
        : [facts.instance?.receiver.latestEndLsn].filter((lsn) => lsn !== undefined)
    }
    const stopped =
      facts.instance === null && (!facts.hasStandbySignal || hasLed(facts))
        ? facts.control?.checkpointLsn
        : undefined
    const { currentLsn = null, receiver = null } = facts.instance ?? {}
    return [stopped, currentLsn, receivedLsn(facts), receiver?.latestEndLsn].filter(
      (lsn) => lsn !== undefined && lsn !== null,
    )
  })
  const furthest = known.toSorted(compareLsn).at(-1)
  return furthest === undefined ? null : Math.max(0, lsnDistance(own, furthest))
}

/**
 * Bytes that a primary wrote which was stopped for a promotion, and that the new one lacks, now that both are known: its last
 * checkpoint is its end, where it was shut down in order. That record itself is no loss. Null: it ended otherwise, or ran on.
 */
export function gapAfterStop({ instance, control }: NodeFacts, leader: NodeFacts): number | null {
  const { history = null, timeline = 0 } = leader.instance ?? {}
  if (instance !== null || control?.state !== 'shut down' || history === null) return null
  const fork = forkPoint(parseTimelineHistory(history, timeline), control.timeline)
  return fork === undefined ? null : Math.max(0, lsnDistance(fork, control.checkpointLsn))
}

/** A standby signal beside a primary's last checkpoint: it was told to be a standby, and has not been one since. */
function hasLed({ fence, control }: NodeFacts): boolean {
  return fence !== null || (control !== null && !/recovery/.test(control.state))
}
