import { ReplctlError } from '../errors.ts'
import { capabilitiesOf } from '../postgres/versions.ts'
import type { InstanceFacts, ReplicationSlot } from './facts.ts'
import type { Inventory, NodeSettings } from './inventory.ts'
import type { NodeName } from './names.ts'

/**
 * Whether logical slots made with `failover = true` are to survive a change of roles: from PostgreSQL 17 on, where the
 * inventory sets wal_level to logical. That is a wish: whether a standby may be told to copy slots says what it runs with.
 * @see https://www.postgresql.org/docs/current/logicaldecoding-explanation.html#LOGICALDECODING-REPLICATION-SLOTS-SYNCHRONIZATION
 */
export function keepsLogicalSlots(inventory: Inventory, node: NodeSettings, major: number): boolean {
  return inventory.replication.slots && capabilitiesOf(major).slotSynchronisation && isLogical(node)
}

/**
 * Whether this standby holds copies of them: one that could take over, and receives from the primary. A cascaded one
 * cannot, for slots are not synchronised from a standby; a delayed one would be late with them, too.
 */
export function copiesLogicalSlots(inventory: Inventory, node: NodeSettings, major: number): boolean {
  return (
    keepsLogicalSlots(inventory, node, major) &&
    node.promotable &&
    node.delayMs === 0 &&
    node.upstream === undefined
  )
}

/**
 * Value of synchronized_standby_slots for a node that leads: subscribers get nothing that these standbys do not have
 * yet, or they would be ahead of the next primary. Like synchronous_standby_names it makes them wait for a standby that is
 * away, until `remove-standby` takes it out. Undefined: not to be rendered.
 */
export function synchronizedStandbySlots(
  inventory: Inventory,
  node: NodeSettings,
  standbys: readonly NodeName[],
  major: number,
): string | undefined {
  if (!keepsLogicalSlots(inventory, node, major)) return undefined
  return inventory.nodes
    .filter((one) => one.name !== node.name && standbys.includes(one.name))
    .filter((one) => copiesLogicalSlots(inventory, one, major))
    .map((one) => one.slotName)
    .join(', ')
}

/** Whether some version of PostgreSQL would keep logical slots through a change of roles here. */
export function wantsLogicalSlots({ replication, nodes }: Inventory): boolean {
  return replication.slots && nodes.some(isLogical)
}

/** Whether any change of who follows whom changes what the primary waits for, whatever its version. */
export function primaryWaitsForStandbys(inventory: Inventory): boolean {
  return inventory.replication.mode !== 'async' || wantsLogicalSlots(inventory)
}

/** Slots of `synchronized_standby_slots` through which nobody receives, while a logical subscriber is served that waits for them. */
export function awaitedAndAway({ slots, settings }: InstanceFacts): readonly string[] {
  const isServing = slots.some((slot) => slot.type === 'logical' && slot.isFailover && slot.isActive)
  const awaited = (settings.synchronized_standby_slots?.value ?? '').split(/[\s,]+/).filter(Boolean)
  const isThere = (name: string) => slots.some((slot) => slot.name === name && slot.isActive)
  return isServing ? awaited.filter((name) => !isThere(name)) : []
}

/** That logical subscribers get nothing until such a standby is back, or is no longer waited for: nothing else tells of it. */
export function subscribersBlocked(
  inventory: Inventory,
  primary: NodeName,
  slots: readonly string[],
): ReplctlError {
  return new ReplctlError('subscribers-blocked', `logical subscribers of ${primary} get nothing`, {
    detail: `synchronized_standby_slots names ${slots.join(', ')}, through which nobody receives now: changes go to them only once that standby has them.`,
    hint: howToServe(inventory, primary, slots),
    node: primary,
  })
}

/** What sets subscribers free that wait for these slots. */
export function howToServe(inventory: Inventory, primary: NodeName, slots: readonly string[]): string {
  const away = inventory.nodes.filter(({ slotName }) => slots.includes(slotName)).map(({ name }) => name)
  if (away.length === 0) return `Correct synchronized_standby_slots on ${primary}.`
  const [back, out] = ['add-standby', 'remove-standby'].map((command) =>
    away.map((name) => `replctl ${command} ${name}`).join(', '),
  )
  return `Bring ${away.join(', ')} back (${back}); or, to have them served without: ${out}`
}

/** Whether one of these, of another node, is a copy of this slot that outlives a change of roles. */
export function isCopied(slot: ReplicationSlot, there: readonly ReplicationSlot[]): boolean {
  return (
    slot.isFailover &&
    there.some((one) => one.name === slot.name && one.isFailover && !one.isTemporary && isUsable(one))
  )
}

const isUsable = ({ walStatus, invalidationReason }: ReplicationSlot) =>
  walStatus !== 'lost' && invalidationReason === null

function isLogical({ postgres }: NodeSettings): boolean {
  return postgres.parameters.wal_level?.toLowerCase() === 'logical'
}
