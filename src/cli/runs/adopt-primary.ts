import type { NodeFacts } from '../../cluster/facts.ts'
import type { NodeSettings } from '../../cluster/inventory.ts'
import { namesGivenUp, standbysLeftBehind } from '../../cluster/judge-adoption.ts'
import { refusalOfRoleChange } from '../../cluster/judge-role-change.ts'
import { refusalOfUnknownMember } from '../../cluster/judge-unknown-member.ts'
import type { NodeName } from '../../cluster/names.ts'
import { problemOf } from '../../cluster/problem.ts'
import { factsOf } from '../../cluster/topology.ts'
import { ReplctlError } from '../../errors.ts'
import type { Node } from '../../node/node.ts'
import { type AdoptionReport, adoptionText } from '../../report/adoption.ts'
import { adoptPrimary as adoptPrimarySteps } from '../../runbooks/adopt-primary.ts'
import { type AdoptionAssessment, type AdoptionWish, assessAdoption } from '../../steps/assess-adoption.ts'
import { adoptionRefusal } from '../../steps/require-adoptable.ts'
import { askYes, canAsk } from '../ask-yes.ts'
import type { ClusterSession } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
import { type Decision, type Observation, operate, paintOf, requireReachable } from '../operation.ts'
import { refuseFormerMember, refuseSecondPrimary, wishFor } from './init-primary.ts'

/** `replctl init primary [NODE] --adopt`. */
export async function adoptPrimary(call: Call, session: ClusterSession, node: NodeSettings): Promise<Answer> {
  return await operate(call, {
    session,
    wish: { node: node.name, adopt: true },
    decide: (observation) => decide(call, session, node, observation),
  })
}

async function decide(
  call: Call,
  session: ClusterSession,
  settings: NodeSettings,
  observation: Observation,
): Promise<Decision> {
  const { inventory, templates } = session
  const input = { inventory, templates }
  requireReachable(observation.survey, [settings.name])
  const node = session.nodes.get(settings.name)
  if (node === undefined) throw new RangeError(`no connection to node ${settings.name}`)
  const wish = await wishFor(observation, inventory, node)
  const plan = adoptPrimarySteps(input, settings, wish)
  // What was begun can be taken back whatever the instance looks like now.
  if (call.options.isAbort === true) return { plan }
  refuseSecondPrimary(observation, settings.name)
  refuseFormerMember(observation, settings.name)
  const refusedFor =
    refusalOfUnknownMember(inventory, observation.topology) ??
    refusalOfRoleChange(inventory, observation.topology, [])
  if (refusedFor !== null) throw refusedFor
  const facts = factsOf(observation.survey, settings.name)
  const refusal = await adoptionRefusal(node, facts)
  if (refusal !== null) throw refusal
  const assessment = await assessOrRefuse(node, facts, {
    ...input,
    standbys: wish.confirming,
  })
  const report = reportOf(assessment)
  showDiff(call, facts, report)
  const leftBehind = standbysLeftBehind(facts, assessment.changes)
  // A run that stopped part-way had its yes.
  if (observation.resumed === null) {
    await confirmRestart(call, facts, assessment, leftBehind)
    await confirmAsynchronous(call, facts, assessment)
  }
  return {
    plan,
    problems: leftBehind === null ? [] : [problemOf(leftBehind, 'warning')],
    result: (after) => {
      const { control, instance } = factsOf(after.survey, settings.name)
      return {
        node: settings.name,
        system_identifier: instance?.systemIdentifier ?? control?.systemIdentifier ?? null,
        timeline: instance?.timeline ?? null,
        ...report,
      }
    },
    text: (_after, outcome, paint) =>
      outcome.hasChanged
        ? `${paint.strong(settings.name)} is taken over as the primary of cluster ${inventory.cluster}.\nNext: replctl add-standby NODE…\n`
        : `${paint.strong(settings.name)} is the primary of cluster ${inventory.cluster} already.\n`,
  }
}

async function assessOrRefuse(node: Node, facts: NodeFacts, wish: AdoptionWish): Promise<AdoptionAssessment> {
  const assessment = await assessAdoption(node, facts, wish)
  if (assessment.refusal !== null) throw assessment.refusal
  return assessment
}

function reportOf({ changes, isRestartNeeded, added }: AdoptionAssessment): AdoptionReport {
  return {
    settings: changes.map(({ name, live, needed, change, canWait }) => ({
      ...{ name, live: live ?? null, needed, change, can_wait: canWait },
    })),
    restart_needed: isRestartNeeded,
    added,
  }
}

function showDiff(call: Call, facts: NodeFacts, report: AdoptionReport): void {
  if (call.flags.isQuiet || call.flags.isJson) return
  call.io.writeError(`${adoptionText(facts.name, facts.instance !== null, report, paintOf(call))}\n`)
}

/** Nothing is restarted without a yes, and nothing is changed before it. */
async function confirmRestart(
  call: Call,
  { name }: NodeFacts,
  assessment: AdoptionAssessment,
  leftBehind: ReplctlError | null,
): Promise<void> {
  if (!assessment.isRestartNeeded) return
  const needing = assessment.changes.filter((one) => one.change === 'restart' && !one.canWait)
  const list = needing.map((one) => `${one.name} (${one.live ?? 'unknown'} -> ${one.needed})`).join(', ')
  const before = leftBehind === null ? '' : `${leftBehind.detail} `
  await confirm(call, {
    node: name,
    question: `${before}Restart PostgreSQL on ${name} now? Its sessions are ended.`,
    message: `adopting ${name} needs a restart of PostgreSQL`,
    detail: `${before}It is needed for ${list}.`,
    hint: `Say yes beforehand, when a restart suits: replctl init primary ${name} --adopt --yes`,
  })
}

/** Commits that wait for a standby go on waiting unless that is given up knowingly. */
async function confirmAsynchronous(
  call: Call,
  { name }: NodeFacts,
  { changes }: AdoptionAssessment,
): Promise<void> {
  const names = namesGivenUp(changes)
  if (names === null) return
  await confirm(call, {
    node: name,
    question: `Commits on ${name} wait for '${names}'. With replication.mode async they will not any more. Go on?`,
    message: `adopting ${name} would have no commit wait for a standby`,
    detail: `synchronous_standby_names is '${names}', and replication.mode of the inventory is async.`,
    hint: `Set replication.mode to sync or quorum: then it stays until standbys are added. Or give it up: replctl init primary ${name} --adopt --yes`,
  })
}

interface Question {
  readonly node: NodeName
  readonly question: string
  readonly message: string
  readonly detail: string
  readonly hint: string
}

/** @throws {ReplctlError} `confirmation-needed` without a yes, at the terminal or beforehand */
async function confirm(call: Call, { node, question, message, detail, hint }: Question): Promise<void> {
  if (call.flags.isYes || call.flags.isDryRun) return
  const isAsked = canAsk(call)
  if (isAsked && (await askYes(call, question))) return
  if (call.signal.aborted)
    throw new ReplctlError('interrupted', 'interrupted by a signal', { detail: 'Nothing was changed.', node })
  throw new ReplctlError('confirmation-needed', message, {
    detail: `${detail} ${isAsked ? 'You did not say yes.' : 'There is no terminal to ask at.'} Nothing was changed.`,
    hint,
    node,
  })
}
