import type { NodeFacts, Survey } from './facts.ts'

/** What names an operation: who began it, and when to the millisecond. One line. */
export function operationId({ by, since }: { readonly by: string; readonly since: string }): string {
  return `${since} ${by}`
}

/**
 * The same survey without the journals of operations that are over: a node that was away when one ended still has its
 * journal, and the others know better.
 */
export function forgetEnded(survey: Survey): NodeFacts[] {
  const ended = new Set(survey.flatMap((facts) => facts.ended))
  return survey.map((facts) => {
    if (facts.journal === null || ended.size === 0) return facts
    const id = idOf(facts.journal)
    return id !== null && ended.has(id) ? { ...facts, journal: null } : facts
  })
}

function idOf(text: string): string | null {
  try {
    return operationId(JSON.parse(text))
  } catch {
    return null
  }
}
