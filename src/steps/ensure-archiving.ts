import type { NodeSettings } from '../cluster/inventory.ts'
import type { Step } from '../engine/step.ts'
import type { ClusterInput } from './cluster-input.ts'

/** What a node needs to archive WAL over SSH; nothing where the inventory has no archive block. */
export function ensureArchiving(_input: ClusterInput, _node: NodeSettings): readonly Step[] {
  return []
}
