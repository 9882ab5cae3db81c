import type { Answer, Call } from '../command-spec.ts'
import { isOnlyForward, onlyForward } from '../operation.ts'
import { callOf, findUnfinished, runAgain } from './resume.ts'

/** `replctl abort`: takes back what an unfinished operation did, where that is possible. */
export async function run(call: Call): Promise<Answer> {
  const journal = await findUnfinished(call)
  if (isOnlyForward(journal)) {
    throw onlyForward(journal)
  }
  return await runAgain(callOf(call, journal, { isAbort: true }))
}
