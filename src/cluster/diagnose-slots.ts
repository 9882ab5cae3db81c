import { ReplctlError } from '../errors.ts'
import { lsnDistance } from '../postgres/lsn.ts'
import type { NodeFacts, ReplicationSlot } from './facts.ts'
import type { Inventory } from './inventory.ts'
import type { NodeName } from './names.ts'
import type { Problem } from './problem.ts'
import { commonRecord } from './record.ts'
import { ownSlots } from './roles.ts'
import { expectedUpstream, type ObservedNode, type Topology } from './topology.ts'

/** What is wrong with the slot that a standby should use; null where all is well, or nobody can tell. */
export function slotFinding(
  inventory: Inventory,
  node: ObservedNode,
  topology: Topology,
): readonly [ReplctlError, Problem['severity']] | null {
  const { settings, slot, upstream } = node
  const { name } = settings
  if (slot?.walStatus === 'lost' || slot?.invalidationReason) return [slotLost(name, slot), 'error']
  const canTell = topology.nodes.some((one) => one.settings.name === upstream && one.facts.instance !== null)
  if (!inventory.replication.slots || !canTell) return null
  if (slot === null) {
    const missing = new ReplctlError('slot-missing', `${upstream} has no replication slot for ${name}`, {
      detail: `Slot "${settings.slotName}" is missing, so WAL that ${name} still needs may be removed.`,
      hint: `Make it again: replctl add-standby ${name}`,
      node: name,
    })
    return [missing, 'error']
  }
  if (isReceivingWithout(node)) return [slotNotUsed(node), 'error']
  return slot.walStatus === 'unreserved' ? [slotInDanger(node), 'warning'] : null
}

function slotLost(name: NodeName, { name: slot, walStatus, invalidationReason }: ReplicationSlot) {
  const reason = invalidationReason === null ? '' : ` (${invalidationReason})`
  // Since 18: nobody received through it for longer than idle_replication_slot_timeout.
  const why =
    invalidationReason === 'idle_timeout'
      ? `nobody received through it for too long. It keeps no WAL for ${name} any more`
      : `WAL that ${name} still needed is gone from the upstream`
  return new ReplctlError('slot-lost', `the replication slot of ${name} is lost`, {
    detail: `Slot "${slot}" has wal_status ${walStatus}${reason}: ${why}.`,
    hint: `Have it made anew: replctl add-standby ${name}. Where WAL that it needs is gone for good, that says so; then: replctl add-standby ${name} --reclone`,
    node: name,
  })
}

/** Its walreceiver streams, by another slot or by none. */
function isReceivingWithout({ connection, facts, settings }: ObservedNode): boolean {
  const receiver = facts.instance?.receiver ?? null
  return connection !== null && receiver?.status === 'streaming' && receiver.slotName !== settings.slotName
}

function slotNotUsed({ facts, settings, upstream }: ObservedNode): ReplctlError {
  const { name, slotName } = settings
  const used = facts.instance?.receiver?.slotName ?? null
  const how = used === null ? 'without a slot' : `through slot "${used}"`
  return new ReplctlError('slot-missing', `${name} does not use its replication slot`, {
    detail: `It receives from ${upstream} ${how}: what it needs next may be removed there, while "${slotName}" keeps WAL for nobody.`,
    hint: `Have it use "${slotName}": replctl add-standby ${name}`,
    node: name,
  })
}

function slotInDanger({ settings: { name, slotName }, upstream }: ObservedNode): ReplctlError {
  return new ReplctlError('slot-lost', `the replication slot of ${name} is about to be lost`, {
    detail: `Slot "${slotName}" on ${upstream} has wal_status unreserved: the next checkpoint may remove WAL that ${name} still needs.`,
    hint: `Let ${name} catch up soon. A larger max_slot_wal_keep_size on ${upstream} keeps more.`,
    node: name,
  })
}

/** Slots of replctl's own that keep WAL for nobody: their standby receives from elsewhere, or is no member any more. */
export function leftOverSlots(inventory: Inventory, topology: Topology): readonly ReplctlError[] {
  const survey = topology.nodes.map((node) => node.facts)
  // While somebody is at work slots come and go.
  if (survey.some((facts) => facts.journal !== null || facts.holder !== null)) return []
  const record = commonRecord(survey)
  const members = record?.members
  return topology.nodes.flatMap((holder) => {
    const { facts } = holder
    return ownSlots(inventory, facts.instance, record?.removedSlots).flatMap((slotName) => {
      const slot = facts.instance?.slots.find((one) => one.name === slotName)
      const owner = topology.nodes.find((one) => one.settings.slotName === slotName)
      if (slot === undefined || slot.isActive) return []
      if (owner === undefined)
        return record?.removedSlots?.includes(slotName) ? [leftOfRemoved(topology, holder, slot)] : []
      const isMember = members === undefined || members.includes(owner.settings.name)
      if (
        isMember &&
        (!receivesElsewhere(topology, owner, holder) || isWaitedFor(inventory, topology, owner, holder))
      )
        return []
      return [leftOver(topology, holder, owner, slot, isMember)]
    })
  })
}

/** It ought to receive from here, and is told so as wrong-upstream: the slot is what it will come back to. */
function isWaitedFor(
  inventory: Inventory,
  { primary, nodes }: Topology,
  owner: ObservedNode,
  holder: ObservedNode,
): boolean {
  if (primary === null || owner === holder || owner.settings.name === primary) return false
  const survey = nodes.map((node) => node.facts)
  return expectedUpstream(inventory, owner.settings, primary, survey) === holder.settings.name
}

/** Whoever leads receives from nobody, and will not from here as long as it does. */
function receivesElsewhere({ primary }: Topology, owner: ObservedNode, holder: ObservedNode): boolean {
  if (owner === holder || owner.settings.name === primary) return true
  return owner.connection !== null && owner.upstream !== holder.settings.name
}

function leftOver(
  topology: Topology,
  holder: ObservedNode,
  owner: ObservedNode,
  slot: ReplicationSlot,
  isMember: boolean,
): ReplctlError {
  const [at, name] = [holder.settings.name, owner.settings.name]
  const kept = retainedBytes(holder.facts, slot)
  const leads = name === topology.primary
  const place = leads ? `${name} leads` : `${name} receives from ${owner.upstream ?? 'nobody'}`
  const whom = isMember ? place : `${name} is no member`
  return new ReplctlError('slot-left-over', `slot "${slot.name}" on ${at} keeps WAL for nobody`, {
    detail: `${whom}${kept === null ? '.' : `; it keeps ${kept} bytes of WAL.`}`,
    hint: isMember
      ? dropHint(topology, owner === holder || leads ? at : name, slot)
      : `Have it dropped: replctl remove-standby ${name}`,
    node: at,
  })
}

/** A slot of a standby that is taken out, on a node that cannot drop it now; it is on record that it is nobody's. */
export function slotMayBeLeft(node: NodeName, slot: string, isSeen = false): ReplctlError {
  const what = isSeen ? 'stays' : 'may be left'
  return new ReplctlError(
    'slot-left-over',
    `slot "${slot}" ${what} on ${node}, where PostgreSQL does not answer`,
    {
      detail: 'It keeps WAL there for nobody once that node runs again.',
      hint: `It goes when ${node} comes back: replctl add-standby ${node}, or, where "replctl status" says so, replctl rejoin ${node}`,
      node,
    },
  )
}

function leftOfRemoved(topology: Topology, holder: ObservedNode, slot: ReplicationSlot): ReplctlError {
  const at = holder.settings.name
  const kept = retainedBytes(holder.facts, slot)
  return new ReplctlError('slot-left-over', `slot "${slot.name}" on ${at} keeps WAL for nobody`, {
    detail: `Its standby was removed from the cluster${kept === null ? '.' : `; it keeps ${kept} bytes of WAL.`}`,
    hint: dropHint(topology, at, slot),
    node: at,
  })
}

/** `add-standby` drops them on every node that runs; the primary itself is never its argument. */
function dropHint({ nodes, primary }: Topology, node: NodeName, slot: ReplicationSlot): string {
  const standby = node === primary ? nodes.find(({ role }) => role === 'standby')?.settings.name : node
  return standby === undefined
    ? `Drop it there: SELECT pg_drop_replication_slot('${slot.name}');`
    : `Have it dropped: replctl add-standby ${standby}`
}

/** WAL that a slot makes its node keep, from the slot's restart_lsn to where the node is. */
export function retainedBytes({ instance }: NodeFacts, { restartLsn }: ReplicationSlot): number | null {
  const now = instance?.currentLsn ?? instance?.receiveLsn ?? instance?.replayLsn ?? null
  return restartLsn === null || now === null ? null : Math.max(0, lsnDistance(restartLsn, now))
}
