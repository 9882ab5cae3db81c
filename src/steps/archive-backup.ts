import { type BackupRequest, walOf } from '../cluster/backup-catalog.ts'
import type { ArchiveSettings, Inventory, NodeSettings } from '../cluster/inventory.ts'
import { archiveHost, type NodeName } from '../cluster/names.ts'
import { upstreamConninfo } from '../cluster/node-configuration.ts'
import { shellScript } from '../command.ts'
import { pending, refused, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { followJob } from '../node/follow-job.ts'
import { type JobState, lookAtJob, startJob, stopJob } from '../node/jobs.ts'
import type { Node } from '../node/node.ts'
import { parseBackupLabel, parseBackupStop, parseTablespaceMap } from '../postgres/backup-label.ts'
import { type BackupMetadata, printBackupMetadata } from '../postgres/backup-metadata.ts'
import { chooseStoredCompression, storedBackupArgs } from '../postgres/base-backup.ts'
import { capabilitiesOf } from '../postgres/versions.ts'
import { lastWalFileName } from '../postgres/wal-file.ts'
import { type BackupPrograms, findBackupPrograms } from './backup-programs.ts'
import { proveBackupScript, takeBackupScript } from './backup-scripts.ts'
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

/** Name of the detached job on the archive host, whoever started it. */
export const backupJob = 'backup'

/** Never that of a standby: a name in synchronous_standby_names would have the copy confirm commits. */
const applicationNameOf = (inventory: Inventory): string => `${inventory.cluster}_backup`

const folderOf = ({ archive, systemIdentifier }: ArchiveBackup) => `${archive.dir}/${systemIdentifier}/backup`

interface Progress {
  readonly isPublished: boolean
  readonly isTaken: boolean
  readonly isProved: boolean
}

/** How far this very backup is, by what lies in the archive. */
async function lookAtBackup(node: Node, backup: ArchiveBackup): Promise<Progress> {
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
      const script =
        'at=$1; while [ ! -d "$at" ]; do at=$(dirname "$at"); done; df -Pk -- "$at" | awk \'NR == 2 { print $4 }\''
      const free = await ctx.node.output(shellScript('ask for free space', script, [folderOf(backup)]))
      const freeMb = Math.round(Number(free.trim()) / 2 ** 10)
      const neededMb = Math.round((bytes * 1.3) / 2 ** 20) + 64
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
      const tellServer = await serverProgress(ctx, source, applicationNameOf(backup.inventory))
      await followJob({
        ...{ node: ctx.node, name: backupJob, what: 'the base backup', signal: ctx.signal },
        patienceMs: Math.max(600_000, ctx.timeoutMs),
        progress: async (job) => (await tellServer()) ?? outputProgress(job.output),
        tell: (progress) => ctx.progress(progress),
        failed: (job) => copyFailed(backup, job),
      })
      await stopJob(ctx.node, backupJob)
    },
    undo: async (ctx) => {
      await stopJob(ctx.node, backupJob)
      const script = 'rm -rf -- "$1/.incoming-$2"; rmdir "$1" 2>/dev/null; :'
      await ctx.node.output(
        shellScript('remove the unfinished backup', script, [folderOf(backup), backup.id]),
        {
          timeoutMs: 600_000,
        },
      )
    },
  }
}

/** Whether the job that runs is the copy of this very backup. */
async function isCopying(node: Node, backup: ArchiveBackup): Promise<boolean> {
  const job = await lookAtJob(node, backupJob)
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
  await stopJob(ctx.node, backupJob)
  const sql = await sqlOf(ctx, facts)
  const configure = await sql
    .value("SELECT setting FROM pg_config WHERE name = 'CONFIGURE'")
    .catch(() => null)
  const compression = chooseStoredCompression(archive.compression, major, configure ?? '', programs.packers)
  const incoming = `${folderOf(backup)}/.incoming-${backup.id}`
  const request = {
    ...{ cluster: inventory.cluster, source: source.name, label, parent: backup.parent },
    startedAt: new Date().toISOString(),
    ...{ postgresVersion: (await sql.value('SHOW server_version'))?.split(' ')[0] ?? String(major), major },
  }
  const prepare = `
umask 077
[ -d "$1" ] && [ -w "$1" ] || { echo "$1 is missing or not writable: is its file system mounted?" >&2; exit 73; }
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
  await startJob(ctx.node, backupJob, takeBackupScript, [
    ...[programs.directory ?? '', incoming, compression],
    ...args,
  ])
}

/** A standby that is copied has replayed everything that was committed when the command began. */
async function awaitAllOf(ctx: StepContext, { source }: ArchiveBackup, primary: NodeName): Promise<void> {
  const { sql: there } = await ask(ctx, primary)
  const lsn = (await there.value('SELECT pg_current_wal_lsn()::text')) ?? '0/0'
  const { sql } = await ask(ctx, source.name)
  await awaitState(ctx, `${source.name} has replayed what ${primary} had written (${lsn})`, async () =>
    (await sql.value(`SELECT (pg_last_wal_replay_lsn() >= '${lsn}'::pg_lsn)::text`)) === 'true'
      ? true
      : undefined,
  )
}

/** Unpacks the backup beside itself and has it checked against its manifest, then hashes what is kept. */
export function proveArchiveBackup(backup: ArchiveBackup): Step {
  return {
    title: 'unpack the backup and verify it against its manifest',
    node: archiveHost,
    check: async (ctx) => {
      const { isPublished, isProved, isTaken } = await lookAtBackup(ctx.node, backup)
      if (isPublished || isProved) return satisfied('it is verified')
      return isTaken ? pending('it is not verified yet') : unknownUntil('the base backup is taken')
    },
    apply: async (ctx) => {
      const { major } = await readRequest(ctx.node, backup)
      const programs = await findBackupPrograms(ctx.node, major)
      const incoming = `${folderOf(backup)}/.incoming-${backup.id}`
      await startJob(ctx.node, backupJob, proveBackupScript, [
        ...[programs.directory ?? '', incoming, verifyModeOf(programs, major)],
      ])
      await followJob({
        ...{ node: ctx.node, name: backupJob, what: 'the verification of the backup', signal: ctx.signal },
        patienceMs: Math.max(3_600_000, ctx.timeoutMs),
        progress: (job) => ({ message: job.output.trim().split('\n').at(-1) || 'unpacking' }),
        tell: (progress) => ctx.progress(progress),
        failed: (job) => proofFailed(backup, job),
      })
      await stopJob(ctx.node, backupJob)
    },
    undo: async (ctx) => {
      await stopJob(ctx.node, backupJob)
    },
  }
}

/** WAL can only be read by pg_waldump of the server's own version; elsewhere the range is looked at by its names. */
function verifyModeOf(programs: BackupPrograms, major: number): string {
  if (!capabilitiesOf(major).backupManifest) return 'none'
  return programs.major === major && programs.names.includes('pg_waldump') ? 'full' : 'no-wal'
}

async function readRequest(node: Node, backup: ArchiveBackup): Promise<BackupRequest> {
  const path = `${folderOf(backup)}/.incoming-${backup.id}/request.json`
  return JSON.parse(await node.output(shellScript('read the request', 'cat "$1"', [path]))) as BackupRequest
}

/** Everything that was found out of a backup that is taken and proved. @throws {ReplctlError} where it does not hold together */
async function readProof(node: Node, backup: ArchiveBackup): Promise<BackupMetadata> {
  const incoming = `${folderOf(backup)}/.incoming-${backup.id}`
  const request = await readRequest(node, backup)
  const text = await node.output(
    shellScript(
      'read the proof',
      'cd "$1" && cat proved && echo "@@log" && cat log && echo "@@taken" && cat taken',
      [incoming],
    ),
  )
  const section = (name: string) =>
    new RegExp(`^@@${name}\\n([\\s\\S]*?)(?=^@@|$(?![\\s\\S]))`, 'm').exec(text)?.[1] ?? ''
  const label = parseBackupLabel(section('label'))
  const segments = section('wal').trim().split('\n')
  const size = Number(segments[0]?.split(' ')[0])
  const metadata: BackupMetadata = {
    ...{ format: 1, id: backup.id, cluster: backup.inventory.cluster },
    systemIdentifier: backup.systemIdentifier,
    kind: request.parent === null ? 'full' : 'incremental',
    ...{ parent: request.parent, label: request.label, source: request.source },
    ...{ postgresVersion: request.postgresVersion, major: request.major },
    startedAt: request.startedAt,
    finishedAt: new Date(Number(section('taken').trim())).toISOString(),
    ...{ timeline: label.timeline, startLsn: label.startLsn, stopLsn: parseBackupStop(section('log')) },
    walSegmentSizeBytes: size,
    tablespaces: parseTablespaceMap(section('map')),
    dataBytes: Number(section('bytes').trim()) * 1024,
    files: section('sums')
      .trim()
      .split('\n')
      .map((line) => {
        const [sha256 = '', bytes = '', ...name] = line.split(' ')
        return { name: name.join(' '), bytes: Number(bytes), sha256 }
      }),
    verifiedBy: capabilitiesOf(request.major).backupManifest ? 'pg_verifybackup' : 'unpacking',
    verifiedAt: new Date().toISOString(),
  }
  requireOwnWal(metadata, new Set(segments.map((line) => line.split(' ')[1] ?? '')))
  return metadata
}

function requireOwnWal(metadata: BackupMetadata, has: ReadonlySet<string>): void {
  const missing = walOf(metadata).filter((name) => !has.has(name))
  if (missing.length === 0) return
  throw new ReplctlError('base-backup-failed', `backup ${metadata.id} lacks WAL that it needs`, {
    detail: `It reaches from ${metadata.startLsn} to ${metadata.stopLsn}, and ${missing.join(', ')} is not in it.`,
    hint: 'Run "replctl backup" again.',
    node: archiveHost,
  })
}

/** From this backup on any moment can be restored only if its last segment, and all after it, reach the archive. */
export function awaitBackupWal(backup: ArchiveBackup): Step {
  const missingIn = async (ctx: StepContext) => {
    const metadata = await readProof(ctx.node, backup)
    const wanted = walOf(metadata)
    const script = `
cd "$1" 2>/dev/null || { shift; printf '%s\\n' "$@"; exit 0; }
shift
for name; do [ -f "$name" ] || [ -f "$name.zst" ] || [ -f "$name.lz4" ] || [ -f "$name.gz" ] || echo "$name"; done
:
`
    const wal = `${backup.archive.dir}/${backup.systemIdentifier}/wal`
    const output = await ctx.node.output(
      shellScript('look for its WAL in the archive', script, [wal, ...wanted]),
    )
    const last = lastWalFileName(metadata.timeline, metadata.stopLsn, metadata.walSegmentSizeBytes)
    return { missing: output.trim().split('\n').filter(Boolean), last }
  }
  return {
    title: 'have the WAL of the backup in the archive',
    node: archiveHost,
    check: async (ctx) => {
      const { isPublished, isProved } = await lookAtBackup(ctx.node, backup)
      if (isPublished) return satisfied('it is there')
      if (!isProved) return unknownUntil('the backup is taken and verified')
      const { missing, last } = await missingIn(ctx)
      return missing.length === 0
        ? satisfied(`it is there up to ${last}`)
        : pending(`${missing.join(', ')} is not there yet`)
    },
    apply: async (ctx) => {
      if (backup.primary !== null) {
        const { sql } = await ask(ctx, backup.primary)
        await sql.execute('SELECT pg_switch_wal()')
      }
      let missing: readonly string[] = []
      await awaitState(
        ctx,
        'the last WAL of the backup reaches the archive',
        async () => {
          missing = (await missingIn(ctx)).missing
          return missing.length === 0 ? true : undefined
        },
        {
          everyMs: 100,
          last: () =>
            `${missing.join(', ')} is not in the archive. "replctl verify" shows what holds archiving up.`,
        },
      )
    },
  }
}

const publishScript = `
umask 077
cd "$1" || exit 66
[ -e "$2" ] && { echo "there is a $2 already" >&2; exit 65; }
cat > ".incoming-$2/new/backup.json" || exit 74
sync -f ".incoming-$2/new" 2>/dev/null || sync
mv ".incoming-$2/new" "$2" || exit 74
sync . 2>/dev/null || sync
rm -rf ".incoming-$2"
`

/** Gives the backup its name: only now it is listed. */
export function publishArchiveBackup(backup: ArchiveBackup): Step {
  return {
    title: 'enter the backup into the list of good ones',
    node: archiveHost,
    check: async (ctx) => {
      const { isPublished, isProved } = await lookAtBackup(ctx.node, backup)
      if (isPublished) return satisfied(`${backup.id} is listed`)
      return isProved ? pending('it is not listed yet') : unknownUntil('the backup is verified')
    },
    apply: async (ctx) => {
      const metadata = await readProof(ctx.node, backup)
      await ctx.node.output(
        shellScript('publish the backup', publishScript, [folderOf(backup), backup.id], {
          stdin: printBackupMetadata(metadata),
        }),
      )
    },
  }
}

function saidBy(job: JobState): string {
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

function proofFailed(backup: ArchiveBackup, job: JobState): ReplctlError {
  const said = saidBy(job)
  const isFull = /no space left/i.test(said)
  return new ReplctlError(
    isFull ? 'disk-full' : 'base-backup-failed',
    isFull
      ? 'the archive has no room to verify the backup'
      : `the backup of ${backup.source.name} is not what was sent`,
    {
      detail: `The verification ended with ${job.status === null ? 'a kill' : `exit status ${job.status}`}. It said: ${said}`,
      hint: isFull
        ? 'Free some space in the archive, then run the command again.'
        : 'Check the disk and the memory of the archive host, then run the command again.',
      node: archiveHost,
    },
  )
}

function cannotStore(archive: ArchiveSettings, said: string): ReplctlError {
  return new ReplctlError('archive-failing', `cannot store a backup in ${archive.dir} on ${archive.host}`, {
    detail: said.trim(),
    hint: `Is its file system mounted, and does it belong to ${archive.user}?`,
    node: archiveHost,
  })
}
