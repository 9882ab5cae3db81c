import { ReplctlError } from '../errors.ts'
import {
  type ParsedSynchronousStandbys,
  parseSynchronousStandbyNames,
} from '../postgres/synchronous-standby-names.ts'
import type { InstanceFacts, ReplicationConnection } from './facts.ts'
import type { Inventory } from './inventory.ts'
import type { NodeName } from './names.ts'
import { confirmingArchive } from './roles.ts'
import type { Topology } from './topology.ts'

/** A healthy standby confirms within milliseconds. Whoever waited this long waits for one that is cut off. */
const patienceSeconds = 3

/**
 * Whether commits wait for ever on the primary, and whether as many standbys confirm as the inventory wishes. What the
 * server does decides, not the mode of the inventory: an adopted instance may wait as well.
 */
export function diagnoseSynchronous(inventory: Inventory, topology: Topology): ReplctlError | null {
  const primary = topology.nodes.find((node) => node.settings.name === topology.primary)
  const instance = primary?.facts.instance ?? null
  if (primary === undefined || instance === null) return null
  const { mode, syncStandbys } = inventory.replication
  const live = parseSynchronousStandbyNames(instance.settings.synchronous_standby_names?.value ?? '')
  const isSilent = silentStandbys(topology, confirmingArchive(inventory), instance)
  const confirming = instance.replication.filter(
    (one) => (one.syncState === 'sync' || one.syncState === 'quorum') && !isSilent(one),
  )
  const wanted = mode === 'async' ? 0 : syncStandbys
  const name = primary.settings.name
  if (live !== null && confirming.length < live.count) {
    return blocked(inventory, name, live, instance, confirming, Math.max(wanted, live.count))
  }
  const count = Math.min(confirming.length, live?.count ?? 0)
  return count < wanted ? reduced(inventory, name, live, count) : null
}

/** A standby whose link is cut stays in pg_stat_replication for up to wal_sender_timeout: it is known by its own silence. */
function silentStandbys(
  topology: Topology,
  archive: string | null,
  { waitingForSyncSeconds }: InstanceFacts,
): (connection: ReplicationConnection) => boolean {
  if ((waitingForSyncSeconds ?? 0) < patienceSeconds) return () => false
  return ({ applicationName, sentLsn, flushLsn }) => {
    if (flushLsn !== null && flushLsn === sentLsn) return false
    const node = topology.nodes.find((one) => one.settings.applicationName === applicationName)
    // The archive cannot be asked here; who has not confirmed for so long does not.
    if (node === undefined) return applicationName === archive
    const receiver = node.facts.instance?.receiver ?? null
    return receiver === null || (receiver.silenceSeconds ?? 0) >= patienceSeconds
  }
}

function blocked(
  inventory: Inventory,
  primary: NodeName,
  live: ParsedSynchronousStandbys,
  instance: InstanceFacts,
  confirming: readonly ReplicationConnection[],
  wanted: number,
): ReplctlError {
  const isHere = (name: string) => confirming.some((one) => one.applicationName === name)
  const missing = inventory.nodes
    .filter((node) => live.names.includes(node.applicationName) && !isHere(node.applicationName))
    .map((node) => node.name)
  const archive = confirmingArchive(inventory)
  const isArchiveMissing = archive !== null && live.names.includes(archive) && !isHere(archive)
  const partners = [...missing, ...(isArchiveMissing ? [`the archive on ${inventory.archive?.host}`] : [])]
  const waysOut = [
    ...missing.map((node) => `replctl remove-standby ${node}`),
    ...(isArchiveMissing
      ? [`archive.synchronous: false in the inventory, then replctl init primary ${primary}`]
      : []),
  ]
  const since = instance.waitingForSyncSeconds
  const waiting =
    instance.waitingForSync === 0
      ? 'No session waits yet: the next commit will.'
      : `${instance.waitingForSync} session(s) wait for a synchronous standby${
          since === null ? '' : `, the first for ${Math.round(since)} s`
        }.`
  const value = instance.settings.synchronous_standby_names?.value
  return new ReplctlError(
    'writes-blocked',
    `writes blocked: ${confirming.length} of ${wanted} sync standbys`,
    {
      detail: `${waiting} synchronous_standby_names is ${value}.`,
      hint:
        partners.length === 0
          ? `Correct synchronous_standby_names on ${primary}: it names nobody who streams.`
          : `Bring ${partners.join(', ')} back; or, to set writes free without: ${waysOut.join(', ')}`,
      node: primary,
    },
  )
}

function reduced(
  inventory: Inventory,
  primary: NodeName,
  live: ParsedSynchronousStandbys | null,
  count: number,
): ReplctlError {
  const { syncStandbys } = inventory.replication
  const others = inventory.nodes.filter(
    ({ name, applicationName }) => name !== primary && live?.names.includes(applicationName) !== true,
  )
  return new ReplctlError('durability-reduced', `${count} of ${syncStandbys} sync standbys`, {
    detail:
      live === null
        ? `synchronous_standby_names is empty on ${primary}: commits are confirmed without a standby.`
        : `Commits on ${primary} wait for ${live.count} standby(s): there are no more.`,
    hint: `Add a standby: replctl add-standby ${others.map((node) => node.name).join(' ') || 'NODE'}`,
    node: primary,
  })
}
