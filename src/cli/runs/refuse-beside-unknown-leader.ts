import type { NodeName } from '../../cluster/names.ts'
import { refusalBesideUnknownLeader, unknownLeader } from '../../cluster/unknown-leader.ts'
import { askAddresses } from '../../node/ask-around.ts'
import type { ClusterSession } from '../cluster-session.ts'
import type { Observation } from '../operation.ts'
import { allToldToPromote } from './promote-begun.ts'

/**
 * One that the inventory lacks can neither be reached nor fenced: it may lead, and the candidate is to lead beside nobody.
 * `what`: as in "refused to promote pg2".
 * @throws {ReplctlError} `primary-alive`, `primary-unproven`
 */
export async function refuseBesideUnknownLeader(
  { inventory, nodes }: ClusterSession,
  observation: Observation,
  asked: { readonly candidate: NodeName; readonly what: string; readonly allowSplitBrain: boolean },
): Promise<void> {
  const { survey, topology } = observation
  const leader = unknownLeader(inventory, topology, asked.candidate, allToldToPromote(observation))
  if (leader === null) return
  const answers = await askAddresses(inventory, nodes, survey, leader.addresses)
  const refusal = refusalBesideUnknownLeader(inventory, topology, leader, answers, asked)
  if (refusal !== null) throw refusal
}
