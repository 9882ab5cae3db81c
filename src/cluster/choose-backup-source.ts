import { ReplctlError } from '../errors.ts'
import type { NodeName } from './names.ts'
import type { ObservedNode, Topology } from './topology.ts'

/**
 * The node to copy: the one that was named, else a standby that streams and applies at once, so that the primary is
 * spared, else the primary.
 * @throws {ReplctlError} `no-primary`, `instance-stopped`, `two-writers`, or why the named node cannot be reached
 */
export function chooseBackupSource(topology: Topology, named: NodeName | undefined): NodeName {
  if (named !== undefined) {
    const node = topology.nodes.find((one) => one.settings.name === named)
    if (node?.facts.unreachable) throw node.facts.unreachable
    if (node === undefined || node.facts.instance === null || node.role === 'unknown')
      throw notThere(named, node)
    return named
  }
  if (topology.primary === null) throw noPrimary(topology)
  const standbys = topology.nodes
    .filter((node) => canSpare(node, topology))
    .toSorted((a, b) => (a.lagBytes ?? 0) - (b.lagBytes ?? 0))
  return standbys[0]?.settings.name ?? topology.primary
}

/** A standby alone is no way out: the last WAL that its copy needs is archived by a primary. */
function noPrimary({ writers, nodes }: Topology): ReplctlError {
  const silent = nodes.filter(({ facts }) => facts.unreachable !== null).map(({ settings }) => settings.name)
  const detail =
    writers.length > 1
      ? `${writers.join(' and ')} both accept writes.`
      : silent.length > 0
        ? `No node accepts writes; ${silent.join(', ')} cannot be asked.`
        : 'No node accepts writes.'
  return new ReplctlError('no-primary', 'there is no primary to take a backup of', {
    detail: `${detail} A backup, of a standby too, is complete only with WAL that a primary archives.`,
    hint: 'Look with "replctl status": it says what brings the primary back, or who can be promoted.',
  })
}

function canSpare(node: ObservedNode, { primary }: Topology): boolean {
  return (
    node.role === 'standby' &&
    node.state === 'streaming' &&
    node.upstream === primary &&
    node.settings.delayMs === 0 &&
    node.facts.instance?.isReplayPaused === false &&
    node.facts.instance.settings.full_page_writes?.value !== 'off'
  )
}

function notThere(name: NodeName, node: ObservedNode | undefined): ReplctlError {
  return (
    node?.facts.instanceError ??
    new ReplctlError('instance-stopped', `PostgreSQL of this cluster is not running on ${name}`, {
      hint: 'Name another node, or leave --from out.',
      node: name,
    })
  )
}
