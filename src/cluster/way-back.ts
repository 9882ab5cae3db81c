import { ReplctlError } from '../errors.ts'
import { isCleanShutdown } from '../postgres/control-data.ts'
import type { NodeFacts } from './facts.ts'
import { rejoinToTell, rejoinUnderWay } from './rejoin-under-way.ts'
import { hasDiverged, timelineOf } from './topology.ts'

/** How a node that has, or may have, WAL of its own comes back as a standby. */
export function wayBack(node: string): string {
  return `It may hold transactions that nobody else has; they are saved first: replctl rejoin ${node}`
}

/** What brings a stopped or diverged member back: as it is, where it holds nothing of its own. */
export function comeBackHint(facts: NodeFacts, primary: NodeFacts | undefined): string {
  if (rejoinUnderWay(facts) !== null || rejoinToTell(facts) !== null)
    return `Its rejoin was begun and did not end: replctl rejoin ${facts.name}`
  const holdsNothing = primary !== undefined && refusalToDiscard(facts, primary) === null
  return holdsNothing ? `Bring it back as a standby: replctl add-standby ${facts.name}` : wayBack(facts.name)
}

/**
 * Why a node must not be put back (or cloned over) as a standby although its data belongs to this cluster: it holds,
 * or may hold, what the primary's history lacks. Null: it is known to hold nothing of its own. A crashed former
 * primary is never known to: pg_control shows its last checkpoint, not the end of its WAL.
 */
export function refusalToDiscard(facts: NodeFacts, primary: NodeFacts): ReplctlError | null {
  const own = facts.instance?.systemIdentifier ?? facts.control?.systemIdentifier
  if (own !== undefined && own !== primary.instance?.systemIdentifier) return null
  if (hasDiverged(facts, primary)) {
    return new ReplctlError('node-diverged', `${facts.name} has WAL that ${primary.name} never had`, {
      detail: `It was on timeline ${facts.instance?.timeline ?? facts.control?.timeline} past the point where the primary's history left it.`,
      hint: wayBack(facts.name),
      node: facts.name,
    })
  }
  const mayHaveWritten = facts.instance === null && (facts.fence !== null || !facts.hasStandbySignal)
  const timeline = timelineOf(facts) ?? 1
  // A rewind that came to its end has brought it there, and what was its own was saved before.
  const isTwin = rejoinUnderWay(facts) === null && timeline > 1 && timeline === primary.instance?.timeline
  if (mayHaveWritten && isTwin) {
    return new ReplctlError(
      'node-fenced',
      `${facts.name} led timeline ${timeline}, as ${primary.name} does`,
      {
        detail:
          'Two nodes that were promoted beside each other begin the same number: only the WAL of both can tell them apart.',
        hint: wayBack(facts.name),
        node: facts.name,
      },
    )
  }
  // A clone that was begun has none yet; a rewind that was begun had saved what was its own.
  const isBegun = facts.mark?.phase === 'cloning' || rejoinUnderWay(facts) !== null
  if (mayHaveWritten && facts.control === null && facts.dataDirectoryState === 'instance' && !isBegun) {
    return new ReplctlError('node-fenced', `the pg_control of ${facts.name} cannot be read`, {
      detail: 'It may have been a primary: what it had written, and how far, is not known.',
      hint: wayBack(facts.name),
      node: facts.name,
    })
  }
  if (mayHaveWritten && facts.control !== null && !isCleanShutdown(facts.control.state)) {
    return new ReplctlError('node-fenced', `${facts.name} was a primary and did not shut down cleanly`, {
      detail: `pg_control says "${facts.control.state}": what it had written last is not known.`,
      hint: wayBack(facts.name),
      node: facts.name,
    })
  }
  return null
}
