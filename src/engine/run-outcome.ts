import { exitCodes, type ReplctlError } from '../errors.ts'
import type { StepReport } from './events.ts'

/** How a run ended. `error` is null when every step is satisfied or applied. */
export interface Outcome {
  readonly steps: readonly StepReport[]
  readonly hasChanged: boolean
  /** The point of no return is behind it. */
  readonly hasCrossed: boolean
  readonly error: ReplctlError | null
  readonly exitCode: number
}

/** What a run has come to, as far as how it is told depends on it. */
export interface RunEnd {
  readonly steps: readonly StepReport[]
  readonly error: ReplctlError | null
  readonly hasApplied: boolean
  /** An earlier run had begun it. */
  readonly isResumed: boolean
  readonly isPastPointOfNoReturn: boolean
  /** What it, or the run before it, did still stands. */
  readonly remains: boolean
  /** Something that cannot be taken back was done. */
  readonly isFinal: boolean
  /** Everything that was begun, by this run or an earlier one, is taken back. */
  readonly isTakenBack: boolean
}

/** The exit code, and the words that say in what state the cluster is. */
export function outcomeOf(end: RunEnd): Outcome {
  const { steps, error, hasApplied, isPastPointOfNoReturn } = end
  return {
    steps,
    hasChanged: hasApplied && (error === null || hasUnfinished(end)),
    hasCrossed: isPastPointOfNoReturn,
    error: error === null ? null : error.with({ detail: tellState(error, end) }),
    exitCode: error === null ? exitCodes.ok : exitCodeOf(error, end),
  }
}

const hasUnfinished = ({ remains, isPastPointOfNoReturn }: RunEnd): boolean =>
  remains || isPastPointOfNoReturn

function exitCodeOf(error: ReplctlError, end: RunEnd): number {
  const { hasApplied, isResumed, isPastPointOfNoReturn, isTakenBack } = end
  if (error.code === 'interrupted') return error.exitCode
  if (!hasApplied && !isResumed && !isPastPointOfNoReturn) return error.exitCode
  if (error.code === 'internal-error') return exitCodes.internal
  if (isTakenBack) return exitCodes.undone
  if (error.code === 'timeout') return exitCodes.timeout
  return hasUnfinished(end) || isResumed ? exitCodes.partial : exitCodes.undone
}

/** What a program said there ends without a full stop. */
const asSentence = (text: string): string =>
  /[\p{L}\p{N}]$/u.test(text.trim()) ? `${text.trim()}.` : text.trim()

const states = {
  unchanged: 'Nothing was changed.',
  crossed: 'The point of no return is crossed: "replctl resume" goes on from here.',
  final: 'Part of it stands and cannot be taken back: "replctl resume" goes on.',
  partial: 'Part of it stands: "replctl resume" goes on, "replctl abort" takes it back.',
  takenBack: 'Everything was taken back: the cluster is as before.',
  undone: 'What this run had changed was taken back.',
} as const

function tellState(error: ReplctlError, end: RunEnd): string {
  return error.detail === undefined ? stateOf(end) : `${asSentence(error.detail)} ${stateOf(end)}`
}

function stateOf(end: RunEnd): string {
  if (!end.hasApplied && !hasUnfinished(end)) return states.unchanged
  if (end.isPastPointOfNoReturn) return states.crossed
  if (end.remains && end.isFinal) return states.final
  if (end.remains) return states.partial
  return end.isTakenBack ? states.takenBack : states.undone
}

/** A detail without the words on the state of the cluster: for who goes on at once, after which it is another one. */
export function withoutState(detail: string): string {
  const told = Object.values(states).find((state) => detail.endsWith(state))
  return told === undefined ? detail : detail.slice(0, -told.length).trimEnd()
}
