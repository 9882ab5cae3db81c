import { ReplctlError } from '../errors.ts'
import { lsnDistance } from '../postgres/lsn.ts'
import { type CandidateChoice, chooseCandidate, whyItCannotLead, whyItWouldLose } from './choose-candidate.ts'
import type { NodeFacts } from './facts.ts'
import { insufficientSettings, refuseInsufficient } from './insufficient-settings.ts'
import type { Inventory, NodeSettings } from './inventory.ts'
import { tellChoice } from './judge-promotion.ts'
import { judgeSuccessor, notMeantToLead } from './judge-successor.ts'
import type { NodeName } from './names.ts'
import { commonRecord, identifierOf } from './record.ts'
import { confirmingStandbys, meantRoles, neverConfirming, type Roles } from './roles.ts'
import { noRoomForWal, whyItHasNoRoom } from './room-to-lead.ts'
import { hasDiverged, isRunningStandby, nodeOf, type ObservedNode, type Topology } from './topology.ts'
import { twoWriters } from './two-writers.ts'

/** Who hands over to whom. */
export interface Exchange {
  readonly oldPrimary: NodeName
  readonly candidate: NodeName
}

export interface SwitchoverWish {
  readonly node: NodeName | undefined
  /** Of a switchover that was begun and not finished: they stay. */
  readonly begun: Exchange | null
}

export type SwitchoverDecision =
  | { readonly is: 'already'; readonly primary: NodeName; readonly choice: CandidateChoice }
  | ({ readonly is: 'to-do'; readonly choice: CandidateChoice } & Exchange)

/** WAL that standbys lack for a moment only, because they were asked at different times. */
const momentBytes = 1_048_576

/**
 * Decides who takes over from whom, or refuses.
 * @throws {ReplctlError} `two-writers`, `no-primary`, `no-candidate`, `not-a-standby`, `disk-full`,
 * `operation-unfinished`
 */
export function judgeSwitchover(
  inventory: Inventory,
  topology: Topology,
  { node, begun }: SwitchoverWish,
): SwitchoverDecision {
  const choice = chooseCandidate(topology)
  if (topology.writers.length > 1) throw twoWriters(topology)
  if (begun !== null) return { is: 'to-do', choice, ...goesOn(topology, begun) }
  const { primary } = topology
  if (primary === null) throw noPrimary(topology)
  if (node === primary) return { is: 'already', primary, choice }
  const candidate = node ?? chooseSuccessor(inventory, topology, primary)
  if (candidate === null) throw noCandidate(choice)
  refuseWhoIsNoStandby(topology, candidate, choice)
  return { is: 'to-do', oldPrimary: primary, candidate, choice }
}

/** An unfinished one goes on with the same two, unless a third leads meanwhile. */
function goesOn(topology: Topology, begun: Exchange): Exchange {
  const { primary } = topology
  if (primary === null || primary === begun.candidate || primary === begun.oldPrimary) return begun
  throw new ReplctlError(
    'operation-unfinished',
    `the switchover from ${begun.oldPrimary} to ${begun.candidate} cannot go on: ${primary} leads`,
    {
      detail: `It was promoted meanwhile, by hand or by another tool.`,
      hint: `To have the others follow ${primary}, and the switchover ended: replctl promote ${primary}`,
      node: primary,
    },
  )
}

/**
 * Of the standbys that are fit to take over, the one that `promote` would choose: in a switchover all of them get all WAL,
 * so what they lack for a moment does not count against a larger priority. Where none is fit, the first that only is not
 * fit yet: its refusal tells why.
 */
function chooseSuccessor(inventory: Inventory, topology: Topology, primary: NodeName): NodeName | null {
  const { verdicts } = chooseCandidate(topology)
  const able = verdicts.filter((verdict) => verdict.canLead).map((verdict) => nodeOf(topology, verdict.node))
  const primaryFacts = nodeOf(topology, primary).facts
  const fit = able.filter(
    ({ facts, settings }) =>
      judgeSuccessor({ primary: primaryFacts, candidate: facts, settings, inventory }) === null,
  )
  const isClose = ({ facts }: { facts: NodeFacts }) => {
    const [from, to] = [facts.instance?.receiveLsn ?? null, primaryFacts.instance?.currentLsn ?? null]
    return from !== null && to !== null && lsnDistance(from, to) <= momentBytes
  }
  const ranked = fit.toSorted(
    (a, b) => Number(isClose(b)) - Number(isClose(a)) || b.settings.priority - a.settings.priority,
  )
  const willing = able.find(({ facts, settings }) => notMeantToLead({ candidate: facts, settings }) === null)
  const paused = topology.nodes.find(({ facts }) => insufficientSettings(facts).length > 0)
  const full = topology.nodes.find((node) => {
    const refusal = whyItCannotLead(node, topology)
    return refusal !== null && refusal === whyItHasNoRoom(node.facts)
  })
  return (ranked[0] ?? willing ?? able[0] ?? paused ?? full)?.settings.name ?? null
}

function refuseWhoIsNoStandby(topology: Topology, candidate: NodeName, choice: CandidateChoice): void {
  const node = nodeOf(topology, candidate)
  const refusal = whyItCannotLead(node, topology) ?? whyItWouldLose(node, topology)
  if (refusal === null) return
  if (node.facts.unreachable !== null) throw node.facts.unreachable
  const low = refuseInsufficient(node.facts, `cannot switch over to ${candidate}`)
  if (low !== null) throw low
  if (refusal === whyItHasNoRoom(node.facts)) throw noRoomForWal(node.facts, refusal)
  throw new ReplctlError(
    node.settings.promotable ? 'not-a-standby' : 'not-promotable',
    `cannot switch over to ${candidate}: ${refusal}`,
    {
      detail: tellChoice(choice),
      hint: 'Name another standby, or bring this one back first: "replctl status" tells how.',
      node: candidate,
    },
  )
}

function noPrimary(topology: Topology): ReplctlError {
  const survey = topology.nodes.map((one) => one.facts)
  const led = commonRecord(survey)?.primary
  const unreachable = survey.find((facts) => facts.name === led)?.unreachable
  if (unreachable) return unreachable
  const isUnfinished = survey.some((facts) => facts.journal !== null)
  return new ReplctlError('no-primary', 'there is no primary to switch over from', {
    detail: 'No node that could be reached accepts writes.',
    hint: isUnfinished
      ? 'An operation stopped part-way: "replctl resume" finishes it, "replctl abort" takes it back.'
      : 'A switchover is for a primary that is well. If it is lost: replctl promote',
  })
}

function noCandidate(choice: CandidateChoice): ReplctlError {
  return new ReplctlError('no-candidate', 'there is no standby to switch over to', {
    detail: tellChoice(choice),
    hint: 'Add one (replctl add-standby), or bring one back. "replctl status" shows every node.',
  })
}

/** One node of the cluster, and whom it receives from once roles are exchanged. */
export interface Placement {
  readonly node: NodeSettings
  readonly upstream: NodeSettings
}

/** Everybody's place after the exchange. */
export interface NewOrder {
  readonly roles: Roles
  /** The old primary's. */
  readonly returning: Placement
  /** Running standbys beside the two. */
  readonly following: readonly Placement[]
  /** Members that are down: WAL is kept for them where they will ask for it. */
  readonly away: readonly Placement[]
  /** Running standbys that have left the common history: they cannot follow. */
  readonly astray: readonly NodeName[]
  /** All members of the cluster. */
  readonly members: readonly NodeName[]
  /** Members that confirm commits in sync and quorum mode. */
  readonly confirming: readonly NodeName[]
}

/** Where each node stands once `candidate` leads and the old primary is a standby. */
export function arrangeAfter(inventory: Inventory, topology: Topology, exchange: Exchange): NewOrder {
  const { oldPrimary, candidate } = exchange
  const survey = topology.nodes.map((one) => one.facts)
  const reference = survey.find((facts) => facts.name === (topology.primary ?? candidate))
  const identifier = identifierOf(nodeOf(topology, candidate).facts)
  const others = topology.nodes.filter((one) => ![oldPrimary, candidate].includes(one.settings.name))
  const running = others.filter(({ facts }) => isRunningStandby(facts) && identifierOf(facts) === identifier)
  const isAstray = ({ facts }: ObservedNode) => reference !== undefined && hasDiverged(facts, reference)
  const record = commonRecord(survey)
  const isMember = (name: NodeName) =>
    record === null || record.members.includes(name) || name === candidate || name === oldPrimary
  // One that was removed, and runs on, is nobody's to move.
  const following = namesOf(running.filter((one) => isMember(one.settings.name) && !isAstray(one)))
  const away = namesOf(
    others.filter(
      (one) => isMember(one.settings.name) && one.facts.instance === null && one.role !== 'fenced',
    ),
  )
  const roles = meantRoles(inventory, {
    ...{ primary: candidate, running: [oldPrimary, ...following], away },
    removedSlots: record?.removedSlots,
  })
  const placeOf = (name: NodeName): Placement => ({
    node: nodeOf(topology, name).settings,
    upstream: nodeOf(topology, roles.upstreams.get(name) ?? candidate).settings,
  })
  return {
    roles,
    returning: placeOf(oldPrimary),
    following: following.map(placeOf),
    away: away.map(placeOf),
    astray: namesOf(running.filter(isAstray)),
    members: inventory.nodes.map((one) => one.name).filter(isMember),
    confirming: confirmingStandbys(
      inventory,
      roles,
      neverConfirming(topology).filter((name) => name !== oldPrimary),
    ),
  }
}

const namesOf = (nodes: readonly ObservedNode[]) => nodes.map((one) => one.settings.name)

/** Groups placements so that everybody's upstream is placed before it; `first` are those who stand already. */
export function inWaves(
  placements: readonly Placement[],
  first: readonly NodeName[],
): readonly (readonly Placement[])[] {
  const ready = placements.filter(({ upstream }) => first.includes(upstream.name))
  if (ready.length === 0) return placements.length === 0 ? [] : [placements]
  const names = ready.map(({ node }) => node.name)
  return [
    ready,
    ...inWaves(
      placements.filter(({ node }) => !names.includes(node.name)),
      [...first, ...names],
    ),
  ]
}

/** Whether a node has left the primary's post in this switchover: its mark says so, and it no longer accepts writes. */
export function hasHandedOver(oldPrimary: NodeFacts, candidate: NodeFacts): boolean {
  const leads = candidate.instance?.isInRecovery === false
  const accepts = oldPrimary.instance?.isInRecovery === false
  return leads || (!accepts && oldPrimary.fence?.newPrimary === candidate.name)
}
