import type { NodeFacts, RejoinMark } from '../cluster/facts.ts'
import type { NodeSettings } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { rejoinUnderWay } from '../cluster/rejoin-under-way.ts'
import { segmentSizeOf } from '../cluster/segment-size.ts'
import { shellScript } from '../command.ts'
import { pending, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { followJob } from '../node/follow-job.ts'
import { lookAtJob, startJob, stopJob } from '../node/jobs.ts'
import { ownHistory, readWalFiles } from '../node/own-wal.ts'
import type { Lsn } from '../postgres/lsn.ts'
import { parseRewindProgress } from '../postgres/rewind.ts'
import { segmentsOffLine } from '../postgres/timeline-history.ts'
import { capabilitiesOf } from '../postgres/versions.ts'
import { walFileNameOf } from '../postgres/wal-file.ts'
import type { ClusterInput } from './cluster-input.ts'
import { writeStateFile } from './ensure-mark.ts'
import { ask, binDirectoryOf, look, lookAnew, majorOf } from './look.ts'
import { keptFolderOf, removeKeptFiles, rewindWords } from './prepare-rewind.ts'
import { isServerFileScript, requireStoppedScript, syncScript } from './rejoin-scripts.ts'

/** pg_rewind on its host: whoever replaces the data directory ends it first. */
export const rewindJob = 'rewind'

/**
 * While pg_rewind works, the directory is a mixture that must not be started, and its standby signal goes (the source has
 * none): access for others (the folder alone, nothing in it) is what every version of PostgreSQL refuses to start with.
 * Links at its top would stop pg_rewind where the source has a file; a log folder would be replaced.
 */
const rewindScript = `
export LC_ALL=C
umask 077
bin=$1 data=$2 id=$3 kept=$4; shift 4
${isServerFileScript}${requireStoppedScript}
[ -f "$kept/complete" ] || { echo "replctl: the node's own files are not kept" >&2; exit 93; }
chmod o+x "$data" || exit 94
mkdir -p "$kept/logs"
own_names | while IFS= read -r name; do
  if [ -L "$data/$name" ]; then rm -f -- "$data/$name"
  elif is_log "$name" && [ ! -e "$kept/logs/$name" ]; then mv -- "$data/$name" "$kept/logs/$name"; fi
done
rm -f "$data"/.s.PGSQL.*
"$bin/pg_rewind" "$@" </dev/null || exit 90
${syncScript}
echo 'replctl: on disk'
`

/** What a rejoin discards: kept in its mark, to be told at its end by whoever gets there. */
export interface Lost {
  readonly forkLsn: Lsn | null
  /** Of the node's own WAL after the fork; null: not known. */
  readonly discardedBytes: number | null
}

export async function writeRejoinMark(ctx: StepContext, node: NodeName, mark: RejoinMark): Promise<void> {
  await writeStateFile(ctx, node, 'rejoin.json', `${JSON.stringify(mark)}\n`)
}

/**
 * Takes the data directory back to the fork and gives it the new primary's blocks. It runs on as a job of the host when
 * replctl dies. From its first change on there is only forward; what dies half-way cannot be started, and is gone on
 * with by the same command.
 */
export function rewindDataDirectory(
  node: NodeSettings,
  primary: NodeSettings,
  input: ClusterInput,
  lost: Lost,
): Step {
  return {
    title: `rewind it with pg_rewind from ${primary.name}`,
    node: node.name,
    pointOfNoReturn: true,
    check: async (ctx) => {
      const rejoin = rejoinUnderWay(await look(ctx))
      if (rejoin?.phase === 'rewound') return satisfied('pg_rewind came to its end')
      return pending(
        rejoin === null ? 'it is to be taken back to the fork' : 'pg_rewind had not come to its end',
      )
    },
    apply: async (ctx) => {
      const { facts: there } = await ask(ctx, primary.name)
      const facts = await lookAnew(ctx)
      requireSame(facts, there)
      const running = await lookAtJob(ctx.node, rewindJob)
      const begun = rejoinUnderWay(facts)
      const mark = begun ?? (await newMark(ctx, facts, there, lost))
      if (!running.isRunning && !(begun !== null && running.status === 0)) {
        await stopJob(ctx.node, rewindJob)
        await writeRejoinMark(ctx, node.name, mark)
        await startJob(ctx.node, rewindJob, rewindScript, [
          ...[binDirectoryOf(facts), node.postgres.dataDir, there.instance?.systemIdentifier ?? ''],
          keptFolderOf(facts, node),
          ...(await rewindWords(ctx, facts, primary, input)),
        ])
      }
      await follow(ctx)
      await writeRejoinMark(ctx, node.name, { ...mark, phase: 'rewound' })
      await stopJob(ctx.node, rewindJob)
    },
  }
}

/** Looked at on both hosts right before the first change: who they are, and that the target is stopped. */
function requireSame(facts: NodeFacts, there: NodeFacts): void {
  const own = facts.control?.systemIdentifier
  if (there.instance === null || there.instance.isInRecovery) {
    throw new ReplctlError('no-primary', `${there.name} is no primary any more`, {
      hint: `Look with "replctl status", then run the command again.`,
      node: there.name,
    })
  }
  if (own !== there.instance.systemIdentifier) {
    throw new ReplctlError('foreign-cluster', `what is on ${facts.name} is another instance`, {
      detail: `Its system identifier is ${own ?? 'unknown'}, that of ${there.name} is ${there.instance.systemIdentifier}.`,
      node: facts.name,
    })
  }
  if (facts.postmaster?.isAlive === true) {
    throw new ReplctlError('data-directory-in-use', `PostgreSQL on ${facts.name} runs again`, {
      detail: `Somebody, or its service, started it meanwhile (pid ${facts.postmaster.pid}).`,
      hint: 'Keep it from being started, then run the command again.',
      node: facts.name,
    })
  }
}

async function newMark(
  ctx: StepContext,
  facts: NodeFacts,
  there: NodeFacts,
  { forkLsn, discardedBytes }: Lost,
): Promise<RejoinMark> {
  const { bootId } = await readWalFiles(ctx.node, facts)
  return {
    method: 'rewind',
    source: there.name,
    timeline: there.instance?.timeline ?? 0,
    phase: 'rewinding',
    bootId,
    forkLsn,
    discardedBytes,
    aside: null,
    inode: facts.dataDirectoryInode,
    walDirectory: null,
    isRedundant: true,
    at: new Date().toISOString(),
  }
}

async function follow(ctx: StepContext): Promise<void> {
  await followJob({
    ...{ node: ctx.node, name: rewindJob, what: 'pg_rewind (which runs on)', signal: ctx.signal },
    // It says nothing while it reads the WAL after the fork, nor while it brings everything to disk.
    patienceMs: Math.max(1_800_000, ctx.timeoutMs),
    progress: ({ output }) => {
      const lines = output.split(/[\r\n]+/).filter((line) => line.trim() !== '')
      const progress = lines.map(parseRewindProgress).findLast((one) => one !== undefined)
      return { message: progress === undefined ? (lines.at(-1) ?? 'starting') : 'copying', ...progress }
    },
    tell: (progress) => ctx.progress(progress),
    failed: ({ status, output }) => rewindFailed(ctx.node.name, status, output),
  })
}

function rewindFailed(node: NodeName, status: number | null, output: string): ReplctlError {
  const said = output
    .split(/[\r\n]+/)
    .filter((line) => line.trim() !== '' && parseRewindProgress(line) === undefined)
    .slice(-8)
    .join('\n')
  const isFull = /no space left/i.test(said)
  return new ReplctlError(
    isFull ? 'disk-full' : 'rewind-failed',
    `pg_rewind on ${node} did not come to its end`,
    {
      detail: `It ended with ${status === null ? 'a kill' : `exit status ${status}`}. It said: ${said}`,
      hint: isFull
        ? 'Free some space there, then run the command again.'
        : `Run the command again; if pg_rewind fails again, clone it anew: replctl rejoin ${node} --reclone`,
      node,
    },
  )
}

/**
 * Puts the node's own files back over what pg_rewind brought, and takes away files at the top that only the source has (its
 * keys, its configuration), and the segments of the dead timeline that pg_rewind leaves from 17 on, after the names. The standby
 * signal is on disk before the directory can be started again. WAL of the timelines before the present one (`line`) counts as
 * archived, as it does on every standby: the last segment before the fork goes on with what was discarded.
 */
const putBackScript = `
export LC_ALL=C
umask 077
data=$1 kept=$2 signal=$3 line=$4; shift 4
${isServerFileScript}
[ -f "$kept/complete" ] || exit 93
for at in "$kept/files"/* "$kept/files"/.[!.]*; do
  [ -e "$at" ] || [ -L "$at" ] || continue
  rm -rf -- "$data/\${at##*/}" && cp -a -- "$at" "$data/" || exit 74
done
for at in "$kept/logs"/*; do
  [ -d "$at" ] || continue
  rm -rf -- "$data/\${at##*/}" && mv -- "$at" "$data/\${at##*/}" || exit 74
done
own_names | while IFS= read -r name; do
  [ -e "$kept/files/$name" ] || [ -L "$kept/files/$name" ] || [ -d "$data/$name" ] || rm -f -- "$data/$name"
done
for at in "$kept/wal"/*; do
  [ -f "$at" ] || continue
  [ -e "$data/pg_wal/\${at##*/}" ] || cp -p -- "$at" "$data/pg_wal/" || exit 74
done
for name; do
  rm -f -- "$data/pg_wal/$name" "$data/pg_wal/archive_status/$name.ready" "$data/pg_wal/archive_status/$name.done" || exit 74
done
for at in "$data"/pg_wal/????????????????????????; do
  name=\${at##*/}
  case $name in "$line"*|*[!0-9A-F]*) continue ;; esac
  [ -e "$data/pg_wal/archive_status/$name.ready" ] || : > "$data/pg_wal/archive_status/$name.done" || exit 74
done
if [ -n "$signal" ]; then : > "$data/standby.signal" || exit 74; fi
${syncScript}
chmod o-x "$data" || exit 94
sync "$data" 2>/dev/null || sync
`

/** The mark stays: that the node's own WAL is gone, and where it was saved, is told at the end of the rejoin. */
export function putBackOwnFiles(node: NodeSettings): Step {
  return {
    title: "put the node's own files back: configuration, keys, logs, the standby signal",
    node: node.name,
    check: async () => pending('they are kept beside the data directory'),
    apply: async (ctx) => {
      const facts = await look(ctx)
      const { dataDir } = node.postgres
      const files = await readWalFiles(ctx.node, facts)
      const history = ownHistory(facts, files)
      const args = [
        dataDir,
        keptFolderOf(facts, node),
        capabilitiesOf(majorOf(facts)).standbySignalFile ? 'signal' : '',
        walFileNameOf(history.timeline, 0n, segmentSizeOf(facts)).slice(0, 8),
        ...segmentsOffLine(files.segments, history, segmentSizeOf(facts)),
      ]
      await ctx.node.output(shellScript("put the node's own files back", putBackScript, args), {
        timeoutMs: 3_600_000,
      })
      if (facts.rejoin !== null) await writeRejoinMark(ctx, node.name, { ...facts.rejoin, phase: 'whole' })
      await removeKeptFiles(ctx)
    },
    verify: async () => undefined,
  }
}
