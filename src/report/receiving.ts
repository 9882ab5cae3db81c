import { isDeafForDelay, type ObservedNode } from '../cluster/topology.ts'

/** How a standby gets its WAL, e.g. `streams from pg1`: one that holds a transaction back on purpose does not stream meanwhile. */
export function receivingText(node: ObservedNode | undefined, upstream: string | null): string {
  const from = upstream ?? 'nobody'
  return isDeafForDelay(node?.facts.instance)
    ? `follows ${from}, which it asks for WAL once it has replayed the transaction that it holds back on purpose`
    : `streams from ${from}`
}
