import type { NodeName } from '../cluster/names.ts'
import { inOrder, type Plan } from '../engine/step.ts'
import type { ClusterInput } from '../steps/cluster-input.ts'
import { salvageDiverged } from '../steps/salvage-diverged.ts'

export interface SalvageWish {
  /** A stopped node. */
  readonly node: NodeName
  readonly primary: NodeName
}

/**
 * Writes out what only a former primary or a diverged standby has, and leaves the node as it is: stopped, and unable to
 * come up read-write. It can be done again at any time before the node is rewound or cloned anew.
 */
export function salvage(input: ClusterInput, { node, primary }: SalvageWish): Plan {
  return inOrder([salvageDiverged(node, primary, input)])
}
