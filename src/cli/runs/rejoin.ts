import type { NodeFacts, Survey } from '../../cluster/facts.ts'
import type { Inventory, NodeSettings } from '../../cluster/inventory.ts'
import type { Divergence } from '../../cluster/judge-divergence.ts'
import { refuseCircle } from '../../cluster/judge-follow.ts'
import { downstreamOf, mayComeBack, refuseReclone } from '../../cluster/judge-reclone.ts'
import {
  judgeRejoin,
  judgeRejoinPrimary,
  methodTold,
  noPrimaryToFollow,
  type RejoinDecision,
} from '../../cluster/judge-rejoin.ts'
import { refusalOfUnknownMember, unknownMembers } from '../../cluster/judge-unknown-member.ts'
import type { NodeName } from '../../cluster/names.ts'
import { isOurStandby } from '../../cluster/our-standby.ts'
import { type Problem, problemOf } from '../../cluster/problem.ts'
import { commonRecord } from '../../cluster/record.ts'
import { confirmingStandbys, liveRoles, neverConfirming } from '../../cluster/roles.ts'
import { salvageResult } from '../../cluster/salvage.ts'
import { factsOf, isRunningStandby, isWriter, placeFor } from '../../cluster/topology.ts'
import { type Outcome, withoutState } from '../../engine/run-outcome.ts'
import { asReplctlError, exitCodes, ReplctlError } from '../../errors.ts'
import type { SlotFile } from '../../node/slot-files.ts'
import type { Lsn } from '../../postgres/lsn.ts'
import { type RejoinResult, rejoinText } from '../../report/rejoin.ts'
import { rejoin } from '../../runbooks/rejoin.ts'
import { builtTitle } from '../../steps/ensure-mark.ts'
import { foreignSlotsOf } from '../../steps/foreign-slots.ts'
import { readSalvage, requireSalvaged, salvageDiverged } from '../../steps/salvage-diverged.ts'
import { setAsideTitle } from '../../steps/set-data-directory-aside.ts'
import { type ClusterSession, findNode, openCluster } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
import { type Decision, type Observation, operate, requireReachable } from '../operation.ts'
import { lookCloser } from './look-closer.ts'
import { foreseenProblems, synchronousProblems } from './synchronous-problems.ts'

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
    const climb = (on: Call, as: Wish, why?: string) =>
      operate(on, {
        session,
        isFirstTry: (answer) => !as.isReclone && refusalIn(answer) !== undefined,
        wish: { ...as, node: as.node.name },
        // The flags that a refusal names are of use only if they are taken, also behind the point of no return.
        goesOnWith: (found) => found.wish.node === as.node.name,
        decide: (observation) =>
          call.options.isAbort === true && isPrimaryLost(observation, as)
            ? decideBack(session, observation, as)
            : decide(call, session, observation, as, why),
      })
    const answer = await climb(call, wish)
    const refusal = refusalIn(answer)
    if (refusal === undefined) return refusedToDiscard(answer)
    const why = withoutState(refusal.detail ?? '')
    call.io.writeError(`${refusal.message}: ${why} It is cloned anew.\n`)
    const cloned = await climb(
      { ...call, options: { ...call.options, reclone: true } },
      { ...wish, isReclone: true },
      why,
    )
    // What is left to be done, if anything, the second one says.
    const told = { ...refusal, severity: 'warning', detail: why, hint: null } as const
    return { ...cloned, problems: [...cloned.problems, told] }
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
      ...{ node, primary, upstream: primary, method: 'reclone', reasons: [] },
      ...{ forkLsn: null, discardedBytes: null, isUntold: false },
      ...{ runsAs: runsAs(facts), isToBeFenced: false, salvage: [], isContinued: true, isRedundant: false },
      roles: liveRoles(inventory, topology, primary.name, new Map()),
      ...{ members: membersWith(inventory, survey, node.name), confirming: [], running: [] },
      ...{ downstream: [], awaited: [] },
    },
  )
  return { plan }
}

async function decide(
  call: Call,
  session: ClusterSession,
  observation: Observation,
  wish: Wish,
  refusal?: string,
): Promise<Decision> {
  const isAbort = call.options.isAbort === true
  const { inventory, templates } = session
  const { survey, topology } = observation
  const { node } = wish
  requireReachable(survey, [node.name])
  const primary = findNode(inventory, judgeRejoinPrimary(topology, node.name))
  const [facts, there] = [factsOf(survey, node.name), factsOf(survey, primary.name)]
  const unknown = isAbort || observation.resumed !== null ? null : refusalOfUnknownMember(inventory, topology)
  if (unknown !== null) throw unknown
  const upstream = findNode(inventory, placeFor(inventory, node, primary.name, topology))
  refuseCircle(topology, node.name, upstream.name)
  // Everybody else stays where it is, wherever the inventory wishes it.
  const roles = liveRoles(inventory, topology, primary.name, new Map([[node.name, upstream.name]]))
  const seen = await lookCloser(session, { node, primary, upstream }, survey)
  // What the run that is gone on with has cloned anew, and seen streaming, is not cloned once more.
  const isBuilt = !isAbort && wish.isReclone && hasBuilt(observation, facts)
  const decision = judgeRejoin(
    { node: facts, primary: there, hasArchive: inventory.archive !== undefined, ...seen },
    {
      ...wish,
      isReclone: wish.isReclone && !isBuilt,
      refusal,
      isTakenBack: isAbort && observation.resumed?.begun.includes(`${node.name}: ${setAsideTitle}`),
    },
  )
  // What was begun has no old standby any more that could be spared.
  if (decision.method === 'reclone' && !decision.isContinued && !isAbort) {
    const command = `replctl rejoin ${node.name} --reclone${wish.allowDataLoss ? ' --allow-data-loss' : ''}`
    refuseReclone(inventory, topology, { replaced: [node.name], command })
  }
  const { divergence } = seen
  const { untold } = decision
  const forkLsn = (untold === null ? divergence?.forkLsn : (untold.forkLsn as Lsn | null)) ?? null
  const discardedBytes =
    divergence?.is === 'diverged' ? divergence.ownBytes : (untold?.discardedBytes ?? null)
  // What lies on a twin timeline cannot be told from the primary's: it stays as it is, in the directory that is set aside.
  const isLegible = decision.isToBeSalvaged && divergence?.is === 'diverged' && !divergence.isTwinTimeline
  const members = membersWith(inventory, survey, node.name)
  // What an earlier run has built anew is a standby like others by now.
  const isSameData = decision.method === 'follow' && observation.resumed === null
  const downstream = isSameData ? [] : downstreamOf(inventory, roles, node.name)
  const confirming = confirmingStandbys(
    inventory,
    roles,
    neverConfirming(topology, primary.name).filter((name) => name !== node.name),
  )
  const running = survey
    .filter((one) => one.name !== node.name && (one.name === primary.name || isOurStandby(one, survey)))
    .map((one) => one.name)
  const plan = rejoin(
    { inventory, templates },
    {
      node,
      primary,
      upstream,
      method: decision.method,
      reasons: [...discarded(decision, divergence), ...decision.reasons],
      ...{ forkLsn, discardedBytes },
      runsAs: runsAs(facts),
      isToBeFenced: isToBeFenced(facts),
      salvage: isLegible
        ? [
            salvageDiverged(node.name, primary.name, { inventory, templates }, wish.allowDataLoss),
            requireSalvaged(node.name, primary.name, wish.allowDataLoss),
          ]
        : [],
      isContinued: decision.isContinued,
      isUntold: untold !== null,
      isRedundant: !decision.isToBeSalvaged || (isLegible && !wish.allowDataLoss),
      roles,
      members,
      confirming,
      running,
      downstream,
      awaited:
        decision.method === 'rewind' ? [] : downstream.filter((one) => mayComeBack(topology, one.name)),
    },
  )
  return {
    plan,
    problems: [
      ...(decision.method === 'follow'
        ? []
        : lostSlots(node.name, foreignSlotsOf(seen.slots, inventory, roles))),
      ...(call.flags.isDryRun && !isAbort
        ? foreseenProblems(inventory, { primary: primary.name, confirming, running: [...running, node.name] })
        : []),
    ],
    afterwards: ({ topology: now }) => synchronousProblems(inventory, now),
    result: async (_after, outcome): Promise<RejoinResult> => ({
      node: node.name,
      method: isBuilt ? 'reclone' : isUnchanged(decision, outcome) ? 'none' : methodTold(decision),
      fork_lsn: forkLsn,
      salvage: isLegible || untold !== null ? await findSalvage(session, node.name, forkLsn) : null,
      primary: primary.name,
      upstream: upstream.name,
      discarded_bytes: discardedBytes,
      reasons: decision.reasons,
    }),
    text: ({ topology: now }, _outcome, paint, result) =>
      rejoinText(
        result as RejoinResult,
        now.nodes.find((one) => one.settings.name === node.name),
        paint,
      ),
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

/**
 * Whether the new clone of the run that is gone on with stands there. Its journal alone does not tell: a run that failed may have put
 * the old data back, and taken its mark away with that.
 */
function hasBuilt({ resumed }: Observation, { name, rejoin, mark, dataDirectoryInode }: NodeFacts): boolean {
  if (resumed?.begun.includes(`${name}: ${builtTitle}`) !== true) return false
  const isMarked = mark?.phase === 'done' && mark.inode === dataDirectoryInode
  return isMarked && (rejoin?.method === 'reclone' || resumed.isPastPointOfNoReturn)
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

function membersWith(inventory: Inventory, survey: Survey, node: NodeName): NodeName[] {
  const record = commonRecord(survey)
  const members = inventory.nodes
    .map((one) => one.name)
    .filter((name) => {
      const facts = factsOf(survey, name)
      const isKnown = record?.members.includes(name) ?? facts.instance !== null
      return name === node || isKnown || isWriter(facts)
    })
  // Whom only this copy of the inventory lacks is a member all the same.
  return [...members, ...unknownMembers(inventory, survey)]
}

/**
 * No slot survives in a data directory that becomes a copy of the primary's. A physical one is made again there; nobody can make
 * the position of a logical one again.
 */
function lostSlots(node: NodeName, slots: readonly SlotFile[]): Problem[] {
  const by = `It was made on ${node} by somebody else; a rewind or a clone has none of the slots of before.`
  return slots.map(({ name, type }) =>
    problemOf(
      type === 'physical'
        ? new ReplctlError('foreign-slot', `slot "${name}" on ${node} loses its position`, {
            detail: `${by} It is made again there, and keeps WAL from then on.`,
            hint: 'Whoever uses it may lack WAL from before: look there.',
            node,
          })
        : new ReplctlError('foreign-slot', `slot "${name}" on ${node} does not survive`, {
            detail: by,
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
