import type { NodeFacts } from '../cluster/facts.ts'
import type { NodeName } from '../cluster/names.ts'
import { pending, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { readTextFile, writeTextFile } from '../node/files.ts'
import { lookAtJob, startJob, stopJob } from '../node/jobs.ts'
import { readWalEnd } from '../node/own-wal.ts'
import { isCleanShutdown } from '../postgres/control-data.ts'
import { isolatedRecoveryConf, isolatedStandbySettings } from '../postgres/rewind.ts'
import { capabilitiesOf } from '../postgres/versions.ts'
import { binDirectoryOf, look, majorOf } from './look.ts'

const jobName = 'recover'

/**
 * Starts the instance as a standby of nobody, behind a socket that only its own user reaches, waits until it has
 * replayed all WAL it has, and stops it. `@sockets@` stands for the folder of that socket: its path must be short.
 */
const recoverScript = `
bin=$1 data=$2 port=$3; shift 3
export LC_ALL=C
sockets=$(mktemp -d /tmp/replctl.XXXXXX) || exit 73
for word; do
  case $word in *@sockets@) word=\${word%@sockets@}$sockets ;; esac
  set -- "$@" "$word"; shift
done
"$bin/postgres" -D "$data" "$@" </dev/null &
server=$!
stop() { kill -INT "$server" 2>/dev/null; wait "$server"; rm -rf "$sockets"; }
trap 'stop; exit 143' TERM INT HUP
ask="SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'startup'"
while kill -0 "$server" 2>/dev/null; do
  case $("$bin/psql" -X -A -t -w -h "$sockets" -p "$port" -d template1 -c "$ask" </dev/null 2>/dev/null) in
    RecoveryRetrieveRetryInterval|RecoveryWalStream|RecoveryWalAll) stop; exit 0 ;;
  esac
  sleep 0.1 2>/dev/null || sleep 1
done
wait "$server"; status=$?
rm -rf "$sockets"
[ "$status" -ne 0 ] || status=70
exit "$status"
`

/**
 * Brings a stopped instance's data and pg_control to the end of its own WAL, which pg_rewind needs to know: after a crash,
 * and where a standby had received more than it replayed. It comes up as a standby of nobody, without network, archive or
 * client, and never accepts a write; its standby signal stays where it is. Nothing of its own is changed by that.
 */
export function recoverInIsolation(node: NodeName): Step {
  return {
    title: 'recover what is in its WAL, in isolation: without network, and never read-write',
    node,
    check: async (ctx) => {
      const facts = await look(ctx)
      if (facts.rejoin !== null) return satisfied('the rewind has begun already')
      if (facts.postmaster?.isAlive === true)
        return ctx.isDryRun ? unknownUntil('it is stopped') : pending('it runs')
      const { control } = facts
      if (control === null) return pending('pg_control cannot be read')
      if (!isCleanShutdown(control.state)) return pending(`pg_control says "${control.state}"`)
      if (control.state === 'shut down') return satisfied('it was shut down cleanly')
      const from = control.minRecoveryEndLsn ?? control.checkpointLsn
      const timeline = control.minRecoveryEndTimeline ?? control.timeline
      const { lastRecord } = await readWalEnd(ctx.node, facts, timeline, from)
      return lastRecord === 'none'
        ? satisfied(`it has replayed all WAL it has, up to ${from}`)
        : pending(`it has replayed up to ${from} and holds more`)
    },
    apply: async (ctx) => {
      const facts = await look(ctx)
      const running = await lookAtJob(ctx.node, jobName)
      if (!running.isRunning) {
        if (facts.postmaster?.isAlive === true) throw runs(node)
        await begin(ctx, facts)
      }
      await follow(ctx)
      await stopJob(ctx.node, jobName)
    },
    verify: async (ctx) => {
      const facts = await look(ctx)
      if (facts.postmaster?.isAlive === true) throw runs(node)
      if (facts.control === null || !isCleanShutdown(facts.control.state)) {
        throw recoveryFailed(node, `pg_control says "${facts.control?.state}".`)
      }
    },
    undo: (ctx) => stopJob(ctx.node, jobName),
  }
}

async function begin(ctx: StepContext, facts: NodeFacts): Promise<void> {
  const { dataDir, port } = ctx.node.settings.postgres
  const major = majorOf(facts)
  await stopJob(ctx.node, jobName)
  if (capabilitiesOf(major).recoveryConf) {
    // It is rendered anew before the instance is started for good.
    const path = `${dataDir}/recovery.conf`
    if ((await readTextFile(ctx.node, path)) !== isolatedRecoveryConf) {
      await writeTextFile(ctx.node, path, isolatedRecoveryConf, { mode: '0600' })
    }
  } else if (!facts.hasStandbySignal) {
    await writeTextFile(ctx.node, `${dataDir}/standby.signal`, '', { mode: '0600' })
  }
  const config =
    facts.configDirectory === dataDir ? [] : ['-c', `config_file=${facts.configDirectory}/postgresql.conf`]
  await startJob(ctx.node, jobName, recoverScript, [
    ...[binDirectoryOf(facts), dataDir, String(port)],
    ...config,
    ...['-c', `port=${port}`],
    ...isolatedStandbySettings(major, '@sockets@'),
  ])
}

/** A recovery takes as long as it takes: it ends by itself, or with the instance's own complaint. */
async function follow(ctx: StepContext): Promise<void> {
  for (;;) {
    const job = await lookAtJob(ctx.node, jobName)
    if (!job.isRunning) {
      if (job.status === 0) return
      throw recoveryFailed(ctx.node.name, job.output.trim().split('\n').slice(-10).join('\n'))
    }
    if (ctx.signal.aborted) throw new ReplctlError('interrupted', 'interrupted during a crash recovery')
    ctx.progress({ message: job.output.trim().split('\n').at(-1) ?? 'starting' })
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

function runs(node: NodeName): ReplctlError {
  return new ReplctlError('data-directory-in-use', `PostgreSQL on ${node} runs again`, {
    detail: 'Somebody, or its service, started it meanwhile.',
    hint: 'Keep it from being started, then run the command again.',
    node,
  })
}

function recoveryFailed(node: NodeName, said: string): ReplctlError {
  return new ReplctlError('start-failed', `could not recover the instance on ${node} in isolation`, {
    detail: said,
    hint: `Mend what it names, then run the command again. To clone it anew instead: replctl rejoin ${node} --reclone`,
    node,
  })
}
