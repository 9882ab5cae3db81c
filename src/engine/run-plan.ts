import type { NodeName } from '../cluster/names.ts'
import { asReplctlError, exitCodes, ReplctlError } from '../errors.ts'
import type { Node } from '../node/node.ts'
import { beginningOf, begunSteps, stepKey } from './begun-steps.ts'
import type { ClusterLock } from './cluster-lock.ts'
import type { EventListener, StepState } from './events.ts'
import type { Journal } from './journal.ts'
import { RunJournal } from './run-journal.ts'
import { type Outcome, outcomeOf } from './run-outcome.ts'
import { earlierSteps, type Finding, type Plan, type Step, type StepContext, stepsOf } from './step.ts'

export interface RunOptions {
  readonly nodes: ReadonlyMap<NodeName, Node>
  readonly timeoutMs: number
  readonly signal: AbortSignal
  readonly listener: EventListener
}

/** Shows what a run would do: the same steps, checks only. */
export async function planSteps(plan: Plan, options: RunOptions): Promise<Outcome> {
  const run = new Run(plan, options, null, null)
  await run.plan()
  return run.outcome()
}

/** Shows what {@link undoSteps} would take back. */
export function planUndo(plan: Plan, journal: Journal, away: readonly NodeName[]): Outcome {
  const steps = stepsOf(plan)
  const { begun, missing } = begunSteps(plan, journal, away)
  return {
    steps: steps
      .map((step, index) => ({ step, n: index + 1 }))
      .filter(({ step }) => step.undo !== undefined && !step.undoEndsWithRun && begun.includes(step))
      .map(({ step, n }) => ({ n, node: step.node, title: step.title, state: 'planned' as const, ms: 0 })),
    hasChanged: false,
    hasCrossed: false,
    error: missing,
    exitCode: missing === null ? exitCodes.ok : exitCodes.partial,
  }
}

/** Carries a plan out under the cluster's lock: check, apply, verify; undo before the point of no return. */
export async function runSteps(
  plan: Plan,
  options: RunOptions,
  lock: ClusterLock,
  journal: Journal,
): Promise<Outcome> {
  const run = new Run(plan, options, lock, journal)
  await run.carryOut()
  return run.outcome()
}

/** Takes back what an unfinished run had begun, in reverse. `away`: nodes on which nothing can be, now. */
export async function undoSteps(
  plan: Plan,
  options: RunOptions,
  lock: ClusterLock,
  journal: Journal,
  away: readonly NodeName[],
): Promise<Outcome> {
  const run = new Run(plan, options, lock, journal)
  const { begun, missing, left } = begunSteps(plan, journal, away)
  for (const error of left) options.listener({ type: 'warning', error })
  await run.takeBack(begun, missing)
  return run.outcome()
}

class Run {
  readonly #plan: Plan
  readonly #options: RunOptions
  readonly #lock: ClusterLock | null
  readonly #steps: readonly Step[]
  readonly #earlier: ReadonlyMap<Step, readonly Step[]>
  readonly #states = new Map<Step, { state: StepState; ms: number }>()
  readonly #begun: Step[] = []
  readonly #isResumed: boolean
  readonly #journal: RunJournal | null
  #isPastPointOfNoReturn: boolean
  #hasApplied = false
  #remains = false
  /** Everything that was begun, by this run or an earlier one, is taken back. */
  #isTakenBack = false
  #error: ReplctlError | null = null

  constructor(plan: Plan, options: RunOptions, lock: ClusterLock | null, journal: Journal | null) {
    this.#plan = plan
    this.#options = options
    this.#lock = lock
    this.#journal = lock === null || journal === null ? null : new RunJournal(lock, journal)
    this.#steps = stepsOf(plan)
    this.#earlier = earlierSteps(plan)
    this.#isPastPointOfNoReturn = journal?.isPastPointOfNoReturn ?? false
    this.#isResumed = (journal?.begun.length ?? 0) > 0
  }

  async plan(): Promise<void> {
    for (const step of this.#steps) {
      const startedAt = performance.now()
      const finding = await this.#check(step)
      if (finding.is === 'refused') {
        this.#finish(step, 'failed', finding.error.message, startedAt)
        this.#error = finding.error.with({ step: step.title, node: finding.error.node ?? step.node })
        return
      }
      // What only looks has nothing to do, also where it can look only once an earlier step is done.
      const isDone = finding.is === 'satisfied' || (finding.is === 'unknown' && step.apply === undefined)
      this.#finish(step, this.#stateOf(step, !isDone), reasonOf(finding), startedAt)
    }
  }

  async carryOut(): Promise<void> {
    try {
      await this.#runPart(this.#plan)
    } catch (thrown) {
      this.#error = asReplctlError(thrown)
      await this.#settle(this.#error)
    }
    // A run that wrote no journal leaves another operation's where it lies: only `resume` and `abort` end that one.
    const isOurs = this.#journal?.hasBegun() === true
    if (isOurs && (this.#error === null || !this.#hasUnfinished())) await this.#endJournal()
    if (!isOurs && this.#error === null) await this.#journal?.endBefore()
  }

  /** After a failure: forward only, or leave what may still get there, or take back what this run began. */
  async #settle(error: ReplctlError): Promise<void> {
    if (this.#isPastPointOfNoReturn && (await this.#hasCrossed())) return
    if (this.#remains) return
    if (this.#journal?.isFinal === true) {
      this.#remains = true
      return
    }
    const begun = this.#steps.filter((step) => this.#journal?.hasBegun(stepKey(step)))
    if (begun.some((step) => step.mustNotStandAlone)) {
      await this.#takeAllBack(begun)
      return
    }
    // What an earlier run had begun still stands, also where this one could do nothing.
    if (this.#isResumed || (this.#hasApplied && mayStillStand(error))) {
      this.#remains = true
      return
    }
    if (!this.#hasApplied) return
    await this.#undo([...this.#begun])
  }

  /**
   * Whether the point of no return is behind us, as far as can be known. Where it certainly is not, the journal no longer
   * says so before anything is taken back.
   */
  async #hasCrossed(): Promise<boolean> {
    const step = this.#steps.find((one) => one.pointOfNoReturn && this.#journal?.hasBegun(stepKey(one)))
    if (step?.hasCrossed === undefined || this.#journal === null) return true
    const ctx = this.#context(step, false, new AbortController().signal)
    const isCrossed = await step.hasCrossed(ctx).catch(() => true)
    if (isCrossed) return true
    await this.#journal.tellNotCrossed()
    this.#isPastPointOfNoReturn = false
    return false
  }

  /** Nothing of it may stand, whoever began it; only somebody else who holds the cluster by now is not interfered with. */
  async #takeAllBack(begun: readonly Step[]): Promise<void> {
    try {
      const nodes = new Set(begun.filter((step) => step.mustNotStandAlone).map((step) => step.node))
      await Promise.all([...nodes].map((node) => this.#lock?.confirm(node)))
    } catch {
      this.#remains = true
      return
    }
    this.#hasApplied = true
    this.#begun.splice(0, this.#begun.length, ...begun)
    this.#isTakenBack = (await this.#undo(begun)) === null
  }

  /** `missing`: why more than these steps would have to be taken back, and cannot be now. */
  async takeBack(steps: readonly Step[], missing: ReplctlError | null): Promise<void> {
    this.#hasApplied = steps.length > 0
    this.#remains = missing !== null
    this.#error = (await this.#undo(steps, { isTold: true })) ?? missing
    // What had given way to it is not taken back with it: that counts again.
    if (!this.#remains) await this.#journal?.end({ hasFailed: true })
  }

  async #endJournal(): Promise<void> {
    await this.#journal?.end({ hasFailed: this.#error !== null })
  }

  outcome(): Outcome {
    return outcomeOf({
      steps: this.#steps.flatMap((step, index) => {
        const done = this.#states.get(step)
        return done === undefined
          ? []
          : [{ n: index + 1, node: step.node, title: step.title, state: done.state, ms: done.ms }]
      }),
      error: this.#error,
      hasApplied: this.#hasApplied,
      isResumed: this.#isResumed,
      isPastPointOfNoReturn: this.#isPastPointOfNoReturn,
      remains: this.#remains,
      isFinal: this.#journal?.isFinal === true,
      isTakenBack: this.#isTakenBack,
    })
  }

  /** Something of this run still stands although it failed. */
  #hasUnfinished(): boolean {
    return this.#remains || this.#isPastPointOfNoReturn
  }

  async #runPart(part: Plan): Promise<void> {
    if ('inOrder' in part) {
      for (const child of part.inOrder) await this.#runPart(child)
    } else if ('together' in part) {
      await this.#runTogether(part.together, part.isOne === true)
    } else {
      await this.#runStep(part)
    }
  }

  /**
   * All parts run to their end: one that fails takes back its own steps and leaves the others alone, unless all of them are
   * one thing.
   */
  async #runTogether(parts: readonly Plan[], isOne: boolean): Promise<void> {
    const results = await Promise.allSettled(parts.map((part) => this.#runPart(part)))
    const failures = parts.flatMap((part, index) => {
      const result = results[index]
      return result?.status === 'rejected' ? [{ part, error: asReplctlError(result.reason) }] : []
    })
    const [first] = failures
    if (first === undefined) return
    if (!isOne && failures.length < parts.length && !this.#isPastPointOfNoReturn) {
      const failed = new Set(
        failures.flatMap(({ part, error }) => (mayStillStand(error) ? [] : stepsOf(part))),
      )
      await this.#undo(this.#begun.filter((step) => failed.has(step)))
      if (this.#begun.length > 0) this.#remains = true
    }
    throw first.error
  }

  async #runStep(step: Step): Promise<void> {
    const startedAt = performance.now()
    const n = this.#steps.indexOf(step) + 1
    this.#options.listener({ type: 'step-started', n, node: step.node, title: step.title })
    try {
      this.#stopIfInterrupted()
      const finding = await this.#check(step)
      if (finding.is === 'refused') throw finding.error
      if (finding.is === 'satisfied' || step.apply === undefined) {
        if (finding.is !== 'satisfied') throw unmet(step, finding)
        this.#finish(step, this.#stateOf(step, false), finding.because, startedAt)
        return
      }
      await this.#begin(step)
      const because = await this.#apply(step, step.apply)
      this.#finish(step, this.#stateOf(step, true), because, startedAt)
    } catch (thrown) {
      const error = asReplctlError(thrown)
      this.#finish(step, 'failed', error.message, startedAt)
      throw error.with({ step: step.title, node: error.node ?? step.node })
    }
  }

  /**
   * How a step is told that has something to do, or finds all done. By the same rule in a plan and in a run: where the two find
   * different things only because of the moment, they still say the same.
   */
  #stateOf(step: Step, hasWork: boolean): StepState {
    const active = this.#lock === null ? 'planned' : 'applied'
    if (step.comesOfEarlier !== true) return hasWork ? active : 'satisfied'
    const isBroughtAbout = this.#earlier
      .get(step)
      ?.some((one) => this.#states.get(one)?.state === active && one.leavesClusterAlone !== true)
    // To wait is no change: where nothing was changed that it could wait for, there was nothing to do.
    const isChange = hasWork && step.leavesClusterAlone !== true
    return isBroughtAbout === true || isChange ? active : 'satisfied'
  }

  /** Changes one thing and proves it. Facts that were read before the change serve nobody after it. */
  async #apply(step: Step, apply: NonNullable<Step['apply']>): Promise<string> {
    const ctx = this.#context(step, false)
    try {
      await apply.call(step, ctx)
    } finally {
      if (step.showsOnlyOnItsNode === true) ctx.node.lastSurvey = null
      else this.#forgetFacts()
    }
    if (step.verify !== undefined) {
      await step.verify(ctx)
      return 'done'
    }
    const finding = await step.check(this.#context(step, true))
    if (finding.is === 'refused') throw finding.error
    if (finding.is !== 'satisfied') throw unmet(step, finding)
    return finding.because
  }

  /** Before anything is changed, the journal says on the nodes what is about to be. */
  async #begin(step: Step): Promise<void> {
    if (step.leavesClusterAlone === true) return
    const beginning = beginningOf(step)
    await this.#journal?.begin(beginning)
    this.#isPastPointOfNoReturn ||= beginning.isCrossing
    this.#hasApplied = true
    this.#begun.push(step)
    const crossing = step.beginsWith === undefined ? undefined : this.#steps.find((one) => one.crossesWith)
    // Beside what the step does. Where it does not come about, the crossing is written as anything else.
    if (crossing !== undefined) this.#journal?.prepare(beginningOf(crossing)).catch(() => undefined)
  }

  /**
   * Takes steps back, the last one first. It ends at the first that cannot be, and gives its error: what a later step
   * rests on (a slot that keeps WAL for a clone that goes on) must not be taken away from under it.
   */
  async #undo(
    steps: readonly Step[],
    { isTold = false }: { readonly isTold?: boolean } = {},
  ): Promise<ReplctlError | null> {
    for (const step of steps.toReversed()) {
      const startedAt = performance.now()
      const ctx = this.#context(step, false, new AbortController().signal)
      this.#forgetFacts()
      try {
        // Whoever slept so long that the lock died takes nothing back: somebody else may have gone on from there.
        if (step.undo !== undefined) await this.#lock?.confirm(step.node)
        await step.undo?.(ctx)
        if (step.undo !== undefined) {
          this.#finish(step, 'undone', 'taken back', startedAt)
          this.#finishWith(step, startedAt)
          if (isTold) await this.#journal?.tellTakenBack(stepKey(step)).catch(() => undefined)
        }
        this.#begun.splice(this.#begun.indexOf(step), 1)
      } catch (thrown) {
        const error = asReplctlError(thrown).with({ step: step.title, node: step.node })
        this.#options.listener({ type: 'warning', error })
        // Where it is the lock that is lost everywhere, the next one that is to be taken back ends it.
        if (step.mayBeLeftBehind === true && (isOutOfReach(error) || error.code === 'cannot-abort')) {
          this.#begun.splice(this.#begun.indexOf(step), 1)
          continue
        }
        this.#remains = true
        return error
      }
    }
    return null
  }

  /** What stood in it went away with it. */
  #finishWith(undone: Step, startedAt: number): void {
    for (const step of this.#steps) {
      const isIn = step.goesWith === undone.title && step.node === undone.node
      if (isIn && this.#states.get(step)?.state === 'applied')
        this.#finish(step, 'undone', `taken back with "${undone.title}"`, startedAt)
    }
  }

  #forgetFacts(): void {
    for (const node of this.#options.nodes.values()) node.lastSurvey = null
  }

  #stopIfInterrupted(): void {
    if (this.#options.signal.aborted) {
      throw new ReplctlError('interrupted', 'interrupted by a signal')
    }
  }

  async #check(step: Step): Promise<Finding> {
    try {
      return await step.check(this.#context(step, true))
    } catch (thrown) {
      return { is: 'refused', error: asReplctlError(thrown) }
    }
  }

  #context(step: Step, isChecking: boolean, signal: AbortSignal = this.#options.signal): StepContext {
    const { nodes, timeoutMs, listener } = this.#options
    const n = this.#steps.indexOf(step) + 1
    const on = (name: NodeName): Node => {
      const node = nodes.get(name)
      if (node === undefined) throw new RangeError(`no connection to node ${name}`)
      return node
    }
    return {
      get node() {
        return on(step.node)
      },
      on,
      timeoutMs,
      signal,
      isDryRun: this.#lock === null,
      isChecking,
      seenAt: new Map(),
      progress: (progress) =>
        listener({ type: 'step-progress', n, node: step.node, title: step.title, ...progress }),
      warn: (error) => listener({ type: 'warning', error }),
    }
  }

  #finish(step: Step, state: StepState, because: string, startedAt: number): void {
    const ms = Math.round(performance.now() - startedAt)
    this.#states.set(step, { state, ms })
    const n = this.#steps.indexOf(step) + 1
    this.#options.listener({
      type: 'step-finished',
      n,
      node: step.node,
      title: step.title,
      state,
      ms,
      because,
    })
  }
}

/** Not taken back: what only takes longer may still get there, and without the lock somebody else may be at work. */
const mayStillStand = (error: ReplctlError): boolean => error.code === 'timeout' || error.code === 'lock-lost'

const isOutOfReach = ({ code }: ReplctlError): boolean =>
  code === 'host-unreachable' || code === 'connection-lost' || code === 'lock-lost'

function reasonOf(finding: Finding): string {
  if (finding.is === 'unknown') return `known after: ${finding.until}`
  return finding.is === 'refused' ? finding.error.message : finding.because
}

function unmet(step: Step, finding: Finding): ReplctlError {
  return new ReplctlError('remote-command-failed', `"${step.title}" did not take effect on ${step.node}`, {
    detail: `Read back: ${reasonOf(finding)}.`,
    node: step.node,
  })
}
