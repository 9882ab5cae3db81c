import type { Survey } from '../../cluster/facts.ts'
import { archiveHost } from '../../cluster/names.ts'
import { inOrder, pending, type Step, satisfied } from '../../engine/step.ts'
import { ReplctlError } from '../../errors.ts'
import { type PrunedArchive, type PruneWish, pruneArchive } from '../../node/prune-archive.ts'
import { type ArchivedBackup, readArchive, readBackupStarts } from '../../node/read-archive.ts'
import type { ArchiveContent } from '../../postgres/archive-content.ts'
import { compareLsn, type Lsn, parseLsn } from '../../postgres/lsn.ts'
import { defaultWalSegmentSizeBytes, walFileName, walFileStart } from '../../postgres/wal-file.ts'
import { formatBytes } from '../../report/bytes.ts'
import { archivedIdentifier } from '../archive-access.ts'
import { type ArchiveAccess, openArchive } from '../archive-session.ts'
import { openCluster } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
import { type Decision, operate } from '../operation.ts'

/** `replctl archive prune [--keep-from LSN|BACKUP]`. */
export async function run(call: Call): Promise<Answer> {
  const session = await openCluster(call)
  try {
    const archive = await openArchive(session)
    const wish = (call.options.keepFrom as string | undefined) ?? null
    return await operate(call, {
      session,
      wish: { keepFrom: wish },
      isAside: true,
      decide: async ({ survey }) => await decide(call, archive, survey, wish),
    })
  } finally {
    await session.close()
  }
}

async function decide(
  call: Call,
  { settings, host }: ArchiveAccess,
  survey: Survey,
  wish: string | null,
): Promise<Decision> {
  const { dir } = settings
  const systemIdentifier = await archivedIdentifier(survey, host, dir)
  const place = { dir, systemIdentifier }
  const [content, backups] = await Promise.all([readArchive(host, place), readBackupStarts(host, place)])
  const size = requireSegmentSize(content, survey)
  const folder = `${dir}/${systemIdentifier}/backup`
  const from = keepFrom(wish, backups, folder)
  const before = walFileName(1, from, size)
  const requireUnneeded = (starts: readonly ArchivedBackup[]) =>
    requireNothingNeeded(walFileStart(before, size), starts, folder)
  requireUnneeded(backups)
  let pruned: PrunedArchive = { files: 0, bytes: 0, first: null, last: null }
  const step = removeWalBefore({ ...place, before }, requireUnneeded, (found) => {
    pruned = found
  })
  return {
    plan: inOrder([step]),
    result: () => ({
      ...{ keep_from: from, before: before.slice(8), ...pruned, dry_run: call.flags.isDryRun },
    }),
    text: () => {
      const what = `${pruned.files} ${pruned.files === 1 ? 'file' : 'files'}, ${formatBytes(pruned.bytes)}`
      return `Removed ${what}: WAL before ${from}.\n`
    },
  }
}

/** By a wrong size other segments would go than those that are meant. @throws {ReplctlError} `archive-failing` if nobody says it */
export function requireSegmentSize(
  { segmentSizeBytes, files }: Pick<ArchiveContent, 'segmentSizeBytes' | 'files'>,
  survey: Survey,
): number {
  const said = survey.find((facts) => facts.instance)?.instance?.settings.wal_segment_size?.value
  const size = segmentSizeBytes ?? Number(said ?? 0)
  if (size > 0) return size
  if (files === 0) return defaultWalSegmentSizeBytes
  throw new ReplctlError('archive-failing', 'cannot tell how large a WAL segment of this cluster is', {
    detail: 'No node answers, and in the archive no segment’s header can be read.',
    hint: 'Make a node reachable, or install there what unpacks the segments (zstd, lz4 or gzip).',
    node: archiveHost,
  })
}

/** The oldest goes first: what is cut off in the middle of it leaves no gap. `isNeeded` throws where a backup came meanwhile. */
function removeWalBefore(
  wish: PruneWish,
  requireUnneeded: (backups: readonly ArchivedBackup[]) => void,
  tell: (pruned: PrunedArchive) => void,
): Step {
  return {
    title: 'remove WAL that no backup needs',
    node: archiveHost,
    cannotBeUndone: true,
    check: async (ctx) => {
      const would = await pruneArchive(ctx.node, { ...wish, isDryRun: true })
      tell(would)
      return would.files === 0
        ? satisfied('there is none')
        : pending(`${would.files} files, from ${would.first} to ${would.last}`)
    },
    apply: async (ctx) => {
      requireUnneeded(await readBackupStarts(ctx.node, wish))
      tell(await pruneArchive(ctx.node, wish))
    },
    verify: async () => undefined,
  }
}

/** The LSN that the operator means, or that the oldest backup starts at. */
function keepFrom(wish: string | null, backups: readonly ArchivedBackup[], folder: string): Lsn {
  if (wish === null) {
    const starts = backups.map((backup) => requireStart(backup, folder)).toSorted(compareLsn)
    if (starts[0] !== undefined) return starts[0]
    throw new ReplctlError('no-backup', 'there is no backup to keep WAL for: --keep-from is needed', {
      hint: 'For example: replctl archive prune --keep-from 2/A8000000 --dry-run',
    })
  }
  const backup = backups.find((one) => one.id === wish)
  if (backup !== undefined) return requireStart(backup, folder)
  try {
    return parseLsn(wish)
  } catch {
    throw new ReplctlError('no-backup', `--keep-from: "${wish}" is neither an LSN nor a backup`, {
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
