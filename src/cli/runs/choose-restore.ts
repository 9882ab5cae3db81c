import { chooseBackup, type RestoreChoice, type RestoreWish } from '../../cluster/choose-backup.ts'
import { primaryLineOf } from '../../cluster/living-line.ts'
import { archiveHost } from '../../cluster/names.ts'
import { ReplctlError } from '../../errors.ts'
import { readManifestDamage } from '../../node/hash-backup.ts'
import { type ArchiveAccess, catalogsOf } from '../archive-session.ts'
import type { ClusterSession } from '../cluster-session.ts'
import type { Observation } from '../operation.ts'

/** The archive may hold several system identifiers; a backup that is named tells which is meant. */
export async function choose(
  session: ClusterSession,
  archive: ArchiveAccess,
  { survey, topology }: Pick<Observation, 'survey' | 'topology'>,
  asked: Omit<RestoreWish, 'primary'>,
): Promise<RestoreChoice> {
  const catalogs = await catalogsOf(session, archive, survey)
  const fitting =
    asked.backup === undefined
      ? catalogs
      : catalogs.filter(({ backups }) => backups.some(({ id }) => id === asked.backup))
  const [first, ...more] = fitting.length === 0 ? catalogs : fitting
  if (first === undefined) {
    throw new ReplctlError('no-backup', 'the archive holds no backup of this cluster', {
      detail: `Looked in ${archive.settings.dir} on ${archive.settings.host} for backups of "${session.inventory.cluster}".`,
      hint: 'Take one: replctl backup',
    })
  }
  if (more.length > 0) {
    const list = fitting.map(({ systemIdentifier, backups }) => `${systemIdentifier}: ${backups.at(-1)?.id}`)
    throw new ReplctlError('no-backup', 'the archive holds several clusters of this name', {
      detail: `System identifiers with their newest backups: ${list.join(', ')}.`,
      hint: 'Say which is meant: --backup ID',
    })
  }
  const { target, backup, timeline } = asked
  const primary = primaryLineOf(survey, topology.primary)
  const choice = chooseBackup(first, { target, backup, timeline, primary })
  await requireManifests(archive, choice)
  return choice
}

/** Before anything is copied: an edited or swapped manifest would be found only when all of it has arrived. */
async function requireManifests({ host, settings }: ArchiveAccess, choice: RestoreChoice): Promise<void> {
  for (const { id, files } of choice.chain) {
    const folder = `${settings.dir}/${choice.systemIdentifier}/backup/${id}`
    const damage = await readManifestDamage(host, folder, files)
    if (damage.length === 0) continue
    throw new ReplctlError('no-backup', `backup ${choice.backup.id} cannot be restored`, {
      detail: `${id === choice.backup.id ? '' : `Backup ${id}, which it builds on: `}${damage.join('; ')}.`,
      hint: 'Choose another one: replctl backup verify says which are sound.',
      node: archiveHost,
    })
  }
}
