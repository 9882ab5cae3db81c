import type { Answer, Call } from '../command-spec.ts'
import { isOnlyForward, onlyForward } from '../operation.ts'
import { callOf, findUnfinished, runAgain } from './resume.ts'

/** `replctl abort`: takes back what an unfinished operation did, where that is possible. */
export async function run(call: Call): Promise<Answer> {
  const journal = await findUnfinished(call)
  // A promotion is looked at once more: the one that was told may be down, and known never to have led.
  if (isOnlyForward(journal) && journal.command !== 'promote') throw onlyForward(journal)
  return await runAgain(callOf(call, journal, { isAbort: true }))
}
