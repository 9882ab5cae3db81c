import type { ReplctlError } from '../errors.ts'
import type { Progress } from './step.ts'

export const stepStates = ['satisfied', 'applied', 'planned', 'failed', 'undone'] as const
export type StepState = (typeof stepStates)[number]

/** One line of `result.steps`. */
export interface StepReport {
  /** From 1. */
  readonly n: number
  readonly node: string
  readonly title: string
  readonly state: StepState
  readonly ms: number
}

/** What happens while an operation is carried out; reports listen to it. */
export type EngineEvent =
  | { readonly type: 'step-started'; readonly n: number; readonly node: string; readonly title: string }
  | ({ readonly type: 'step-finished'; readonly because: string } & StepReport)
  | ({
      readonly type: 'step-progress'
      readonly n: number
      readonly node: string
      readonly title: string
    } & Progress)
  | { readonly type: 'waiting'; readonly message: string }
  | { readonly type: 'note'; readonly message: string }
  | { readonly type: 'warning'; readonly error: ReplctlError }

export type EventListener = (event: EngineEvent) => void
