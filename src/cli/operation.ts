import type { NodeFacts, Survey } from '../cluster/facts.ts'
import type { NodeSettings } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { type Problem, problemOf } from '../cluster/problem.ts'
import { observeTopology, type Topology } from '../cluster/topology.ts'
import { forgetEnded, isOver } from '../cluster/unfinished.ts'
import { owedByUnknown } from '../engine/begun-steps.ts'
import { acquireClusterLock, type ClusterLock } from '../engine/cluster-lock.ts'
import type { EngineEvent, EventListener } from '../engine/events.ts'
import { givingWay, judgeFoundJournal } from '../engine/found-journal.ts'
import { type Journal, newestJournal } from '../engine/journal.ts'
import type { Outcome } from '../engine/run-outcome.ts'
import { planSteps, planUndo, runSteps, undoSteps } from '../engine/run-plan.ts'
import type { Plan } from '../engine/step.ts'
import { asReplctlError, exitCodes, ReplctlError } from '../errors.ts'
import type { LookDepth } from '../node/guard.ts'
import type { Node } from '../node/node.ts'
import { preloadPg } from '../node/pg-session.ts'
import { surveyNode, surveyNodes } from '../node/survey.ts'
import type { Paint } from '../report/paint.ts'
import { planText } from '../report/plan.ts'
import { createReporter } from '../report/reporter.ts'
import type { ClusterSession } from './cluster-session.ts'
import type { Answer, Call } from './command-spec.ts'
import { runHook } from './local-command.ts'
import { paintOf } from './paint-of.ts'

export { paintOf } from './paint-of.ts'

export const defaultTimeoutMs = 60_000

/** What was observed before anything is decided. */
export interface Observation {
  readonly survey: Survey
  readonly topology: Topology
  /** The journal of the same operation, begun earlier and not finished. */
  readonly resumed: Journal | null
  /** The journal of whatever operation was not finished, this one or another. */
  readonly unfinished: Journal | null
}

/** What to do, and what to say of it when it is done. */
export interface Decision {
  readonly plan: Plan
  /** Warnings that were known before the first step. */
  readonly problems?: readonly Problem[]
  /** Warnings that depend on how far it came. */
  warnings?(outcome: Outcome): readonly ReplctlError[]
  /** Warnings that show only now that it is done, from what was observed at the end. */
  afterwards?(after: Observation): readonly Problem[]
  /** The command's own part of the result, from what was observed at the end. */
  result?(after: Observation, outcome: Outcome): Promise<object> | object
  /**
   * Asked after `result`: what is missing from what was asked for, although every step came to its end. A run with such a
   * shortfall ends as one that stopped part-way (exit 6).
   */
  shortfall?(): ReplctlError | null
  /** The answer for people. */
  text?(after: Observation, outcome: Outcome, paint: Paint, result: object): string
}

/** What a wait for a riper survey may use. */
export interface Ripening {
  /** Observes one node anew. */
  lookAgain(node: NodeName): Promise<NodeFacts>
  tell(message: string): void
}

export interface Operation {
  readonly session: ClusterSession
  /** Arguments and flags that give the same operation again. */
  readonly wish: Readonly<Record<string, unknown>>
  /** What is about to show is waited for: gives the survey to decide by. */
  ripen?(survey: Survey, means: Ripening): Promise<Survey>
  /** Pure of changes: refuses here, before anything is done. */
  decide(observation: Observation): Decision | Promise<Decision>
  /** What this operation does not need is not looked up. */
  readonly depth?: LookDepth
  /** May begin although another operation stopped part-way behind its point of no return. */
  readonly overridesUnfinished?: boolean
  /** The same for one that this operation takes the place of. */
  replaces?(found: Journal): boolean
  /** Whether it is the same operation, asked for again with other flags: it goes on with these. */
  goesOnWith?(found: Journal): boolean
  /** Another attempt follows this answer at once: it is no event yet. */
  isFirstTry?(answer: Answer): boolean
  /**
   * What is known better by now than its journal says, of one that stopped part-way. `isHeld`: the lock is, so that what
   * the proof needs may be done.
   */
  reconsider?(found: Journal, survey: Survey, isHeld: boolean): Promise<Journal>
  /**
   * What had stopped part-way before stays as it is, all of it or what this says: this operation has nothing to do with who leads.
   * What it `replaces` of it ends with it.
   */
  readonly isAside?: true | ((found: Journal) => boolean)
}

/** The flow of every changing command: connect, lock, survey, decide, run or plan, read back, report. */
export async function operate(call: Call, operation: Operation): Promise<Answer> {
  const { session } = operation
  const { inventory } = session
  const paint = paintOf(call)
  const warnings: Problem[] = []
  const reporter = createReporter({
    write: (text) => call.io.writeError(text),
    // Lines of --verbose and of CI logs do not go together with a live block.
    isTerminal: call.io.isTerminal && !call.flags.isVerbose && call.io.env.CI === undefined,
    paint,
    isQuiet: call.flags.isQuiet,
    width: call.io.width,
    now: () => performance.now(),
  })
  const listener: EventListener = (event: EngineEvent) => {
    // Warnings are told once, at the end, with the other problems.
    if (event.type === 'warning') warnings.push(problemOf(event.error, 'warning'))
    else reporter.listener(event)
  }
  const nodes = [...session.nodes.values()]
  preloadPg()
  let lock: ClusterLock | null = null
  let hasDecided = false
  try {
    const { depth = 'full' } = operation
    if (!call.flags.isDryRun) lock = await lockCluster(call, nodes, listener, depth)
    const first = await Promise.all(nodes.map((node) => lock?.surveyOf(node.name) ?? surveyNode(node, depth)))
    const ripe = await operation.ripen?.(first, {
      lookAgain: async (name) => {
        const node = session.nodes.get(name)
        if (node === undefined) throw new RangeError(`no connection to node ${name}`)
        return await surveyNode(node, depth)
      },
      tell: (message) => listener({ type: 'waiting', message }),
    })
    const survey = forgetEnded(ripe ?? first)
    if (call.signal.aborted) throw interruptedEarly()
    const left = unfinishedOf(survey, lock?.foundJournals)
    const found = left === null ? null : ((await operation.reconsider?.(left, survey, lock !== null)) ?? left)
    const resumed = judgeFoundJournal(found, { command: call.command, ...operation })
    if (call.options.isAbort === true && lock !== null && resumed === null) throw endedMeanwhile()
    if (call.options.isAbort === true && resumed !== null && isOnlyForward(resumed))
      throw onlyForward(resumed)
    if (call.options.isAbort === true && resumed !== null) {
      const unknown = owedByUnknown(resumed, [...session.hosts.keys()], inventory.path)
      if (unknown !== null) throw unknown
    }
    const observation = { survey, topology: observeTopology(inventory, survey), resumed, unfinished: found }
    const decision = await operation.decide(observation)
    hasDecided = true
    if (found !== null && resumed === null) warnings.push(problemOf(supersedes(found), 'warning'))
    const options = {
      nodes: session.hosts,
      timeoutMs: call.flags.timeoutMs ?? defaultTimeoutMs,
      signal: call.signal,
      listener,
    }
    const away = survey.flatMap((facts) => (facts.unreachable === null ? [] : [facts.name]))
    const journal = resumed ?? newJournal(call, operation, found)
    const outcome =
      lock === null
        ? call.options.isAbort === true
          ? planUndo(decision.plan, journal, away)
          : await planSteps(decision.plan, options)
        : call.options.isAbort === true
          ? await undoSteps(decision.plan, options, lock, journal, away)
          : await runSteps(decision.plan, options, lock, journal)
    reporter.finish()
    const afterSurvey = lock === null ? survey : await surveyNodes(nodes)
    const after = {
      ...observation,
      survey: afterSurvey,
      topology: observeTopology(inventory, afterSurvey),
    }
    const answer = await makeAnswer({ call, decision, outcome, after, warnings, inventory, survey })
    const unheard = operation.isFirstTry?.(answer) === true ? [] : await reportEvent(call, session, answer)
    return { ...answer, problems: [...answer.problems, ...unheard] }
  } catch (thrown) {
    // Which look the signal cut off says nothing of the cluster.
    throw hasDecided || asReplctlError(thrown).code !== 'interrupted' ? thrown : interruptedEarly()
  } finally {
    reporter.finish()
    await lock?.release()
  }
}

/**
 * The operation that stopped part-way, by the journals on the nodes: not one that ended while a node was away, which
 * then still holds its journal.
 */
export function unfinishedOf(survey: Survey, journals: readonly string[] = []): Journal | null {
  return newestJournal(
    [...journals, ...survey.flatMap((facts) => facts.journal ?? [])].filter((text) => !isOver(text, survey)),
  )
}

async function lockCluster(
  call: Call,
  nodes: readonly Node[],
  listener: EventListener,
  look: LookDepth,
): Promise<ClusterLock> {
  return await acquireClusterLock(nodes, {
    holder: {
      user: call.io.userName,
      host: call.io.hostName,
      pid: call.io.pid,
      command: `replctl ${[call.command, ...call.args.flat().filter((arg) => arg !== undefined)].join(' ')}`,
      since: new Date().toISOString(),
    },
    timeoutMs: call.flags.timeoutMs,
    listener,
    signal: call.signal,
    look,
  })
}

function interruptedEarly(): ReplctlError {
  return new ReplctlError('interrupted', 'interrupted by a signal', { detail: 'Nothing was changed.' })
}

/** Between the look for a journal and the lock, the operation came to its end. */
function endedMeanwhile(): ReplctlError {
  return new ReplctlError('nothing-to-resume', 'the operation came to its end meanwhile', {
    hint: 'Look at the cluster with "replctl status".',
  })
}

/** Whether an operation can be finished, and not be taken back any more. */
export const isOnlyForward = ({ isPastPointOfNoReturn, isFinal }: Journal): boolean =>
  isPastPointOfNoReturn || isFinal === true

/** It crossed its point of no return: by itself, or between the look for its journal and the lock. */
export function onlyForward(journal: Journal): ReplctlError {
  return new ReplctlError('cannot-abort', `"${journal.command}" cannot be taken back`, {
    detail: `${journal.by} began it at ${journal.since}, and ${
      journal.isPastPointOfNoReturn
        ? 'it crossed its point of no return'
        : 'something that it has done cannot be taken back'
    }.`,
    hint: 'It only goes forward: replctl resume',
  })
}

/** What another operation began and never finished is left as it is; its journal gives way to this one's. */
function supersedes(found: Journal): ReplctlError {
  return new ReplctlError(
    'operation-unfinished',
    `"${found.command}" stopped part-way before, and was not finished`,
    {
      detail: `${found.by} began it at ${found.since}: ${JSON.stringify(found.wish)}.`,
      hint: `Look with "replctl status"; "replctl ${found.command}" with the same arguments finishes it.`,
    },
  )
}

function newJournal(call: Call, operation: Operation, found: Journal | null): Journal {
  const { isAside = () => false } = operation
  const replaces = (one: Journal) => operation.replaces?.(one) === true
  return {
    ...(found === null ? {} : givingWay(found, isAside === true || isAside(found), replaces)),
    version: 1,
    command: call.command,
    wish: operation.wish,
    by: `${call.io.userName}@${call.io.hostName}`,
    since: new Date().toISOString(),
    isPastPointOfNoReturn: false,
    begun: [],
  }
}

interface AnswerParts {
  readonly call: Call
  readonly decision: Decision
  readonly outcome: Outcome
  readonly after: Observation
  readonly warnings: readonly Problem[]
  readonly inventory: ClusterSession['inventory']
  readonly survey: Survey
}

async function makeAnswer(parts: AnswerParts): Promise<Answer> {
  const { call, decision, outcome, after, warnings, inventory, survey } = parts
  const { own, unread } =
    call.options.isAbort === true
      ? { own: undefined, unread: null }
      : await ownResult(decision, after, outcome)
  const result = { ...own, steps: outcome.steps }
  const isRun = call.options.isAbort !== true && !call.flags.isDryRun
  const short = outcome.exitCode === 0 && isRun ? (decision.shortfall?.() ?? null) : null
  const error = [outcome.error, short].flatMap((one) => (one === null ? [] : [problemOf(one)]))
  const isFault = unread !== null && !isLostFromSight(unread)
  if (unread !== null) error.push(problemOf(unread, isFault ? 'error' : 'warning'))
  const late = call.options.isAbort === true ? [] : (decision.warnings?.(outcome) ?? [])
  const isDone = isRun && (outcome.error === null || outcome.hasCrossed)
  const seen = isDone ? (decision.afterwards?.(after) ?? []) : []
  const known = [...(decision.problems ?? []), ...late.map((one) => problemOf(one, 'warning')), ...seen]
  const problems = [...error, ...known, ...warnings, ...bystanders(survey, outcome)]
  return {
    exitCode: isFault
      ? unread.exitCode
      : short === null
        ? signalCode(outcome.exitCode, call)
        : exitCodes.partial,
    changed: outcome.hasChanged && !call.flags.isDryRun,
    cluster: inventory.cluster,
    result,
    problems: problems.filter(
      (problem, index) =>
        problems.findIndex(
          ({ code, node, message }) =>
            code === problem.code && node === problem.node && message === problem.message,
        ) === index,
    ),
    text: unread === null ? textOf(parts, result) : '',
  }
}

/** Of a command that did its work, or got so far that the cluster is another one: who leads now is told also then. */
async function ownResult(
  decision: Decision,
  after: Observation,
  outcome: Outcome,
): Promise<{ readonly own: object | undefined; readonly unread: ReplctlError | null }> {
  if (outcome.error !== null && !outcome.hasCrossed) return { own: undefined, unread: null }
  try {
    return { own: await decision.result?.(after, outcome), unread: null }
  } catch (thrown) {
    // What was done is done, whether or not it can be told.
    return { own: undefined, unread: outcome.error === null ? asReplctlError(thrown) : null }
  }
}

/** The host went away after all was done and proved: then only what there is to tell of it is missing. */
const isLostFromSight = ({ code }: ReplctlError): boolean =>
  code === 'host-unreachable' || code === 'connection-lost' || code === 'timeout'

function textOf({ call, decision, outcome, after }: AnswerParts, result: object): string {
  const paint = paintOf(call, 'out')
  if (call.flags.isDryRun) return planText(outcome.steps, paint)
  if (call.options.isAbort === true)
    return outcome.error === null ? `"${call.command}" was taken back.\n` : ''
  return outcome.error === null ? (decision.text?.(after, outcome, paint, result) ?? '') : ''
}

/** Hosts that could not be reached and did not have to be: a warning each. */
function bystanders(survey: Survey, outcome: Outcome): readonly Problem[] {
  return survey
    .filter((facts: NodeFacts) => facts.unreachable !== null && facts.name !== outcome.error?.node)
    .map((facts) => problemOf(facts.unreachable ?? new ReplctlError('host-unreachable', ''), 'warning'))
}

const signalCode = (exitCode: number, call: Call): number =>
  exitCode === 130 && call.signal.reason === 'SIGTERM' ? 143 : exitCode

const begunNothing: readonly number[] = [
  exitCodes.usage,
  exitCodes.refused,
  exitCodes.unreachable,
  exitCodes.locked,
]

/** Gives the event to the hook; its failure is a warning and never changes the exit code. */
async function reportEvent(call: Call, session: ClusterSession, answer: Answer): Promise<readonly Problem[]> {
  if (session.inventory.onEvent === undefined || call.flags.isDryRun) return []
  // Whether it is seen before the first step or by one that only looks: nothing has happened.
  if (begunNothing.includes(answer.exitCode)) return []
  const node = nodeOf(session, answer)
  // Taken back, it is another event than what was begun: nobody moves clients to a node that does not lead.
  const isAbort = call.options.isAbort === true
  const document = {
    event: isAbort ? 'abort' : call.command,
    ...(isAbort ? { of: call.command } : {}),
    cluster: session.inventory.cluster,
    node: node?.name ?? null,
    ok: answer.exitCode === 0,
    exit_code: answer.exitCode,
    changed: answer.changed,
    problems: answer.problems,
  }
  try {
    await runHook(session.inventory, call, document, node)
    return []
  } catch (thrown) {
    return [problemOf(asReplctlError(thrown), 'warning')]
  }
}

/** Nodes by name, those that have to be acted on. @throws the reason why one of them cannot be reached (exit 4) */
export function requireReachable(survey: Survey, names: readonly NodeName[]): void {
  for (const facts of survey) {
    if (facts.unreachable !== null && names.includes(facts.name)) throw facts.unreachable
  }
}

/** The node that an operation was about: who leads after it, its own node, or the one that it began with. */
function nodeOf({ inventory }: ClusterSession, { result }: Answer): NodeSettings | undefined {
  const told = (result ?? {}) as {
    new_primary?: unknown
    node?: unknown
    steps?: readonly { node: string }[]
  }
  const names = [told.new_primary, told.node, ...(told.steps ?? []).map((step) => step.node)]
  const found = names.map((name) => inventory.nodes.find((node) => node.name === name))
  return found.find((node) => node !== undefined) ?? inventory.nodes[0]
}
