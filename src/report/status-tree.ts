import type { ObservedNode, Topology } from '../cluster/topology.ts'

/** A node with what stands before its name, e.g. `│  └─ `. */
export interface TreeRow {
  readonly node: ObservedNode
  readonly prefix: string
}

/**
 * The nodes as a tree of who receives from whom: primaries first, each standby under its upstream, and last the nodes
 * that neither send nor receive. Every node stands in it once, also where standbys receive from each other in a circle.
 */
export function topologyTree(topology: Topology): readonly TreeRow[] {
  const { nodes } = topology
  const downstreamsOf = (node: ObservedNode) =>
    nodes.filter((one) => one !== node && one.upstream === node.settings.name)
  const rank = (node: ObservedNode) => {
    if (node.role === 'primary') return 0
    if (downstreamsOf(node).length > 0) return 1
    return node.facts.instance === null ? 3 : 2
  }
  const names = new Set<string>(nodes.map((node) => node.settings.name))
  const isRoot = (node: ObservedNode) => node.upstream === null || !names.has(node.upstream)
  const rows: TreeRow[] = []
  const seen = new Set<ObservedNode>()
  const add = (node: ObservedNode, prefix: string, indent: string): void => {
    if (seen.has(node)) return
    seen.add(node)
    rows.push({ node, prefix })
    const below = downstreamsOf(node).filter((one) => !seen.has(one))
    below.forEach((one, index) => {
      const isLast = index === below.length - 1
      add(one, `${indent}${isLast ? '└─ ' : '├─ '}`, `${indent}${isLast ? '   ' : '│  '}`)
    })
  }
  const ranked = nodes.toSorted((a, b) => rank(a) - rank(b))
  for (const node of [...ranked.filter(isRoot), ...ranked]) add(node, '', '')
  return rows
}
