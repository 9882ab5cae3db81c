import type { RestoreChoice } from '../cluster/choose-backup.ts'
import type { ArchiveSettings, NodeSettings } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { shellScript } from '../command.ts'
import { pending, refused, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { followJob } from '../node/follow-job.ts'
import { type JobState, lookAtJob, startJob, stopJob } from '../node/jobs.ts'
import { commandFailed, type Node, stateScript, stateVariableScript } from '../node/node.ts'
import { surveyNode } from '../node/survey.ts'
import type { BackupMetadata } from '../postgres/backup-metadata.ts'
import { describeTarget, type RecoveryTarget } from '../postgres/recovery-target.ts'
import { capabilitiesOf } from '../postgres/versions.ts'
import { findBackupPrograms } from './backup-programs.ts'
import { workLock } from './ensure-data-directory.ts'
import { removeStateFile, writeMark, writeStateFile } from './ensure-mark.ts'
import { stopInstance } from './fence-instance.ts'
import { look } from './look.ts'
import { suitableBinaries } from './require-binaries.ts'
import { isOwn } from './require-data-directory.ts'
import {
  emptyRestoreScript,
  fetchBackupScript,
  lookAtTargetScript,
  makeRestoreDirectoryScript,
} from './restore-scripts.ts'

/** One instance to restore. */
export interface Restore {
  readonly archive: ArchiveSettings
  /** The node whose host and whose key are used. */
  readonly node: NodeSettings
  /** Under which name the steps reach the instance: the node's own, or one beside it. */
  readonly at: NodeName
  readonly choice: RestoreChoice
  readonly target: RecoveryTarget
  /** It becomes the cluster's primary. Else it belongs to nobody and never archives. */
  readonly isMember: boolean
}

/** How far a restore is; `restore.json` in the state directory of the instance, `restored.json` when it is over. */
export interface RestoreRecord {
  readonly backup: string
  readonly timeline: number
  /** As `describeTarget` says it. */
  readonly target: string
  readonly port: number
  /** `opened`: applications may have written to it; from there on nothing of it is ever removed. */
  readonly phase: 'fetching' | 'fetched' | 'recovered' | 'opened'
  readonly reachedLsn: string | null
  readonly reachedTime: string | null
  readonly newTimeline: number | null
}

const jobName = 'restore'

/** Reads how far a restore is; null where none was begun. */
export async function readRestoreRecord(node: Node, file = 'restore.json'): Promise<RestoreRecord | null> {
  const script = `${stateVariableScript}[ -f "$state/$2" ] && cat "$state/$2"; :`
  const text = await node.output(
    shellScript('look how far the restore is', script, [node.settings.stateDir, file]),
  )
  return text.trim() === '' ? null : (JSON.parse(text) as RestoreRecord)
}

export async function writeRestoreRecord(
  ctx: StepContext,
  restore: Restore,
  part: Partial<RestoreRecord> & Pick<RestoreRecord, 'phase'>,
): Promise<void> {
  const record: RestoreRecord = {
    ...{ backup: restore.choice.backup.id, timeline: restore.choice.timeline },
    ...{ target: describeTarget(restore.target), port: ctx.node.settings.postgres.port },
    ...{ reachedLsn: null, reachedTime: null, newTimeline: null },
    ...part,
  }
  await writeStateFile(ctx, restore.at, 'restore.json', `${JSON.stringify(record)}\n`)
}

/** The record of this very restore, where one was begun in the directory that is there now. */
export async function ownRecord(ctx: StepContext): Promise<RestoreRecord | null> {
  const [facts, record] = await Promise.all([look(ctx), readRestoreRecord(ctx.node)])
  const isOurs = record !== null && isOwn(facts, ctx.node.cluster, ctx.node.settings.postgres.dataDir)
  return isOurs ? record : null
}

/** Whether what was begun is the restore that is wanted now; another one begins anew. */
function isSame(record: RestoreRecord, { choice, target }: Restore): boolean {
  return (
    record.backup === choice.backup.id &&
    record.timeline === choice.timeline &&
    record.target === describeTarget(target)
  )
}

/** Where the tablespaces of a backup go: to their own places, or below a directory that stands apart. */
function tablespacesOf({ choice, isMember }: Restore, dataDir: string): ReadonlyMap<string, string> {
  return new Map(
    choice.backup.tablespaces.map(({ oid, location }) => [
      oid,
      isMember ? location : `${dataDir}/replctl_tablespaces/${oid}`,
    ]),
  )
}

/** The programs of the backup's own major version are there. */
export function requireRestorePrograms(restore: Restore): Step {
  const { backup, chain } = restore.choice
  const needed = [
    ...(capabilitiesOf(backup.major).backupManifest ? ['pg_verifybackup'] : []),
    ...(chain.length > 1 ? ['pg_combinebackup'] : []),
  ]
  return {
    title: `require the programs of PostgreSQL ${backup.major}`,
    node: restore.at,
    check: async (ctx) => {
      const own = suitableBinaries(await look(ctx), backup.major)
      const programs = await findBackupPrograms(ctx.node, backup.major)
      const missing = needed.filter((name) => !programs.names.includes(name))
      if (own !== null && missing.length === 0)
        return satisfied(`PostgreSQL ${own.version} in ${own.directory}`)
      return refused(
        own === null
          ? new ReplctlError(
              'version-mismatch',
              `${restore.node.name} has no programs of PostgreSQL ${backup.major}`,
              {
                detail: `Backup ${backup.id} is of PostgreSQL ${backup.postgresVersion}; only the same major version can run it.`,
                hint: `Install PostgreSQL ${backup.major} on ${restore.node.name}, or set its bin_dir in the inventory.`,
                node: restore.node.name,
              },
            )
          : new ReplctlError('binaries-missing', `${restore.node.name} lacks ${missing.join(', ')}`, {
              hint: `Install the programs of PostgreSQL ${backup.major} there.`,
              node: restore.node.name,
            }),
      )
    },
  }
}

/** The directory is missing or empty, its tablespaces' places too, or it is what this restore began. */
export function requireRestoreTarget(restore: Restore): Step {
  return {
    title: 'require an empty place for the instance and its tablespaces',
    node: restore.at,
    check: async (ctx) => {
      const { dataDir } = ctx.node.settings.postgres
      const facts = await look(ctx)
      if ((await ownRecord(ctx)) !== null) return satisfied(`${dataDir} was begun by replctl`)
      if (facts.postmaster?.isAlive === true) {
        return refused(
          new ReplctlError('data-directory-in-use', `a server runs in ${dataDir} on ${restore.node.name}`, {
            detail: `Its postmaster has pid ${facts.postmaster.pid}.`,
            hint: restore.isMember
              ? `To restore beside it: replctl restore ${restore.node.name} --data-dir DIR`
              : 'Name another --data-dir.',
            node: restore.node.name,
          }),
        )
      }
      const spaces = [...tablespacesOf(restore, dataDir).values()]
      const own = restore.isMember ? spaces : []
      const found = await ctx.node.output(
        shellScript(`look at ${dataDir}`, lookAtTargetScript, [dataDir, ...own]),
      )
      const wrong = found.trim().split('\n').filter(Boolean)
      return wrong.length === 0 ? satisfied(`${dataDir} is free`) : refused(notFree(restore, dataDir, wrong))
    },
  }
}

function notFree(restore: Restore, dataDir: string, wrong: readonly string[]): ReplctlError {
  const [kind = '', what = ''] = wrong[0]?.split('\t') ?? []
  const node = restore.node.name
  if (kind === 'tablespace') {
    return new ReplctlError('tablespace-unmapped', `there is no place on ${node} for a tablespace`, {
      detail: `${wrong.map((line) => line.split('\t')[1]).join('; ')}.`,
      hint: `Make it an empty folder that belongs to the OS user, or restore beside: replctl restore ${node} --data-dir DIR`,
      node,
    })
  }
  const words: Readonly<Record<string, string>> = {
    inside: `It lies inside ${what}, which is a PostgreSQL data directory.`,
    instance: 'It holds a PostgreSQL instance.',
    'not-empty': `${what} is not empty.`,
    unusable: 'It is no directory that the OS user may use.',
    'not-writable': `${what} is not writable for the OS user.`,
  }
  return new ReplctlError('foreign-data-directory', `${dataDir} on ${node} is not free for a restore`, {
    detail: `${words[kind] ?? what} replctl never overwrites one: it may be the last copy.`,
    hint:
      kind === 'instance' || kind === 'not-empty'
        ? `If it is of no use any more, move it aside yourself: mv ${dataDir} ${dataDir}.old`
        : 'Name another directory.',
    node,
  })
}

/** The file system has room for what is restored. */
export function requireRoomForRestore(restore: Restore): Step {
  return {
    title: 'require disk space for the restored data',
    node: restore.at,
    check: async (ctx) => {
      if ((await ownRecord(ctx)) !== null) return satisfied('it was begun already')
      const { freeBytes } = await look(ctx)
      const wanted = restore.choice.chain.reduce((sum, one) => sum + one.dataBytes, 0)
      const neededMb = Math.round((wanted * 1.05) / 2 ** 20) + 64
      const freeMb = Math.round((freeBytes ?? Number.POSITIVE_INFINITY) / 2 ** 20)
      if (freeMb >= neededMb) return satisfied(`${neededMb} MiB needed`)
      return refused(
        new ReplctlError('disk-full', `${restore.node.name} has no room for the restored data`, {
          detail: `${neededMb} MiB are needed and ${freeMb} MiB are free where ${ctx.node.settings.postgres.dataDir} is to be.`,
          hint: 'Free some space there, or name another directory.',
          node: restore.node.name,
        }),
      )
    },
  }
}

/** Makes the directory and marks it as this restore's own, before anything goes into it. */
export function ensureRestoreDirectory(restore: Restore): Step {
  return {
    title: 'make the data directory and mark it as our own',
    node: restore.at,
    check: async (ctx) => {
      const record = await ownRecord(ctx)
      if (record === null) return pending('it is not made yet')
      if (record.phase === 'opened') return satisfied('it is in use')
      return isSame(record, restore)
        ? satisfied('it is there and marked')
        : pending('another restore was begun there')
    },
    apply: async (ctx) => {
      const { dataDir } = ctx.node.settings.postgres
      if ((await ownRecord(ctx)) !== null) await emptyRestore(ctx, restore)
      const spaces = [...tablespacesOf(restore, dataDir).values()].filter(() => restore.isMember)
      const command = stateScript(ctx.node, `make ${dataDir}`, makeRestoreDirectoryScript, [
        dataDir,
        ...spaces,
      ])
      const made = await ctx.node.run(command)
      if (made.status === 65) throw notFree(restore, dataDir, [`not-empty\t${dataDir}`])
      if (made.status !== 0) throw commandFailed(restore.node.name, command, made)
      await writeMark(ctx, await look(ctx), 'cloning', restore.choice.systemIdentifier)
      await writeRestoreRecord(ctx, restore, { phase: 'fetching' })
    },
    undo: async (ctx) => {
      if ((await ownRecord(ctx)) === null) return
      await emptyRestore(ctx, restore)
      const script =
        'rm -f "$state/node.json" "$state/restore.json" "$state/tablespaces" "$state/pg_wal_link"; rmdir "$2" 2>/dev/null; :'
      await ctx.node.output(
        stateScript(ctx.node, 'forget the restore', script, [ctx.node.settings.postgres.dataDir]),
      )
    },
  }
}

/** Ends whatever of a restore still runs, and removes what it had put there. */
export async function emptyRestore(ctx: StepContext, restore: Restore): Promise<void> {
  const record = await ownRecord(ctx)
  if (record === null || record.phase === 'opened' || (await look(ctx)).mark?.phase === 'done') {
    throw new ReplctlError(
      'foreign-data-directory',
      `refused to empty ${ctx.node.settings.postgres.dataDir}`,
      {
        detail: 'It is not, or no longer, an unfinished restore of replctl’s own.',
        node: restore.node.name,
      },
    )
  }
  await stopJob(ctx.node, jobName)
  await stopInstance(ctx, restore.at)
  const { dataDir } = ctx.node.settings.postgres
  await ctx.node.output(
    stateScript(ctx.node, `empty ${dataDir}`, `${workLock}${emptyRestoreScript}`, [dataDir]),
    { timeoutMs: 600_000 },
  )
}

/** The backup and the line of a restore that was begun here for the same target: it is gone on with, not begun anew. */
export async function unfinishedRestore(
  node: Node,
  target: RecoveryTarget,
): Promise<Pick<RestoreRecord, 'backup' | 'timeline' | 'phase'> | null> {
  const record = await readRestoreRecord(node)
  if (record === null || record.target !== describeTarget(target)) return null
  return isOwn(await surveyNode(node), node.cluster, node.settings.postgres.dataDir) ? record : null
}

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
        ...{ node: ctx.node, name: jobName, what: 'the restore', signal: ctx.signal },
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
      await stopJob(ctx.node, jobName)
      await writeRestoreRecord(ctx, restore, { phase: 'fetched' })
    },
    undo: async (ctx) => {
      await stopJob(ctx.node, jobName)
    },
  }
}

async function sizeOf(node: Node, dir: string): Promise<number> {
  const command = shellScript('measure', 'du -sk -- "$1" 2>/dev/null | awk \'{ print $1 }\'', [dir])
  return Number((await node.output(command)).trim()) * 1024
}

async function beginFetch(ctx: StepContext, restore: Restore): Promise<void> {
  const { archive, node, choice } = restore
  const { postgres, stateDir } = ctx.node.settings
  if (await isFetching(ctx, restore)) return
  const programs = await findBackupPrograms(ctx.node, choice.backup.major)
  const canReadWal = programs.major === choice.backup.major && programs.names.includes('pg_waldump')
  const hasManifest = capabilitiesOf(choice.backup.major).backupManifest
  const spaces = tablespacesOf(restore, postgres.dataDir)
  const files = choice.chain.flatMap((backup, index) => filesOf(backup, choice.chain.length, index, spaces))
  const isCombined = choice.chain.length > 1
  const mappings = [...spaces].map(([oid, to]) => `${oid}=${to}`)
  await startJob(ctx.node, jobName, fetchBackupScript, [
    ...[node.stateDir, archive.address, String(archive.port), archive.user],
    ...[String(Math.max(1, Math.ceil(archive.ssh.connectTimeoutMs / 1000))), choice.systemIdentifier],
    ...[programs.directory ?? '', hasManifest ? (canReadWal ? 'full' : 'no-wal') : 'none', postgres.dataDir],
    ...[stateDir, ...files],
    ...(isCombined ? ['--', ...mappings] : []),
  ])
}

/** True where the copy already runs: it goes on. What an ended one left is begun anew. */
async function isFetching(ctx: StepContext, restore: Restore): Promise<boolean> {
  if ((await lookAtJob(ctx.node, jobName)).isRunning) return true
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

/** Nobody's any more: what was restored beside a node belongs to the operator. The record of it stays as restored.json. */
export function forgetRestore(restore: Restore, warnings: readonly ReplctlError[] = []): Step {
  return {
    title: 'note what was restored',
    node: restore.at,
    check: async (ctx) => {
      if ((await readRestoreRecord(ctx.node)) !== null) return pending('it is not noted yet')
      const [facts, noted] = await Promise.all([look(ctx), readRestoreRecord(ctx.node, 'restored.json')])
      const isThere = facts.dataDirectoryState === 'instance' && noted !== null && isSame(noted, restore)
      return isThere ? satisfied('it is noted') : unknownUntil('it is restored')
    },
    apply: async (ctx) => {
      const script =
        'mv -f "$state/restore.json" "$state/restored.json" && rm -f "$state/tablespaces" "$state/pg_wal_link"'
      await ctx.node.output(stateScript(ctx.node, 'note what was restored', script))
      if (!restore.isMember) await removeStateFile(ctx, restore.at, 'node.json')
      for (const warning of warnings) ctx.warn(warning)
    },
  }
}
