import type { StepReport, StepState } from '../engine/events.ts'
import type { Paint } from './paint.ts'
import { oneLine } from './plain-text.ts'
import { columns } from './table.ts'

/** What a run would do, for --dry-run: every step, and whether it would change anything. */
export function planText(steps: readonly StepReport[], paint: Paint): string {
  const rows = steps.map((step) => [
    String(step.n).padStart(String(steps.length).length),
    paint.name(step.node),
    oneLine(step.title),
    stateText(step.state, paint),
  ])
  return `${columns(rows)}${summary(steps)}\n`
}

function stateText(state: StepState, paint: Paint): string {
  const words: Record<StepState, string> = {
    satisfied: paint.dim('already so'),
    planned: paint.strong('planned'),
    failed: paint.bad('refused'),
    applied: paint.good('done'),
    undone: paint.warn('taken back'),
  }
  return words[state]
}

function summary(steps: readonly StepReport[]): string {
  const count = (state: StepState) => steps.filter((step) => step.state === state).length
  if (count('failed') > 0) return 'The run would be refused here. Nothing was changed.'
  if (count('planned') === 0) return 'Nothing to do: everything is already so.'
  return `${plural(count('planned'), 'step')} to do, ${count('satisfied')} already so. Nothing was changed.`
}

const plural = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? '' : 's'}`
