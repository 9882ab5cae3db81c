import type { StepReport, StepState } from '../engine/events.ts'
import { formatDuration } from './bytes.ts'
import type { Paint } from './paint.ts'
import { oneLine } from './plain-text.ts'

/** The line that stays of a finished step: `✓ pg2  start PostgreSQL  (it runs with pid 123)  0.4 s`. */
export function stepLine(step: StepReport & { readonly because: string }, paint: Paint): string {
  const because = oneLine(step.because)
  const parts = [
    `${stepMark(step.state, paint)} ${paint.name(step.node)}`,
    step.state === 'satisfied' ? paint.dim(oneLine(step.title)) : oneLine(step.title),
    ...(because === '' || because === 'done' ? [] : [reason(step.state, because, paint)]),
    ...(step.ms < 100 ? [] : [paint.dim(formatDuration(step.ms))]),
  ]
  return `${parts.join('  ')}\n`
}

function reason(state: StepState, because: string, paint: Paint): string {
  return state === 'failed' ? paint.bad(`(${because})`) : paint.dim(`(${because})`)
}

function stepMark(state: StepState, paint: Paint): string {
  const marks: Record<StepState, string> = {
    applied: paint.good('✓'),
    satisfied: paint.dim('·'),
    planned: '+',
    failed: paint.bad('✗'),
    undone: paint.warn('↩'),
  }
  return marks[state]
}
