import type { Inventory } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { shellScript } from '../command.ts'
import { pending, refused, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import type { Node } from '../node/node.ts'
import { killAllScript } from './fence-instance.ts'
import { look } from './look.ts'

/** How long the last WAL may take to standbys of a primary that has handed over. */
const standbyPatienceMs = 3_000

/**
 * Waits until a postmaster that was told to stop has gone: prints `gone`, or what was left of it when its time was up, as
 * processes name themselves. A pid that was used again is not its own: postmaster.pid goes with it.
 */
const watchScript = `
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
`

/** The same; one that is still there is told to go at once (SIGQUIT), and at last killed with all its processes: `quit`, `killed`. */
const endScript = `
${watchScript}
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
  const { words, left } = await watchEnd(ctx.on(node), pid, graceMs, endScript)
  const how = words.at(-1)
  if (how === 'gone' || how === 'quit' || how === 'killed') return { how, left }
  throw new ReplctlError('stop-failed', `could not end the postmaster on ${node}`, {
    detail: `Its process ${pid} is still there.`,
    hint: `Look at it on ${node}; it may hang in its disk.`,
    node,
  })
}

async function watchEnd(
  node: Node,
  pid: number,
  graceMs: number,
  script: string,
): Promise<{ readonly words: readonly string[]; readonly left: readonly string[] }> {
  const args = [node.settings.postgres.dataDir, String(pid), String(Math.ceil(graceMs / 10))]
  const command = shellScript('wait for the end of the postmaster', script, args)
  const words = (await node.output(command, { timeoutMs: graceMs * 4 + 60_000 })).trim().split('\n')
  const titles = words.filter((line) => line.startsWith('left '))
  return { words, left: titles.map((line) => line.replace(/^left (?:postgres: )?/, '').trim()) }
}

const isOf = (kind: string) => (title: string) => new RegExp(`(^|: )${kind}\\b`).test(title)
/** A walsender to a standby names no database, one to a logical subscriber does. */
const isStandbySender = (title: string) => /(^|: )walsender \S+ \S+\(\d+\)( |$)/.test(title)
/** What belongs to every postmaster, and goes with it. */
const isHelper = (title: string) => ['logger', 'checkpointer'].some((kind) => isOf(kind)(title))

/** Nothing is left of it but walsenders to these nodes. */
export function servesOnly(
  { nodes }: Inventory,
  left: readonly string[],
  names: readonly NodeName[],
): boolean {
  const places = nodes.filter(({ name }) => names.includes(name)).map(({ address }) => ` ${address}(`)
  const isToThem = (title: string) => isHelper(title) || places.some((place) => title.includes(place))
  return waitsOnlyForStandbys(left) && left.every(isToThem)
}

/** Nothing is left of it but walsenders to standbys: those get from the new primary what they did not take from this one. */
export function waitsOnlyForStandbys(left: readonly string[]): boolean {
  const atWork = left.filter((title) => !isHelper(title))
  return atWork.length > 0 && atWork.every((title) => isStandbySender(title))
}

/**
 * The postmaster of a primary that has handed over is gone. Its shutdown checkpoint is written, so it has nothing left to
 * lose. Its archiver, and walsenders to logical subscribers, may still be at work, and are left in peace as long as the time
 * limit says. Walsenders to standbys that do not answer are not: until it is back as a standby, commits may wait for it. `away`:
 * those that are known not to be there, of whom nothing needs to be said.
 */
export function awaitPostmasterEnd(
  node: NodeName,
  inventory: Inventory,
  away: readonly NodeName[] = [],
): Step {
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
      const patience = Math.min(standbyPatienceMs, ctx.timeoutMs)
      const { left } = await watchEnd(ctx.on(node), postmaster.pid, patience, watchScript)
      const graceMs = waitsOnlyForStandbys(left) ? 0 : ctx.timeoutMs - patience
      const end = await endPostmaster(ctx, node, postmaster.pid, graceMs)
      if (end.how === 'gone' || servesOnly(inventory, end.left, away)) return
      ctx.warn(cutOff(inventory, node, end.left, patience + graceMs))
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
