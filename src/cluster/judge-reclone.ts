import { ReplctlError } from '../errors.ts'
import { parseSynchronousStandbyNames } from '../postgres/synchronous-standby-names.ts'
import { silentStandbys } from './diagnose-synchronous.ts'
import type { Inventory } from './inventory.ts'
import type { NodeName } from './names.ts'
import { confirmingArchive } from './roles.ts'
import { isRunningStandby, nodeOf, type Topology } from './topology.ts'

/**
 * A standby that commits wait for is not taken away for as long as a copy takes, where too few others would be left: every write
 * would hang. One that does not confirm now blocks nothing more by it, and a new clone may be what mends it. Who confirms is the
 * server's word, whatever the inventory wishes.
 * @throws {ReplctlError} `writes-blocked`
 */
export function refuseToBlockWrites(
  inventory: Inventory,
  topology: Topology,
  replaced: readonly NodeName[],
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
        .join(', ')}, then replctl add-standby ${replaced.join(' ')} --reclone`,
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
