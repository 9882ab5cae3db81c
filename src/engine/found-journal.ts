import { operationId } from '../cluster/unfinished.ts'
import { ReplctlError } from '../errors.ts'
import type { Journal } from './journal.ts'

/** An operation that is asked for while others may have stopped part-way. */
export interface Asked {
  readonly command: string
  /** Arguments and flags that give the same operation again. */
  readonly wish: Readonly<Record<string, unknown>>
  /** May begin although another operation stopped part-way behind its point of no return. */
  readonly overridesUnfinished?: boolean
  /** The same for one that this operation takes the place of. */
  replaces?(found: Journal): boolean
  /** Whether it is the same operation, asked for again with other flags: it goes on with these. */
  goesOnWith?(found: Journal): boolean
}

/** The same operation goes on; another one is in the way only where it crossed its point of no return. */
export function judgeFoundJournal(found: Journal | null, operation: Asked): Journal | null {
  if (found === null) return null
  const wish = JSON.stringify(operation.wish)
  for (const one of thoseThatCount(found)) {
    if (one.command !== operation.command) continue
    if (JSON.stringify(one.wish) === wish) return takenUp(found, one)
    if (operation.goesOnWith?.(one) === true) return { ...takenUp(found, one), wish: operation.wish }
  }
  if (operation.overridesUnfinished === true) return null
  const crossed = chainOf(found).find(
    (one) => one.isPastPointOfNoReturn && operation.replaces?.(one) !== true,
  )
  if (crossed === undefined) return null
  throw new ReplctlError('operation-unfinished', `"${crossed.command}" stopped part-way`, {
    detail: `${crossed.by} began it at ${crossed.since}, and it crossed its point of no return.`,
    hint: 'Finish it first: replctl resume. Where a node that it needs is lost for good: replctl promote, with the node that leads or shall lead.',
  })
}

/** A journal, and those that gave way to it. */
function chainOf(found: Journal): readonly Journal[] {
  return found.before === undefined ? [found] : [found, ...chainOf(found.before)]
}

/** What is still unfinished once an operation has ended that was only aside of it, and took the place of some. */
export function leftBefore({ before, superseded = [] }: Journal): Journal | undefined {
  return before && chainOf(before).find((one) => !superseded.includes(operationId(one)))
}

/** What would finish or be taken back next: one that was only aside of another one does not stand in front of that. */
function thoseThatCount(found: Journal): readonly Journal[] {
  const chain = chainOf(found)
  const first = chain.findIndex((one) => one.isAside !== true)
  return first < 0 ? chain : chain.slice(0, first + 1)
}

/** One is gone on with; those above it, which were aside, end with it. */
function takenUp(found: Journal, one: Journal): Journal {
  const above = chainOf(found).slice(0, chainOf(found).indexOf(one))
  if (above.length === 0) return one
  return { ...one, superseded: [...above.map(operationId), ...(one.superseded ?? [])] }
}

/**
 * What a new operation's journal says of the one that it found. `replaces`: whether one that is aside takes the place of what it
 * finds first; with nothing else it leaves that as it is.
 */
export function givingWay(
  found: Journal,
  isAside: boolean,
  replaces: (found: Journal) => boolean = () => false,
): Partial<Journal> {
  if (isAside) {
    const chain = chainOf(found)
    const kept = chain.findIndex((one) => !replaces(one))
    const superseded = (kept < 0 ? chain : chain.slice(0, kept)).map(operationId)
    return { before: found, isAside, ...(superseded.length === 0 ? {} : { superseded }) }
  }
  const counting = thoseThatCount(found)
  const before = counting.find((one) => one.isAside !== true)
  return {
    ...(before === undefined ? {} : { before }),
    superseded: [...counting.map(operationId), ...(before?.superseded ?? [])],
  }
}
