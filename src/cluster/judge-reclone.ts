import { ReplctlError } from '../errors.ts'
import { parseSynchronousStandbyNames } from '../postgres/synchronous-standby-names.ts'
import { silentStandbys } from './diagnose-synchronous.ts'
import type { NodeFacts } from './facts.ts'
import type { Inventory, NodeSettings } from './inventory.ts'
import type { NodeName } from './names.ts'
import { confirmingArchive, type Roles } from './roles.ts'
import { isRunningStandby, isSupplied, nodeOf, type ObservedNode, type Topology } from './topology.ts'

/** Standbys that are to be cloned anew, and the command that asks for it. */
export interface RecloneWish {
  readonly replaced: readonly NodeName[]
  /** e.g. `replctl add-standby pg2 --reclone` */
  readonly command: string
}

/**
 * What may not be taken away for as long as a copy takes: a standby that commits wait for, or that others receive from.
 * @throws {ReplctlError} `writes-blocked`, `wrong-upstream`
 */
export function refuseReclone(inventory: Inventory, topology: Topology, wish: RecloneWish): void {
  refuseToBlockWrites(inventory, topology, wish)
  refuseToCutOff(topology, wish)
}

/** What stands there is the copy that an operation under way has made: nothing of the old standby is left to be replaced. */
export function isNewClone({ mark, dataDirectoryInode }: NodeFacts): boolean {
  return mark?.phase === 'cloned' && mark.inode === dataDirectoryInode
}

/**
 * A standby that commits wait for is not taken away for as long as a copy takes, where too few others would be left: every write
 * would hang. One that does not confirm now blocks nothing more by it, and a new clone may be what mends it. Who confirms is the
 * server's word, whatever the inventory wishes.
 */
function refuseToBlockWrites(
  inventory: Inventory,
  topology: Topology,
  { replaced, command }: RecloneWish,
): void {
  const { primary } = topology
  const instance = primary === null ? null : nodeOf(topology, primary).facts.instance
  const value = instance?.settings.synchronous_standby_names?.value ?? ''
  const live = parseSynchronousStandbyNames(value)
  if (primary === null || instance === null || live === null) return
  const isSilent = silentStandbys(topology, confirmingArchive(inventory), instance)
  const confirming = instance.replication
    .filter((one) => one.state === 'streaming' && one.syncState !== 'async' && !isSilent(one))
    .map((one) => one.applicationName)
  const nameOf = (node: NodeName) => nodeOf(topology, node).settings.applicationName
  const taken = replaced.filter((node) => confirming.includes(nameOf(node)))
  const [first] = taken
  const left = confirming.filter((name) => !taken.some((node) => nameOf(node) === name))
  if (first === undefined || left.length >= live.count) return
  const nodes = taken.join(', ')
  throw new ReplctlError(
    'writes-blocked',
    `commits wait for ${nodes}: a new clone would block every write until it streams`,
    {
      detail: `synchronous_standby_names on ${primary} is ${value}. Without ${nodes}, ${left.length} of ${live.count} sync standbys would be left.`,
      hint: `${moreConfirming(topology, primary, replaced, live.names)}; or, to let commits do without meanwhile: ${taken
        .map((node) => `replctl remove-standby ${node}`)
        .join(', ')}, then ${command}`,
      node: first,
    },
  )
}

/** What makes one more standby confirm. */
function moreConfirming(
  { nodes }: Topology,
  primary: NodeName,
  replaced: readonly NodeName[],
  waitedFor: readonly string[],
): string {
  const others = nodes.filter(
    ({ settings: { name, applicationName } }) =>
      name !== primary && !replaced.includes(name) && !waitedFor.includes(applicationName),
  )
  const below = others.find(({ facts, upstream }) => isRunningStandby(facts) && upstream !== primary)
  if (below !== undefined) {
    return `Let ${below.settings.name} confirm first: replctl follow ${below.settings.name} --upstream ${primary}`
  }
  const unbuilt = others.find(({ facts }) => facts.unreachable === null && facts.instance === null)
  return unbuilt === undefined
    ? 'Add another standby to the inventory and to the cluster first'
    : `Add another standby first: replctl add-standby ${unbuilt.settings.name}`
}

/**
 * A new clone begins with a WAL segment of its own and has no slots: whoever receives from the old one would come back to it only
 * with luck. One that gets nothing itself supplies nobody, and a new clone may be what mends it.
 */
function refuseToCutOff(topology: Topology, { replaced, command }: RecloneWish): void {
  const cutOff = replaced.flatMap((node) =>
    suppliedBy(topology, node)
      .filter((name) => !replaced.includes(name))
      .map((name) => ({ node, name })),
  )
  const [first] = cutOff
  if (first === undefined) return
  const names = cutOff.map(({ name }) => name)
  const from = [...new Set(cutOff.map(({ node }) => node))]
  const away = names.filter((name) => nodeOf(topology, name).facts.unreachable !== null)
  const follow = (upstreamOf: (one: (typeof cutOff)[number]) => string) =>
    cutOff.map((one) => `replctl follow ${one.name} --upstream ${upstreamOf(one)}`).join(', ')
  throw new ReplctlError(
    'wrong-upstream',
    `${names.join(', ')} ${names.length === 1 ? 'receives' : 'receive'} from ${from.join(', ')}: a new clone would cut ${names.length === 1 ? 'it' : 'them'} off`,
    {
      detail: `A new clone has no slot for those that received from the old standby, and begins with a later WAL segment than they may need next.${
        away.length === 0 ? '' : ` ${away.join(', ')} cannot be reached from here at the moment.`
      }`,
      hint: `First: ${follow(() => topology.primary ?? 'NODE')}, then ${command}; and back when it streams: ${follow(({ node }) => node)}`,
      node: first.node,
    },
  )
}

/** Standbys that get by way of this one what the primary writes, by both servers' own views. */
export function suppliedBy(topology: Topology, name: NodeName): readonly NodeName[] {
  const sender = nodeOf(topology, name)
  const { instance, postmaster, unreachable } = sender.facts
  // One that is there and answers nothing may still send.
  const sends =
    instance === null
      ? unreachable !== null || postmaster?.isAlive === true
      : sender.role === 'standby' && isSupplied(sender)
  if (!sends) return []
  return topology.nodes
    .filter((one) => one !== sender && isSuppliedBy(one, sender))
    .map((one) => one.settings.name)
}

function isSuppliedBy(one: ObservedNode, sender: ObservedNode): boolean {
  const { facts, settings, upstream } = one
  if (facts.instance !== null) {
    return isRunningStandby(facts) && upstream === sender.settings.name && isSupplied(one)
  }
  // The sender of one that was stopped may not have noticed that yet; of one that cannot be asked it is all there is to go by.
  const isInView = sender.facts.instance?.replication.some(
    ({ applicationName, state }) => applicationName === settings.applicationName && state !== 'backup',
  )
  return isInView === true && (facts.unreachable !== null || facts.postmaster?.isAlive === true)
}

/** Who receives from a node in these roles, itself aside. */
export function downstreamOf(
  { nodes }: Inventory,
  { upstreams }: Roles,
  name: NodeName,
): readonly NodeSettings[] {
  return nodes.filter((one) => one.name !== name && upstreams.get(one.name) === name)
}

/** Whether a standby may come back by itself to a node that was built anew: it is built, and of the primary's history. */
export function mayComeBack({ nodes }: Topology, name: NodeName): boolean {
  return nodes.some(
    ({ facts, role, settings }) =>
      settings.name === name &&
      role !== 'diverged' &&
      role !== 'fenced' &&
      (facts.unreachable !== null || facts.dataDirectoryState === 'instance'),
  )
}
