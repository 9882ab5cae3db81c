import type { NodeSettings } from '../../cluster/inventory.ts'
import {
  arrangeAfter,
  type Exchange,
  judgeSwitchover,
  type NewOrder,
} from '../../cluster/judge-switchover.ts'
import { refusalOfUnknownMember } from '../../cluster/judge-unknown-member.ts'
import type { NodeName } from '../../cluster/names.ts'
import { type Problem, problemOf } from '../../cluster/problem.ts'
import { type Topology, thoseThatFollow } from '../../cluster/topology.ts'
import { twoWriters } from '../../cluster/two-writers.ts'
import { wayBack } from '../../cluster/way-back.ts'
import { inOrder } from '../../engine/step.ts'
import { ReplctlError } from '../../errors.ts'
import { promotionText } from '../../report/promotion.ts'
import { switchover } from '../../runbooks/switchover.ts'
import { Handover } from '../../steps/hand-over.ts'
import { rolesBegun } from '../../steps/prepare-demotion.ts'
import { type ClusterSession, findNode, openCluster } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
import { type Decision, type Observation, operate, requireReachable } from '../operation.ts'
import { foreseenProblems, synchronousProblems } from './synchronous-problems.ts'

/** `replctl switchover [NODE] [--allow-unarchived]`. */
export async function run(call: Call): Promise<Answer> {
  const session = await openCluster(call)
  try {
    const named = call.args[0] as string | undefined
    const node = named === undefined ? undefined : findNode(session.inventory, named).name
    const allowUnarchived = call.options.allowUnarchived === true
    return await operate(call, {
      session,
      wish: { node: node ?? null, allowUnarchived },
      depth: 'room',
      decide: (observation) => decide(call, session, observation, { node, allowUnarchived }),
    })
  } finally {
    await session.close()
  }
}

function decide(
  call: Call,
  session: ClusterSession,
  observation: Observation,
  { node, allowUnarchived }: { readonly node: NodeName | undefined; readonly allowUnarchived: boolean },
): Decision {
  const { inventory, templates } = session
  const { survey, topology, resumed } = observation
  const begun = resumed === null ? null : rolesBegun(resumed.begun)
  const toAct =
    begun === null ? [node].filter((one) => one !== undefined) : [begun.oldPrimary, begun.candidate]
  if (begun !== null) requireForResume(survey, topology, begun)
  requireReachable(survey, toAct)
  if (survey.every((facts) => facts.unreachable !== null)) {
    requireReachable(
      survey,
      survey.map((one) => one.name),
    )
  }
  const judged = judgeSwitchover(inventory, topology, { node, begun })
  if (judged.is === 'already') return leadsAlready(judged.primary)
  // It would be no member of the new order, and nobody would keep WAL for it.
  const unknown = begun === null ? refusalOfUnknownMember(inventory, topology) : null
  if (unknown !== null) throw unknown
  const order = arrangeAfter(inventory, topology, judged)
  const settingsOf = (name: NodeName): NodeSettings => findNode(inventory, name)
  const others = [judged.candidate, ...order.following.map((one) => one.node.name)]
  const running = [order.returning, ...order.following].map((one) => one.node.name)
  const handover = new Handover(judged, others, inventory)
  let writersLeft: Topology | null = null
  return {
    plan: switchover(
      { inventory, templates },
      {
        oldPrimary: settingsOf(judged.oldPrimary),
        candidate: settingsOf(judged.candidate),
        order,
        allowUnarchived,
        handover,
      },
    ),
    problems: [
      ...bystanderProblems(observation, order),
      ...(call.flags.isDryRun && call.options.isAbort !== true
        ? foreseenProblems(inventory, { primary: judged.candidate, confirming: order.confirming, running })
        : []),
    ],
    afterwards: ({ topology: now }) => synchronousProblems(inventory, now),
    shortfall: () => (writersLeft === null ? null : twoWriters(writersLeft)),
    result: (after) => {
      writersLeft = after.topology.writers.length > 1 ? after.topology : null
      return resultOf(after, judged, {
        repointed: thoseThatFollow(after.topology, running),
        writeOutageMs: handover.writeOutageMs,
      })
    },
    text: (_after, _outcome, paint, result) =>
      promotionText(
        result as never,
        judged.choice.verdicts.filter(({ node: one }) => one !== judged.oldPrimary),
        paint,
      ),
  }
}

/** Of one that was begun both have to answer: where one of them is lost for good, there is another end to it. */
function requireForResume(
  survey: Observation['survey'],
  { primary }: Topology,
  { oldPrimary, candidate }: Exchange,
): void {
  const lostOf = (name: NodeName) => survey.find((facts) => facts.name === name)?.unreachable
  if (primary === candidate) {
    throwWith(
      lostOf(oldPrimary),
      `${candidate} leads. Go on when ${oldPrimary} is back; if it is lost for good, finish without it: replctl promote ${candidate}`,
    )
  }
  if (primary === oldPrimary) {
    throwWith(
      lostOf(candidate),
      `${oldPrimary} leads. Go on, or take it back, when ${candidate} is back; if it is lost for good: replctl remove-standby ${candidate}`,
    )
  }
  if (primary === null) {
    throwWith(
      lostOf(candidate),
      `${oldPrimary} is stopped, and ${candidate} may have been promoted meanwhile. Go on, or take it back, when ${candidate} is back. If it is lost for good, promote another standby (replctl promote), or start PostgreSQL on ${oldPrimary}, where it comes up as a standby, and give it its post back: replctl promote ${oldPrimary} --allow-data-loss --allow-split-brain`,
    )
  }
}

function throwWith(lost: ReplctlError | null | undefined, hint: string): void {
  if (lost) throw lost.with({ hint })
}

/** Members that are down, or went astray, stop nothing: what becomes of them is said. */
function bystanderProblems({ survey }: Observation, order: NewOrder): readonly Problem[] {
  const down = order.away.filter(
    ({ node }) => survey.find((facts) => facts.name === node.name)?.unreachable === null,
  )
  return [
    ...down.map(({ node: { name } }) =>
      problemOf(
        new ReplctlError('instance-stopped', `PostgreSQL does not run on ${name}`, {
          hint: `Bring it back as a standby: replctl add-standby ${name}`,
          node: name,
        }),
        'warning',
      ),
    ),
    ...order.astray.map((name) =>
      problemOf(
        new ReplctlError('node-diverged', `${name} has left the cluster's history and follows nobody`, {
          hint: wayBack(name),
          node: name,
        }),
        'warning',
      ),
    ),
  ]
}

function leadsAlready(primary: NodeName): Decision {
  const nothing = { repointed: [], writeOutageMs: null }
  return {
    plan: inOrder([]),
    result: (after) => ({
      ...resultOf(after, { oldPrimary: primary, candidate: primary }, nothing),
      // As `promote` says it: nobody led before it.
      old_primary: null,
    }),
    text: () => `${primary} is the primary already; nothing was changed.\n`,
  }
}

function resultOf(
  after: Observation,
  { oldPrimary, candidate }: Exchange,
  done: { readonly repointed: readonly string[]; readonly writeOutageMs: number | null },
): object {
  const instance = after.survey.find((facts) => facts.name === candidate)?.instance
  return {
    old_primary: oldPrimary,
    new_primary: candidate,
    timeline: instance?.timeline ?? null,
    lsn: instance?.currentLsn ?? null,
    repointed: done.repointed,
    fenced: false,
    write_outage_ms: done.writeOutageMs,
    lost_bytes: 0,
  }
}
