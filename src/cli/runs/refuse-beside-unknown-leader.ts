import type { NodeName } from '../../cluster/names.ts'
import { refusalBesideUnknownLeader, unknownLeader } from '../../cluster/unknown-leader.ts'
import { askAddresses } from '../../node/ask-around.ts'
import { checkGuard, readGuardAnswers } from '../../node/start-guard.ts'
import type { ClusterSession } from '../cluster-session.ts'
import type { Observation } from '../operation.ts'
import { allToldToPromote } from './promote-begun.ts'

/** Each node's start guard knows where the members were when it was written, whatever the inventory says. */
async function askGuards(
  nodes: ClusterSession['nodes'],
  survey: Observation['survey'],
  names: readonly string[],
) {
  const answers = await Promise.all(
    survey.map(async ({ name, unreachable, hasGuardScript }) => {
      const node = nodes.get(name)
      if (node === undefined || unreachable !== null || !hasGuardScript) return []
      const { said } = await checkGuard(node, { timeoutMs: 10_000 }).catch(() => ({ said: '' }))
      return readGuardAnswers(name, said)
    }),
  )
  return answers.flat().filter(({ at }) => names.includes(at))
}

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
  const [heard, known] = await Promise.all([
    askAddresses(inventory, nodes, survey, leader.addresses),
    leader.names.length === 0 ? [] : askGuards(nodes, survey, leader.names),
  ])
  const answers = [...heard, ...known]
  const refusal = refusalBesideUnknownLeader(inventory, topology, leader, answers, asked)
  if (refusal !== null) throw refusal
}
