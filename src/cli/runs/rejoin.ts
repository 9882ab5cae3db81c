import type { NodeFacts, Survey } from '../../cluster/facts.ts'
import type { Inventory, NodeSettings } from '../../cluster/inventory.ts'
import { type Divergence, judgeDivergence } from '../../cluster/judge-divergence.ts'
import { refuseCircle } from '../../cluster/judge-follow.ts'
import {
  judgeRejoin,
  judgeRejoinPrimary,
  noPrimaryToFollow,
  type RejoinDecision,
} from '../../cluster/judge-rejoin.ts'
import type { NodeName } from '../../cluster/names.ts'
import { isOurStandby } from '../../cluster/our-standby.ts'
import { type Problem, problemOf } from '../../cluster/problem.ts'
import { commonRecord } from '../../cluster/record.ts'
import { rejoinUnderWay } from '../../cluster/rejoin-under-way.ts'
import { confirmingStandbys, liveRoles, neverConfirming } from '../../cluster/roles.ts'
import { salvageResult } from '../../cluster/salvage.ts'
import {
  factsOf,
  hasDiverged,
  isRunningStandby,
  isWriter,
  placeFor,
  receivedLsn,
} from '../../cluster/topology.ts'
import type { Outcome } from '../../engine/run-plan.ts'
import { asReplctlError, exitCodes, ReplctlError } from '../../errors.ts'
import {
  isSameBranch,
  ownHistory,
  readWalEnd,
  readWalFiles,
  segmentSizeOf,
  type WalFiles,
  walKeptFrom,
} from '../../node/own-wal.ts'
import type { Lsn } from '../../postgres/lsn.ts'
import {
  commonAncestor,
  parseTimelineHistory,
  type TimelineHistory,
} from '../../postgres/timeline-history.ts'
import { type RejoinResult, rejoinText } from '../../report/rejoin.ts'
import { rejoin } from '../../runbooks/rejoin.ts'
import { readSalvage, requireSalvaged, salvageDiverged } from '../../steps/salvage-diverged.ts'
import { setAsideTitle } from '../../steps/set-data-directory-aside.ts'
import { type ClusterSession, findNode, openCluster } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
import { type Decision, type Observation, operate, requireReachable } from '../operation.ts'

interface Wish {
  readonly node: NodeSettings
  readonly isReclone: boolean
  readonly allowDataLoss: boolean
}

/** `replctl rejoin NODE [--reclone] [--allow-data-loss]`. */
export async function run(call: Call): Promise<Answer> {
  const session = await openCluster(call)
  try {
    const wish = {
      node: findNode(session.inventory, String(call.args[0])),
      isReclone: call.options.reclone === true,
      allowDataLoss: call.options.allowDataLoss === true,
    }
    // Tried without changing anything, pg_rewind said that it cannot: the data is as it was, and the next rung is a clone.
    const refusalIn = (answer: Answer) => {
      const mayGoOn = answer.exitCode === exitCodes.undone || answer.exitCode === exitCodes.partial
      const refusal = answer.problems.find((problem) => problem.code === 'rewind-unavailable')
      return mayGoOn && !wish.isReclone && !call.signal.aborted ? refusal : undefined
    }
    const climb = (on: Call, as: Wish) =>
      operate(on, {
        session,
        isFirstTry: (answer) => !as.isReclone && refusalIn(answer) !== undefined,
        wish: { ...as, node: as.node.name },
        // The flags that a refusal names are of use only if they are taken, also behind the point of no return.
        goesOnWith: (found) => found.wish.node === as.node.name,
        decide: (observation) =>
          call.options.isAbort === true && isPrimaryLost(observation, as)
            ? decideBack(session, observation, as)
            : decide(session, observation, as, call.options.isAbort === true),
      })
    const answer = await climb(call, wish)
    const refusal = refusalIn(answer)
    if (refusal === undefined) return refusedToDiscard(answer)
    call.io.writeError(`${refusal.message}: ${refusal.detail ?? ''} It is cloned anew.\n`)
    const cloned = await climb(
      { ...call, options: { ...call.options, reclone: true } },
      { ...wish, isReclone: true },
    )
    return { ...cloned, problems: [...cloned.problems, { ...refusal, severity: 'warning' }] }
  } finally {
    await session.close()
  }
}

/** Whom it was to follow neither leads nor can be asked. */
function isPrimaryLost({ survey, topology }: Observation, { node }: Wish): boolean {
  try {
    const primary = judgeRejoinPrimary(topology, node.name)
    return factsOf(survey, primary).unreachable !== null
  } catch (thrown) {
    return asReplctlError(thrown).code === 'no-primary' || asReplctlError(thrown).exitCode === 4
  }
}

/**
 * Taken back without a primary: what was begun on the node itself. Its old data directory, which may be the last whole copy of
 * all, comes back to its place.
 */
function decideBack(session: ClusterSession, { survey, topology }: Observation, { node }: Wish): Decision {
  const { inventory, templates } = session
  requireReachable(survey, [node.name])
  const recorded = commonRecord(survey)?.primary
  const other = inventory.nodes.find(({ name }) => name !== node.name)
  const primary = inventory.nodes.find(({ name }) => name === recorded && name !== node.name) ?? other
  if (primary === undefined) throw noPrimaryToFollow(survey)
  const facts = factsOf(survey, node.name)
  const plan = rejoin(
    { inventory, templates },
    {
      ...{ node, primary, upstream: primary, method: 'reclone', reasons: [], forkLsn: null },
      ...{ runsAs: runsAs(facts), isToBeFenced: false, salvage: [], isContinued: true, isRedundant: false },
      roles: liveRoles(inventory, topology, primary.name, new Map()),
      ...{ members: membersWith(inventory, survey, node.name), confirming: [], running: [] },
    },
  )
  return { plan }
}

async function decide(
  session: ClusterSession,
  observation: Observation,
  wish: Wish,
  isAbort: boolean,
): Promise<Decision> {
  const { inventory, templates } = session
  const { survey, topology } = observation
  const { node } = wish
  requireReachable(survey, [node.name])
  const primary = findNode(inventory, judgeRejoinPrimary(topology, node.name))
  const [facts, there] = [factsOf(survey, node.name), factsOf(survey, primary.name)]
  const upstream = findNode(inventory, placeFor(inventory, node, primary.name, topology))
  refuseCircle(topology, node.name, upstream.name)
  // Everybody else stays where it is, wherever the inventory wishes it.
  const roles = liveRoles(inventory, topology, primary.name, new Map([[node.name, upstream.name]]))
  const seen = await lookCloser(session, { node, primary, upstream }, survey)
  const decision = judgeRejoin(
    { node: facts, primary: there, hasArchive: inventory.archive !== undefined, ...seen },
    {
      ...wish,
      isTakenBack: isAbort && observation.resumed?.begun.includes(`${node.name}: ${setAsideTitle}`),
    },
  )
  const { divergence } = seen
  const forkLsn = divergence?.forkLsn ?? (facts.rejoin?.forkLsn as Lsn | null | undefined) ?? null
  // What lies on a twin timeline cannot be told from the primary's: it stays as it is, in the directory that is set aside.
  const isLegible = decision.isToBeSalvaged && divergence?.is === 'diverged' && !divergence.isTwinTimeline
  const slots = [...(facts.instance?.slots.map((slot) => slot.name) ?? []), ...seen.slots]
  const members = membersWith(inventory, survey, node.name)
  const plan = rejoin(
    { inventory, templates },
    {
      node,
      primary,
      upstream,
      method: decision.method,
      reasons: [...discarded(decision, divergence), ...decision.reasons],
      forkLsn,
      runsAs: runsAs(facts),
      isToBeFenced: isToBeFenced(facts),
      salvage: isLegible
        ? [
            salvageDiverged(node.name, primary.name, { inventory, templates }, wish.allowDataLoss),
            requireSalvaged(node.name, primary.name, wish.allowDataLoss),
          ]
        : [],
      isContinued: decision.isContinued,
      isRedundant: !decision.isToBeSalvaged || (isLegible && !wish.allowDataLoss),
      roles,
      members,
      confirming: confirmingStandbys(
        inventory,
        roles,
        neverConfirming(topology, primary.name).filter((name) => name !== node.name),
      ),
      running: survey
        .filter((one) => one.name !== node.name && (one.name === primary.name || isOurStandby(one, survey)))
        .map((one) => one.name),
    },
  )
  return {
    plan,
    problems: decision.method === 'follow' ? [] : lostSlots(session, node.name, slots),
    result: async (_after, outcome): Promise<RejoinResult> => ({
      node: node.name,
      method: isUnchanged(decision, outcome) ? 'none' : decision.method,
      fork_lsn: forkLsn,
      salvage: isLegible || facts.rejoin !== null ? await findSalvage(session, node.name, forkLsn) : null,
      primary: primary.name,
      upstream: upstream.name,
      discarded_bytes: divergence?.is === 'diverged' ? divergence.ownBytes : null,
      reasons: decision.reasons,
    }),
    text: (_after, _outcome, paint, result) => rejoinText(result as RejoinResult, paint),
  }
}

/**
 * What only the node has is discarded by nobody who was not allowed to: a refusal. That it stays stopped and fenced, and what
 * could be written out, is on the safe side of that.
 */
function refusedToDiscard(answer: Answer): Answer {
  const isRefused = answer.problems[0]?.code === 'salvage-incomplete'
  return isRefused && answer.exitCode === exitCodes.undone
    ? { ...answer, exitCode: exitCodes.refused }
    : answer
}

/** Nothing was left to do: it is what it should be. */
function isUnchanged({ method }: RejoinDecision, { steps }: Outcome): boolean {
  return method === 'follow' && steps.every((step) => step.state === 'satisfied')
}

function runsAs(facts: NodeFacts): 'writer' | 'standby' | 'stopped' {
  if (isRunningStandby(facts)) return 'standby'
  // One that does not answer may be writing: it is dealt with as a writer.
  return isWriter(facts) || facts.postmaster?.isAlive === true ? 'writer' : 'stopped'
}

/** A standby has a signal and no fence mark: it cannot come up as a primary, and was none. */
function isToBeFenced(facts: NodeFacts): boolean {
  if (isRunningStandby(facts) || facts.dataDirectoryState !== 'instance') return false
  return facts.fence !== null || !facts.hasStandbySignal || facts.postmaster?.isAlive === true
}

interface CloserLook {
  readonly divergence: Divergence | null
  readonly walKeptFrom: Lsn | null
  readonly needsWalFrom: Lsn | null
  readonly hasRewindProgram: boolean
  readonly bootId: string
  readonly slots: readonly string[]
}

interface Sides {
  readonly node: NodeSettings
  readonly primary: NodeSettings
  readonly upstream: NodeSettings
}

/** What a survey does not tell: the WAL files of both, read on their hosts. */
async function lookCloser({ nodes }: ClusterSession, sides: Sides, survey: Survey): Promise<CloserLook> {
  const [node, primary, upstream] = [sides.node, sides.primary, sides.upstream].map(({ name }) => {
    const found = nodes.get(name)
    if (found === undefined) throw new RangeError(`no connection to node ${name}`)
    return { node: found, facts: factsOf(survey, name) }
  }) as [Side, Side, Side]
  const [files, kept] = await Promise.all([
    readWalFiles(node.node, node.facts),
    readWalFiles(upstream.node, upstream.facts),
  ])
  const current = upstream.facts.instance?.currentLsn ?? receivedLsn(upstream.facts)
  const common = {
    walKeptFrom: current && walKeptFrom(kept.segments, current, segmentSizeOf(upstream.facts)),
    hasRewindProgram: files.hasRewindProgram,
    bootId: files.bootId,
    slots: files.slots,
  }
  const isWhole = node.facts.dataDirectoryState === 'instance' && node.facts.mark?.phase !== 'cloning'
  if (!isWhole || rejoinUnderWay(node.facts) !== null)
    return { ...common, divergence: null, needsWalFrom: null }
  const history = ownHistory(node.facts, files)
  const divergence = await compare(node, primary, history, files)
  return { ...common, divergence, needsWalFrom: needsFrom(node.facts) }
}

interface Side {
  readonly node: NonNullable<ReturnType<ClusterSession['nodes']['get']>>
  readonly facts: NodeFacts
}

async function compare(
  node: Side,
  primary: Side,
  history: TimelineHistory,
  files: WalFiles,
): Promise<Divergence> {
  const { facts } = node
  const { timeline, history: text } = primary.facts.instance ?? { timeline: 1, history: null }
  const theirs = parseTimelineHistory(text ?? '', timeline)
  const ancestor = commonAncestor(history, theirs)
  const isStopped = facts.instance === null
  const end =
    isStopped && ancestor?.lsn != null && files.hasWaldumpProgram
      ? await readWalEnd(node.node, facts, history.timeline, ancestor.lsn)
      : { lastRecord: 'unknown' as const, endLsn: facts.instance?.currentLsn ?? null }
  return judgeDivergence(
    {
      history,
      control: facts.control,
      isWriter: isWriter(facts),
      receivedLsn: isRunningStandby(facts) ? effectivelyReceived(facts, primary.facts) : null,
      ...end,
      isSameBranch:
        ancestor?.timeline === history.timeline ? await isSameBranch([node, primary], history) : null,
      mayHaveLed: facts.fence !== null || !facts.hasStandbySignal,
    },
    theirs,
  )
}

/** A torn piece of a record that a dying primary sent is overwritten when the standby follows. */
function effectivelyReceived(facts: NodeFacts, primary: NodeFacts): Lsn | null {
  return hasDiverged(facts, primary) ? receivedLsn(facts) : (facts.instance?.replayLsn ?? null)
}

/** Where replay begins when it is started, or goes on where it runs. */
function needsFrom({ instance, control }: NodeFacts): Lsn | null {
  return instance?.receiver?.status === 'streaming'
    ? null
    : (instance?.replayLsn ?? control?.minRecoveryEndLsn ?? control?.redoLsn ?? null)
}

function membersWith(inventory: Inventory, survey: Survey, node: NodeName): NodeName[] {
  const record = commonRecord(survey)
  return inventory.nodes
    .map((one) => one.name)
    .filter((name) => {
      const facts = factsOf(survey, name)
      const isKnown = record?.members.includes(name) ?? facts.instance !== null
      return name === node || isKnown || isWriter(facts)
    })
}

/** Slots that others made do not survive in a data directory that becomes a copy of the primary's. */
function lostSlots({ inventory }: ClusterSession, node: NodeName, slots: readonly string[]): Problem[] {
  const foreign = [...new Set(slots)].filter((slot) => inventory.nodes.every((one) => one.slotName !== slot))
  return foreign.map((slot) =>
    problemOf(
      new ReplctlError('foreign-slot', `slot "${slot}" on ${node} does not survive`, {
        detail: `It was made on ${node} by somebody else; a rewind or a clone has none of the slots of before.`,
        hint: 'Whoever uses it has to make it anew, on the new primary.',
        node,
      }),
      'warning',
    ),
  )
}

/** Said before anything is done. */
function discarded({ isToBeSalvaged, method }: RejoinDecision, divergence: Divergence | null): string[] {
  if (!isToBeSalvaged || divergence?.is !== 'diverged') return []
  const { timeline, forkLsn, ownBytes } = divergence
  const size = ownBytes === null ? 'An unknown number of' : String(ownBytes)
  const where = forkLsn === null ? '' : ` after the fork at ${forkLsn} of timeline ${timeline}`
  return [
    `${size} bytes of its own WAL${where} will be discarded${method === 'rewind' ? '' : ' with its data'}.`,
  ]
}

/** What was saved of this very divergence; null where nothing of any effect was lost. */
async function findSalvage({ nodes }: ClusterSession, name: NodeName, forkLsn: Lsn | null) {
  const node = nodes.get(name)
  const record = node === undefined ? null : await readSalvage(node)
  return record === null || record.forkLsn !== forkLsn ? null : salvageResult(record)
}
