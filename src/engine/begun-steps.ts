import type { NodeName } from '../cluster/names.ts'
import { ReplctlError } from '../errors.ts'
import type { Journal } from './journal.ts'
import type { Beginning } from './run-journal.ts'
import { type Plan, type Step, stepsOf } from './step.ts'

/** Titles repeat from node to node; the node makes them one of a kind. */
export const stepKey = (step: Step): string => `${step.node}: ${step.title}`

/** What the journal is to know of a step before it changes anything. */
export const beginningOf = (step: Step): Beginning => {
  const isCrossing = step.pointOfNoReturn === true
  return {
    key: stepKey(step),
    isOwed: step.undo !== undefined && step.mayBeLeftBehind !== true,
    isFinal: step.cannotBeUndone === true,
    isCrossing,
    tells: isCrossing ? [step.node, ...(step.crossesWith ?? [])] : (step.beginsWith ?? []),
  }
}

/**
 * The begun steps that can be taken back, in the plan's order. One that has to be, on a node that is `away`: then those
 * that were begun after it, and why it ends there. `left`: what the plan of now has no step for any more, elsewhere.
 */
export function begunSteps(
  plan: Plan,
  { begun, owed = [] }: Journal,
  away: readonly NodeName[],
): { begun: readonly Step[]; missing: ReplctlError | null; left: readonly ReplctlError[] } {
  const steps = stepsOf(plan)
  const keys = steps.map(stepKey)
  const isLost = (key: string) => owed.includes(key) && !keys.includes(key)
  const isAway = (key: string) => away.some((name) => key.startsWith(`${name}: `))
  const last = begun.findLastIndex((key) => isLost(key) && isAway(key))
  const later = begun.slice(last + 1)
  const key = begun[last]
  return {
    begun: steps.filter((step) => later.includes(stepKey(step))),
    missing: key === undefined ? null : outOfReach(key),
    left: later.filter(isLost).map(leftAsItIs),
  }
}

const partsOf = (key: string) => {
  const [node = '', ...title] = key.split(': ')
  return { node, title: title.join(': ') }
}

/**
 * Why an operation cannot be taken back with this inventory: it did something on a node that the inventory lacks, and that would be
 * left there in silence. Null: it has them all.
 */
export function owedByUnknown(
  { command, owed = [] }: Pick<Journal, 'command' | 'owed'>,
  hosts: readonly NodeName[],
  inventory: string,
): ReplctlError | null {
  const key = owed.find((one) => !hosts.some((name) => one.startsWith(`${name}: `)))
  if (key === undefined) return null
  const { node, title } = partsOf(key)
  return new ReplctlError(
    'cannot-abort',
    `"${command}" cannot be taken back: ${node} took part in it, and the inventory lacks it`,
    {
      detail: `"${title}" on ${node} would stay as it is.`,
      hint: `Put ${node} into ${inventory}, then: replctl abort`,
    },
  )
}

function outOfReach(key: string): ReplctlError {
  const { node, title } = partsOf(key)
  return new ReplctlError('cannot-abort', `"${title}" on ${node} cannot be taken back now`, {
    detail: `${node} cannot be reached.`,
    hint: `When ${node} answers again: replctl abort`,
    node,
  })
}

/** The cluster is another one than when that was done: what has become of it nobody can tell by the journal. */
function leftAsItIs(key: string): ReplctlError {
  const { node, title } = partsOf(key)
  return new ReplctlError('cannot-abort', `"${title}" on ${node} is left as it is`, {
    detail: 'By what can be seen now it is no part of the operation any more.',
    hint: 'Look with "replctl status".',
    node,
  })
}
