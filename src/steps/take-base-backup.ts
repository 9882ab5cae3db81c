import type { NodeFacts } from '../cluster/facts.ts'
import type { Inventory, NodeSettings } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { upstreamConninfo } from '../cluster/node-configuration.ts'
import { cloneApplicationName } from '../cluster/replication-names.ts'
import { isSameMachine } from '../cluster/state-directory.ts'
import { shellScript } from '../command.ts'
import { type Progress, pending, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { followJob } from '../node/follow-job.ts'
import { lookAtJob, startJob, stopJob } from '../node/jobs.ts'
import { stateScript } from '../node/node.ts'
import {
  type BaseBackupCompression,
  baseBackupArgs,
  commonCompression,
  parseBaseBackupProgress,
} from '../postgres/base-backup.ts'
import { quoteLiteral } from '../postgres/sql.ts'
import { capabilitiesOf } from '../postgres/versions.ts'
import { endUnfinishedRestore } from './end-restore.ts'
import { emptyDirectoryScript } from './ensure-data-directory.ts'
import { writeMark } from './ensure-mark.ts'
import { ask, binDirectoryOf, look, lookAnew, majorOf, sqlOf } from './look.ts'
import { suitableBinaries } from './require-binaries.ts'
import { isOwn } from './require-data-directory.ts'
import { claimWalFolder, forgetFoundWalScript, walFolderOf } from './wal-link.ts'
import { workLock } from './work-lock.ts'

/** The copy that goes on when replctl dies. */
export const baseBackupJob = 'base-backup'

/**
 * What the job runs: pg_basebackup without its own fsync of every single file, then the sizes of all files against the
 * manifest where there is one, then one sync of the file systems. It ends well only when everything is on disk.
 */
const jobScript = `
bin=$1 data=$2; shift 2
# What has arrived goes to disk while the rest is still on its way, so that little is left for the end.
# It must not hold the job's lock: the job is over when pg_basebackup is.
( while sleep 0.2 2>/dev/null || sleep 1; do sync -f "$data" 2>/dev/null || exit 0; done ) 7>&- &
syncer=$!
"$bin/pg_basebackup" "$@"
status=$?
kill "$syncer" 2>/dev/null
[ "$status" -eq 0 ] || exit "$status"
if [ -f "$data/backup_manifest" ] && [ -x "$bin/pg_verifybackup" ]; then
  "$bin/pg_verifybackup" --skip-checksums --no-parse-wal --quiet "$data" || exit 90
fi
for at in "$data" "$data/pg_wal/" "$data"/pg_tblspc/*/; do
  [ -d "$at" ] || continue
  sync -f "$at" 2>/dev/null || sync
done
# Where the group may read the source (initdb --allow-group-access), it may read the copy.
[ -z "$(find "$data/PG_VERSION" -perm -040 2>/dev/null)" ] || chmod g+rx "$data"
echo 'replctl: on disk'
`

export interface BaseBackupWish {
  readonly standby: NodeName
  readonly source: NodeSettings
  readonly slot: string | undefined
  readonly inventory: Inventory
}

/**
 * Copies the source's data directory onto the standby with pg_basebackup, run there, so that nothing flows through the
 * control host. The copy goes on when replctl dies; running the command again finds it, or starts it anew.
 */
export function takeBaseBackup({ standby, source, slot, inventory }: BaseBackupWish): Step {
  return {
    title: `take a base backup from ${source.name}`,
    node: standby,
    check: async (ctx) => {
      const facts = await look(ctx)
      const { dataDir } = ctx.node.settings.postgres
      const isComplete = facts.dataDirectoryState === 'instance' && facts.mark?.phase !== 'cloning'
      return isComplete ? satisfied(`${dataDir} is a complete copy`) : pending(`${dataDir} is to be filled`)
    },
    apply: async (ctx) => {
      const { dataDir } = ctx.node.settings.postgres
      const [before, running] = await Promise.all([lookAnew(ctx), lookAtJob(ctx.node, baseBackupJob)])
      if (!isOwn(before, ctx.node.cluster, dataDir)) throw lostDirectory(standby, dataDir)
      if (!running.isRunning && !(running.status === 0 && before.dataDirectoryState === 'instance')) {
        await beginCopy(ctx, before, { standby, source, slot, inventory })
      }
      await followCopy(ctx, source)
      const [facts, { facts: there }] = await Promise.all([look(ctx), ask(ctx, source.name)])
      await writeMark(ctx, facts, 'cloned', there.instance?.systemIdentifier ?? '')
      await stopJob(ctx.node, baseBackupJob)
    },
    undo: async (ctx) => {
      await stopJob(ctx.node, baseBackupJob)
      const script = `${forgetFoundWalScript}${forgetTablespacesScript}`
      await ctx.node.output(
        stateScript(ctx.node, 'empty the folders of tablespaces and WAL', script, [
          ctx.node.settings.postgres.dataDir,
        ]),
        {
          timeoutMs: 600_000,
        },
      )
    },
  }
}

/**
 * Folders of tablespaces that this clone fills are written down before it begins, each found empty: only what stands in
 * such a folder is removed when the clone begins anew or is taken back. pg_basebackup links them last of all.
 */
const claimTablespacesScript = `
major=$2; shift 2
for dir; do
  if ! grep -qxF -- "$dir" "$state/tablespaces" 2>/dev/null; then
    if [ -n "$(ls -A -- "$dir")" ]; then echo "$dir is not empty" >&2; exit 65; fi
    printf '%s\\n' "$dir" >> "$state/tablespaces"
  fi
  rm -rf -- "$dir/PG_$major"_* || exit 74
done
`

const forgetTablespacesScript = `
[ -r "$state/tablespaces" ] || exit 0
while IFS= read -r dir; do
  case $dir in /?*) rm -rf -- "$dir"/PG_[0-9]*_* || exit 74 ;; esac
done < "$state/tablespaces"
rm -f "$state/tablespaces"
`

async function beginCopy(ctx: StepContext, facts: NodeFacts, wish: BaseBackupWish): Promise<void> {
  const { standby, source, slot, inventory } = wish
  const { dataDir } = ctx.node.settings.postgres
  // Not beside it: where the source does not answer, a change would still be under way.
  await endUnfinishedRestore(ctx)
  const { facts: there } = await ask(ctx, source.name)
  const binaries = suitableBinaries(facts, majorOf(there))
  const directory = binaries?.directory ?? binDirectoryOf(facts)
  const setAside = facts.rejoin?.walDirectory ?? undefined
  const [compression, place] = await Promise.all([
    chooseCompression(ctx, there, directory, standby, source),
    setAside === undefined ? placeOfSource(ctx, wish) : null,
    stopJob(ctx.node, baseBackupJob),
  ])
  const walDirectory = setAside ?? (await claimWalFolder(ctx, dataDir, place))
  await ctx.node.output(
    stateScript(ctx.node, `empty ${dataDir}`, `${workLock}${emptyDirectoryScript}`, [dataDir]),
    { timeoutMs: 600_000 },
  )
  if (setAside !== undefined) {
    // It was set aside with the old data directory: what is in it now is of this clone.
    const script = `${workLock}${emptyDirectoryScript}`
    await ctx.node.output(stateScript(ctx.node, `empty ${setAside}`, script, [setAside]))
  }
  const locations = (there.instance?.tablespaces ?? []).map((one) => one.location)
  if (locations.length > 0) {
    await ctx.node.output(
      stateScript(ctx.node, 'claim the tablespace folders', claimTablespacesScript, [
        String(majorOf(there)),
        ...locations,
      ]),
    )
  }
  const args = baseBackupArgs({
    clientMajor: binaries?.major ?? majorOf(there),
    serverMajor: majorOf(there),
    dataDirectory: dataDir,
    conninfo: upstreamConninfo(inventory, facts.home, asClone(ctx.node.settings), source),
    slot,
    walDirectory,
    compression,
    noSync: true,
  })
  await startJob(ctx.node, baseBackupJob, jobScript, [directory, dataDir, ...args])
}

/** Where the source has its pg_wal, if that is elsewhere; null also where two nodes of one machine would want the same place. */
async function placeOfSource(
  ctx: StepContext,
  { standby, source, inventory }: BaseBackupWish,
): Promise<string | null> {
  const own = ctx.on(standby).settings
  if (inventory.nodes.filter((one) => isSameMachine(one, own)).length > 1) return null
  return await walFolderOf(ctx.on(source.name), source.postgres.dataDir)
}

/** Compressed where both ends can, unless they are on one host. */
async function chooseCompression(
  ctx: StepContext,
  there: NodeFacts,
  directory: string,
  standby: NodeName,
  source: NodeSettings,
): Promise<BaseBackupCompression> {
  const own = ctx.on(standby).settings
  const isSameHost = own.address === source.address || (own.host === 'local' && source.host === 'local')
  if (isSameHost || !capabilitiesOf(majorOf(there)).serverCompression) return 'none'
  const sql = await sqlOf(ctx, there)
  const [server, client] = await Promise.all([
    sql.value("SELECT setting FROM pg_config WHERE name = 'CONFIGURE'").catch(() => null),
    ctx.node.run(
      shellScript('ask what pg_basebackup is linked with', 'ldd "$1/pg_basebackup"; :', [directory]),
    ),
  ])
  const linked = ['zstd', 'lz4'].filter((name) => client.stdout.includes(`lib${name}`))
  return commonCompression(server ?? '', linked.map((name) => `--with-${name}`).join(' '))
}

/** Waits for the copy, as long as bytes flow, and tells how far it is: by the server's own view where it has one. */
async function followCopy(ctx: StepContext, source: NodeSettings): Promise<void> {
  const tellServer = await serverProgress(ctx, source)
  await followJob({
    ...{ node: ctx.node, name: baseBackupJob, what: 'a base backup', signal: ctx.signal },
    patienceMs: Math.max(600_000, ctx.timeoutMs),
    progress: async (job) => (await tellServer()) ?? outputProgress(job.output),
    tell: ctx.progress,
    failed: (job) => copyFailed(ctx.node.name, job.status, job.output),
  })
}

/** The node as its copy logs in. */
const asClone = (node: NodeSettings): NodeSettings => ({
  ...node,
  applicationName: cloneApplicationName(node.applicationName),
})

type CopyProgress = Pick<Progress, 'message' | 'doneBytes' | 'totalBytes'>

/** The sending server's own view of the copy; where it has none (12 and older), or does not answer, null each time. */
export async function serverProgress(
  ctx: StepContext,
  source: NodeSettings,
  { applicationName }: Pick<NodeSettings, 'applicationName'> = asClone(ctx.node.settings),
): Promise<() => Promise<CopyProgress | null>> {
  const there = await ask(ctx, source.name).catch(() => null)
  if (there === null || !capabilitiesOf(majorOf(there.facts)).basebackupProgressView) return async () => null
  const name = quoteLiteral(applicationName)
  return async () => {
    const row = await there.sql
      .json<{ phase: string; done: number; total: number | null } | null>(
        `SELECT json_build_object('phase', p.phase, 'done', p.backup_streamed, 'total', p.backup_total)
           FROM pg_stat_progress_basebackup p JOIN pg_stat_activity a USING (pid)
          WHERE a.application_name = ${name} LIMIT 1`,
      )
      .catch(() => null)
    return row === null
      ? null
      : { message: row.phase, doneBytes: row.done, totalBytes: row.total ?? undefined }
  }
}

/** What pg_basebackup itself printed last. */
export function outputProgress(output: string): CopyProgress {
  const lines = output.split(/[\r\n]+/).filter((line) => line.trim() !== '')
  const last = lines.map(parseBaseBackupProgress).findLast((one) => one !== undefined)
  if (output.includes('base backup completed')) return { message: 'making it durable' }
  return {
    message: last?.phase.replaceAll('-', ' ') ?? 'starting',
    doneBytes: last?.doneBytes,
    totalBytes: last?.totalBytes,
  }
}

function copyFailed(node: NodeName, status: number | null, output: string): ReplctlError {
  const said = output
    .split(/[\r\n]+/)
    .filter((line) => !/^\s*\d+\/\d+ kB/.test(line) && line.trim() !== '')
    .slice(-10)
    .join('\n')
  const isFull = /no space left/i.test(said)
  return new ReplctlError(
    isFull ? 'disk-full' : 'base-backup-failed',
    `could not take a base backup onto ${node}`,
    {
      detail: `pg_basebackup ended with ${status === null ? 'a kill' : `exit status ${status}`}. It said: ${said}`,
      hint: isFull
        ? 'Free some space there, then run the command again.'
        : 'Mend what it names, then run the command again.',
      node,
    },
  )
}

function lostDirectory(node: NodeName, dataDir: string): ReplctlError {
  return new ReplctlError(
    'foreign-data-directory',
    `${dataDir} on ${node} is not the directory that replctl made`,
    {
      detail: 'It was replaced since the step before.',
      hint: 'Look at what happened there; nothing was written into it.',
      node,
    },
  )
}
