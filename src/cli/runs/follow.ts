import { judgeFollow } from '../../cluster/judge-follow.ts'
import { refusalOfUnknownMember } from '../../cluster/judge-unknown-member.ts'
import type { NodeName } from '../../cluster/names.ts'
import { type Problem, problemOf } from '../../cluster/problem.ts'
import { commonRecord, isForeign } from '../../cluster/record.ts'
import type { Journal } from '../../engine/journal.ts'
import { ReplctlError } from '../../errors.ts'
import { receivingText } from '../../report/receiving.ts'
import { follow } from '../../runbooks/follow.ts'
import { type ClusterSession, findNode, openCluster } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
import { type Decision, type Observation, operate, requireReachable } from '../operation.ts'

interface Wish {
  readonly node: NodeName
  readonly upstream: NodeName
}

const isFollow = ({ command }: Journal): boolean => command === 'follow'

/** `replctl follow NODE --upstream NODE`. */
export async function run(call: Call): Promise<Answer> {
  const session = await openCluster(call)
  try {
    const { inventory } = session
    const wish: Wish = {
      node: findNode(inventory, String(call.args[0])).name,
      upstream: findNode(inventory, String(call.options.upstream)).name,
    }
    if (wish.node === wish.upstream) throw followsItself(wish.node)
    return await operate(call, {
      session,
      wish: { ...wish },
      // It makes nobody lead: a promotion that stopped part-way can be finished, or taken back, afterwards. Another place for a
      // node is another wish, and the earlier one is over with it.
      isAside: (found) => !isFollow(found) || found.before !== undefined,
      replaces: (found) => isFollow(found) && !found.isPastPointOfNoReturn,
      decide: (observation) => decide(session, observation, wish),
    })
  } finally {
    await session.close()
  }
}

/** What following comes to; refuses what must not be. */
export function decide(
  session: ClusterSession,
  { survey, topology, resumed }: Observation,
  wish: Wish,
): Decision {
  const { inventory, templates } = session
  requireReachable(survey, [wish.node, wish.upstream])
  const judged = judgeFollow(inventory, topology, { ...wish, isResumed: resumed !== null })
  const unknown = resumed === null ? refusalOfUnknownMember(inventory, topology) : null
  if (unknown !== null) throw unknown
  const settingsOf = (name: NodeName) => findNode(inventory, name)
  const plan = follow(
    { inventory, templates },
    {
      node: settingsOf(wish.node),
      upstream: settingsOf(wish.upstream),
      former: judged.formerUpstream === null ? null : settingsOf(judged.formerUpstream),
      primary: judged.primary,
      rolesAfter: judged.rolesAfter,
      confirming: judged.confirming,
      running: survey
        .filter((facts) => facts.instance !== null && !isForeign(facts, survey))
        .map((facts) => facts.name),
      members: commonRecord(survey)?.members ?? [],
    },
  )
  return {
    plan,
    problems: otherWish(session, wish, judged.otherWish, topology.primary),
    result: (after) => {
      const node = after.topology.nodes.find((one) => one.settings.name === wish.node)
      return {
        node: wish.node,
        upstream: node?.upstream ?? null,
        former_upstream: judged.formerUpstream,
        wished_upstream: judged.otherWish ?? wish.upstream,
        state: node?.state ?? 'unknown',
        timeline: node?.facts.instance?.timeline ?? null,
      }
    },
    text: (after, _outcome, paint) => {
      const node = after.topology.nodes.find((one) => one.settings.name === wish.node)
      return `${paint.strong(wish.node)} ${receivingText(node, node?.upstream ?? null)}.\n`
    },
  }
}

/** The inventory is the operator's: it is not written, and `status` goes on to measure by it. */
function otherWish(
  { inventory }: ClusterSession,
  wish: Wish,
  expected: NodeName | null,
  primary: NodeName | null,
): readonly Problem[] {
  if (expected === null) return []
  const edit =
    wish.upstream === primary
      ? `take "upstream: ${expected}" away from`
      : `set "upstream: ${wish.upstream}" for`
  const error = new ReplctlError(
    'wrong-upstream',
    `the inventory wishes ${wish.node} to receive from ${expected}`,
    {
      detail: `It follows ${wish.upstream} now, and "replctl status" will call that wrong.`,
      hint: `If it is to stay so, ${edit} ${wish.node} in ${inventory.path}.`,
      node: wish.node,
    },
  )
  return [problemOf(error, 'warning')]
}

function followsItself(node: NodeName): ReplctlError {
  return new ReplctlError('usage', `${node} cannot follow itself`, {
    hint: 'Name the primary or another standby: replctl follow NODE --upstream OTHER',
  })
}
