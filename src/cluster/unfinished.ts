import type { NodeFacts, Survey } from './facts.ts'

/** What names an operation: who began it, and when to the millisecond. One line. */
export function operationId({ by, since }: { readonly by: string; readonly since: string }): string {
  return `${since} ${by}`
}

/** How many ended operations a node keeps the names of. */
export const endedKept = 30

/**
 * The same survey without the journals of operations that are over: a node that was away when one ended still has its
 * journal, and the others know better.
 */
export function forgetEnded(survey: Survey): NodeFacts[] {
  if (survey.every((facts) => facts.ended.length === 0)) return [...survey]
  return survey.map((facts) =>
    facts.journal !== null && isOver(facts.journal, survey) ? { ...facts, journal: null } : facts,
  )
}

/**
 * Whether the operation of a journal is over: a node has its name among those that ended, or has seen so many end, all of
 * them begun after it, that its name is forgotten. A node that was there all the time still holds what is unfinished.
 */
export function isOver(journal: string, survey: Survey): boolean {
  const [operation] = operationsIn(journal)
  if (operation === undefined) return false
  const id = operationId(operation)
  return survey.some(({ ended, journal: kept }) => {
    if (ended.includes(id)) return true
    if (ended.length < endedKept || operationsIn(kept).some((one) => operationId(one) === id)) return false
    const beganAt = Date.parse(operation.since)
    return ended.every((line) => Date.parse(line.split(' ')[0] ?? '') > beganAt)
  })
}

interface Begun {
  readonly by: string
  readonly since: string
  readonly before?: Begun | undefined
}

/** The operation of a journal, and those that gave way to it. */
function operationsIn(journal: string | null): readonly Begun[] {
  const found: Begun[] = []
  try {
    let one = JSON.parse(journal ?? 'null') as Begun | null | undefined
    for (; typeof one?.since === 'string'; one = one.before) found.push(one)
  } catch {
    // It was cut off: whose it is cannot be known.
  }
  return found
}
