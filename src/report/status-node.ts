import { retainedBytes } from '../cluster/diagnose-slots.ts'
import { archiveHost } from '../cluster/names.ts'
import { archiveStreamNames } from '../cluster/replication-names.ts'
import { delayMsOf, type ObservedNode, type Topology } from '../cluster/topology.ts'

/** One node of `status`, as the public contract names it, with a few keys more. */
export interface StatusNode {
  readonly name: string
  readonly host: string
  readonly reachable: boolean
  readonly role: string
  readonly version: string | null
  readonly timeline: number | null
  /** The primary's current one, what a standby has replayed, the last checkpoint of a stopped one. */
  readonly lsn: string | null
  readonly upstream: string | null
  readonly slot: string | null
  readonly state: string
  readonly sync_state: string | null
  readonly lag_bytes: number | null
  readonly lag_seconds: number | null
  readonly received_lsn: string | null
  readonly slot_wal_status: string | null
  /** WAL that its slot makes the primary keep. */
  readonly retained_bytes: number | null
  readonly paused: boolean
  /** How much later than the primary it replays on purpose. */
  readonly delay_seconds: number
  readonly promotable: boolean
  /** Every replication slot that stands on this node, foreign ones too. */
  readonly slots: readonly StatusSlot[]
}

/** A replication slot on a node. */
export interface StatusSlot {
  readonly name: string
  readonly type: string
  /** The node (or archive host) that replctl made it for; null: somebody else made it, and replctl never touches it. */
  readonly for: string | null
  readonly active: boolean
  readonly restart_lsn: string | null
  readonly wal_status: string | null
  readonly invalidation_reason: string | null
  /** WAL that it makes this node keep. */
  readonly retained_bytes: number | null
}

/** What there is to say of one node, in values. */
export function statusNode(node: ObservedNode, topology: Topology): StatusNode {
  const { facts, settings, role, state, connection } = node
  const { instance, control } = facts
  const slot = role === 'primary' ? null : node.slot
  const holder = holderOf(node, topology)
  return {
    name: settings.name,
    host: settings.host,
    reachable: facts.unreachable === null,
    role,
    version: versionOf(node),
    timeline: instance?.timeline ?? control?.timeline ?? null,
    lsn: (instance === null ? control?.checkpointLsn : (instance.currentLsn ?? instance.replayLsn)) ?? null,
    upstream: node.upstream ?? node.foreignUpstream,
    slot: slot?.name ?? null,
    state,
    sync_state: connection?.syncState ?? null,
    lag_bytes: node.lagBytes,
    lag_seconds: node.lagSeconds,
    received_lsn: instance?.receiveLsn ?? null,
    slot_wal_status: slot?.walStatus ?? null,
    retained_bytes: slot === null || holder === undefined ? null : retainedBytes(holder.facts, slot),
    paused: instance?.isReplayPaused ?? false,
    delay_seconds: delayMsOf(node) / 1000,
    promotable: settings.promotable,
    slots: statusSlots(node, topology),
  }
}

/** The running server's version, else that of the programs that would run it, e.g. `15.18`. */
function versionOf({ facts }: ObservedNode): string | null {
  const number = facts.instance?.serverVersionNumber
  if (number === undefined) return facts.binaries?.version ?? null
  return `${Math.floor(number / 10_000)}.${number % 10_000}`
}

function statusSlots({ facts }: ObservedNode, topology: Topology): StatusSlot[] {
  return (facts.instance?.slots ?? []).map((slot) => {
    const owner = topology.nodes.find((one) => one.settings.slotName === slot.name)
    const ofArchive = slot.name === archiveStreamNames(topology.cluster).slot ? archiveHost : null
    return {
      name: slot.name,
      type: slot.type,
      for: slot.type === 'physical' ? (owner?.settings.name ?? ofArchive) : null,
      active: slot.isActive,
      restart_lsn: slot.restartLsn,
      wal_status: slot.walStatus,
      invalidation_reason: slot.invalidationReason,
      retained_bytes: retainedBytes(facts, slot),
    }
  })
}

/** Whoever has the slot that serves this node. */
function holderOf(node: ObservedNode, topology: Topology): ObservedNode | undefined {
  return topology.nodes.find((one) => node.slot !== null && one.facts.instance?.slots.includes(node.slot))
}
