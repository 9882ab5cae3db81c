import type { ObservedNode, Topology } from '../cluster/topology.ts'

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
}

/** What there is to say of one node, in values. */
export function statusNode(node: ObservedNode, topology: Topology): StatusNode {
  const { facts, settings, role, state, connection } = node
  const { instance, control } = facts
  const slot = role === 'primary' ? null : node.slot
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
    retained_bytes: retainedBytes(slot?.restartLsn ?? null, topology),
    paused: instance?.isReplayPaused ?? false,
  }
}

/** The running server's version, else that of the programs that would run it, e.g. `15.18`. */
function versionOf({ facts }: ObservedNode): string | null {
  const number = facts.instance?.serverVersionNumber
  if (number === undefined) return facts.binaries?.version ?? null
  return `${Math.floor(number / 10_000)}.${number % 10_000}`
}

function retainedBytes(restartLsn: string | null, topology: Topology): number | null {
  const primary = topology.nodes.find((node) => node.settings.name === topology.primary)
  const currentLsn = primary?.facts.instance?.currentLsn ?? null
  if (restartLsn === null || currentLsn === null) return null
  return Math.max(0, Number(bytePosition(currentLsn) - bytePosition(restartLsn)))
}

function bytePosition(lsn: string): bigint {
  const [high = '0', low = '0'] = lsn.split('/')
  return (BigInt(`0x${high}`) << 32n) + BigInt(`0x${low}`)
}
