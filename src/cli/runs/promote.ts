import { type CandidateVerdict, nodesAhead } from '../../cluster/choose-candidate.ts'
import { leadsBeside } from '../../cluster/diagnose.ts'
import { formerUpstream, foundAs, isUnfenceable } from '../../cluster/former-primaries.ts'
import type { NodeSettings } from '../../cluster/inventory.ts'
import {
  judgePromotion,
  judgePromotionBack,
  needsAskingAround,
  type PromotionDecision,
} from '../../cluster/judge-promotion.ts'
import { refusalOfRoleChange } from '../../cluster/judge-role-change.ts'
import { unknownMembers } from '../../cluster/judge-unknown-member.ts'
import type { NodeName } from '../../cluster/names.ts'
import { problemOf } from '../../cluster/problem.ts'
import { clusterIdentifier, commonRecord, isForeign } from '../../cluster/record.ts'
import { confirmingStandbys, meantRoles, neverConfirming } from '../../cluster/roles.ts'
import { startsUnfenced } from '../../cluster/starts-unfenced.ts'
import {
  factsOf,
  hasDiverged,
  isAstray,
  isReceiving,
  isRunningStandby,
  observeTopology,
  type Topology,
  thoseThatFollow,
} from '../../cluster/topology.ts'
import { twoWriters } from '../../cluster/two-writers.ts'
import { wayBack } from '../../cluster/way-back.ts'
import type { Outcome } from '../../engine/run-outcome.ts'
import { ReplctlError } from '../../errors.ts'
import { askAround } from '../../node/ask-around.ts'
import { type PromotionMethod, promotionMethods } from '../../postgres/versions.ts'
import { promotionText } from '../../report/promotion.ts'
import { promote } from '../../runbooks/promote.ts'
import { announceConfirming } from '../../steps/ensure-cluster-record.ts'
import { unproven } from '../../steps/fence-unreachable.ts'
import { fetchTitle } from '../../steps/fetch-missing-wal.ts'
import { type ClusterSession, findNode } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
import { fenceCommandOf } from '../local-command.ts'
import {
  type Decision,
  defaultTimeoutMs,
  isOnlyForward,
  type Observation,
  operate,
  requireReachable,
} from '../operation.ts'
import { awaitStarting } from './await-starting.ts'
import {
  choiceBegun,
  forgetVainPromotions,
  refuseToLeaveFenced,
  requireForAbort,
  requireTold,
  toldToPromote,
} from './promote-begun.ts'
import { isFenced, oldPrimaryOf, promotionResult } from './promote-result.ts'
import { refuseBesideUnknownLeader } from './refuse-beside-unknown-leader.ts'
import { foreseenProblems, synchronousProblems } from './synchronous-problems.ts'

/** `replctl promote [NODE] [--method M] [--allow-data-loss] [--allow-split-brain]`. */
export async function promoteIn(session: ClusterSession, call: Call): Promise<Answer> {
  const named = call.args[0] as string | undefined
  const node = named === undefined ? undefined : findNode(session.inventory, named).name
  const method = (call.options.method ?? 'auto') as PromotionMethod
  if (!promotionMethods.includes(method)) throw new ReplctlError('usage', `unknown method "${method}"`)
  const flags = {
    allowDataLoss: call.options.allowDataLoss === true,
    allowSplitBrain: call.options.allowSplitBrain === true,
  }
  return await operate(call, {
    session,
    wish: { node: node ?? null, method, ...flags },
    overridesUnfinished: true,
    depth: 'room',
    ripen: async (survey, means) =>
      call.options.isAbort === true
        ? survey
        : await awaitStarting(survey, {
            ...{ ...means, inventory: session.inventory, wanted: node, signal: call.signal },
            timeoutMs: call.flags.timeoutMs ?? defaultTimeoutMs,
          }),
    reconsider: (found, survey, isHeld) => forgetVainPromotions(session, found, survey, isHeld),
    decide: (observation) => decide(call, session, observation, { node, method, ...flags }),
  })
}

interface Wish {
  readonly node: NodeName | undefined
  readonly method: PromotionMethod
  readonly allowDataLoss: boolean
  readonly allowSplitBrain: boolean
}

async function decide(
  call: Call,
  session: ClusterSession,
  observation: Observation,
  wish: Wish,
): Promise<Decision> {
  const { inventory, templates } = session
  const { survey } = observation
  let { topology } = observation
  const isAbort = call.options.isAbort === true
  if (wish.node !== undefined && !isAbort) requireReachable(survey, [wish.node])
  if (survey.every((facts) => facts.unreachable !== null))
    requireReachable(
      survey,
      survey.map((one) => one.name),
    )
  const told = toldToPromote(observation, inventory)
  const chosen = told ?? (isAbort ? choiceBegun(observation) : undefined)
  const node = wish.node ?? (observation.resumed === null ? undefined : chosen)
  if (isAbort && node !== undefined) requireForAbort(survey, node)
  if (!isAbort && wish.node === undefined && told !== undefined && node === told) requireTold(topology, told)
  const judge = () =>
    isAbort && node !== undefined
      ? judgePromotionBack(inventory, topology, node, told)
      : judgePromotion(inventory, topology, {
          ...{ ...wish, node, told },
          canBeTakenBack: observation.resumed !== null && !isOnlyForward(observation.resumed),
        })
  let judged = judge()
  if (!isAbort && judged.isAlreadyPrimary) {
    topology = observeTopology(inventory, await askAround(inventory, session.nodes, survey))
  } else if (!isAbort && needsAskingAround(topology, judged)) {
    topology = observeTopology(inventory, await askAround(inventory, session.nodes, survey))
    judged = judge()
  }
  if (!isAbort && !judged.isAlreadyPrimary) {
    const asked = { candidate: judged.candidate, what: `promote ${judged.candidate}` }
    await refuseBesideUnknownLeader(session, { ...observation, topology }, { ...asked, ...wish })
  }
  const candidate = findNode(inventory, judged.candidate)
  const toFence = judged.oldPrimaries.filter((one) => one.state === 'stopped' || one.state === 'to-stop')
  // All others would be left without a primary that lets them in; the candidate itself logs in nowhere any more.
  const roleChange = refusalOfRoleChange(inventory, topology, [candidate.name], { isFailover: true })
  if (roleChange !== null && !isAbort) throw roleChange
  if (isAbort) {
    refuseToLeaveFenced(
      observation,
      candidate.name,
      toFence.map((one) => one.node),
    )
  }
  const settingsOf = (name: string): NodeSettings => findNode(inventory, name)
  const others = inventory.nodes.filter((one) => {
    const facts = survey.find((each) => each.name === one.name)
    return one.name !== candidate.name && facts !== undefined && isRunningStandby(facts)
  })
  // Whoever has WAL that the new primary lacks cannot follow it: it would wait for ever.
  const astray = astrayFrom(observation, candidate.name, judged, wish.allowDataLoss)
  const record = commonRecord(survey)
  // One that was removed, and runs on, is nobody's to move.
  const isMember = (name: NodeName) => record === null || record.members.includes(name)
  const following = others.filter(
    ({ name }) =>
      isMember(name) && !astray.includes(name) && isSameCluster(observation, name, candidate.name),
  )
  const fenced = judged.oldPrimaries.map((one) => one.node)
  // Whom only this copy of the inventory lacks is a member all the same.
  const unknown = unknownMembers(inventory, survey)
  const members = [
    ...inventory.nodes.map((one) => one.name).filter((name) => isMember(name) || name === candidate.name),
    ...unknown,
  ]
  const away = inventory.nodes.filter(
    (one) => members.includes(one.name) && isAway(observation, one.name) && !fenced.includes(one.name),
  )
  const roles = meantRoles(inventory, {
    primary: candidate.name,
    running: following.map((one) => one.name),
    away: away.map((one) => one.name),
    removedSlots: record?.removedSlots,
  })
  const placeOf = (node: NodeSettings) => ({
    node,
    upstream: settingsOf(roles.upstreams.get(node.name) ?? candidate.name),
  })
  // Who is away since before this one leads, and has no slot by now, was left out: it may be the primary that was lost.
  const isLedAlready = judged.isAlreadyPrimary && record?.primary === candidate.name
  const reserves = judged.reserves.map(settingsOf)
  const hasFetched =
    observation.resumed?.begun.includes(`${candidate.name}: ${fetchTitle(reserves)}`) === true
  const former = formerUpstream(inventory, topology, candidate, { reserves: judged.reserves, hasFetched })
  const fencedFromOutside = new Set<NodeName>()
  const measured = new Map<NodeName, number>()
  const confirming = confirmingStandbys(inventory, roles, [
    ...fenced,
    ...astray,
    ...(isLedAlready ? neverConfirming(topology) : []),
  ])
  const informed = [candidate, ...following].map((one) => one.name)
  const fence = fenceCommandOf(inventory, call)
  const unwritable = toFence.map(({ node }) => node).filter((one) => isUnfenceable(factsOf(survey, one)))
  const [unfenceable] = unwritable
  // Before anybody is stopped for it.
  const isJudged = isAbort || judged.isAlreadyPrimary || wish.allowSplitBrain
  if (unfenceable !== undefined && fence === null && !isJudged) throw unproven(settingsOf(unfenceable), true)
  const lookouts = lookoutsOf(observation, [candidate.name, ...fenced])
  const ofThisCluster = (name: NodeName) => !isForeign(factsOf(survey, name), survey)
  const plan = promote(
    { inventory, templates },
    {
      candidate,
      method: wish.method,
      toFence: toFence
        .filter(({ node, state }) => state === 'to-stop' || !unwritable.includes(node))
        .map(({ node }) => ({
          node: settingsOf(node),
          found: {
            ...foundAs(factsOf(survey, node), candidate.name),
            mayAnotherPromote: told !== undefined,
            isUnwritable: unwritable.includes(node),
            others: lookoutsOf(observation, [candidate.name, node]).filter(ofThisCluster),
          },
        })),
      unwritable: judged.isAlreadyPrimary ? [] : unwritable.map(settingsOf),
      absent: judged.oldPrimaries
        .filter((one) => one.state === 'absent')
        .map((one) => ({ node: settingsOf(one.node), systemIdentifier: clusterIdentifier(survey) })),
      unreachable: judged.isAlreadyPrimary
        ? []
        : judged.oldPrimaries.filter((one) => one.state === 'unreachable').map((one) => settingsOf(one.node)),
      lookouts,
      others: lookouts.filter(ofThisCluster),
      fence,
      onFenced: (name) => fencedFromOutside.add(name),
      onLossMeasured: (name, bytes) => measured.set(name, bytes),
      allowSplitBrain: wish.allowSplitBrain,
      standbys: following.map(placeOf),
      reserves,
      former: former === null ? null : settingsOf(former),
      rivals:
        wish.allowDataLoss || judged.isAlreadyPrimary ? [] : rivalsOf(observation, candidate.name, following),
      archivedEnd: judged.archivedEnd,
      roles,
      members,
      away: isLedAlready ? [] : away.map(placeOf),
      confirming,
      announced: isLedAlready
        ? announceConfirming(informed, candidate.name, { inventory, templates }, confirming)
        : [],
    },
  )
  const oldPrimary = oldPrimaryOf(judged, record)
  // Nobody was chosen, and who follows it did so before.
  const isRepeated = judged.isAlreadyPrimary && observation.resumed === null
  let writersLeft: Topology | null = null
  return {
    plan,
    problems: [
      ...topology.nodes.flatMap((one) => {
        const beside = leadsBeside(one, topology)
        return beside === null ? [] : [problemOf(beside, 'warning')]
      }),
      ...judged.choice.verdicts
        .filter((verdict) => !verdict.canLead && following.every((one) => one.name !== verdict.node))
        .flatMap((verdict) => unreachableProblem(observation, verdict)),
      ...(call.flags.isDryRun && !isAbort
        ? foreseenProblems(inventory, {
            primary: candidate.name,
            confirming,
            running: following.map((one) => one.name),
          })
        : []),
    ],
    // What becomes of others is told of a promotion that took place.
    warnings: (outcome) =>
      outcome.hasCrossed || outcome.error === null
        ? [
            ...astray.map((name) => leftBehind(name, candidate.name)),
            ...unknown.map((name) => passedOver(name, candidate.name, session, judged, record?.primary)),
            ...judged.oldPrimaries
              .filter(({ node, state }) => state === 'unreachable' || unwritable.includes(node))
              // Beside one that leads already, only who is on record has led: others are bystanders that look like it.
              .filter(({ node }) => !judged.isAlreadyPrimary || record?.primary === node)
              .flatMap(({ node }) => {
                const isUnwritable = unwritable.includes(node)
                const known = { record, members, informed, isUnwritable }
                return startsUnfenced(node, candidate.name, known) ?? []
              }),
          ]
        : [],
    afterwards: ({ topology: now }) => synchronousProblems(inventory, now),
    shortfall: () => (writersLeft === null ? null : twoWriters(writersLeft)),
    result: (after, outcome) => {
      writersLeft = after.topology.writers.length > 1 ? after.topology : null
      return promotionResult(after, judged, {
        oldPrimary: oldPrimary === candidate.name ? null : oldPrimary,
        candidate: candidate.name,
        measured: [...measured.values()],
        repointed: thoseThatFollow(
          after.topology,
          following.map((one) => one.name).filter((name) => !isRepeated || isRepointed(outcome, name)),
        ),
        isRepeated,
        isFenced:
          outcome.error === null &&
          isFenced(judged, oldPrimary, { unwritable, fromOutside: fencedFromOutside }),
      })
    },
    text: (_after, outcome, paint, result) =>
      isRepeated && !outcome.hasChanged
        ? `${candidate.name} is the primary already; nothing was changed.\n`
        : promotionText(
            result as never,
            isRepeated ? [] : judged.choice.verdicts,
            paint,
            oldPrimary !== null && measured.has(oldPrimary),
          ),
  }
}

/** Whether this very run gave it another upstream. */
function isRepointed({ steps }: Outcome, name: NodeName): boolean {
  return steps.some(({ node, title, state }) => {
    return node === name && state === 'applied' && title.startsWith('render the settings of a standby')
  })
}

/** A standby that does not run, or cannot be asked, now. */
function isAway({ survey }: Observation, name: string): boolean {
  const facts = survey.find((one) => one.name === name)
  return facts !== undefined && facts.instance === null && facts.fence === null
}

function isSameCluster({ survey }: Observation, a: string, b: string): boolean {
  const [one, other] = [a, b].map((name) => survey.find((facts) => facts.name === name)?.instance)
  return one?.systemIdentifier === other?.systemIdentifier
}

/** Standbys with WAL that the new primary does not have (`--allow-data-loss`), or that left its history already. */
function astrayFrom(
  { survey, topology }: Observation,
  candidate: NodeName,
  judged: PromotionDecision,
  allowDataLoss: boolean,
): NodeName[] {
  const primary = survey.find((facts) => facts.name === candidate)
  if (!judged.isAlreadyPrimary) {
    const own = primary?.instance?.timeline ?? 0
    const strayed = survey.filter(
      (facts) =>
        isRunningStandby(facts) && (isAstray(facts, survey) || (facts.instance?.timeline ?? 0) > own),
    )
    // One that still streams may get the rest, unless its sender is given up with what it has.
    const mayGetRest = primary && isReceiving(primary) && !(allowDataLoss && topology.primary === null)
    const ahead = mayGetRest ? [] : nodesAhead(topology, candidate).map(({ node }) => node)
    const names = new Set([...strayed.map((facts) => facts.name), ...ahead])
    return [...names].filter((name) => name !== candidate && !judged.reserves.includes(name))
  }
  return survey.flatMap((facts) =>
    primary && isRunningStandby(facts) && hasDiverged(facts, primary) ? [facts.name] : [],
  )
}

/** The other standbys, where anybody may have received something since the survey. */
function rivalsOf(
  { survey }: Observation,
  candidate: NodeName,
  following: readonly NodeSettings[],
): NodeName[] {
  const names = following.map((one) => one.name)
  const canMove = survey.some((facts) => [candidate, ...names].includes(facts.name) && isReceiving(facts))
  return canMove ? names : []
}

/** A member of which nothing was seen: it is on no list of what this promotion looked at. */
function passedOver(
  name: NodeName,
  candidate: NodeName,
  { inventory }: ClusterSession,
  { isAlreadyPrimary }: PromotionDecision,
  led: NodeName | undefined,
) {
  return new ReplctlError('orphan-standby', `${name} belongs to the cluster, and the inventory lacks it`, {
    detail:
      name === led && !isAlreadyPrimary
        ? `It led until now, by the record of the cluster, and was neither looked at nor fenced: see to it that PostgreSQL does not start there.`
        : `It was not looked at: it may have more WAL than ${candidate}, it is not told to follow ${candidate}, and pg_hba.conf there does not let it in.`,
    hint: `Put it into ${inventory.path}, look with "replctl status", and then: replctl rejoin ${name}. If it is gone for good: replctl remove-standby ${name}, and then take it out of the inventory.`,
  })
}

/**
 * Whoever answers can see whether an old primary is alive, also a standby that will not follow the candidate: it may be the only one
 * that still receives from it.
 */
function lookoutsOf({ survey }: Observation, without: readonly NodeName[]): NodeName[] {
  return survey
    .filter(
      ({ name, unreachable, binaries }) =>
        unreachable === null && binaries !== null && !without.includes(name),
    )
    .map(({ name }) => name)
}

function leftBehind(node: string, primary: string) {
  return new ReplctlError('node-diverged', `${node} has WAL that ${primary} lacks and cannot follow it`, {
    hint: wayBack(node),
    node,
  })
}

function unreachableProblem({ survey }: Observation, verdict: CandidateVerdict) {
  const error = survey.find((facts) => facts.name === verdict.node)?.unreachable
  return error ? [problemOf(error, 'warning')] : []
}
