import { didYouMean } from '../cluster/nearest-word.ts'
import type { InventoryProblem } from './inventory-problem.ts'
import type { RawInventory } from './raw-inventory.ts'

/** Every upstream is another node, and following upstreams never comes back to where it began. */
export function checkUpstreams({ nodes }: RawInventory): InventoryProblem[] {
  const names = nodes.map((node) => node.name)
  const upstreams = new Map(
    nodes.flatMap(({ name, upstream }) => (upstream ? [[name, upstream] as const] : [])),
  )
  const problems: InventoryProblem[] = []
  const reported = new Set<string>()
  for (const [name, upstream] of upstreams) {
    const common = { path: ['nodes', name, 'upstream'], at: 'value' } as const
    if (!names.includes(upstream)) {
      const hint =
        didYouMean(
          upstream,
          names.filter((other) => other !== name),
        ) ?? `Nodes are: ${names.join(', ')}.`
      problems.push({ ...common, message: `unknown node "${upstream}"`, hint })
      continue
    }
    if (upstream === name) {
      const hint = 'Remove it: a standby without upstream follows the primary.'
      problems.push({ ...common, message: 'a node cannot be its own upstream', hint })
      continue
    }
    const circle = findCircle(name, upstreams)
    if (!circle || circle.length < 2 || reported.has(name)) continue
    for (const member of circle) reported.add(member)
    const hint = 'Remove one of these upstreams: a standby without one follows the primary.'
    problems.push({ ...common, message: `upstreams form a circle: ${[...circle, name].join(' → ')}`, hint })
  }
  return problems
}

/** The nodes from `start` along the upstreams until `start` comes again, or undefined if it never does. */
function findCircle(start: string, upstreams: ReadonlyMap<string, string>): string[] | undefined {
  const passed = [start]
  for (let next = upstreams.get(start); next !== undefined; next = upstreams.get(next)) {
    if (next === start) return passed
    if (passed.includes(next)) return undefined
    passed.push(next)
  }
  return undefined
}
