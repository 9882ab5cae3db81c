import { compareLsn, type Lsn } from '../postgres/lsn.ts'
import { segmentNumber } from '../postgres/wal-file.ts'
import type { NodeFacts, ReplicationSlot, Survey } from './facts.ts'
import type { NodeSettings } from './inventory.ts'
import type { NodeName } from './names.ts'
import { segmentSizeOf } from './segment-size.ts'
import { isWriter, receivedLsn } from './topology.ts'

/**
 * From where on a standby asks for WAL next, as far as that can be told; null: it cannot. Of one that has received something since
 * its start it is known. Any other one may hold more than it has replayed: what a slot keeps for it is what it confirmed. The
 * slot on `except` tells nothing: it may just have been made.
 */
export function neededLsn(
  { name, slotName }: NodeSettings,
  standby: NodeFacts | undefined,
  survey: Survey,
  except?: NodeName,
): Lsn | null {
  const held = standby === undefined ? null : heldLsn(standby)
  if (standby?.instance != null && standby.instance.receiveLsn !== null) return held
  const kept = survey
    .filter((facts) => facts.name !== name && facts.name !== except)
    .flatMap((facts) => keptFrom(slotOf(facts, slotName)) ?? [])
    .toSorted(compareLsn)[0]
  if (held === null || kept === undefined) return held ?? kept ?? null
  return compareLsn(held, kept) >= 0 ? held : kept
}

/** At least up to here a standby has what the primary wrote. */
function heldLsn(facts: NodeFacts): Lsn | null {
  if (facts.instance !== null) return receivedLsn(facts)
  const { control } = facts
  if (control === null) return null
  const { checkpointLsn, minRecoveryEndLsn } = control
  if (minRecoveryEndLsn === null) return checkpointLsn
  return compareLsn(minRecoveryEndLsn, checkpointLsn) >= 0 ? minRecoveryEndLsn : checkpointLsn
}

/** Whether WAL that is kept from `from` on holds what a standby at `needed` asks for: it begins with the segment that it is in. */
export function holds(from: Lsn | null, needed: Lsn, segmentSizeBytes: number): boolean {
  return from !== null && segmentNumber(from, segmentSizeBytes) <= segmentNumber(needed, segmentSizeBytes)
}

/** From where on a node keeps WAL for the owner of a slot, or will: a slot that is made now begins with the last restartpoint. */
export function keepsFrom(facts: NodeFacts, slotName: string): Lsn | null {
  const slot = slotOf(facts, slotName)
  return slot === undefined ? (facts.control?.redoLsn ?? null) : keptFrom(slot)
}

/** Nodes, the one that leads first, where a slot keeps what its standby asks for next. */
export function keepersOf(node: NodeSettings, needed: Lsn, survey: Survey): readonly NodeName[] {
  return survey
    .filter(
      (facts) =>
        facts.name !== node.name &&
        holds(keptFrom(slotOf(facts, node.slotName)), needed, segmentSizeOf(facts)),
    )
    .toSorted((a, b) => Number(isWriter(b)) - Number(isWriter(a)))
    .map((facts) => facts.name)
}

/** Whether a standby finds what it asks for next by its slot on `holder`, and would not by the one on its upstream. */
export function isOnlyKeeper(
  holder: NodeName,
  owner: NodeSettings,
  upstream: NodeName,
  survey: Survey,
): boolean {
  const needed = neededLsn(
    owner,
    survey.find((facts) => facts.name === owner.name),
    survey,
    upstream,
  )
  if (needed === null) return false
  const keepers = keepersOf(owner, needed, survey)
  return keepers.includes(holder) && !keepers.includes(upstream)
}

const slotOf = ({ instance }: NodeFacts, name: string): ReplicationSlot | undefined =>
  instance?.slots.find((slot) => slot.name === name && slot.type === 'physical')

const keptFrom = (slot: ReplicationSlot | undefined): Lsn | null =>
  slot === undefined || slot.walStatus === 'lost' || slot.invalidationReason !== null ? null : slot.restartLsn
