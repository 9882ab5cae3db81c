import { type BackupRequest, missingWalOf, walOf } from '../cluster/backup-catalog.ts'
import { archiveHost } from '../cluster/names.ts'
import { shellScript } from '../command.ts'
import { pending, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { asReplctlError, ReplctlError } from '../errors.ts'
import { followJob } from '../node/follow-job.ts'
import { type JobState, startJob, stopJob } from '../node/jobs.ts'
import type { Node } from '../node/node.ts'
import { readCatalog } from '../node/read-catalog.ts'
import { surveyNode } from '../node/survey.ts'
import { parseBackupLabel, parseBackupStop, parseTablespaceMap } from '../postgres/backup-label.ts'
import { type BackupMetadata, printBackupMetadata } from '../postgres/backup-metadata.ts'
import { compareLsn } from '../postgres/lsn.ts'
import { forkPoint, parseTimelineHistory } from '../postgres/timeline-history.ts'
import { capabilitiesOf } from '../postgres/versions.ts'
import {
  historyFileName,
  isHistoryFile,
  lastWalFileName,
  parseHistoryFileName,
} from '../postgres/wal-file.ts'
import {
  type ArchiveBackup,
  backupJobOf,
  folderOf,
  lookAtBackup,
  removeUnfinished,
  saidBy,
} from './archive-backup.ts'
import { archiveAgain } from './archive-history.ts'
import { type BackupPrograms, findBackupPrograms } from './backup-programs.ts'
import { proveBackupScript } from './backup-scripts.ts'
import { ask, awaitState, sqlOf } from './look.ts'

/** Unpacks the backup beside itself and has it checked against its manifest, then hashes what is kept. */
export function proveArchiveBackup(backup: ArchiveBackup): Step {
  const job = backupJobOf(backup.systemIdentifier)
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
      await startJob(ctx.node, job, proveBackupScript, [
        ...[programs.directory ?? '', incoming, verifyModeOf(programs, major)],
      ])
      let wasKilled = false
      try {
        await followJob({
          ...{ node: ctx.node, name: job, what: 'the verification of the backup', signal: ctx.signal },
          patienceMs: Math.max(3_600_000, ctx.timeoutMs),
          progress: (told) => ({ message: told.output.trim().split('\n').at(-1) || 'unpacking' }),
          tell: (progress) => ctx.progress(progress),
          failed: (ended) => {
            wasKilled = ended.status === null
            return proofFailed(backup, ended)
          },
        })
        await readProof(ctx.node, backup)
      } catch (thrown) {
        // A run that goes on with it would fail by it again, and one that is resumed takes nothing back.
        const isUseless = !wasKilled && asReplctlError(thrown).code === 'base-backup-failed'
        if (isUseless) await removeUnfinished(ctx.node, backup)
        throw thrown
      }
      await stopJob(ctx.node, job)
    },
    undo: async (ctx) => {
      await stopJob(ctx.node, job)
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
  return parseProof(
    { id: backup.id, cluster: backup.inventory.cluster, systemIdentifier: backup.systemIdentifier },
    request,
    text,
  )
}

/** Reads what {@link proveBackupScript} found out, with what pg_basebackup said. @throws {ReplctlError} where it does not hold together */
export function parseProof(
  named: Pick<BackupMetadata, 'id' | 'cluster' | 'systemIdentifier'>,
  request: BackupRequest,
  text: string,
): BackupMetadata {
  const section = (name: string) =>
    new RegExp(`^@@${name}\\n([\\s\\S]*?)(?=^@@|$(?![\\s\\S]))`, 'm').exec(text)?.[1] ?? ''
  const label = parseBackupLabel(section('label'))
  const segments = section('wal').trim().split('\n')
  const size = Number(segments[0]?.split(' ')[0])
  const metadata: BackupMetadata = {
    format: 1,
    ...named,
    kind: request.parent === null ? 'full' : 'incremental',
    ...{ parent: request.parent, label: request.label, source: request.source },
    ...{ postgresVersion: request.postgresVersion, major: request.major },
    startedAt: request.startedAt,
    finishedAt: new Date(Number(section('taken').trim())).toISOString(),
    ...{ timeline: label.timeline, startLsn: label.startLsn, stopLsn: parseBackupStop(section('log')) },
    walSegmentSizeBytes: size,
    tablespaces: parseTablespaceMap(section('map')).map((one) => ({
      ...one,
      bytes: Number(new RegExp(`^${one.oid} (\\d+)$`, 'm').exec(section('spaces'))?.[1] ?? 0) * 1024,
    })),
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
  requireOneTimeline(metadata, section('history'))
  requireOwnWal(metadata, new Set(segments.map((line) => line.split(' ')[1] ?? '')))
  return metadata
}

/** A standby that was copied while another one was promoted went on to that one's timeline: nobody archives this WAL under the old one. */
function requireOneTimeline({ id, timeline, source, stopLsn }: BackupMetadata, newest: string): void {
  const [name = '', ...lines] = newest.trim().split('\n')
  if (!isHistoryFile(name)) return
  const left = forkPoint(parseTimelineHistory(lines.join('\n'), parseHistoryFileName(name)), timeline)
  if (left === undefined || compareLsn(stopLsn, left) <= 0) return
  throw new ReplctlError('base-backup-failed', `${source} left timeline ${timeline} while it was copied`, {
    detail: `Another node was promoted meanwhile: backup ${id} begins on timeline ${timeline}, which was left at ${left}, and ends at ${stopLsn}. It was removed.`,
    hint: 'Take another one: replctl backup',
    node: archiveHost,
  })
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

/**
 * From this backup on any moment can be restored only if its last segment, and all after it, reach the archive, and the history file of
 * its timeline is there.
 */
export function awaitBackupWal(backup: ArchiveBackup): Step {
  const missingIn = async (ctx: StepContext) => {
    const metadata = await readProof(ctx.node, backup)
    const history = metadata.timeline > 1 ? historyFileName(metadata.timeline) : null
    const wanted = [...(history === null ? [] : [history]), ...walOf(metadata)]
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
    const notThere = output.trim().split('\n').filter(Boolean)
    if (notThere.length === 0) return { missing: notThere, last }
    const catalog = await readCatalog(ctx.node, backup.archive.dir, backup.systemIdentifier)
    const needed = missingWalOf(catalog, metadata)
    return { missing: notThere.filter((name) => isHistoryFile(name) || needed.includes(name)), last }
  }
  return {
    title: 'have the WAL of the backup in the archive',
    node: archiveHost,
    comesOfEarlier: true,
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
      // What was archived before archive.host or archive.dir changed lies in the old archive.
      const whys: string[] = []
      for (const name of new Set([backup.primary ?? backup.source.name, backup.source.name])) {
        const { missing } = await missingIn(ctx)
        // A standby's segments are its primary's to archive.
        const files = name === backup.primary ? missing : missing.filter(isHistoryFile)
        const why = files.length === 0 ? null : await archiveAgain(ctx, name, files)
        if (why !== null) whys.push(why)
      }
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
          everyMs: 250,
          last: () =>
            `${missing.join(', ')} is not in the archive. ${whys.join(' ')} "replctl verify" shows what holds archiving up.`,
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
      const proved = await readProof(ctx.node, backup)
      const clocks = await readClocks(ctx, backup)
      const finishedAt = endOnClocks(Date.parse(proved.finishedAt), clocks)
      const metadata = { ...proved, finishedAt: new Date(finishedAt).toISOString() }
      await ctx.node.output(
        shellScript('publish the backup', publishScript, [folderOf(backup), backup.id], {
          stdin: printBackupMetadata(metadata),
        }),
      )
    },
  }
}

interface Clocks {
  readonly archiveMs: number
  /** Of the servers, asked after the archive host. */
  readonly serversMs: readonly number[]
}

/** The clocks of the archive host, of the server that was copied, and of the primary; a server that does not answer has none. */
async function readClocks(ctx: StepContext, backup: ArchiveBackup): Promise<Clocks> {
  const script = `
now=$(date +%s%3N)
case $now in *N*|*[!0-9]*) now=$(date +%s)000 ;; esac
echo "$now"
`
  const archiveMs = Number((await ctx.node.output(shellScript('read the clock', script, []))).trim())
  const serversMs: number[] = []
  for (const name of new Set([backup.source.name, ...(backup.primary === null ? [] : [backup.primary])])) {
    const facts = await surveyNode(ctx.on(name))
    if (facts.instance === null) continue
    const sql = await sqlOf(ctx, facts)
    serversMs.push(Number(await sql.value('SELECT ceil(extract(epoch FROM clock_timestamp()) * 1000)::text')))
  }
  return { archiveMs, serversMs }
}

/**
 * When a backup ended, in milliseconds. The moment was noted by the archive host's clock, but a target to restore to is a time of
 * the primary's: where a server's clock is ahead, its time of that moment is later, and only targets after that can be reached.
 */
export function endOnClocks(takenMs: number, { archiveMs, serversMs }: Clocks): number {
  return takenMs + Math.max(0, ...serversMs.map((serverMs) => serverMs - archiveMs))
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
