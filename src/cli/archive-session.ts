import type { BackupCatalog } from '../cluster/backup-catalog.ts'
import type { Survey } from '../cluster/facts.ts'
import type { ArchiveSettings, Inventory } from '../cluster/inventory.ts'
import { archiveHost } from '../cluster/names.ts'
import { type Problem, problemOf } from '../cluster/problem.ts'
import { clusterIdentifier } from '../cluster/record.ts'
import { ReplctlError } from '../errors.ts'
import type { Node } from '../node/node.ts'
import { requireArchive } from '../node/read-archive.ts'
import { readCatalogs } from '../node/read-catalog.ts'
import { surveyNodes } from '../node/survey.ts'
import type { ClusterSession } from './cluster-session.ts'

/** The archive of the inventory, and the host that keeps it. */
export interface ArchiveAccess {
  readonly settings: ArchiveSettings
  readonly host: Node
}

/** The archive of the inventory, not logged into. @throws {ReplctlError} `no-archive` */
export function archiveOf(session: Pick<ClusterSession, 'inventory' | 'hosts'>): ArchiveAccess {
  const { archive } = session.inventory
  const host = session.hosts.get(archiveHost)
  if (archive === undefined || host === undefined) {
    throw new ReplctlError('no-archive', 'the inventory names no archive', {
      detail: `${session.inventory.path} has no "archive" block, so there is nowhere to keep backups and WAL.`,
      hint: 'Add archive.host and archive.dir; then, for nodes that are there already: replctl init primary, replctl add-standby NODE…',
    })
  }
  return { settings: archive, host }
}

/** Logs into the archive host. @throws {ReplctlError} `no-archive`, or why the host cannot be reached (exit 4) */
export async function openArchive(session: ClusterSession): Promise<ArchiveAccess> {
  const archive = archiveOf(session)
  await archive.host.transport.connect().catch((thrown: unknown) => {
    throw thrown instanceof ReplctlError ? thrown.with({ node: archiveHost }) : thrown
  })
  return archive
}

/**
 * The catalogs of this cluster: that of the system identifier which its nodes have, where any of them is known; else each
 * whose backups name the cluster.
 * @throws {ReplctlError} `archive-failing` where there is nothing at all, as below a mount point
 */
export async function catalogsOf(
  { inventory }: Pick<ClusterSession, 'inventory'>,
  { host, settings }: ArchiveAccess,
  survey: Survey,
): Promise<readonly BackupCatalog[]> {
  const identifier = clusterIdentifier(survey)
  const all = await readCatalogs(host, settings.dir, identifier ?? '')
  if (all.length === 0) await requireArchive(host, settings.dir, identifier)
  return identifier === null ? all.filter((catalog) => isOf(catalog, inventory)) : all
}

function isOf(catalog: BackupCatalog, { cluster }: Inventory): boolean {
  return catalog.backups.some(({ metadata }) => metadata?.cluster === cluster)
}

/** For commands that only read the archive: nodes that cannot be reached are no hindrance. */
export async function surveyForArchive(session: ClusterSession): Promise<Survey> {
  return await surveyNodes([...session.nodes.values()], 'brief')
}

/** Nodes that could not be asked and did not have to be: a warning each. */
export function unreachableNodes(survey: Survey): readonly Problem[] {
  return survey.flatMap((facts) =>
    facts.unreachable === null ? [] : [problemOf(facts.unreachable, 'warning')],
  )
}
