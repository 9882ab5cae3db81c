import { slotMayBeLeft } from '../../cluster/diagnose-slots.ts'
import type { Survey } from '../../cluster/facts.ts'
import type { Inventory, NodeSettings } from '../../cluster/inventory.ts'
import { refusalOfUnknownMember } from '../../cluster/judge-unknown-member.ts'
import type { NodeName } from '../../cluster/names.ts'
import { isOurStandby } from '../../cluster/our-standby.ts'
import { problemOf } from '../../cluster/problem.ts'
import { commonRecord } from '../../cluster/record.ts'
import { confirmingStandbys, liveRoles, neverConfirming } from '../../cluster/roles.ts'
import { movedWithout, stateDirectoryOf } from '../../cluster/state-directory.ts'
import { twoWriters } from '../../cluster/two-writers.ts'
import { ReplctlError } from '../../errors.ts'
import { removeStandby } from '../../runbooks/remove-standby.ts'
import { type ClusterSession, findNode, openCluster } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
import { type Decision, type Observation, operate, requireReachable } from '../operation.ts'

/** `replctl remove-standby NODE [--purge]`. */
export async function run(call: Call): Promise<Answer> {
  const session = await openCluster(call)
  try {
    const node = findNode(session.inventory, String(call.args[0]))
    const isPurge = call.options.purge === true
    return await operate(call, {
      session,
      wish: { node: node.name, isPurge },
      decide: (observation) => {
        const isForward = call.options.isAbort !== true
        const unknown = isForward ? refusalOfUnknownMember(session.inventory, observation.topology) : null
        if (unknown !== null) throw unknown
        return decide(session, observation, { node, isPurge })
      },
    })
  } finally {
    await session.close()
  }
}

/** What taking the node out comes to; refuses what must not be. */
export function decide(
  { inventory, templates }: ClusterSession,
  { survey, topology }: Observation,
  { node, isPurge }: { readonly node: NodeSettings; readonly isPurge: boolean },
): Decision {
  if (topology.writers.length > 1) throw twoWriters(topology)
  if (topology.primary === node.name) throw cannotRemovePrimary(node.name)
  if (topology.primary === null) {
    const dead = survey.find((facts) => facts.unreachable !== null && facts.name !== node.name)
    if (dead?.unreachable) throw dead.unreachable
    throw new ReplctlError('no-primary', 'there is no primary to take the standby out of', {
      hint: 'Bring the primary back, or promote a standby: replctl promote',
    })
  }
  const facts = survey.find((one) => one.name === node.name)
  if (isPurge) requireReachable(survey, [node.name])
  const isReachable = facts?.unreachable === null
  const primary = topology.primary
  const record = commonRecord(survey)
  const members = inventory.nodes
    .map((one) => one.name)
    .filter((name) => name !== node.name && (record === null || record.members.includes(name)))
  const staying = survey
    .filter((one) => one.name === primary || (one.name !== node.name && isOurStandby(one, survey)))
    .map((one) => one.name)
  const away = survey.filter(
    (one) => members.includes(one.name) && !staying.includes(one.name) && one.instance === null,
  )
  // A fenced former primary is a member and confirms nothing: to wait for it would block every write.
  const roles = liveRoles(inventory, topology, primary)
  const out = [node.name, ...neverConfirming(topology)]
  const confirming = confirmingStandbys(inventory, roles, out).filter(
    (name) => members.includes(name) && confirms(survey, primary, findNode(inventory, name)),
  )
  const followers = topology.nodes.filter((one) => one.upstream === node.name)
  if (followers.length > 0)
    throw hasFollowers(
      node.name,
      followers.map((one) => one.settings.name),
      primary,
    )
  return {
    plan: removeStandby(
      { inventory, templates },
      {
        standby: node.name,
        slot: node.slotName,
        isReachable,
        isPurge,
        primary,
        staying,
        stopped: away.filter((one) => one.unreachable === null).map((one) => one.name),
        members,
        confirming,
      },
    ),
    problems: [
      ...(isReachable || facts?.unreachable == null ? [] : [problemOf(facts.unreachable, 'warning')]),
      ...away
        .filter((one) => one.unreachable !== null)
        .map((one) => problemOf(slotMayBeLeft(one.name, node.slotName), 'warning')),
    ],
    result: () => ({ node: node.name, purged: isPurge }),
    text: (_after, _outcome, paint) =>
      `${paint.strong(node.name)} is out of cluster ${inventory.cluster}. Take it out of ${inventory.path} too, or add it again with "replctl add-standby ${node.name}".\n${keepStateDirectories(inventory, survey, node.name)}`,
  }
}

/** Whether the primary waits for this node's confirmation now, or may do so since it streams. */
function confirms(survey: Survey, primary: string | null, { name, applicationName }: NodeSettings): boolean {
  const facts = survey.find((one) => one.name === name)
  const waited =
    survey.find((one) => one.name === primary)?.instance?.settings.synchronous_standby_names?.value ?? ''
  return (facts !== undefined && isOurStandby(facts, survey)) || waited.includes(`"${applicationName}"`)
}

function cannotRemovePrimary(node: string): ReplctlError {
  return new ReplctlError('primary-alive', `refused to remove ${node}: it is the primary`, {
    hint: 'Only standbys can be removed.',
    node,
  })
}

function hasFollowers(node: string, followers: readonly string[], primary: string): ReplctlError {
  return new ReplctlError(
    'wrong-upstream',
    `refused to remove ${node}: ${followers.join(', ')} receive from it`,
    {
      hint: `Take "upstream: ${node}" out of the inventory, and first: ${followers
        .map((name) => `replctl follow ${name} --upstream ${primary}`)
        .join(', ')}`,
      node,
    },
  )
}

/** Neighbours on its host that have to be told where their state directory is before it leaves the inventory. */
function keepStateDirectories({ cluster, nodes }: Inventory, survey: Survey, removed: NodeName): string {
  const lines = movedWithout(cluster, nodes, removed).map((node) => {
    const home = survey.find((facts) => facts.name === node.name)?.home || '~'
    return `  ${node.name}: { state_dir: ${stateDirectoryOf(home, node)} }\n`
  })
  return lines.length === 0
    ? ''
    : `Before you do, write down there what else would be looked for in another place:\n${lines.join('')}`
}
