import { archiveHost } from '../cluster/names.ts'
import { shellScript } from '../command.ts'
import { pending, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { followJob } from '../node/follow-job.ts'
import { readDamage } from '../node/hash-backup.ts'
import { type JobState, lookAtJob, startJob, stopJob } from '../node/jobs.ts'
import type { Node } from '../node/node.ts'
import type { BackupMetadata } from '../postgres/backup-metadata.ts'
import { capabilitiesOf } from '../postgres/versions.ts'
import { findBackupPrograms } from './backup-programs.ts'
import { emptyRestore, restoreJob } from './end-restore.ts'
import { tablespacesOf } from './require-restore-place.ts'
import { isSame, ownRecord, type Restore, writeRestoreRecord } from './restore-record.ts'
import { fetchBackupScript } from './restore-scripts.ts'

/** Copies the backup from the archive host straight onto the node, and proves that it is what was kept. */
export function fetchBackup(restore: Restore): Step {
  const { choice } = restore
  return {
    title: `fetch backup ${choice.backup.id} from the archive and verify it`,
    node: restore.at,
    check: async (ctx) => {
      const record = await ownRecord(ctx)
      if (record?.phase === 'opened') return satisfied('it is there')
      return record !== null && record.phase !== 'fetching' && isSame(record, restore)
        ? satisfied('it is there')
        : pending('it is not there yet')
    },
    apply: async (ctx) => {
      const { dataDir } = ctx.node.settings.postgres
      await beginFetch(ctx, restore)
      const total = choice.chain.reduce((sum, one) => sum + one.dataBytes, 0)
      let measuredAt = 0
      let doneBytes: number | undefined
      await followJob({
        ...{ node: ctx.node, name: restoreJob, what: 'the restore', signal: ctx.signal },
        patienceMs: Math.max(600_000, ctx.timeoutMs),
        progress: async (job) => {
          if (Date.now() - measuredAt > 2_000) {
            doneBytes = await sizeOf(ctx.node, dataDir)
            measuredAt = Date.now()
          }
          const message = job.output.trim().split('\n').at(-1) || 'starting'
          return { message, doneBytes, totalBytes: Math.max(total, doneBytes ?? 0) }
        },
        tell: (progress) => ctx.progress(progress),
        failed: (job) => fetchFailed(restore, job),
      })
      // Noted first: a copy that is verified and whose job is forgotten would be fetched anew.
      await writeRestoreRecord(ctx, restore, { phase: 'fetched' })
      await stopJob(ctx.node, restoreJob)
    },
    undo: async (ctx) => {
      await stopJob(ctx.node, restoreJob)
    },
  }
}

async function sizeOf(node: Node, dir: string): Promise<number> {
  const command = shellScript('measure', 'du -sk -- "$1/" 2>/dev/null | awk \'{ print $1 }\'', [dir])
  return Number((await node.output(command)).trim()) * 1024
}

async function beginFetch(ctx: StepContext, restore: Restore): Promise<void> {
  const { archive, node, choice } = restore
  const { postgres, stateDir } = ctx.node.settings
  if (await isFetching(ctx, restore)) return
  const programs = await findBackupPrograms(ctx.node, choice.backup.major)
  const canReadWal = programs.major === choice.backup.major && programs.names.includes('pg_waldump')
  const hasManifest = capabilitiesOf(choice.backup.major).backupManifest
  if (!hasManifest) await requireAsKept(ctx, restore)
  const spaces = tablespacesOf(restore, postgres.dataDir)
  const files = choice.chain.flatMap((backup, index) => filesOf(backup, choice.chain.length, index, spaces))
  const isCombined = choice.chain.length > 1
  const mappings = [...spaces].map(([oid, to]) => `${oid}=${to}`)
  await startJob(ctx.node, restoreJob, fetchBackupScript, [
    ...[node.stateDir, archive.address, String(archive.port), archive.user],
    ...[String(Math.max(1, Math.ceil(archive.ssh.connectTimeoutMs / 1000))), choice.systemIdentifier],
    ...[programs.directory ?? '', hasManifest ? (canReadWal ? 'full' : 'no-wal') : 'none', postgres.dataDir],
    ...[stateDir, ...files],
    ...(isCombined ? ['--', ...mappings] : []),
  ])
}

/** Where no manifest tells afterwards what came, every byte is compared beforehand with what was kept. */
async function requireAsKept(ctx: StepContext, { archive, choice, node }: Restore): Promise<void> {
  for (const { id, files } of choice.chain) {
    ctx.progress({ message: `reading backup ${id} on the archive host` })
    const folder = `${archive.dir}/${choice.systemIdentifier}/backup/${id}`
    const damage = await readDamage(ctx.on(archiveHost), folder, files)
    if (damage.length === 0) continue
    throw new ReplctlError('restore-failed', `could not fetch backup ${id} onto ${node.name}`, {
      detail: `${damage.join('; ')}.`,
      hint: 'Choose another one: replctl backup verify says which are sound.',
      node: archiveHost,
    })
  }
}

/** True where the copy already runs, or came to its end while nobody looked: it goes on. What a failed one left is begun anew. */
async function isFetching(ctx: StepContext, restore: Restore): Promise<boolean> {
  const job = await lookAtJob(ctx.node, restoreJob)
  if (job.isRunning || job.status === 0) return true
  await emptyRestore(ctx, restore)
  return false
}

/** For each file of a backup: its backup, its name, its place in the chain (`-`: there is none), and where it goes. */
function filesOf(
  backup: BackupMetadata,
  count: number,
  index: number,
  spaces: ReadonlyMap<string, string>,
): readonly string[] {
  const number = count === 1 ? '-' : String(index)
  const order = (name: string) => (name.startsWith('base.') ? 0 : 1)
  return backup.files
    .map((file) => file.name)
    .filter((name) => name === 'backup_manifest' || name.includes('.tar'))
    .toSorted((a, b) => order(a) - order(b))
    .flatMap((name) => {
      const oid = name.replace(/\.tar.*$/, '')
      const target =
        name === 'backup_manifest' || oid === 'base'
          ? '.'
          : oid === 'pg_wal'
            ? 'pg_wal'
            : count === 1
              ? (spaces.get(oid) ?? `spaces/${oid}`)
              : `spaces/${oid}`
      return [backup.id, name, number, target]
    })
}

function fetchFailed(restore: Restore, job: JobState): ReplctlError {
  const said = job.output
    .trim()
    .split('\n')
    .filter((line) => !/^(fetching|verifying|combining)/.test(line))
    .slice(-10)
    .join('\n')
  const isFull = /no space left/i.test(said)
  return new ReplctlError(
    isFull ? 'disk-full' : 'restore-failed',
    `could not fetch backup ${restore.choice.backup.id} onto ${restore.node.name}`,
    {
      detail: `It ended with ${job.status === null ? 'a kill' : `status ${job.status}`}. It said: ${said}`,
      hint: isFull
        ? 'Free some space there, then run the command again.'
        : `Is the backup sound? replctl backup verify ${restore.choice.backup.id}`,
      node: restore.node.name,
    },
  )
}
