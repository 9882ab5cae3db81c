import type { Inventory } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { shellScript } from '../command.ts'
import { pending, refused, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { killAllScript } from './fence-instance.ts'
import { look } from './look.ts'

/**
 * Waits until a postmaster that was told to stop has gone; then it is told to go at once (SIGQUIT), and at last killed with
 * all its processes. Prints how it went: `gone`, `quit` or `killed`, and before that what was left of it when its time was up,
 * as processes name themselves. A pid that was used again is not its own: postmaster.pid goes with it.
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
real=$(cd -P -- "$data" && pwd -P)
if [ -d /proc/self ]; then
  for entry in /proc/[0-9]*; do
    [ "\${entry#/proc/}" != "$pid" ] && [ "$(readlink "$entry/cwd" 2>/dev/null)" = "$real" ] || continue
    title=$(tr '\\000' ' ' 2>/dev/null < "$entry/cmdline")
    case $title in postgres:*) printf 'left %s\\n' "$title" ;; esac
  done
else
  ps -A -o ppid= -o args= | while read -r parent title; do
    [ "$parent" != "$pid" ] || printf 'left %s\\n' "$title"
  done
fi
kill -QUIT "$pid" 2>/dev/null
if await_end 500; then echo quit; exit 0; fi
set -- "$data"
(${killAllScript})
if await_end 500; then echo killed; else echo stays; fi
`

export interface PostmasterEnd {
  /** By itself in time, or made to. */
  readonly how: 'gone' | 'quit' | 'killed'
  /** What was left of it before it was made to, e.g. `walsender replicator 10.0.0.12(51234) streaming 0/5000148`. */
  readonly left: readonly string[]
}

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
  const said = (await on.output(command, { timeoutMs: graceMs * 4 + 60_000 })).trim().split('\n')
  const how = said.at(-1)
  const left = said.slice(0, -1).map((line) => line.replace(/^left (?:postgres: )?/, '').trim())
  if (how === 'gone' || how === 'quit' || how === 'killed') return { how, left }
  throw new ReplctlError('stop-failed', `could not end the postmaster on ${node}`, {
    detail: `Its process ${pid} is still there.`,
    hint: `Look at it on ${node}; it may hang in its disk.`,
    node,
  })
}

/**
 * The postmaster of a primary that has handed over is gone. Its shutdown checkpoint is written, so it has nothing left to
 * lose; only its archiver, and walsenders whose standbys do not answer, may still be at work, and are left in peace as long as
 * the time limit says.
 */
export function awaitPostmasterEnd(node: NodeName, inventory: Inventory): Step {
  return {
    title: 'wait until its old postmaster has ended',
    node,
    comesOfEarlier: true,
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
      if (end.how !== 'gone') ctx.warn(cutOff(inventory, node, end.left, ctx.timeoutMs))
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

/** What a postmaster that had to be ended was still waiting for. */
export function cutOff(
  inventory: Inventory,
  node: NodeName,
  left: readonly string[],
  timeoutMs: number,
): ReplctlError {
  const seconds = Math.round(timeoutMs / 1000)
  const isOf = (kind: string) => (title: string) => new RegExp(`(^|: )${kind}\\b`).test(title)
  if (left.some(isOf('archiver'))) {
    const isOurs = inventory.archive !== undefined
    const where = isOurs ? 'the archive' : 'the archive that its archive_command fills'
    return new ReplctlError('archive-failing', `the last WAL of ${node} may be missing in ${where}`, {
      detail: `Its archiver was still at work ${seconds} s after the shutdown checkpoint, and was ended.`,
      hint: `Take a new base backup${isOurs ? '' : ' there'} if the archive shall serve recovery across this switchover.`,
      node,
    })
  }
  const senders = left.filter(isOf('walsender'))
  const receivers = inventory.nodes.filter(({ address }) =>
    senders.some((title) => title.includes(` ${address}(`)),
  )
  const names = receivers.map(({ name }) => name).join(', ')
  const seen = (senders.length > 0 ? senders : left).join('; ')
  return new ReplctlError('stop-failed', `the postmaster of ${node} did not end by itself`, {
    detail: `${seconds} s after its shutdown checkpoint ${
      seen === '' ? 'it was still there' : `it still waited for: ${seen}`
    }. It was ended; nothing is lost by that.`,
    hint:
      names === ''
        ? `If it happens again, look at its log on ${node}.`
        : `Look at the walreceiver of ${names}: it does not take what it is sent.`,
    node,
  })
}
