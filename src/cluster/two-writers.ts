import { ReplctlError } from '../errors.ts'
import { type CommonAncestor, commonAncestor, parseTimelineHistory } from '../postgres/timeline-history.ts'
import type { NodeFacts } from './facts.ts'
import type { NodeName } from './names.ts'
import { commonRecord } from './record.ts'
import { nodeOf, type Topology } from './topology.ts'

/**
 * Whether it is beyond doubt that `primary` took over from `node`, though both accept writes: the record of the cluster and the
 * higher timeline both say so.
 */
export function hasTakenOver(topology: Topology, primary: NodeName, node: NodeName): boolean {
  const record = commonRecord(topology.nodes.map(({ facts }) => facts))
  const [theirs, own] = [primary, node].map((name) => nodeOf(topology, name).facts.instance?.timeline ?? 0)
  return record?.primary === primary && (theirs ?? 0) > (own ?? 0)
}

/** More than one node accepts writes: with what tells them apart, and what is known of who is right. */
export function twoWriters(topology: Topology): ReplctlError {
  const { writers } = topology
  const facts = writers.map((name) => nodeOf(topology, name).facts)
  const list = facts.map(
    ({ name, instance }) =>
      `${name}: system identifier ${instance?.systemIdentifier}, timeline ${instance?.timeline}, at ${instance?.currentLsn}.`,
  )
  const forks = facts.flatMap((one, index) => facts.slice(index + 1).flatMap((other) => forkOf(one, other)))
  return new ReplctlError('two-writers', `${writers.join(' and ')} accept writes at the same time`, {
    detail: [...list, ...forks].join(' '),
    hint: wayOut(topology),
  })
}

/** Where the histories of two writers part, as far as they say. */
function forkOf(one: NodeFacts, other: NodeFacts): string[] {
  const fork = ancestorOf(one, other)
  if (fork === null || fork.lsn === null) return []
  return [`${one.name} and ${other.name} part on timeline ${fork.timeline}, at ${fork.lsn}.`]
}

function ancestorOf(one: NodeFacts, other: NodeFacts): CommonAncestor | null {
  try {
    const [a, b] = [one, other].map(historyOf)
    return a && b ? (commonAncestor(a, b) ?? null) : null
  } catch {
    // A history file that cannot be read tells nothing.
    return null
  }
}

/** Timeline 1 has no file; of any other one that is missing nothing is known. */
function historyOf({ instance }: NodeFacts) {
  if (instance === null || (instance.history === null && instance.timeline > 1)) return null
  return parseTimelineHistory(instance.history ?? '', instance.timeline)
}

function wayOut(topology: Topology): string {
  const { writers } = topology
  const [a, b] = writers
  if (writers.length === 2 && a !== undefined && b !== undefined) {
    const [leader, former] = hasTakenOver(topology, a, b) ? [a, b] : [b, a]
    if (hasTakenOver(topology, leader, former)) {
      return `${leader} has taken over, by the record of the cluster and by its timeline. ${former} is stopped, what only it has is saved, and it follows, with: replctl rejoin ${former}`
    }
  }
  const ways = writers.map((name) => `replctl rejoin ${name}`).join(' or ')
  return `Decide which of them is right, and stop the other one now: replctl cannot know which data you want to keep. Once it is stopped it comes back as a standby, what only it has is saved first: ${ways}`
}
