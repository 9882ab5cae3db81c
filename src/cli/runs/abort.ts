import { ReplctlError } from '../../errors.ts'
import type { Answer, Call } from '../command-spec.ts'
import { callOf, findUnfinished, runAgain } from './resume.ts'

/** `replctl abort`: takes back what an unfinished operation did, where that is possible. */
export async function run(call: Call): Promise<Answer> {
  const journal = await findUnfinished(call)
  if (journal.isPastPointOfNoReturn) {
    throw new ReplctlError('cannot-abort', `"${journal.command}" cannot be taken back`, {
      detail: `${journal.by} began it at ${journal.since}, and it crossed its point of no return.`,
      hint: 'It only goes forward: replctl resume',
    })
  }
  return await runAgain(callOf(call, journal, { isAbort: true }))
}
