import { closedPrimary, whyClosed } from '../cluster/closed-primary.ts'
import type { Inventory } from '../cluster/inventory.ts'
import { strayPrimary } from '../cluster/judge-promotion.ts'
import type { Problem } from '../cluster/problem.ts'
import { commonRecord } from '../cluster/record.ts'
import { delayMsOf, type ObservedNode, type Topology } from '../cluster/topology.ts'
import { formatBytes, formatDuration } from './bytes.ts'
import { holderLines, unfinishedLines } from './operation.ts'
import type { Paint } from './paint.ts'
import { oneLine } from './plain-text.ts'
import { problemsText } from './problems.ts'
import { type StatusNode, type StatusSlot, statusNode } from './status-node.ts'
import { topologyTree } from './status-tree.ts'
import { columns } from './table.ts'

/** `result` of `status`. */
export interface StatusResult {
  readonly primary: string | null
  readonly timeline: number | null
  readonly nodes: readonly StatusNode[]
  readonly archive: object | null
}

/** The cluster as observed, in values. The archive is for the caller to add. */
export function statusJson(inventory: Inventory, topology: Topology): StatusResult {
  const nodes = inventory.nodes.flatMap((settings) => {
    const node = topology.nodes.find((one) => one.settings.name === settings.name)
    return node === undefined ? [] : [statusNode(node, topology)]
  })
  const primary = nodes.find((node) => node.name === topology.primary)
  return { primary: topology.primary, timeline: primary?.timeline ?? null, nodes, archive: null }
}

/** The cluster at a glance: who leads, who follows whom and how far behind, what is wrong and how to mend it. */
export function statusText(
  inventory: Inventory,
  topology: Topology,
  problems: readonly Problem[],
  paint: Paint,
  archive = '',
): string {
  const versions = new Set(topology.nodes.flatMap((node) => statusNode(node, topology).version ?? []))
  const operations = [
    ...holderLines(topology.nodes).map((line) => `${paint.warn(line)}\n`),
    ...unfinishedLines(topology.nodes).map((line) => `${paint.bad(line)}\n`),
  ]
  return [
    `${headline(inventory, topology, versions, paint)}\n`,
    ...operations,
    '\n',
    table(topology, versions.size > 1, paint),
    archive,
    foreignSlots(topology, paint),
    verdict(problems, paint),
  ].join('')
}

function headline(
  inventory: Inventory,
  topology: Topology,
  versions: ReadonlySet<string>,
  paint: Paint,
): string {
  const { timeline } = statusJson(inventory, topology)
  const name = paint.strong(inventory.cluster)
  if (topology.writers.length > 1) {
    return `${name}: ${paint.bad(`TWO WRITERS: ${topology.writers.join(' and ')} accept writes`)}`
  }
  if (topology.primary === null) return `${name}: ${paint.bad(noPrimary(topology))}`
  const version = versions.size === 1 ? `, PostgreSQL ${[...versions].join()}` : ''
  return `${name}: primary ${paint.name(topology.primary)}, timeline ${timeline}${version}`
}

function noPrimary(topology: Topology): string {
  const { nodes } = topology
  const stray = strayPrimary(topology)
  if (stray !== undefined) return `NO PRIMARY IN ITS PLACE: one answers on ${stray.settings.name}`
  const closed = closedPrimary(topology)
  if (closed !== undefined) {
    return `NO PRIMARY TO ASK: ${closed.settings.name} answers, but ${whyClosed(closed.facts)}`
  }
  const hidden = nodes.find(({ facts }) => facts.seenByOthers?.role === 'primary')
  if (hidden !== undefined) return `NO PRIMARY IN REACH: ${hidden.settings.name} leads, as the others see it`
  const unreachable = nodes.filter((node) => node.facts.unreachable !== null).length
  if (nodes.every((node) => node.role === 'empty')) return 'not built yet'
  if (unreachable === 0) return 'NO PRIMARY: no node accepts writes'
  return `NO PRIMARY SEEN: ${unreachable} of ${nodes.length} nodes cannot be reached`
}

function table(topology: Topology, hasVersions: boolean, paint: Paint): string {
  const head = [
    'node',
    'role',
    'state',
    ...(hasVersions ? ['version'] : []),
    'timeline',
    'LSN',
    'lag',
    'sync',
    'slot',
  ]
  const rows = topologyTree(topology).map(({ node, prefix }) => {
    const status = statusNode(node, topology)
    return [
      `${paint.dim(prefix)}${paint.name(status.name)}`,
      roleText(node, paint),
      stateText(node, paint),
      ...(hasVersions ? [status.version ?? '-'] : []),
      String(status.timeline ?? '-'),
      lsnText(status, topology.primary !== null),
      lagText(node, status),
      status.sync_state ?? '-',
      slotText(node, status, paint),
    ]
  })
  return columns([head.map((title) => paint.dim(title)), ...rows])
}

function roleText({ role }: ObservedNode, paint: Paint): string {
  if (role === 'primary') return paint.strong(role)
  return role === 'standby' ? role : paint.bad(role)
}

function stateText(node: ObservedNode, paint: Paint): string {
  const word = stateWord(node)
  const from = node.foreignUpstream === null ? '' : ` from ${oneLine(node.foreignUpstream)}`
  if (word === 'running' || word === 'streaming') return `${paint.good(word)}${paint.warn(from)}`
  return word === 'catchup' || word === 'archive' ? paint.warn(word + from) : paint.bad(word + from)
}

/** As in the JSON, but `unknown` says what is known of it. */
function stateWord({ facts, role, state }: ObservedNode): string {
  if (facts.unreachable !== null) return 'unreachable'
  if (role === 'empty') return 'not built'
  if (facts.dataDirectoryState === 'not-an-instance') return 'not an instance'
  return state === 'unknown' ? 'not answering' : state
}

/** Where it stands; beside it what it has received, where nobody can say how far it is behind. */
function lsnText(status: StatusNode, hasPrimary: boolean): string {
  const { lsn, received_lsn: received } = status
  const isBehind = received !== null && received !== lsn && (status.paused || !hasPrimary)
  return `${lsn ?? '-'}${isBehind ? ` (received ${received})` : ''}`
}

function lagText(node: ObservedNode, status: StatusNode): string {
  const { role } = node
  const delayMs = delayMsOf(node)
  const { lag_bytes: bytes, lag_seconds: seconds } = status
  // Without a primary, 0 seconds only say that it replayed what it has: nobody knows what it lacks.
  if (role === 'primary' || (bytes === null && (seconds ?? 0) === 0)) return '-'
  const parts = [
    ...(bytes === null ? [] : [formatBytes(bytes)]),
    ...(seconds === null ? [] : [formatDuration(Math.round(seconds * 10) * 100)]),
  ]
  const delay = delayMs > 0 ? ` (delay ${formatDuration(delayMs)})` : ''
  return `${bytes === 0 ? 'none' : parts.join(', ')}${delay}`
}

function slotText({ slot }: ObservedNode, status: StatusNode, paint: Paint): string {
  if (slot === null || status.slot === null) return '-'
  const { slot_wal_status: walStatus, retained_bytes: retained } = status
  const remarks = [
    ...(slot.isActive ? [] : ['inactive']),
    ...(walStatus === null || walStatus === 'reserved' ? [] : [walStatus]),
    ...(retained === null || retained === 0 ? [] : [`keeps ${formatBytes(retained)}`]),
  ]
  if (remarks.length === 0) return status.slot
  const text = ` (${remarks.join(', ')})`
  const isBad = walStatus === 'lost' || walStatus === 'unreserved'
  return `${status.slot}${isBad ? paint.bad(text) : slot.isActive ? text : paint.warn(text)}`
}

/** Slots that replctl did not make hold WAL back as well, and it never drops them: they are told, not judged. */
function foreignSlots(topology: Topology, paint: Paint): string {
  const removed = commonRecord(topology.nodes.map(({ facts }) => facts))?.removedSlots ?? []
  // Of one that was taken out: told with the problems, and dropped by the next command.
  const isLeftOver = ({ name, type, active }: StatusSlot) =>
    removed.includes(name) && type === 'physical' && !active
  const lines = topology.nodes.flatMap((node) =>
    statusNode(node, topology)
      .slots.filter((slot) => slot.for === null && !isLeftOver(slot))
      .map((slot) => {
        const kept = slot.retained_bytes ? `, keeps ${formatBytes(slot.retained_bytes)}` : ''
        const status =
          slot.wal_status === null || slot.wal_status === 'reserved' ? '' : `, ${slot.wal_status}`
        const text = `(${slot.type}${slot.active ? '' : ', inactive'}${status}${kept})`
        return `  ${oneLine(slot.name)} on ${node.settings.name} ${slot.active ? text : paint.warn(text)}\n`
      }),
  )
  return lines.length === 0 ? '' : `\nSlots that replctl did not make, and keeps:\n${lines.join('')}`
}

/** An operation that stopped part-way has its own line above the table. */
function verdict(problems: readonly Problem[], paint: Paint): string {
  if (problems.length === 0) return `\n${paint.good('Everything is as the inventory wants it.')}\n`
  const others = problems.filter((problem) => problem.code !== 'operation-unfinished')
  return others.length === 0 ? '' : `\n${problemsText(others, paint)}`
}
