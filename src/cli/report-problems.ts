import { createPaint } from '../report/paint.ts'
import { problemsText } from '../report/problems.ts'
import type { Answer, Call, Surroundings } from './command-spec.ts'
import { paintOf } from './paint-of.ts'

/** What people see at the end: the answer on standard output, the problems on standard error. */
export function reportProblems(io: Surroundings, call: Call | undefined, given: Answer): void {
  if (given.text !== '') io.writeOut(given.text)
  // status and verify tell their problems as part of the answer.
  const hasToldThem =
    call !== undefined && ['status', 'verify', 'doctor', 'sandbox status'].includes(call.command)
  if (given.problems.length === 0 || (hasToldThem && given.text !== '')) return
  io.writeError(problemsText(given.problems, call === undefined ? createPaint(0) : paintOf(call)))
}
