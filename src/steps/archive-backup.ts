import type { ArchiveSettings, Inventory, NodeSettings } from '../cluster/inventory.ts'
import { archiveHost, type NodeName } from '../cluster/names.ts'
import { upstreamConninfo } from '../cluster/node-configuration.ts'
import { shellScript } from '../command.ts'
import { pending, refused, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { followJob } from '../node/follow-job.ts'
import { type JobState, lookAtJob, startJob, stopJob } from '../node/jobs.ts'
import type { Node } from '../node/node.ts'
import { chooseStoredCompression, type StoredCompression, storedBackupArgs } from '../postgres/base-backup.ts'
import { findBackupPrograms } from './backup-programs.ts'
import { takeBackupScript } from './backup-scripts.ts'
import { ask, awaitState, majorOf, sqlOf } from './look.ts'
import { outputProgress, serverProgress } from './take-base-backup.ts'

/** One base backup to take. */
export interface ArchiveBackup {
  readonly inventory: Inventory
  readonly archive: ArchiveSettings
  readonly id: string
  readonly source: NodeSettings
  /** Null: none answers; then the backup stands alone until there is one. */
  readonly primary: NodeName | null
  readonly systemIdentifier: string
  readonly label: string
  /** The backup that it builds on. */
  readonly parent: string | null
}

/** Name of the detached job on the archive host, whoever started it. Another cluster of the same name has one of its own. */
export const backupJobOf = (systemIdentifier: string): string => `backup-${systemIdentifier}`

/** Never that of a standby: a name in synchronous_standby_names would have the copy confirm commits. */
const applicationNameOf = (inventory: Inventory): string => `${inventory.cluster}_backup`

export const folderOf = ({ archive, systemIdentifier }: ArchiveBackup) =>
  `${archive.dir}/${systemIdentifier}/backup`

export interface Progress {
  readonly isPublished: boolean
  readonly isTaken: boolean
  readonly isProved: boolean
}

/** How far this very backup is, by what lies in the archive. */
export async function lookAtBackup(node: Node, backup: ArchiveBackup): Promise<Progress> {
  const script = `
[ -f "$1/$2/backup.json" ] && echo published
[ -f "$1/.incoming-$2/taken" ] && echo taken
[ -f "$1/.incoming-$2/proved" ] && echo proved
:
`
  const output = await node.output(shellScript('look at the backup', script, [folderOf(backup), backup.id]))
  return {
    isPublished: output.includes('published'),
    isTaken: output.includes('taken'),
    isProved: output.includes('proved'),
  }
}

/** Free, with what an unfinished backup holds: that is this very one, or goes when this one begins. */
export const freeForBackupScript = `
at=$1
while [ ! -d "$at" ]; do at=$(dirname "$at"); done
{ df -Pk -- "$at" | awk 'NR == 2 { print $4 }'; du -sk "$1"/.incoming-* 2>/dev/null; } | awk '{ all += $1 } END { printf "%.0f\\n", all }'
`

/**
 * Bytes that a backup needs at most, while it is proved: the packed copy and an unpacked one, which is the same again where nothing
 * packs. How large the next incremental one gets nobody knows before it is taken.
 */
export function roomForBackup(databaseBytes: number, isIncremental: boolean, isPacked: boolean): number {
  return (isIncremental ? 0 : databaseBytes * (isPacked ? 1.3 : 2.1)) + 64 * 2 ** 20
}

/** How the copy is packed, by what the server and the archive host can. */
async function compressionOf(
  ctx: StepContext,
  { source, archive }: ArchiveBackup,
): Promise<StoredCompression> {
  const { facts, sql } = await ask(ctx, source.name)
  const major = majorOf(facts)
  const { packers } = await findBackupPrograms(ctx.node, major)
  const configure = await sql
    .value("SELECT setting FROM pg_config WHERE name = 'CONFIGURE'")
    .catch(() => null)
  return chooseStoredCompression(archive.compression, major, configure ?? '', packers)
}

/** The archive's disk has room for the backup and, while it is proved, for an unpacked copy of it. */
export function requireRoomForBackup(backup: ArchiveBackup): Step {
  return {
    title: `require room for a backup of ${backup.source.name}`,
    node: archiveHost,
    check: async (ctx) => {
      if ((await lookAtBackup(ctx.node, backup)).isTaken) return satisfied('it is taken already')
      const { sql } = await ask(ctx, backup.source.name)
      const bytes = Number(
        (await sql.value('SELECT sum(pg_tablespace_size(oid))::text FROM pg_tablespace')) ?? 0,
      )
      const free = await ctx.node.output(
        shellScript('ask for free space', freeForBackupScript, [folderOf(backup)]),
      )
      const freeMb = Math.round(Number(free.trim()) / 2 ** 10)
      const isPacked = backup.parent !== null || (await compressionOf(ctx, backup)) !== 'none'
      const neededMb = Math.round(roomForBackup(bytes, backup.parent !== null, isPacked) / 2 ** 20)
      if (!(freeMb < neededMb)) return satisfied(`${freeMb} MiB free, at most ${neededMb} MiB needed`)
      return refused(
        new ReplctlError('disk-full', `the archive has no room for a backup of ${backup.source.name}`, {
          detail: `About ${neededMb} MiB are needed (the packed copy, and an unpacked one while it is proved), ${freeMb} MiB are free in ${backup.archive.dir}.`,
          hint: 'Remove old backups: replctl backup expire --keep-full N --dry-run shows which.',
          node: archiveHost,
        }),
      )
    },
  }
}

/**
 * Copies the instance to the archive's disk with pg_basebackup, which runs there: nothing flows through the control host.
 * The copy goes on when replctl dies; running the command again finds it.
 */
export function takeArchiveBackup(backup: ArchiveBackup): Step {
  const { source } = backup
  return {
    title: `take a base backup of ${source.name} into the archive`,
    node: archiveHost,
    check: async (ctx) => {
      const { isPublished, isTaken } = await lookAtBackup(ctx.node, backup)
      return isPublished || isTaken ? satisfied('it is taken') : pending('it is to be taken')
    },
    apply: async (ctx) => {
      const { isTaken } = await lookAtBackup(ctx.node, backup)
      if (isTaken) return
      const running = await isCopying(ctx.node, backup)
      if (!running) await beginBackup(ctx, backup)
      const tellServer = await serverProgress(ctx, source, {
        applicationName: applicationNameOf(backup.inventory),
      })
      await followJob({
        ...{
          node: ctx.node,
          name: backupJobOf(backup.systemIdentifier),
          what: 'the base backup',
          signal: ctx.signal,
        },
        patienceMs: Math.max(600_000, ctx.timeoutMs),
        progress: async (job) => (await tellServer()) ?? outputProgress(job.output),
        tell: (progress) => ctx.progress(progress),
        failed: (job) => copyFailed(backup, job),
      })
      await stopJob(ctx.node, backupJobOf(backup.systemIdentifier))
    },
    undo: (ctx) => removeUnfinished(ctx.node, backup),
  }
}

export async function removeUnfinished(node: Node, backup: ArchiveBackup): Promise<void> {
  await stopJob(node, backupJobOf(backup.systemIdentifier))
  const script = 'rm -rf -- "$1/.incoming-$2"; rmdir "$1" 2>/dev/null; :'
  const command = shellScript('remove the unfinished backup', script, [folderOf(backup), backup.id])
  await node.output(command, { timeoutMs: 600_000 })
}

/** Whether the job that runs is the copy of this very backup. */
async function isCopying(node: Node, backup: ArchiveBackup): Promise<boolean> {
  const job = await lookAtJob(node, backupJobOf(backup.systemIdentifier))
  if (!job.isRunning) return false
  const script = '[ -f "$1/.incoming-$2/request.json" ] && echo ours; :'
  return (
    (
      await node.output(shellScript('look whose copy it is', script, [folderOf(backup), backup.id]))
    ).trim() === 'ours'
  )
}

async function beginBackup(ctx: StepContext, backup: ArchiveBackup): Promise<void> {
  const { inventory, source, label, archive } = backup
  const { facts } = await ask(ctx, source.name)
  const major = majorOf(facts)
  const programs = await findBackupPrograms(ctx.node, major)
  if (backup.primary !== null && backup.primary !== source.name) await awaitAllOf(ctx, backup, backup.primary)
  await stopJob(ctx.node, backupJobOf(backup.systemIdentifier))
  const sql = await sqlOf(ctx, facts)
  const compression = await compressionOf(ctx, backup)
  const incoming = `${folderOf(backup)}/.incoming-${backup.id}`
  const request = {
    ...{ cluster: inventory.cluster, source: source.name, label, parent: backup.parent },
    startedAt: new Date().toISOString(),
    ...{ postgresVersion: (await sql.value('SHOW server_version'))?.split(' ')[0] ?? String(major), major },
  }
  const prepare = `
umask 077
[ -d "$1/$2/wal" ] && [ -w "$1" ] || { echo "$1/$2/wal is missing or $1 not writable: is its file system mounted?" >&2; exit 73; }
mkdir -p "$1/$2/backup" || exit 73
cd "$1/$2/backup" || exit 73
# Whatever an earlier run left: its job is gone.
rm -rf .incoming-*
mkdir ".incoming-$3" && cat > ".incoming-$3/request.json"
`
  const made = await ctx.node.run(
    shellScript('prepare the backup', prepare, [archive.dir, backup.systemIdentifier, backup.id], {
      stdin: `${JSON.stringify(request)}\n`,
    }),
    { timeoutMs: 600_000 },
  )
  if (made.status !== 0) throw cannotStore(archive, made.stderr)
  const settings = { ...ctx.node.settings, applicationName: applicationNameOf(inventory) }
  const args = storedBackupArgs({
    ...{ serverMajor: major, directory: `${incoming}/new`, label, compression },
    conninfo: upstreamConninfo(inventory, programs.home, settings, source),
    incrementalFrom:
      backup.parent === null ? undefined : `${folderOf(backup)}/${backup.parent}/backup_manifest`,
  })
  await startJob(ctx.node, backupJobOf(backup.systemIdentifier), takeBackupScript, [
    ...[programs.directory ?? '', incoming, compression],
    ...args,
  ])
}

/** A standby that is copied has replayed everything that was committed when the command began. */
async function awaitAllOf(
  ctx: StepContext,
  { source, parent }: ArchiveBackup,
  primary: NodeName,
): Promise<void> {
  const { sql: there } = await ask(ctx, primary)
  // A standby's backup begins at a checkpoint that it replayed: an incremental one must begin after the one it builds on.
  if (parent !== null) await there.execute('CHECKPOINT', { timeoutMs: 600_000 })
  const lsn = (await there.value('SELECT pg_current_wal_lsn()::text')) ?? '0/0'
  const { sql } = await ask(ctx, source.name)
  await awaitState(ctx, `${source.name} has replayed what ${primary} had written (${lsn})`, async () =>
    (await sql.value(`SELECT (pg_last_wal_replay_lsn() >= '${lsn}'::pg_lsn)::text`)) === 'true'
      ? true
      : undefined,
  )
}

export function saidBy(job: JobState): string {
  return job.output
    .split(/[\r\n]+/)
    .filter((line) => !/^\s*\d+\/\d+ kB/.test(line) && line.trim() !== '')
    .slice(-10)
    .join('\n')
}

function copyFailed({ source }: ArchiveBackup, job: JobState): ReplctlError {
  const said = saidBy(job)
  const isFull = /no space left/i.test(said)
  const isRejected = /no pg_hba\.conf entry|password authentication failed|no password supplied/.test(said)
  const code = isFull ? 'disk-full' : isRejected ? 'replication-login-failed' : 'base-backup-failed'
  return new ReplctlError(code, `could not take a base backup of ${source.name}`, {
    detail: `pg_basebackup on the archive host ended with ${job.status === null ? 'a kill' : `exit status ${job.status}`}. It said: ${said}`,
    hint: isFull
      ? 'Free some space in the archive, then run the command again.'
      : 'Mend what it names, then run the command again.',
    node: archiveHost,
  })
}

function cannotStore(archive: ArchiveSettings, said: string): ReplctlError {
  return new ReplctlError('archive-failing', `cannot store a backup in ${archive.dir} on ${archive.host}`, {
    detail: said.trim(),
    hint: `Is its file system mounted, and does it belong to ${archive.user}?`,
    node: archiveHost,
  })
}
