import type { NodeName } from '../cluster/names.ts'
import type { Command } from '../command.ts'
import type { ReplctlError } from '../errors.ts'
import type { Node } from '../node/node.ts'

/** What a step's check found; it only reads. */
export type Finding =
  | { readonly is: 'satisfied'; readonly because: string }
  | { readonly is: 'pending'; readonly because: string; readonly commands?: readonly Command[] }
  /** In a plan: can be known only after an earlier pending step. */
  | { readonly is: 'unknown'; readonly until: string }
  | { readonly is: 'refused'; readonly error: ReplctlError }

/** Copying, waiting: what a long step tells while it runs. */
export interface Progress {
  readonly message: string
  readonly doneBytes?: number | undefined
  readonly totalBytes?: number | undefined
  readonly bytesPerSecond?: number | undefined
}

/** What a step may use. Nothing is passed from one step to the next: what is needed is read again. */
export interface StepContext {
  /** The step's own node. */
  readonly node: Node
  /** Another node of the cluster. */
  on(name: NodeName): Node
  /** The operator's --timeout: the bound of each wait for a state. */
  readonly timeoutMs: number
  /** Aborted by SIGINT or SIGTERM. */
  readonly signal: AbortSignal
  readonly isDryRun: boolean
  /** Checks may use facts that are a moment old; whoever changes something wants them from after the last change. */
  readonly isChecking: boolean
  /** When this step last saw each node (`performance.now()`): it never sees the same facts twice. */
  readonly seenAt: Map<NodeName, number>
  progress(progress: Progress): void
  /** A warning that belongs into `problems`. */
  warn(error: ReplctlError): void
}

/** One thing, done once and safely. `check` looks, `apply` changes, the check (or `verify`) proves. */
export interface Step {
  /** Holds nothing that is known only at run time: a plan and its run are compared line by line. */
  readonly title: string
  readonly node: NodeName
  /** Called before apply and, without `verify`, again after it. */
  check(ctx: StepContext): Promise<Finding>
  /** One change; only when check found it pending. */
  apply?(ctx: StepContext): Promise<void>
  /** Proof, where checking again is too weak or too dear. */
  verify?(ctx: StepContext): Promise<void>
  /** Takes apply back, also a half-done one; only before the point of no return. */
  undo?(ctx: StepContext): Promise<void>
  /** From here on an operation only goes forward. */
  readonly pointOfNoReturn?: true
  /**
   * Further nodes whose journal must say so before this point of no return is crossed: whoever takes the operation back
   * acts there, and has to know from that node alone that it may.
   */
  readonly crossesWith?: readonly NodeName[]
  /**
   * Nodes whose journal must be written before this step begins: those that a crossing after it will need. Whoever cannot keep
   * one (a full disk) is found while nothing hurts yet.
   */
  readonly beginsWith?: readonly NodeName[]
  /** Asked when something failed behind this point of no return; false: it is known for sure that it was not crossed. */
  hasCrossed?(ctx: StepContext): Promise<boolean>
  /**
   * What it leaves must not stand in a cluster whose operation failed (the primary is stopped): before the point of no return a
   * failure takes everything back, also what an earlier run began, and also where only a deadline passed.
   */
  readonly mustNotStandAlone?: true
  /**
   * What it does cannot be taken back, and is nobody else's concern: what fails after it stays part-way and is gone on with, but
   * other operations may begin meanwhile.
   */
  readonly cannotBeUndone?: true
  /** Its apply acts outside of the cluster (a fence command), or only waits: a failure leaves the cluster unchanged. */
  readonly leavesClusterAlone?: true
  /** Where its node is out of reach, or it is not known what was before, what it made may stay: told, and what was done earlier is taken back all the same. */
  readonly mayBeLeftBehind?: true
  /** Its undo knows only what this very run has found: another process cannot take it back, and tells. */
  readonly undoEndsWithRun?: true
  /** Title of an earlier step on the same node: to take that back takes this back with it. */
  readonly goesWith?: string
  /** What its apply changes shows in no look at another node. */
  readonly showsOnlyOnItsNode?: true
  /**
   * Earlier steps of the run bring it about, at once or in a while; it only sees to it. Once one of them is applied it is told as
   * applied, too, also where it finds all done: so a plan and its run say the same, whoever is quicker.
   */
  readonly comesOfEarlier?: true
}

/** Steps in order, side by side, or both. */
export type Plan =
  | Step
  | { readonly together: readonly Plan[]; readonly isOne?: true }
  | { readonly inOrder: readonly Plan[] }

/** Runs its parts at the same time, each part in its own order. */
export function together(parts: readonly Plan[]): Plan {
  return { together: parts }
}

/** The same for parts of one thing: where one of them fails, the others do not stand without it. */
export function asOne(parts: readonly Plan[]): Plan {
  return { together: parts, isOne: true }
}

/** Runs its parts one after the other. */
export function inOrder(parts: readonly Plan[]): Plan {
  return { inOrder: parts }
}

/** See {@link Step.mayBeLeftBehind}. */
export const mayBeLeftBehind = (step: Step): Step => ({ ...step, mayBeLeftBehind: true })

/** See {@link Step.cannotBeUndone}. */
export const cannotBeUndone = (step: Step): Step => ({ ...step, cannotBeUndone: true })

/** See {@link Step.comesOfEarlier}. */
export const comesOfEarlier = (step: Step): Step => ({ ...step, comesOfEarlier: true })

/** All steps of a plan, in the order of their numbers. */
export function stepsOf(plan: Plan): readonly Step[] {
  if ('together' in plan) return plan.together.flatMap(stepsOf)
  if ('inOrder' in plan) return plan.inOrder.flatMap(stepsOf)
  return [plan]
}

/** For each step those that are over before it begins; what runs beside it is not among them. */
export function earlierSteps(plan: Plan): ReadonlyMap<Step, readonly Step[]> {
  const earlier = new Map<Step, readonly Step[]>()
  const walk = (part: Plan, before: readonly Step[]): void => {
    if ('together' in part) {
      for (const child of part.together) walk(child, before)
    } else if ('inOrder' in part) {
      let over = before
      for (const child of part.inOrder) {
        walk(child, over)
        over = [...over, ...stepsOf(child)]
      }
    } else {
      earlier.set(part, before)
    }
  }
  walk(plan, [])
  return earlier
}

export const satisfied = (because: string): Finding => ({ is: 'satisfied', because })
export const pending = (because: string): Finding => ({ is: 'pending', because })
export const unknownUntil = (until: string): Finding => ({ is: 'unknown', until })
export const refused = (error: ReplctlError): Finding => ({ is: 'refused', error })
