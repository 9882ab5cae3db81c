import { chooseCandidate } from '../../cluster/choose-candidate.ts'
import type { NodeFacts, Survey } from '../../cluster/facts.ts'
import type { Inventory } from '../../cluster/inventory.ts'
import type { NodeName } from '../../cluster/names.ts'
import { commonRecord } from '../../cluster/record.ts'
import { nodeOf, type Topology, timelineOf } from '../../cluster/topology.ts'
import type { Journal } from '../../engine/journal.ts'
import { ReplctlError } from '../../errors.ts'
import { fenceTitle } from '../../steps/fence-instance.ts'
import { mayHaveLed } from '../../steps/may-have-led.ts'
import { promotionTitle } from '../../steps/promote-instance.ts'
import type { ClusterSession } from '../cluster-session.ts'
import type { Observation } from '../operation.ts'

// What a promotion that was not finished says of itself, in its journal.

/** Whom a promotion without a name had chosen: it is taken back as it was begun, whoever would be chosen now. */
export function choiceBegun({ resumed, survey }: Observation): NodeName | undefined {
  if (resumed === null) return undefined
  const names = survey.map((facts) => facts.name)
  const isFencingFor = (name: NodeName, key: string) => key.endsWith(`: ${fenceTitle(name)}`)
  // Before the promotion all else that it changes is on the candidate.
  const isOf = (name: NodeName, key: string) =>
    names.some((one) => isFencingFor(one, key)) ? isFencingFor(name, key) : key.startsWith(`${name}: `)
  return names.find((name) => resumed.begun.some((key) => isOf(name, key)))
}

/**
 * A promotion that left its old primary fenced would not be taken back: whoever started that one made a standby of it.
 * @throws {ReplctlError} `cannot-abort`
 */
export function refuseToLeaveFenced(
  { resumed, survey }: Observation,
  candidate: NodeName,
  taken: readonly NodeName[],
): void {
  const left = survey.find(
    ({ name, unreachable }) =>
      unreachable === null &&
      !taken.includes(name) &&
      resumed?.begun.includes(`${name}: ${fenceTitle(candidate)}`),
  )
  if (left === undefined) return
  throw new ReplctlError(
    'cannot-abort',
    `${left.name} was fenced for ${candidate}, and is no stopped primary now`,
    {
      detail:
        left.instance === null ? 'Its data directory holds no instance.' : 'It was started, as a standby.',
      hint: `Stop PostgreSQL on ${left.name}, then: replctl abort. Or go on: replctl resume`,
      node: left.name,
    },
  )
}

/**
 * Whether it had been told to promote only its own journal says for sure.
 * @throws the reason why it cannot be reached (exit 4), with the ways out
 */
export function requireForAbort(survey: Survey, candidate: NodeName): void {
  const lost = survey.find((facts) => facts.name === candidate)?.unreachable
  if (!lost) return
  const fenced = survey.filter(({ fence }) => fence?.newPrimary === candidate).map(({ name }) => name)
  const back =
    fenced[0] === undefined
      ? ''
      : `, or start PostgreSQL on ${fenced[0]}, where it comes up as a standby, and give it its post back: replctl promote ${fenced[0]} --allow-data-loss --allow-split-brain`
  throw lost.with({
    hint: `${candidate} may have been promoted meanwhile: take it back, or go on, when ${candidate} is back. If it is lost for good, promote another standby (replctl promote)${back}`,
  })
}

/**
 * One that was told to promote is gone on with, and may lead already: only that it is named gives another one its place.
 * @throws the reason why it cannot be reached (exit 4), with the ways out
 */
export function requireTold(topology: Topology, told: NodeName): void {
  const lost = nodeOf(topology, told).facts.unreachable
  if (lost === null) return
  const { best } = chooseCandidate(topology)
  const other =
    best === null
      ? 'no other standby can be promoted now: bring one back, and name it to "replctl promote"'
      : `replctl promote ${best}`
  throw lost.with({
    hint: `${told} was told to promote, and may lead. When it is back: replctl resume. If it is lost for good: ${other}`,
  })
}

/**
 * Whom an operation that was not finished had told to promote, a switchover or an earlier promotion: one without a name goes on
 * with that node, and for any other it may be a second primary.
 */
export function toldToPromote({ unfinished }: Observation, { nodes }: Inventory): NodeName | undefined {
  // What gave way to an operation that was not finished, either, is as unfinished.
  for (let one = unfinished; one !== null; one = one.before ?? null) {
    const told = toldIn(
      one,
      nodes.map(({ name }) => name),
    )
    if (told !== undefined) return told
  }
  return undefined
}

/** All whom operations that were not finished had told to promote, whether or not the inventory has them. */
export function allToldToPromote({ unfinished }: Pick<Observation, 'unfinished'>): readonly string[] {
  const suffix = `: ${promotionTitle}`
  const told: string[] = []
  for (let one = unfinished; one !== null; one = one.before ?? null) {
    const keys = one.isPastPointOfNoReturn ? one.begun : []
    told.push(...keys.flatMap((key) => (key.endsWith(suffix) ? [key.slice(0, -suffix.length)] : [])))
  }
  return told
}

/** Whom this one operation had told to promote. */
function toldIn({ begun, isPastPointOfNoReturn }: Journal, names: readonly NodeName[]): NodeName | undefined {
  if (!isPastPointOfNoReturn) return undefined
  return names.find((name) => begun.includes(`${name}: ${promotionTitle}`))
}

/**
 * A promotion whose node went down over it, and certainly never led, has not crossed its point of no return: it can be taken
 * back, and another node may lead. Where the lock is not held nothing is done for the proof: what can be seen has to do.
 */
export async function forgetVainPromotions(
  session: Pick<ClusterSession, 'nodes'>,
  found: Journal,
  survey: Survey,
  isHeld: boolean,
): Promise<Journal> {
  const before =
    found.before === undefined ? undefined : await forgetVainPromotions(session, found.before, survey, isHeld)
  const journal = before === undefined ? found : { ...found, before }
  const told =
    journal.command === 'promote'
      ? toldIn(
          journal,
          survey.map(({ name }) => name),
        )
      : undefined
  const facts = survey.find(({ name }) => name === told)
  const node = [...session.nodes.values()].find(({ name }) => name === told)
  if (facts === undefined || node === undefined || !hasFailedToLead(facts, survey)) return journal
  if (isHeld && (await mayHaveLed(node))) return journal
  return { ...journal, isPastPointOfNoReturn: false }
}

/**
 * It is down as a standby of the timeline that is on record, and nobody has fenced it since: what is fenced may have led before.
 */
function hasFailedToLead(facts: NodeFacts, survey: Survey): boolean {
  const { unreachable, instance, postmaster, hasStandbySignal, fence, control } = facts
  if (unreachable !== null || instance !== null || postmaster?.isAlive === true) return false
  const isStandby = ['in archive recovery', 'shut down in recovery'].includes(control?.state ?? '')
  const record = commonRecord(survey)
  return (
    hasStandbySignal &&
    fence === null &&
    isStandby &&
    record !== null &&
    (timelineOf(facts) ?? 0) <= record.timeline
  )
}
