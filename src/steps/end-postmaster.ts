import type { NodeName } from '../cluster/names.ts'
import { shellScript } from '../command.ts'
import { pending, refused, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { killAllScript } from './fence-instance.ts'
import { look } from './look.ts'

/**
 * Waits until a postmaster that was told to stop has gone; then it is told to go at once (SIGQUIT), and at last killed with
 * all its processes. Prints how it went: `gone`, `quit` or `killed`. A pid that was used again is not its own: postmaster.pid
 * goes with it.
 */
const endScript = `
data=$1 pid=$2 grace=$3
is_there() {
  IFS= read -r first < "$data/postmaster.pid" && [ "$first" = "$pid" ] && kill -0 "$pid"
} 2>/dev/null
# Hundredths of a second; without a finer sleep, seconds.
await_end() {
  turns=0
  while is_there; do
    [ $turns -lt "$1" ] || return 1
    if sleep 0.01 2>/dev/null; then turns=$((turns + 1)); else sleep 1; turns=$((turns + 100)); fi
  done
}
if await_end "$grace"; then echo gone; exit 0; fi
kill -QUIT "$pid" 2>/dev/null
if await_end 500; then echo quit; exit 0; fi
set -- "$data"
(${killAllScript})
if await_end 500; then echo killed; else echo stays; fi
`

/** How a postmaster ended: by itself in time, or made to. */
export type PostmasterEnd = 'gone' | 'quit' | 'killed'

/** Ends a postmaster that was told to stop. @throws {ReplctlError} `stop-failed` */
export async function endPostmaster(
  ctx: StepContext,
  node: NodeName,
  pid: number,
  graceMs: number,
): Promise<PostmasterEnd> {
  const on = ctx.on(node)
  const args = [on.settings.postgres.dataDir, String(pid), String(Math.ceil(graceMs / 10))]
  const command = shellScript('wait for the end of the postmaster', endScript, args)
  const said = (await on.output(command, { timeoutMs: graceMs * 4 + 60_000 })).trim()
  if (said === 'gone' || said === 'quit' || said === 'killed') return said
  throw new ReplctlError('stop-failed', `could not end the postmaster on ${node}`, {
    detail: `Its process ${pid} is still there.`,
    hint: `Look at it on ${node}; it may hang in its disk.`,
    node,
  })
}

/**
 * The postmaster of a primary that has handed over is gone. Its shutdown checkpoint is written, so it has nothing left to
 * lose; only its archiver may still be at work, and is left in peace as long as the time limit says.
 */
export function awaitPostmasterEnd(node: NodeName): Step {
  return {
    title: 'wait until its old postmaster has ended',
    node,
    check: async (ctx) => {
      const { instance, postmaster } = await look(ctx)
      if (instance?.isInRecovery === true) return satisfied('it runs as a standby already')
      if (postmaster?.isAlive !== true) return satisfied('it has ended')
      if (ctx.isDryRun) return unknownUntil('the primary is stopped')
      if (instance !== null) return refused(acceptsWrites(node))
      return pending(`its process ${postmaster.pid} is still there`)
    },
    apply: async (ctx) => {
      const { postmaster } = await look(ctx)
      if (postmaster?.isAlive !== true) return
      const end = await endPostmaster(ctx, node, postmaster.pid, ctx.timeoutMs)
      if (end !== 'gone') ctx.warn(cutOff(node, ctx.timeoutMs))
    },
  }
}

function acceptsWrites(node: NodeName): ReplctlError {
  return new ReplctlError('two-writers', `${node} accepts writes although another node leads`, {
    detail: 'It was stopped in order and came up again as a primary: somebody took its standby signal away.',
    hint: `Stop PostgreSQL on ${node} now.`,
    node,
  })
}

function cutOff(node: NodeName, timeoutMs: number): ReplctlError {
  return new ReplctlError('archive-failing', `the last WAL of ${node} may be missing in the archive`, {
    detail: `Its archiver was still at work ${Math.round(timeoutMs / 1000)} s after the shutdown checkpoint, and was ended.`,
    hint: 'Take a new base backup if the archive shall serve recovery across this switchover.',
    node,
  })
}
