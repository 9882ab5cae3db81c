import { countEdits, nearestWord } from '../cluster/nearest-word.ts'
import { archiveStreamNames, slotNameFor } from '../cluster/replication-names.ts'
import { checkNodes } from './check-nodes.ts'
import { checkParameters } from './check-parameters.ts'
import { checkUpstreams } from './check-upstreams.ts'
import type { InventoryProblem, YamlPath } from './inventory-problem.ts'
import { asMap, asText, type RawInventory, type RawMap, rawInventory } from './raw-inventory.ts'

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
    ...checkSynchronousArchive(raw),
  ]
}

/**
 * With more confirmations wanted than there are other nodes, every commit would wait for ever.
 * One node alone is allowed: it is where a cluster starts, and its standbys are added later.
 */
function checkSyncStandbys({ replication, nodes, archive }: RawInventory): InventoryProblem[] {
  const { mode, sync_standbys: wanted } = replication
  const isWithArchive = archive?.mode === 'stream' && archive.synchronous === true
  const others = nodes.length - 1 + (isWithArchive ? 1 : 0)
  if (mode !== 'sync' && mode !== 'quorum') return []
  if (typeof wanted !== 'number' || nodes.length < 2 || wanted <= others) return []
  const message = isWithArchive
    ? `${wanted} cannot confirm, the cluster has only ${others - 1} standbys and the archive besides the primary`
    : `${wanted} standbys cannot confirm, the cluster has only ${others} besides the primary`
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

/** Only what is streamed can confirm a commit, and pg_receivewal never applies anything: such commits would wait for ever. */
function checkSynchronousArchive(raw: RawInventory): InventoryProblem[] {
  const { archive, nodes, postgres } = raw
  if (archive?.synchronous !== true) return []
  if (archive.mode !== 'stream') {
    const message = 'only WAL that is streamed to the archive can confirm commits'
    const hint = 'Set archive.mode to stream, or leave synchronous out.'
    return [{ path: ['archive', 'synchronous'], at: 'value', message, hint }]
  }
  const maps: [YamlPath, RawMap][] = [
    [['postgres', 'parameters'], asMap(postgres.parameters)],
    ...nodes.flatMap(({ name, map }): [YamlPath, RawMap][] => [
      [['nodes', name, 'postgres', 'parameters'], asMap(asMap(map.postgres).parameters)],
      [['nodes', name, 'parameters'], asMap(map.parameters)],
    ]),
  ]
  return maps.flatMap(([path, parameters]) =>
    Object.entries(parameters).flatMap(([name, value]): InventoryProblem[] => {
      if (name.toLowerCase() !== 'synchronous_commit' || value !== 'remote_apply') return []
      const message = 'the archive applies nothing: with archive.synchronous commits would wait for ever'
      return [{ path: [...path, name], at: 'value', message, hint: 'Set it to on, or leave it out.' }]
    }),
  )
}
