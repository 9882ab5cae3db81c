import { ReplctlError } from '../errors.ts'
import { choosePromotionMethod, type PromotionMethod } from '../postgres/versions.ts'
import {
  type CandidateChoice,
  chooseCandidate,
  nodesAhead,
  reservesOf,
  whyItCannotLead,
  whyItWouldLose,
} from './choose-candidate.ts'
import { closedPrimary, whyClosed } from './closed-primary.ts'
import { confirmationsNeeded, confirmersOf } from './confirmers.ts'
import type { NodeFacts, PeerAnswer } from './facts.ts'
import { formerPrimaries, type OldPrimary } from './former-primaries.ts'
import type { Inventory } from './inventory.ts'
import { knownGap } from './known-gap.ts'
import type { NodeName } from './names.ts'
import { clusterIdentifier } from './record.ts'
import { confirmingArchive } from './roles.ts'
import { whyItHasNoRoom } from './room-to-lead.ts'
import { isReceiving, nodeOf, type ObservedNode, receivedLsn, type Topology } from './topology.ts'
import { twoWriters } from './two-writers.ts'

export interface PromotionWish {
  readonly node: NodeName | undefined
  readonly allowDataLoss: boolean
  readonly allowSplitBrain: boolean
  /** Whom an operation that stopped part-way had told to promote: it may do so at any moment, or has. */
  readonly told?: NodeName | undefined
  /** `auto` where nothing is said. */
  readonly method?: PromotionMethod
  /** It was begun before, and "replctl abort" can take that back. */
  readonly canBeTakenBack?: boolean
}

/** What `promote` will do, decided from one survey. */
export interface PromotionDecision {
  readonly candidate: NodeName
  readonly choice: CandidateChoice
  /** The candidate leads already: only the follow-up is looked after. */
  readonly isAlreadyPrimary: boolean
  /** Nodes that must be proved unable to write before the promotion. */
  readonly oldPrimaries: readonly OldPrimary[]
  /** Standbys that are not meant to lead: the candidate gets from them what it lacks. */
  readonly reserves: readonly NodeName[]
  /** `needed`: an archive that confirms commits may hold one that no standby has; else what it has is worth having. */
  readonly archivedEnd: 'needed' | 'wanted'
  /** What the candidate is known to lack; null where nothing is known. */
  readonly lostBytes: number | null
}

/**
 * Decides a failover, or refuses it. More WAL beats a wish; a primary that answers is never passed over; what
 * cannot be known needs the operator's flag, what is known to be alive is stopped or refused.
 * @throws {ReplctlError} `primary-alive`, `primary-unproven`, `two-writers`, `no-candidate`, `not-promotable`, `standby-ahead`,
 * `confirmed-commits-at-risk`, `not-a-standby`, `disk-full`, `method-not-available`
 */
export function judgePromotion(
  inventory: Inventory,
  topology: Topology,
  wish: PromotionWish,
): PromotionDecision {
  const choice = chooseCandidate(topology)
  if (topology.writers.length > 1) throw twoWriters(topology)
  refuseBesideStray(topology)
  if (wish.node !== undefined && topology.primary === wish.node) {
    return {
      candidate: wish.node,
      choice,
      isAlreadyPrimary: true,
      oldPrimaries: formerPrimaries(inventory, topology, wish.node, wish.told),
      reserves: [],
      archivedEnd: 'wanted',
      lostBytes: null,
    }
  }
  if (topology.primary !== null && !(wish.node !== undefined && wish.allowSplitBrain)) {
    throw primaryAlive(topology, topology.primary, wish.node)
  }
  const closed = topology.primary === null ? closedPrimary(topology) : undefined
  if (closed !== undefined && !(wish.node !== undefined && wish.allowSplitBrain)) {
    throw closedAlive(closed, wish.node)
  }
  const candidate = wish.node ?? choice.best
  if (candidate === null) throw noCandidate(topology, choice, wish)
  const oldPrimaries = formerPrimaries(inventory, topology, candidate, wish.told)
  refuseUnfit(topology, candidate, choice, wish)
  refuseBesideSeen(topology, candidate, oldPrimaries, wish.allowSplitBrain)
  refuseBesideWhoPromotes(topology, candidate, wish.told)
  // A fence command must not have run for a promotion that this version cannot do.
  const version = nodeOf(topology, candidate).facts.instance?.serverVersionNumber ?? 0
  choosePromotionMethod(Math.floor(version / 10_000), wish.method ?? 'auto')
  // Whoever allows the loss does not wait for them either.
  const reserves = wish.allowDataLoss ? [] : reservesOf(topology, candidate)
  if (!wish.allowDataLoss) {
    refuseIfOthersAreAhead(inventory, topology, candidate)
    refuseIfConfirmedCommitsMayBeElsewhere(inventory, topology, candidate, wish.told)
  }
  return {
    candidate,
    choice,
    isAlreadyPrimary: false,
    oldPrimaries,
    reserves,
    archivedEnd:
      !wish.allowDataLoss && mayArchiveAloneHaveCommits(inventory, topology, candidate, wish.told)
        ? 'needed'
        : 'wanted',
    lostBytes: knownGap(topology, candidate, reserves),
  }
}

/**
 * One that was begun, as it is taken back: nothing that speaks against going on with it keeps its old primary from its post.
 * @throws {ReplctlError} `two-writers`
 */
export function judgePromotionBack(
  inventory: Inventory,
  topology: Topology,
  candidate: NodeName,
  told: NodeName | undefined,
): PromotionDecision {
  if (topology.writers.length > 1) throw twoWriters(topology)
  return {
    candidate,
    choice: chooseCandidate(topology),
    isAlreadyPrimary: topology.primary === candidate,
    oldPrimaries: formerPrimaries(inventory, topology, candidate, told),
    reserves: reservesOf(topology, candidate),
    archivedEnd: 'wanted',
    lostBytes: null,
  }
}

/** The node where a primary of this cluster answers that does not run in the data directory; undefined: there is none. */
export function strayPrimary({ nodes }: Pick<Topology, 'nodes'>): ObservedNode | undefined {
  const ours = clusterIdentifier(nodes.map(({ facts }) => facts))
  return nodes.find(
    ({ facts: { strayInstance } }) =>
      strayInstance?.isInRecovery === false && (ours === null || strayInstance.systemIdentifier === ours),
  )
}

export function strayAlive({ settings: { name, postgres } }: ObservedNode): ReplctlError {
  return new ReplctlError('primary-alive', `a primary of this cluster answers on ${name}`, {
    detail: `It does not run in ${postgres.dataDir}: that was moved, or data_dir in the inventory is wrong. So replctl cannot stop it, and another primary beside it would make two writers.`,
    hint: `Set data_dir of ${name} to where it runs (SHOW data_directory says where it was started), or stop it yourself.`,
    node: name,
  })
}

/**
 * Whoever answers in an old primary's place as a primary of this cluster is one, wherever its data lies.
 * @throws {ReplctlError} `primary-alive`
 */
export function refuseBesideStray(topology: Topology): void {
  const stray = strayPrimary(topology)
  if (stray !== undefined) throw strayAlive(stray)
}

/**
 * Whom replctl cannot reach the others may hear. A primary among them may be gone past only where it is to be fenced, and on no newer
 * timeline than the candidate: else the candidate is of a history that the cluster has left.
 */
function refuseBesideSeen(
  topology: Topology,
  candidate: NodeName,
  oldPrimaries: readonly OldPrimary[],
  allowSplitBrain: boolean,
): void {
  const own = nodeOf(topology, candidate).facts.instance?.timeline ?? 0
  for (const node of topology.nodes) {
    const { facts, settings } = node
    const answer = facts.seenByOthers
    if (facts.unreachable === null || answer === undefined) continue
    const isToFence = oldPrimaries.some((one) => one.node === settings.name)
    const isNewer = (answer.timeline ?? 0) > own
    if (isNewer || (answer.role === 'primary' && !isToFence)) throw seenAlive(node, answer, candidate)
    if (answer.role === 'unknown' && !isToFence && !allowSplitBrain) throw seenUnknown(node, answer)
  }
}

/** One that cannot be reached, and that others hear as a primary, or as a standby of a timeline that is newer than what answers. */
export function seenAlive({ settings }: ObservedNode, answer: PeerAnswer, candidate: NodeName): ReplctlError {
  const { name, host } = settings
  const isPrimary = answer.role === 'primary'
  return new ReplctlError(
    'primary-alive',
    isPrimary
      ? `refused to promote ${candidate}: ${name} accepts writes`
      : `refused to promote ${candidate}: ${name} follows a newer primary`,
    {
      detail: `Only its SSH cannot be reached from here: it told ${answer.from} that it is a ${answer.role} on timeline ${answer.timeline}. ${
        isPrimary
          ? 'Promoting beside it would make two writers.'
          : `Another node was promoted then, of which ${candidate} does not know.`
      }`,
      hint: isPrimary
        ? `Restore SSH to ${host}, then look with "replctl status". If ${name} has to go, stop PostgreSQL there first.`
        : `Restore SSH to ${host}, or bring the node back that leads; then look with "replctl status".`,
      node: name,
    },
  )
}

function seenUnknown({ settings: { name, host } }: ObservedNode, { from, said }: PeerAnswer): ReplctlError {
  return new ReplctlError('primary-unproven', `cannot prove that ${name} is no primary`, {
    detail: `Only its SSH cannot be reached from here: something is at its port, and did not tell ${from} whether it leads: ${said}`,
    hint: `Restore SSH to ${host}, or stop PostgreSQL there. If you know that it does not lead: --allow-split-brain.`,
    node: name,
  })
}

/** Those that a promotion passes over unseen: whether one of them leads their port can tell, as the others see it. */
export function needsAskingAround(
  { nodes }: Topology,
  { isAlreadyPrimary, oldPrimaries }: PromotionDecision,
): boolean {
  return (
    !isAlreadyPrimary &&
    nodes.some(
      ({ facts }) => facts.unreachable !== null && oldPrimaries.every(({ node }) => node !== facts.name),
    )
  )
}

function refuseUnfit(
  topology: Topology,
  candidate: NodeName,
  choice: CandidateChoice,
  wish: PromotionWish,
): void {
  const node = nodeOf(topology, candidate)
  const refusal = whyItCannotLead(node, topology)
  const loss = refusal === null && !wish.allowDataLoss ? whyItWouldLose(node, topology) : null
  if (loss !== null) throw wouldLose(candidate, loss, choice)
  if (refusal === null) return
  if (node.facts.unreachable !== null) throw node.facts.unreachable
  if (refusal === whyItHasNoRoom(node.facts)) throw noRoomToLead(candidate, refusal, choice)
  const code = node.settings.promotable ? 'not-a-standby' : 'not-promotable'
  throw new ReplctlError(code, `cannot promote ${candidate}: ${refusal}`, {
    detail: tellChoice(choice),
    hint: wayOn(candidate, choice, wish),
    node: candidate,
  })
}

/** What else there is to do where the one that was named cannot lead. */
function wayOn(candidate: NodeName, { best }: CandidateChoice, wish: PromotionWish): string {
  const other = best === null ? null : `replctl promote ${best}`
  if (wish.told === candidate) {
    const isLost = other === null ? '' : ` If it is lost for good: ${other}`
    return `It was told to promote, and may have led: start PostgreSQL on ${candidate}, then: replctl resume.${isLost}`
  }
  const way =
    other === null
      ? 'No node can be promoted now. Bring a standby back first.'
      : `The best candidate is ${best}: ${other}`
  return wish.canBeTakenBack === true ? `${way}${other === null ? '' : '.'} ${takeBack}` : way
}

const takeBack = 'To take back what was begun: replctl abort'

function wouldLose(candidate: NodeName, why: string, choice: CandidateChoice): ReplctlError {
  const best =
    choice.best === null
      ? 'Bring a node of the newest timeline back first.'
      : `The best candidate is ${choice.best}: replctl promote ${choice.best}.`
  return new ReplctlError('confirmed-commits-at-risk', `refused to promote ${candidate}: ${why}`, {
    detail: tellChoice(choice),
    hint: `${best} To give up all that was written since: --allow-data-loss.`,
    node: candidate,
  })
}

/** It was told, and there is no way to take that back: as soon as it has replayed what it has, it leads. */
function refuseBesideWhoPromotes(topology: Topology, candidate: NodeName, told: NodeName | undefined): void {
  if (told === undefined || told === candidate) return
  if (nodeOf(topology, told).facts.instance?.isInRecovery !== true) return
  throw new ReplctlError(
    'operation-unfinished',
    `refused to promote ${candidate}: ${told} was told to promote`,
    {
      detail: `It is still in recovery, and leads as soon as it has replayed what it has.`,
      hint: `Go on with it: replctl promote ${told}. If it must not lead, stop PostgreSQL on ${told} first.`,
      node: told,
    },
  )
}

function refuseIfOthersAreAhead(inventory: Inventory, topology: Topology, candidate: NodeName): void {
  const reserves = reservesOf(topology, candidate)
  const ahead = nodesAhead(topology, candidate)
    .filter(({ node }) => !reserves.includes(node))
    .toSorted((a, b) => b.bytes - a.bytes)
  // While it still streams, a little less only means that it was asked a moment earlier: the runbook looks again.
  const isClose = (ahead[0]?.bytes ?? 0) <= inventory.replication.maxCandidateLagBytes
  if (isClose && isReceiving(nodeOf(topology, candidate).facts)) return
  const first =
    ahead.find(({ node }) => whyItCannotLead(nodeOf(topology, node), topology) === null) ?? ahead[0]
  if (first === undefined) return
  const list = ahead.map(({ node, bytes }) => `${node} by ${bytes} bytes`).join(', ')
  throw new ReplctlError('standby-ahead', `refused to promote ${candidate}: ${first.node} has more WAL`, {
    detail: `${candidate} has received ${receivedLsn(nodeOf(topology, candidate).facts)}. Ahead of it: ${list}.`,
    hint: `${wayToLead(inventory, nodeOf(topology, first.node), topology)} To give up what ${candidate} lacks: --allow-data-loss.`,
    node: candidate,
  })
}

/** How the one that has more comes to lead. */
function wayToLead({ path }: Inventory, node: ObservedNode, topology: Topology): string {
  const { name, promotable } = node.settings
  const promote = `replctl promote ${name}`
  const why = whyItCannotLead(node, topology)
  if (why === null) return `Promote the most advanced standby: ${promote}.`
  // Nobody but the operator may say that it may lead after all.
  return promotable
    ? `${name} cannot lead as it is: ${why}. Mend that, then: ${promote}.`
    : `${name} may not lead: take "promotable: false" away from it in ${path}, then: ${promote}.`
}

function refuseIfConfirmedCommitsMayBeElsewhere(
  inventory: Inventory,
  topology: Topology,
  candidate: NodeName,
  told: NodeName | undefined,
): void {
  const needs = confirmationsNeeded(inventory, topology)
  if (needs === 0) return
  const { missing, unknown, needed } = confirmersOf(inventory, topology, candidate, told)
  const absent = [...missing.map((node) => node.settings.name), ...unknown]
  if (absent.length === 0 || absent.length < needed) return
  const names = absent.join(', ')
  const archive =
    confirmingArchive(inventory) === null ? '' : ' (the archive counts as one, and will be asked)'
  throw new ReplctlError(
    'confirmed-commits-at-risk',
    `refused to promote ${candidate}: ${names} may hold confirmed commits that it lacks`,
    {
      detail: `A commit is confirmed once ${needs} standby(s) have it${archive}, and ${names} cannot be asked now.${
        unknown.length === 0 ? '' : ` ${inventory.path} lacks ${unknown.join(', ')}.`
      }`,
      hint: `${unknown.length === 0 ? '' : `Put ${unknown.join(', ')} into the inventory. `}Bring ${names} back and run promote again. To go on without it and lose such commits: --allow-data-loss.`,
      node: candidate,
    },
  )
}

/** Whether a commit may have been confirmed by the archive, and by nobody else who can be asked now. */
function mayArchiveAloneHaveCommits(
  inventory: Inventory,
  topology: Topology,
  candidate: NodeName,
  told: NodeName | undefined,
): boolean {
  if (confirmingArchive(inventory) === null) return false
  const { missing, unknown, needed } = confirmersOf(inventory, topology, candidate, told)
  return missing.length + unknown.length + 1 >= needed
}

/** One line for each node: why it was chosen, or not. */
export function tellChoice(choice: CandidateChoice): string {
  return choice.verdicts.map((verdict) => `${verdict.node}: ${verdict.reason}.`).join(' ')
}

function primaryAlive(topology: Topology, primary: NodeName, wished: NodeName | undefined): ReplctlError {
  const unfit = wished === undefined ? null : whyItCannotLead(nodeOf(topology, wished), topology)
  const target = wished === undefined ? '' : ` ${wished}`
  return new ReplctlError('primary-alive', `refused to promote${target}: the primary ${primary} answers`, {
    detail: `${primary} is out of recovery and accepts writes. Promoting beside it would make two writers.`,
    hint: `Stop ${primary} first if it has to go.${
      wished === undefined
        ? ''
        : unfit !== null
          ? ` ${wished} cannot take its place: ${unfit}.`
          : ` To have replctl stop and fence it before the promotion: replctl promote ${wished} --allow-split-brain`
    }`,
    node: primary,
  })
}

/** It answers, and nobody gets in: that is no reason to take the lead from it. */
function closedAlive(
  { settings: { name }, facts }: ObservedNode,
  wished: NodeName | undefined,
): ReplctlError {
  const target = wished === undefined || wished === name ? '' : ` ${wished}`
  return new ReplctlError('primary-alive', `refused to promote${target}: the primary ${name} answers`, {
    detail: `It ${whyClosed(facts)}: ${facts.instanceError?.message}. Its pg_control says "in production".`,
    hint: `${wayIn(facts)} To have replctl stop and fence it before a promotion: replctl promote NODE --allow-split-brain`,
    node: name,
  })
}

/** What opens a server that answers and lets nobody in. */
export const wayIn = (facts: NodeFacts): string =>
  whyClosed(facts) === 'has no connection free'
    ? 'End some of its sessions, or raise max_connections.'
    : 'Let the PostgreSQL OS user of its host log in there (pg_hba.conf, the role, postgres.database).'

/** Nothing but its disk speaks against this one. */
export function noRoomToLead(node: NodeName, shortage: string, choice: CandidateChoice): ReplctlError {
  const other = choice.best === null ? '' : ` Or take the best candidate: replctl promote ${choice.best}`
  return new ReplctlError('disk-full', `${node} has no room to lead: ${shortage}`, {
    detail: `It would crash when it is promoted. ${tellChoice(choice)}`,
    hint: `Free some space on ${node} (never in pg_wal), then run the command again.${other}`,
    node,
  })
}

function noCandidate(topology: Topology, choice: CandidateChoice, wish: PromotionWish): ReplctlError {
  for (const { node, reason } of choice.verdicts) {
    if (reason === whyItHasNoRoom(nodeOf(topology, node).facts)) return noRoomToLead(node, reason, choice)
  }
  return new ReplctlError('no-candidate', 'no node can be promoted', {
    detail: tellChoice(choice),
    hint: `Bring a standby back, then run promote again. "replctl status" shows every node.${
      wish.canBeTakenBack === true ? ` ${takeBack}` : ''
    }`,
  })
}
