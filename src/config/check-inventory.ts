import { countEdits, nearestWord } from '../cluster/nearest-word.ts'
import { archiveStreamNames, slotNameFor } from '../cluster/replication-names.ts'
import { checkNodes } from './check-nodes.ts'
import { checkParameters } from './check-parameters.ts'
import { checkUpstreams } from './check-upstreams.ts'
import type { InventoryProblem } from './inventory-problem.ts'
import { asText, type RawInventory, type RawMap, rawInventory } from './raw-inventory.ts'

/** Everything about the inventory that one value alone does not show. */
export function checkInventory(root: RawMap): InventoryProblem[] {
  const raw = rawInventory(root)
  return [
    ...checkUpstreams(raw),
    ...checkNodes(raw),
    ...checkParameters(raw),
    ...checkSyncStandbys(raw),
    ...checkArchiveHost(raw),
    ...checkArchiveMode(raw),
  ]
}

/**
 * With more confirmations wanted than there are other nodes, every commit would wait for ever.
 * One node alone is allowed: it is where a cluster starts, and its standbys are added later.
 */
function checkSyncStandbys({ replication, nodes }: RawInventory): InventoryProblem[] {
  const { mode, sync_standbys: wanted } = replication
  const others = nodes.length - 1
  if (mode !== 'sync' && mode !== 'quorum') return []
  if (typeof wanted !== 'number' || others < 1 || wanted <= others) return []
  const message = `${wanted} standbys cannot confirm, the cluster has only ${others} besides the primary`
  const hint = `Set it to ${others} or less, or add nodes.`
  return [{ path: ['replication', 'sync_standbys'], at: 'value', message, hint }]
}

/** `pg22` for `pg2` would become a host that nobody has: what nearly is a node's name needs an address to be believed. */
function checkArchiveHost({ archive, nodes }: RawInventory): InventoryProblem[] {
  const host = asText(archive?.host)
  const names = nodes.map((node) => node.name)
  if (archive === undefined || host === undefined || archive.address !== undefined) return []
  if (names.includes(host) || nodes.some((node) => node.host === host)) return []
  const similar = nearestWord(host, names)
  if (similar === undefined || countEdits(host.toLowerCase(), similar.toLowerCase()) > 1) return []
  const hint = `Did you mean "${similar}"? If it is a machine of its own, give its address too.`
  return [{ path: ['archive', 'host'], at: 'value', message: `unknown node "${host}"`, hint }]
}

/** pg_receivewal writes segments as they are: packed, the last bytes would wait in its buffer. */
function checkArchiveMode({ archive, cluster, nodes }: RawInventory): InventoryProblem[] {
  if (archive?.mode !== 'stream') return []
  const { compression } = archive
  const problems: InventoryProblem[] = []
  if (compression !== undefined && compression !== 'auto' && compression !== 'none') {
    const message = 'WAL that is streamed to the archive is kept as it is'
    const hint = 'Leave it out, or set it to none; with mode: push segments are compressed.'
    problems.push({ path: ['archive', 'compression'], at: 'value', message, hint })
  }
  const taken = nodes.find(
    ({ name }) => slotNameFor(cluster ?? '', name) === archiveStreamNames(cluster ?? '').slot,
  )
  if (taken !== undefined) {
    const message = `its replication slot would be called as the archive's: ${archiveStreamNames(cluster ?? '').slot}`
    problems.push({ path: ['nodes', taken.name], at: 'key', message, hint: 'Rename the node.' })
  }
  return problems
}
