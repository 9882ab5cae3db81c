import type { Survey } from '../../cluster/facts.ts'
import type { NodeSettings } from '../../cluster/inventory.ts'
import { isTakenOver, refusalOfForeignPrimary } from '../../cluster/judge-adoption.ts'
import { refuseCircle } from '../../cluster/judge-follow.ts'
import { downstreamOf, isNewClone, mayComeBack, refuseReclone } from '../../cluster/judge-reclone.ts'
import { noPrimaryToFollow } from '../../cluster/judge-rejoin.ts'
import { refusalOfRoleChange } from '../../cluster/judge-role-change.ts'
import { refusalOfUnknownMember } from '../../cluster/judge-unknown-member.ts'
import { holds, keepersOf, keepsFrom, neededLsn } from '../../cluster/kept-wal.ts'
import type { NodeName } from '../../cluster/names.ts'
import { ownedConfigFile } from '../../cluster/node-configuration.ts'
import { isOurStandby } from '../../cluster/our-standby.ts'
import { problemOf } from '../../cluster/problem.ts'
import { commonRecord } from '../../cluster/record.ts'
import { confirmingStandbys, liveRoles, neverConfirming } from '../../cluster/roles.ts'
import { segmentSizeOf } from '../../cluster/segment-size.ts'
import { factsOf, placeFor, type Topology } from '../../cluster/topology.ts'
import { twoWriters } from '../../cluster/two-writers.ts'
import { refusalToDiscard } from '../../cluster/way-back.ts'
import { ReplctlError } from '../../errors.ts'
import { readTextFile } from '../../node/files.ts'
import { parseSynchronousStandbyNames } from '../../postgres/synchronous-standby-names.ts'
import { receivingText } from '../../report/receiving.ts'
import { addStandby, type NewStandby } from '../../runbooks/add-standby.ts'
import { type ClusterSession, findNode, findNodes, openCluster } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
import { type Decision, type Observation, operate, requireReachable } from '../operation.ts'
import { judgeReclones, type Reclones } from './judge-reclones.ts'

/** `replctl add-standby NODE… [--from NODE] [--reclone]`. */
export async function run(call: Call): Promise<Answer> {
  const session = await openCluster(call)
  try {
    const targets = findNodes(session.inventory, (call.args[0] ?? []) as readonly string[])
    const from =
      call.options.from === undefined ? undefined : findNode(session.inventory, String(call.options.from))
    const isReclone = call.options.reclone === true
    return await operate(call, {
      session,
      wish: { nodes: targets.map((node) => node.name), from: from?.name ?? null, isReclone },
      // A node that is cloned anew need not be brought back any more.
      replaces: (found) =>
        isReclone && found.command === 'rejoin' && targets.some((node) => node.name === found.wish.node),
      decide: async (observation) => {
        const { inventory } = session
        const names = targets.map((node) => node.name)
        // What was begun can be taken back whatever the inventory says by now.
        const isForward = call.options.isAbort !== true
        const { topology } = observation
        const refusal = isForward
          ? (refusalOfUnknownMember(inventory, topology) ?? refusalOfRoleChange(inventory, topology, names))
          : null
        if (refusal !== null) throw refusal
        const isAbort = !isForward
        if (isForward && observation.resumed === null)
          await refuseForeignPrimary(session, observation, targets)
        const reclones = isReclone ? await judgeReclones(session, observation, targets, isForward) : undefined
        return decide(session, observation, targets, from, isReclone, { isAbort, reclones })
      },
    })
  } finally {
    await session.close()
  }
}

/** Nobody's primary but replctl's own gets standbys; see `refusalOfForeignPrimary`. */
async function refuseForeignPrimary(
  { nodes, inventory }: ClusterSession,
  { survey, topology }: Observation,
  targets: readonly NodeSettings[],
): Promise<void> {
  const facts = survey.find(({ name }) => name === topology.primary)
  const node = facts === undefined ? undefined : nodes.get(facts.name)
  const isTarget = targets.some(({ name }) => name === facts?.name)
  if (facts === undefined || node === undefined || isTarget || isTakenOver(facts)) return
  const ownText = await readTextFile(node, `${facts.configDirectory}/${ownedConfigFile}`)
  const refusal = refusalOfForeignPrimary(facts, inventory.cluster, ownText)
  if (refusal !== null) throw refusal
}

/** What adding them comes to; refuses what must not be. */
export function decide(
  session: ClusterSession,
  observation: Observation,
  targets: readonly NodeSettings[],
  from: NodeSettings | undefined,
  isReclone: boolean,
  {
    isAbort = false,
    reclones,
  }: { readonly isAbort?: boolean; readonly reclones?: Reclones | undefined } = {},
): Decision {
  const { inventory, templates } = session
  const { survey, topology } = observation
  requireReachable(
    survey,
    targets.map((node) => node.name),
  )
  if (topology.writers.length > 1) throw twoWriters(topology)
  const record = commonRecord(survey)
  const led = inventory.nodes.find((node) => node.name === topology.primary)
  // What was begun on a target is taken back there, whatever has become of the primary.
  const recorded = inventory.nodes.find((node) => node.name === record?.primary && !targets.includes(node))
  const primary =
    led ??
    standbyToCloneFrom(observation, inventory, { targets, from, isReclone }) ??
    (isAbort ? recorded : undefined)
  if (primary === undefined) throw noPrimaryToFollow(observation.survey)
  const lastPrimary = led === undefined ? record?.primary : undefined
  const isTarget = targets.find((node) => node.name === primary.name)
  if (isTarget !== undefined) throw isThePrimary(primary)
  const primaryFacts = survey.find((facts) => facts.name === primary.name)
  for (const facts of survey) {
    if (primaryFacts === undefined || targets.every((node) => node.name !== facts.name)) continue
    const isOurs = facts.dataDirectoryState === 'instance' && facts.mark?.phase !== 'cloning'
    const refusal = isOurs && !isAbort ? refusalToDiscard(facts, primaryFacts) : null
    if (refusal !== null) throw refusal
  }
  const placeOf = (node: NodeSettings) => upstreamOf(inventory, node, primary.name, topology, targets)
  const standbys: NewStandby[] = targets.map((node) => {
    const place = placeOf(node)
    const upstreamName = !isReclone && canCatchUpFrom(topology, node, from, place) ? from.name : place
    const upstream = inventory.nodes.find((one) => one.name === upstreamName) ?? primary
    const source = from ?? upstream
    const wished = { isReclone, ...reclones?.get(node.name) }
    const endsRejoin = factsOf(survey, node.name).rejoin !== null
    return { node, upstream, source, ...wished, isResumed: observation.resumed !== null, endsRejoin }
  })
  const isGoneOnWith = ({ node, isResumed }: NewStandby) =>
    isResumed === true && isNewClone(factsOf(survey, node.name))
  const replaced = standbys
    .filter((standby) => standby.isReclone && !isGoneOnWith(standby))
    .map(({ node }) => node.name)
  const command = `replctl add-standby ${replaced.join(' ')} --reclone`
  if (!isAbort) refuseReclone(inventory, topology, { replaced, command })
  const places = new Map(standbys.map(({ node, upstream }) => [node.name, upstream.name]))
  for (const [name, upstream] of places) refuseCircle(topology, name, upstream, places)
  for (const { source, node } of standbys) {
    const isBuiltBefore = from === undefined && targets.includes(source) && source.name !== node.name
    if (!isBuiltBefore) refuseBadSource(observation, source, node, primary)
  }
  const known =
    record?.members ?? inventory.nodes.filter((node) => isRunning(observation, node)).map((node) => node.name)
  const members = inventory.nodes
    .map((node) => node.name)
    .filter(
      (name) =>
        name === primary.name ||
        name === lastPrimary ||
        known.includes(name) ||
        targets.some((node) => node.name === name),
    )
  const running = inventory.nodes
    .filter((node) => node.name === primary.name || (isRunning(observation, node) && !targets.includes(node)))
    .map((node) => node.name)
  const roles = liveRoles(inventory, topology, lastPrimary ?? primary.name, places)
  const isTargetToo = (name: NodeName) => targets.some((node) => node.name === name)
  const withDownstream = (standby: NewStandby): NewStandby => {
    if (!isReclone && isSameData(standby, survey)) return standby
    // One that is built by the same command gets its slot, and is waited for, as such.
    const below = downstreamOf(inventory, roles, standby.node.name)
    const downstream = below.filter((one) => !isTargetToo(one.name))
    return {
      ...standby,
      downstream,
      awaited: downstream.filter((one) => mayComeBack(topology, one.name)),
    }
  }
  const never = neverConfirming(topology)
  const confirming = confirmingStandbys(
    inventory,
    roles,
    never.filter((name) => !isTargetToo(name)),
  )
  const waitedFor = namesWaitedFor(observation, primary)
  const confirmingUntilNow = inventory.nodes
    .filter((node) => waitedFor.includes(node.applicationName))
    .map((node) => node.name)
  return {
    plan: addStandby(
      { inventory, templates },
      {
        ...{
          primary,
          lastPrimary,
          standbys: standbys.map(withDownstream),
          members,
          confirming,
          running,
          roles,
        },
        confirmingUntilNow: led === undefined ? [] : confirmingUntilNow,
      },
    ),
    problems: [
      ...(led === undefined ? [problemOf(noPrimaryToFollow(observation.survey), 'warning')] : []),
      ...standbys
        .filter(({ node, upstream }) => upstream.name !== placeOf(node))
        .map(({ node, upstream }) =>
          problemOf(catchesUp(node.name, upstream.name, placeOf(node)), 'warning'),
        ),
    ],
    result: (after) => ({
      nodes: after.topology.nodes
        .filter((node) => targets.some((target) => target.name === node.settings.name))
        .map((node) => ({
          name: node.settings.name,
          upstream: node.upstream,
          state: node.state,
          timeline: node.facts.instance?.timeline ?? null,
          lag_bytes: node.lagBytes,
        })),
    }),
    text: (after, _outcome, paint) =>
      targets
        .map((target) => {
          const node = after.topology.nodes.find((one) => one.settings.name === target.name)
          return `${paint.strong(target.name)} ${receivingText(node, node?.upstream ?? null)}.\n`
        })
        .join(''),
  }
}

/**
 * While nobody leads: the running standby that every target is to receive from, where the inventory wishes so. The
 * replication role and its password are there already; nothing of the primary is needed.
 */
function standbyToCloneFrom(
  observation: Observation,
  inventory: ClusterSession['inventory'],
  wish: {
    readonly targets: readonly NodeSettings[]
    readonly from: NodeSettings | undefined
    readonly isReclone: boolean
  },
): NodeSettings | undefined {
  if (wish.isReclone || commonRecord(observation.survey) === null) return undefined
  const [upstream, ...others] = [...new Set(wish.targets.map((node) => node.upstream))]
  const found = inventory.nodes.find((node) => node.name === upstream)
  const canServe = [found, wish.from ?? found].every(
    (node) => node !== undefined && isRunning(observation, node) && !wish.targets.includes(node),
  )
  return others.length === 0 && canServe ? found : undefined
}

/** A whole instance stays as it is; what an operation had begun was, or is going to be, built anew. */
function isSameData({ node, isResumed }: NewStandby, survey: Survey): boolean {
  const { dataDirectoryState, mark } = factsOf(survey, node.name)
  return isResumed !== true && dataDirectoryState === 'instance' && mark?.phase !== 'cloning'
}

/** Whom the primary waits for at this moment, by application_name. */
function namesWaitedFor({ survey }: Observation, primary: NodeSettings): readonly string[] {
  const settings = survey.find((facts) => facts.name === primary.name)?.instance?.settings
  return parseSynchronousStandbyNames(settings?.synchronous_standby_names?.value ?? '')?.names ?? []
}

/** The wished upstream, also where it is built by the same command. */
function upstreamOf(
  inventory: ClusterSession['inventory'],
  node: NodeSettings,
  primary: NodeName,
  topology: Observation['topology'],
  targets: readonly NodeSettings[],
): NodeName {
  const wish = targets.find((target) => target.name === node.upstream && target.name !== node.name)
  return wish !== undefined && wish.upstream !== node.name
    ? wish.name
    : placeFor(inventory, node, primary, topology)
}

/**
 * A standby that stands there, and whose WAL is no longer kept where it is to receive from, comes up below another one that
 * keeps it. Once it has caught up it finds what it needs at its place again.
 */
function canCatchUpFrom(
  { nodes }: Topology,
  node: NodeSettings,
  from: NodeSettings | undefined,
  place: NodeName,
): from is NodeSettings {
  const survey = nodes.map(({ facts }) => facts)
  const [own, there] = [factsOf(survey, node.name), factsOf(survey, place)]
  const isBuilt = own.dataDirectoryState === 'instance' && (own.mark === null || own.mark.phase === 'done')
  const needed = neededLsn(node, own, survey, place)
  if (from === undefined || from.name === place || !isBuilt || needed === null) return false
  const isKept = holds(keepsFrom(there, node.slotName), needed, segmentSizeOf(there))
  return !isKept && keepersOf(node, needed, survey).includes(from.name)
}

const isRunning = ({ survey }: Observation, node: NodeSettings): boolean => {
  const facts = survey.find((one) => one.name === node.name)
  return facts !== undefined && isOurStandby(facts, survey)
}

function refuseBadSource(
  observation: Observation,
  source: NodeSettings,
  node: NodeSettings,
  primary: NodeSettings,
): void {
  if (source.name === primary.name) return
  requireReachable(observation.survey, [source.name])
  const isDiverged = observation.topology.nodes.some(
    ({ settings, role }) => settings.name === source.name && role === 'diverged',
  )
  if (source.name === node.name || isDiverged || !isRunning(observation, source)) {
    throw new ReplctlError('not-a-standby', `cannot clone ${node.name} from ${source.name}`, {
      detail:
        source.name === node.name
          ? 'A node cannot be cloned from itself.'
          : isDiverged
            ? `${source.name} has WAL that ${primary.name} never had.`
            : `${source.name} is not a running standby of this cluster.`,
      hint: `Leave --from out to clone from the upstream, or name a running standby.`,
      node: source.name,
    })
  }
}

function catchesUp(node: NodeName, from: string, place: NodeName): ReplctlError {
  return new ReplctlError('wrong-upstream', `${node} receives from ${from} until it has caught up`, {
    detail: `${place} does not keep the WAL that it needs next.`,
    hint: `When "replctl status" shows that it has caught up: replctl follow ${node} --upstream ${place}`,
    node,
  })
}

function isThePrimary(primary: NodeSettings): ReplctlError {
  return new ReplctlError('primary-alive', `${primary.name} is the primary`, {
    detail: 'A primary is never turned into a standby by cloning over it.',
    hint: 'Name another node.',
    node: primary.name,
  })
}
