import type { NodeFacts, Survey } from './facts.ts'
import { isForeign } from './record.ts'
import { isRunningStandby } from './topology.ts'

/**
 * Whether this is a running standby of this cluster. One of another cluster that stands where the inventory names a node is a
 * bystander: its files, its slots and its passfile are not ours to write.
 */
export function isOurStandby(facts: NodeFacts, survey: Survey): boolean {
  return isRunningStandby(facts) && !isForeign(facts, survey)
}
