import { archiveHost } from '../../cluster/names.ts'
import { exitCodes, ReplctlError } from '../../errors.ts'
import { pruneArchive } from '../../node/prune-archive.ts'
import { type ArchivedBackup, readArchive, readBackupStarts } from '../../node/read-archive.ts'
import { surveyNodes } from '../../node/survey.ts'
import { compareLsn, type Lsn, parseLsn } from '../../postgres/lsn.ts'
import { walFileName, walFileStart } from '../../postgres/wal-file.ts'
import { formatBytes } from '../../report/bytes.ts'
import { archivedIdentifier } from '../archive-access.ts'
import { openArchive, unreachableNodes } from '../archive-session.ts'
import { openCluster } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'

/** `replctl archive prune [--keep-from LSN|BACKUP]`. */
export async function run(call: Call): Promise<Answer> {
  const session = await openCluster(call)
  try {
    const [{ settings, host }, survey] = await Promise.all([
      openArchive(session),
      surveyNodes([...session.nodes.values()], 'brief'),
    ])
    const { dir } = settings
    const systemIdentifier = await archivedIdentifier(survey, host, dir)
    const place = { dir, systemIdentifier }
    const [content, backups] = await Promise.all([readArchive(host, place), readBackupStarts(host, place)])
    const size =
      content.segmentSizeBytes ??
      Number(
        survey.find((facts) => facts.instance)?.instance?.settings.wal_segment_size?.value ?? 16 * 2 ** 20,
      )
    const folder = `${dir}/${systemIdentifier}/backup`
    const from = keepFrom(call.options.keepFrom as string | undefined, backups, folder)
    const before = walFileName(1, from, size)
    requireNothingNeeded(walFileStart(before, size), backups, folder)
    const startedAt = performance.now()
    const pruned = await pruneArchive(host, { ...place, before, isDryRun: call.flags.isDryRun })
    const ms = Math.round(performance.now() - startedAt)
    const state = pruned.files === 0 ? 'satisfied' : call.flags.isDryRun ? 'planned' : 'applied'
    const what = `${pruned.files} ${pruned.files === 1 ? 'file' : 'files'}, ${formatBytes(pruned.bytes)}`
    return {
      exitCode: exitCodes.ok,
      changed: pruned.files > 0 && !call.flags.isDryRun,
      cluster: session.inventory.cluster,
      result: {
        ...{ keep_from: from, before: before.slice(8), ...pruned, dry_run: call.flags.isDryRun },
        steps: [{ n: 1, node: archiveHost, title: 'remove WAL that no backup needs', state, ms }],
      },
      problems: unreachableNodes(survey),
      text: `${call.flags.isDryRun ? 'Would remove' : 'Removed'} ${what}: WAL before ${from}.\n`,
    }
  } finally {
    await session.close()
  }
}

/** The LSN that the operator means, or that the oldest backup starts at. */
function keepFrom(wish: string | undefined, backups: readonly ArchivedBackup[], folder: string): Lsn {
  if (wish === undefined) {
    const starts = backups.map((backup) => requireStart(backup, folder)).toSorted(compareLsn)
    if (starts[0] !== undefined) return starts[0]
    throw new ReplctlError('usage', 'there is no backup to keep WAL for: --keep-from is needed', {
      hint: 'For example: replctl archive prune --keep-from 2/A8000000 --dry-run',
    })
  }
  const backup = backups.find((one) => one.id === wish)
  if (backup !== undefined) return requireStart(backup, folder)
  try {
    return parseLsn(wish)
  } catch {
    throw new ReplctlError('usage', `--keep-from: "${wish}" is neither an LSN nor a backup`, {
      detail: `Backups: ${backups.map((one) => one.id).join(', ') || 'none'}.`,
    })
  }
}

/** No backup that is there loses WAL, be it the one that is kept or another. */
function requireNothingNeeded(from: Lsn, backups: readonly ArchivedBackup[], folder: string): void {
  for (const backup of backups) {
    if (compareLsn(requireStart(backup, folder), from) >= 0) continue
    throw new ReplctlError('backup-needs-wal', `backup ${backup.id} needs WAL from ${backup.startLsn} on`, {
      detail: `What lies before ${from} was to be removed.`,
      hint: 'Remove the backup first: replctl backup expire',
    })
  }
}

export function requireStart({ id, startLsn }: ArchivedBackup, folder: string): Lsn {
  if (startLsn !== null) return startLsn
  throw new ReplctlError('backup-needs-wal', `cannot tell what WAL backup ${id} needs`, {
    ...(id.startsWith('.incoming-')
      ? {
          detail: 'It is being taken, or was interrupted.',
          hint: 'Finish it, or, where it is older than six hours, take a new one in its place: replctl backup. To give it up: replctl abort',
        }
      : {
          detail: `Its backup.json cannot be read. It lies on the archive host in ${folder}/${id}.`,
          hint: 'Remove that folder yourself if it is of no use any more.',
        }),
  })
}
