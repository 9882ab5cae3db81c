import { configuredUpstream, nodeAt } from './configured-upstream.ts'
import { ledUntilNow } from './former-primaries.ts'
import type { Inventory } from './inventory.ts'
import { unknownMembers } from './judge-unknown-member.ts'
import type { NodeName } from './names.ts'
import { commonRecord, isForeign } from './record.ts'
import { applicationNameFor } from './replication-names.ts'
import { confirmingArchive } from './roles.ts'
import { type ObservedNode, type Topology, timelineOf } from './topology.ts'

/** Who may have confirmed commits of the primary that is lost. */
export interface Confirmers {
  /** Standbys that may have, and cannot be asked now. */
  readonly missing: readonly ObservedNode[]
  /** Members that may have, and that the inventory lacks, so that nobody asks them. */
  readonly unknown: readonly NodeName[]
  /** How many confirm a commit, an archive among them. */
  readonly needed: number
}

/**
 * How many standbys had to confirm a commit: what the inventory says may not have been applied yet, so that what was in force
 * when the record was written counts where it is less.
 */
export function confirmationsNeeded({ replication }: Inventory, topology: Topology): number {
  const inForce = recordOf(topology)?.confirmations ?? 0
  if (replication.mode === 'async') return inForce
  return inForce === 0 ? replication.syncStandbys : Math.min(inForce, replication.syncStandbys)
}

/** `told`: whom an operation that stopped part-way had told to promote. */
export function confirmersOf(
  inventory: Inventory,
  topology: Topology,
  candidate: NodeName,
  told?: NodeName,
): Confirmers {
  const led = ledUntilNow(inventory, topology, candidate)
  const recorded = recordOf(topology)?.primary
  // The lost middle node of a cascade is told to have led, too, by the standby below it: the record knows better.
  const former = recorded === undefined || recorded === candidate ? led : new Set<string>([recorded])
  const others = topology.nodes.filter(({ settings }) => !former.has(settings.name))
  const couldConfirm = whoCouldConfirm(inventory, topology, candidate, told)
  const missing = others.filter(
    (node) => node.settings.name !== candidate && node.facts.instance === null && couldConfirm(node),
  )
  const confirmed = others.filter(
    (node) => isMember(topology, node) && mayHaveConfirmed(inventory, node, former),
  )
  // A commit is confirmed by so many standbys, which ones nobody knows: if that many are not missing, one that can be seen
  // has it, and nobody who can be seen has more than the candidate. `FIRST` and `ANY` are alike in this: who is first
  // changes with every broken connection.
  const archives = confirmingArchive(inventory) === null ? 0 : 1
  const unknown = unknownConfirmers(inventory, topology)
  const all = missing.length + unknown.length + confirmed.length + archives
  return { missing, unknown, needed: Math.min(confirmationsNeeded(inventory, topology), all) }
}

function unknownConfirmers(inventory: Inventory, topology: Topology): readonly NodeName[] {
  const record = recordOf(topology)
  const recorded = record?.confirmers?.map((name) => name.toLowerCase()) ?? []
  const survey = topology.nodes.map(({ facts }) => facts)
  return unknownMembers(inventory, survey).filter((name) => {
    const application = applicationNameFor(inventory.cluster, name).toLowerCase()
    return name !== record?.primary && recorded.includes(application)
  })
}

/**
 * Whether a node that cannot be asked was among those that commits waited for. By default every member was: one is left out
 * only where it is proved that it was not.
 */
function whoCouldConfirm(
  inventory: Inventory,
  topology: Topology,
  candidate: NodeName,
  told: NodeName | undefined,
): (node: ObservedNode) => boolean {
  const record = recordOf(topology)
  const recorded = record?.confirmers?.map((name) => name.toLowerCase()) ?? []
  const isKnown = areNamesKnown(inventory, topology, candidate, told)
  // Whoever leads is told of each change before it is in force.
  const isLatest = topology.nodes.some(
    ({ facts, settings }) =>
      settings.name === record?.primary &&
      facts.unreachable === null &&
      facts.record?.generation === record.generation,
  )
  return (node) => {
    const { facts, settings } = node
    if (recorded.includes(settings.applicationName.toLowerCase())) return true
    if (!isMember(topology, node) || wasFencedBefore(node, topology)) return false
    if (!isKnown) return true
    // So is whoever begins to confirm: of a newer record its own copy would tell. One that replays late or must not lead only
    // ever confirms beside all the others that can.
    const isToldOf = facts.unreachable === null && facts.record !== null
    return !isLatest && !isToldOf && settings.promotable && settings.delayMs === 0
  }
}

/**
 * Whether the record's list of names is of the primary that was lost, and each of them somebody whom we know: a record of an
 * older replctl has none, and one that was written before somebody else led is of no use.
 */
function areNamesKnown(
  inventory: Inventory,
  topology: Topology,
  candidate: NodeName,
  told: NodeName | undefined,
): boolean {
  const record = recordOf(topology)
  if (record === null || record.confirmers === undefined || record.confirmers.length === 0) return false
  const led = ledUntilNow(inventory, topology, candidate, told)
  if (led.size !== 1 || !led.has(record.primary)) return false
  const survey = topology.nodes.map(({ facts }) => facts)
  const isNewer = survey.some(
    (facts) => !isForeign(facts, survey) && (timelineOf(facts) ?? 0) > record.timeline,
  )
  const archive = confirmingArchive(inventory)
  const known = [
    ...inventory.nodes.map(({ applicationName }) => applicationName),
    ...(archive === null ? [] : [archive]),
  ].map((name) => name.toLowerCase())
  return !isNewer && record.confirmers.every((name) => known.includes(name.toLowerCase()))
}

/**
 * Fenced when the lost primary took over, and never a standby since (its mark would be gone): it can hold nothing of what that
 * one wrote. A mark of this very failover, on one that was told to promote, proves nothing of the kind.
 */
function wasFencedBefore({ facts }: ObservedNode, topology: Topology): boolean {
  const { fence, instance, postmaster } = facts
  const record = recordOf(topology)
  if (record === null || fence === null || instance !== null || postmaster?.isAlive === true) return false
  if ((timelineOf(facts) ?? 0) >= record.timeline) return false
  return [fence, ...(fence.before === undefined ? [] : [fence.before])].some(
    (mark) =>
      mark.newPrimary === record.primary && mark.timeline < record.timeline && mark.wasStandby !== true,
  )
}

/** A running standby that received from the lost primary itself: only those confirm commits to it. */
function mayHaveConfirmed(
  inventory: Inventory,
  { facts, settings }: ObservedNode,
  led: Set<string>,
): boolean {
  if (facts.instance?.isInRecovery !== true || !settings.promotable || settings.delayMs > 0) return false
  const upstream = configuredUpstream(facts)
  const name = upstream === null ? null : nodeAt(inventory, upstream.host, upstream.port)
  return led.size === 0 || (name !== null && led.has(name))
}

/** Whether a node was built into the cluster, as far as can be known. */
function isMember(topology: Topology, node: ObservedNode): boolean {
  return recordOf(topology)?.members.includes(node.settings.name) ?? true
}

const recordOf = ({ nodes }: Topology) => commonRecord(nodes.map(({ facts }) => facts))
