import {
  diagnoseSynchronous,
  foreseeSynchronous,
  type SynchronousToCome,
} from '../../cluster/diagnose-synchronous.ts'
import type { Inventory } from '../../cluster/inventory.ts'
import { type Problem, problemOf } from '../../cluster/problem.ts'
import type { Topology } from '../../cluster/topology.ts'

// Whoever changes who leads, or who follows, also says what that means for commits in sync and quorum mode.

/** Commits wait, or are confirmed by fewer standbys than wished, now that the operation is done. */
export function synchronousProblems(inventory: Inventory, topology: Topology): readonly Problem[] {
  return warningOf(diagnoseSynchronous(inventory, topology))
}

/** Commits will wait when the operation is done: for its plan. */
export function foreseenProblems(inventory: Inventory, toCome: SynchronousToCome): readonly Problem[] {
  return warningOf(foreseeSynchronous(inventory, toCome))
}

const warningOf = (error: ReturnType<typeof diagnoseSynchronous>): readonly Problem[] =>
  error === null ? [] : [problemOf(error, 'warning')]
