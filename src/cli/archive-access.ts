import { type ArchiveMeasure, type ArchiveState, observeArchive } from '../cluster/archive-state.ts'
import type { BackupCatalog } from '../cluster/backup-catalog.ts'
import type { Survey } from '../cluster/facts.ts'
import { archiveHost } from '../cluster/names.ts'
import type { Problem } from '../cluster/problem.ts'
import { clusterIdentifier } from '../cluster/record.ts'
import type { Topology } from '../cluster/topology.ts'
import { asReplctlError, ReplctlError } from '../errors.ts'
import { measureArchive } from '../node/measure-archive.ts'
import type { Node } from '../node/node.ts'
import { archivedClusters } from '../node/read-archive.ts'
import { readBackups } from '../node/read-catalog.ts'
import type { ClusterSession } from './cluster-session.ts'

/**
 * The system identifier of the cluster whose archive is meant: the nodes' own, else that of the only one which lies there.
 * @throws {ReplctlError} `archive-failing` if neither says it
 */
export async function archivedIdentifier(survey: Survey, host: Node, dir: string): Promise<string> {
  const known = clusterIdentifier(survey)
  if (known !== null) return known
  const [only, ...others] = await archivedClusters(host, dir)
  if (only !== undefined && others.length === 0) return only
  throw new ReplctlError('archive-failing', `cannot tell which archive in ${dir} is this cluster's`, {
    detail: `No node could say its system identifier; there are ${only === undefined ? 'none' : [only, ...others].join(', ')}.`,
    hint: 'Make at least one node reachable, then run the command again.',
    node: archiveHost,
  })
}

/** The archive as part of `status`: never an error, whatever its host does. */
export async function lookAtArchive(
  session: ClusterSession,
  survey: Survey,
  topology: Topology,
  connected: Promise<void> | undefined,
): Promise<{ readonly state: ArchiveState | null; readonly problems: readonly Problem[] }> {
  const { inventory } = session
  const host = session.hosts.get(archiveHost)
  if (inventory.archive === undefined || host === undefined) return { state: null, problems: [] }
  const systemIdentifier = clusterIdentifier(survey)
  const { dir } = inventory.archive
  let measured: ArchiveMeasure | ReplctlError
  let catalog: BackupCatalog | null = null
  try {
    await connected
    const backups = systemIdentifier === null ? null : readBackups(host, dir, systemIdentifier)
    backups?.catch(() => undefined)
    measured = await measureArchive(host, dir, systemIdentifier ?? '')
    catalog = await backups
  } catch (thrown) {
    measured = asReplctlError(thrown)
  }
  const primary = survey.find((facts) => facts.name === topology.primary)
  return observeArchive({ inventory, primary, systemIdentifier, measured, catalog, nowMs: Date.now() })
}

/** Begins to log into the archive host, beside the nodes; a failure is told by whoever uses it. */
export function beginToReachArchive(session: ClusterSession): Promise<void> | undefined {
  const connecting = session.hosts.get(archiveHost)?.transport.connect()
  connecting?.catch(() => undefined)
  return connecting
}
