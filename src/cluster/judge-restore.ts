import { ReplctlError } from '../errors.ts'
import { formerPrimaries } from './former-primaries.ts'
import type { Inventory, NodeSettings } from './inventory.ts'
import { refuseBesideStray } from './judge-promotion.ts'
import type { NodeName } from './names.ts'
import { isForeign } from './record.ts'
import { isRunningStandby, type Topology } from './topology.ts'
import { twoWriters } from './two-writers.ts'
import { wayBack } from './way-back.ts'

/** What stands in the way of making a restored node the cluster's primary, and what has to be done about it. */
export interface RestoreVerdict {
  /** Stopped instances that would come up read-write. */
  readonly toFence: readonly NodeName[]
  /** Hosts that cannot be reached and may carry the primary. */
  readonly unreachable: readonly NodeName[]
  /** A node that led, whose host answers and holds no instance of it. */
  readonly absent: readonly NodeName[]
  /** Nodes whose data has another past than the restored one. */
  readonly toReclone: readonly NodeName[]
  /** Nodes that answer, the restored one excepted. */
  readonly others: readonly NodeName[]
}

/**
 * Judges a restore into a node's own data directory, by the rules of a promotion: nobody may be left who writes. `isGoingOn`: what
 * answers on the node itself is the restore's own instance, which recovered alone.
 * @throws {ReplctlError} `primary-alive`, `two-writers`, or why the node cannot be reached
 */
export function judgeRestore(
  inventory: Inventory,
  topology: Topology,
  node: NodeSettings,
  { isGoingOn = false }: { readonly isGoingOn?: boolean } = {},
): RestoreVerdict {
  if (topology.writers.length > 1) throw twoWriters(topology)
  refuseBesideStray(topology)
  const survey = topology.nodes.map((one) => one.facts)
  const own = survey.find((facts) => facts.name === node.name)
  if (own?.unreachable) throw own.unreachable
  const before = isGoingOn ? withoutInstanceOf(topology, node.name) : topology
  const former = formerPrimaries(inventory, before, node.name)
  const leads = isGoingOn && topology.primary === node.name ? null : topology.primary
  if (leads === node.name && own?.mark?.phase === 'cloning') throw wasStarted(node)
  const alive = leads ?? former.find((one) => one.state === 'to-stop')?.node
  if (alive !== undefined && alive !== null) throw primaryAnswers(alive, node.name)
  const others = survey.filter((facts) => facts.name !== node.name && facts.unreachable === null)
  return {
    toFence: former.filter((one) => one.state === 'stopped').map((one) => one.node),
    unreachable: former.filter((one) => one.state === 'unreachable').map((one) => one.node),
    absent: former.filter((one) => one.state === 'absent').map((one) => one.node),
    toReclone: others
      .filter(
        (facts) =>
          !isForeign(facts, survey) && (isRunningStandby(facts) || facts.dataDirectoryState === 'instance'),
      )
      .map((facts) => facts.name),
    others: others.map((facts) => facts.name),
  }
}

/** As the cluster looked when the restore began: what recovered alone says nothing of who led. */
const withoutInstanceOf = (topology: Topology, name: NodeName): Topology => ({
  ...topology,
  primary: topology.primary === name ? null : topology.primary,
  nodes: topology.nodes.map((node) =>
    node.facts.name === name ? { ...node, facts: { ...node.facts, instance: null } } : node,
  ),
})

/** Nobody but the restore itself may have started it: applications may have written to it since. */
export function wasStarted({ name }: NodeSettings): ReplctlError {
  return new ReplctlError('primary-alive', `what is being restored on ${name} was started by somebody else`, {
    detail:
      'It accepts writes, and may hold commits that are nowhere else: replctl neither goes on with it nor removes it.',
    hint: `Look at what was written there. To restore all the same: stop it yourself, then run the command again.`,
    node: name,
  })
}

function primaryAnswers(primary: NodeName, node: NodeName): ReplctlError {
  return new ReplctlError(
    'primary-alive',
    `refused to restore onto ${node}: the primary ${primary} answers`,
    {
      detail: 'A restore into a node’s own data directory makes it the primary; two would write.',
      hint: `To look at old data beside the cluster: replctl restore ${node} --data-dir DIR. To go back with the whole cluster, stop ${primary} first.`,
      node: primary,
    },
  )
}

/** A warning for each node that cannot follow the restored primary. */
export function needsReclone(node: NodeName, primary: NodeName): ReplctlError {
  return new ReplctlError('node-diverged', `${node} has another past than ${primary} and cannot follow it`, {
    detail: `${primary} was restored from a backup, onto a new timeline.`,
    hint: wayBack(node),
    node,
  })
}
