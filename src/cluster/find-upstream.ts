import { configuredApplicationName, configuredUpstream, nodeAt } from './configured-upstream.ts'
import type { InstanceFacts, NodeFacts, ReplicationConnection, Survey } from './facts.ts'
import type { Inventory, NodeSettings } from './inventory.ts'
import type { NodeName } from './names.ts'

/** From whom a standby receives, as its own views and those of the other nodes have it. */
export interface FoundUpstream {
  readonly upstream: NodeName | null
  /** `host:port` that its settings name, where that is no node of the inventory. */
  readonly foreign: string | null
  /** Its row in the upstream's pg_stat_replication. */
  readonly connection: ReplicationConnection | null
  /** It believes that it streams (for up to wal_receiver_timeout), and gets nothing any more. */
  readonly isCutOff: boolean
}

export const noUpstream: FoundUpstream = { upstream: null, foreign: null, connection: null, isCutOff: false }

/**
 * Whom a running standby receives from. It knows that itself while it streams; a row in some node's pg_stat_replication may be a
 * former one (a walsender notices only after wal_sender_timeout that its standby is gone), or that of a copy of the machine.
 */
export function findUpstream(
  inventory: Inventory,
  survey: Survey,
  settings: NodeSettings,
  facts: NodeFacts,
): FoundUpstream {
  const own = senderOf(inventory, facts.instance)
  const sender = survey.find((one) => one.name === own)
  // Nobody receives from himself, whatever the entrance of a tunnel is called.
  if (sender !== undefined && sender.name !== settings.name) {
    const connection = rowOf(sender, settings)
    const isCutOff = connection === null && hasLost(settings, facts, sender)
    return { upstream: sender.name, foreign: null, connection, isCutOff }
  }
  const configured = configuredUpstream(facts)
  const told = configured === null ? null : nodeAt(inventory, configured.host, configured.port)
  const senders = survey.filter((one) => rowOf(one, settings) !== null)
  const row = senders.find(({ name }) => name === told) ?? senders[0]
  if (row !== undefined) return { ...noUpstream, upstream: row.name, connection: rowOf(row, settings) }
  const isForeign = configured !== null && told === null
  return {
    ...noUpstream,
    upstream: told,
    foreign: isForeign ? `${configured.host}:${configured.port}` : null,
  }
}

/**
 * The node that a standby's walreceiver streams from, by its own word. Null where it does not stream, may not be asked, or says an
 * address by which no node of the inventory is known: that may be another name of one.
 */
export function senderOf(inventory: Inventory, instance: InstanceFacts | null): NodeName | null {
  const receiver = instance?.receiver ?? null
  if (receiver?.status !== 'streaming' || receiver.senderHost === null) return null
  return nodeAt(inventory, receiver.senderHost, receiver.senderPort ?? 5432)
}

/** What this node says of a standby's connection to it. */
function rowOf({ instance }: NodeFacts, { applicationName }: NodeSettings): ReplicationConnection | null {
  const rows = instance?.replication ?? []
  return rows.find((one) => one.applicationName === applicationName && one.state !== 'backup') ?? null
}

/** A standby that has just connected has no row yet where its sender was asked a moment before. */
const silentSeconds = 5

/**
 * Whether a standby hears nothing from a sender that has no row of it. Silence alone is no proof: one at rest speaks every 30 s.
 * Nor is a missing row, where the sender does not answer, or the standby calls itself otherwise.
 */
function hasLost({ applicationName }: NodeSettings, facts: NodeFacts, sender: NodeFacts): boolean {
  const silence = facts.instance?.receiver?.silenceSeconds ?? 0
  return (
    sender.instance !== null &&
    silence >= silentSeconds &&
    configuredApplicationName(facts) === applicationName
  )
}
