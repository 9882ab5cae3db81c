import {
  type BackupCatalog,
  chainFrom,
  historyOf,
  isBackupOn,
  judgeBackups,
  missingWalOf,
  timelinesOf,
  walOf,
} from '../../cluster/backup-catalog.ts'
import { archiveHost } from '../../cluster/names.ts'
import { type Problem, problemOf } from '../../cluster/problem.ts'
import { asReplctlError, exitCodes, ReplctlError } from '../../errors.ts'
import { writeTextFile } from '../../node/files.ts'
import { readDamage } from '../../node/hash-backup.ts'
import { readArchive } from '../../node/read-archive.ts'
import { readCatalog } from '../../node/read-catalog.ts'
import type { ArchiveFault } from '../../postgres/archive-content.ts'
import { checkFile } from '../../postgres/backup-metadata.ts'
import { backupsText, listedBackup } from '../../report/backups.ts'
import {
  type ArchiveAccess,
  catalogsOf,
  openArchive,
  surveyForArchive,
  unreachableNodes,
} from '../archive-session.ts'
import { openCluster } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
import { paintOf } from '../operation.ts'

/** `replctl backup verify [ID]`. */
export async function run(call: Call): Promise<Answer> {
  const session = await openCluster(call)
  try {
    const archive = await openArchive(session)
    const survey = await surveyForArchive(session)
    const catalogs = await catalogsOf(session, archive, survey)
    const wished = call.args[0] as string | undefined
    const all = catalogs.flatMap((catalog) => catalog.backups.map(({ id }) => ({ catalog, id })))
    const chosen = all.filter(({ id }) => wished === undefined || id === wished)
    if (chosen.length === 0)
      throw nothingToVerify(
        wished,
        all.map(({ id }) => id),
      )
    const problems: Problem[] = [...unreachableNodes(survey)]
    const backups = []
    for (const systemIdentifier of new Set(chosen.map(({ catalog }) => catalog.systemIdentifier))) {
      const ids = chosen
        .filter((one) => one.catalog.systemIdentifier === systemIdentifier)
        .map(({ id }) => id)
      const verified = await verifyAll(archive, systemIdentifier, ids, call.flags.isDryRun)
      problems.push(...verified.problems)
      backups.push(...verified.backups)
    }
    if (backups.length === 0) throw nothingToVerify(wished, [])
    const isHealthy = problems.every((problem) => problem.severity !== 'error')
    return {
      exitCode: isHealthy ? exitCodes.ok : exitCodes.unhealthy,
      changed: false,
      cluster: session.inventory.cluster,
      result: { backups },
      problems,
      text: backupsText(backups, [], paintOf(call, 'out')),
    }
  } finally {
    await session.close()
  }
}

/** Reads every byte of the chosen backups and of their own WAL in the archive, without which they reach nothing. */
export async function verifyAll(
  archive: Pick<ArchiveAccess, 'host' | 'settings'>,
  systemIdentifier: string,
  ids: readonly string[],
  isDryRun: boolean,
) {
  const { dir } = archive.settings
  const before = await readCatalog(archive.host, dir, systemIdentifier)
  const chosen = before.backups.filter(({ id }) => ids.includes(id))
  const whole = [...new Set(chosen.flatMap(({ metadata }) => (metadata === null ? [] : walOf(metadata))))]
  const content = await readArchive(archive.host, { dir, systemIdentifier }, { whole })
  // Of two copies that differ neither is handed out.
  const doubtful = content.conflicts.map(([file = '', ...others]) => ({
    file,
    what: `${others.join(' and ')} is another copy of it, and differs`,
  }))
  const faults = [...content.faults, ...doubtful]
  const problems: Problem[] = []
  const seen = new Map<string, { checkedAt: string; damage: string[] }>()
  const troubles: { readonly id: string; readonly error: ReplctlError }[] = []
  for (const { id, metadata } of chosen) {
    if (metadata === null) continue
    const folder = `${dir}/${systemIdentifier}/backup/${id}`
    try {
      const files = await readDamage(archive.host, folder, metadata.files)
      const check = {
        checkedAt: new Date().toISOString(),
        damage: [...files, ...damagedWal(before, id, faults)],
      }
      seen.set(id, check)
      if (isDryRun) continue
      const text = `${JSON.stringify(check)}\n`
      await writeTextFile(archive.host, `${folder}/${checkFile}`, text, { mode: '0600' })
    } catch (thrown) {
      troubles.push({ id, error: asReplctlError(thrown).with({ node: archiveHost }) })
    }
  }
  const after = await readCatalog(archive.host, dir, systemIdentifier)
  const isThere = (wanted: string) => after.backups.some(({ id }) => id === wanted)
  // What was removed meanwhile, past retention, is nobody's trouble.
  problems.push(...troubles.filter(({ id }) => isThere(id)).map(({ error }) => problemOf(error)))
  // Also what could not be written down, on a full disk.
  const backups = after.backups.map((one) => ({ ...one, check: seen.get(one.id) ?? one.check }))
  const judged = judgeBackups({ ...after, backups }).filter(({ id }) => ids.includes(id))
  for (const { id, damage } of judged) {
    problems.push(...damage.map((line) => problemOf(damaged(id, line))))
    problems.push(...gapsAfter(after, id, faults))
  }
  return { problems, backups: judged.map(listedBackup) }
}

/** Segments of the backup's own range that the archive lacks, or holds damaged: a recovery would stop at them. */
function damagedWal(catalog: BackupCatalog, id: string, faults: readonly ArchiveFault[]): string[] {
  const metadata = catalog.backups.find((one) => one.id === id)?.metadata
  if (!metadata) return []
  const missing = new Set(missingWalOf(catalog, metadata))
  return walOf(metadata).flatMap((segment) => {
    if (missing.has(segment)) return [`WAL segment ${segment} is missing in the archive`]
    const fault = faults.find(({ file }) => file.startsWith(segment) && !file.includes('.partial'))
    return fault === undefined ? [] : [`WAL segment ${fault.file} is damaged: ${fault.what}`]
  })
}

/** Later WAL on the newest line that this backup leads to: what is missing there bounds how far it can be restored. */
function gapsAfter(catalog: BackupCatalog, id: string, faults: readonly ArchiveFault[]): Problem[] {
  const metadata = catalog.backups.find((one) => one.id === id)?.metadata
  if (!metadata) return []
  const history = timelinesOf(catalog)
    .toReversed()
    .map((timeline) => historyOf(catalog, timeline))
    .find((line) => line !== null && isBackupOn(line, metadata))
  if (!history) return []
  const own = new Set(walOf(metadata))
  const { missing } = chainFrom(catalog, metadata, history)
  const lines = new Set([history.timeline, ...history.switches.map(({ timeline }) => timeline)])
  const last = [...own].at(-1)?.slice(8) ?? ''
  const bad = faults.filter(
    ({ file }) =>
      lines.has(Number.parseInt(file.slice(0, 8), 16) as never) &&
      !own.has(file.slice(0, 24)) &&
      /^[0-9A-F]{24}(\.(gz|lz4|zst))?$/.test(file) &&
      file.slice(8, 24) > last,
  )
  return [
    ...(missing.length === 0 ? [] : [problemOf(gap(id, missing[0] ?? '', 'is missing in the archive'))]),
    ...bad.slice(0, 5).map(({ file, what }) => problemOf(gap(id, file, `is damaged: ${what}`))),
  ]
}

function damaged(id: string, line: string): ReplctlError {
  return new ReplctlError('backup-damaged', `backup ${id} is damaged: ${line}`, {
    hint: 'It is no longer offered for a restore. Take a new one: replctl backup',
  })
}

function gap(id: string, segment: string, what: string): ReplctlError {
  return new ReplctlError('wal-gap', `backup ${id} can be restored only up to WAL segment ${segment}`, {
    detail: `${segment} ${what}.`,
    hint: 'What was written after it is not protected by this backup. Take a new one: replctl backup',
  })
}

function nothingToVerify(wished: string | undefined, ids: readonly string[]): ReplctlError {
  return new ReplctlError(
    'no-backup',
    wished === undefined ? 'there is no backup to verify' : `there is no backup ${wished}`,
    {
      detail: ids.length === 0 ? 'The archive holds none of this cluster.' : `There are ${ids.join(', ')}.`,
      hint: ids.length === 0 ? 'Take one: replctl backup' : 'List them: replctl backup list',
    },
  )
}
