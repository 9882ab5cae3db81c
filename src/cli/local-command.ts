import type { Inventory, NodeSettings } from '../cluster/inventory.ts'
import { quoteForShell } from '../command.ts'
import { ReplctlError } from '../errors.ts'
import type { FenceCommand } from '../steps/fence-unreachable.ts'
import type { Call } from './command-spec.ts'

const defaultLimitMs = 60_000
/** How long what was written last is waited for, once the shell has ended. */
const drainMs = 300

interface Ended {
  readonly status: number | null
  readonly output: string
}

/** Runs one of the operator's own commands on the control host, in the inventory's folder, for at most 60 s. */
async function runLocally(
  line: string,
  inventory: Inventory,
  call: Call,
  node: NodeSettings | undefined,
  input: string,
  limitMs = defaultLimitMs,
): Promise<Ended> {
  const { execa } = await import('execa')
  const filled =
    node === undefined
      ? line
      : line.replaceAll('{node}', quoteForShell(node.name)).replaceAll('{host}', quoteForShell(node.host))
  const running = execa('sh', ['-c', filled], {
    cwd: inventory.folder,
    env: {
      ...call.io.env,
      REPLCTL_CLUSTER: inventory.cluster,
      ...(node === undefined ? {} : { REPLCTL_NODE: node.name, REPLCTL_HOST: node.host }),
    },
    extendEnv: false,
    input,
    // A group of its own: what it started goes with it.
    detached: true,
    reject: false,
    all: true,
    maxBuffer: 1_000_000,
  })
  // The shell's own end counts: what it leaves behind may hold its output open for ever.
  const ended = new Promise<number | null>((resolve) => running.once('exit', resolve))
  const drained = ended.then(async (exitCode) => {
    await Promise.race([running, wait(drainMs)])
    return { exitCode, all: (await Promise.race([running, wait(0)]))?.all ?? '' }
  })
  const result = await within(limitMs, Promise.race([running, drained]), () => {
    killGroup(running.pid)
    running.stdout?.destroy()
    running.stderr?.destroy()
  })
  if (result === null)
    return { status: null, output: `It did not end within ${limitMs / 1000} s and was killed.` }
  return { status: result.exitCode ?? null, output: (result.all ?? '').slice(-2_000) }
}

const wait = (ms: number) => new Promise<null>((resolve) => setTimeout(() => resolve(null), ms))

/** Null at the deadline: whoever still holds its output open is not waited for. */
async function within<T>(ms: number, work: Promise<T>, onLate: () => void): Promise<T | null> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<null>((resolve) => {
    timer = setTimeout(() => {
      onLate()
      resolve(null)
    }, ms)
  })
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}

function killGroup(pid: number | undefined): void {
  try {
    if (pid !== undefined) process.kill(-pid, 'SIGKILL')
  } catch {
    // It has just ended.
  }
}

/** The inventory's fence command; null where it has none. */
export function fenceCommandOf(inventory: Inventory, call: Call, limitMs?: number): FenceCommand | null {
  const line = inventory.fenceCommand
  if (line === undefined) return null
  return async (node) => {
    const { status, output } = await runLocally(line, inventory, call, node, '', limitMs)
    return { hasFenced: status === 0, said: output.trim() }
  }
}

/** Gives one event to the inventory's hook, with the node that it is about. @throws {ReplctlError} `hook-failed` */
export async function runHook(
  inventory: Inventory,
  call: Call,
  event: object,
  node: NodeSettings | undefined,
): Promise<void> {
  if (inventory.onEvent === undefined) return
  const { status, output } = await runLocally(
    inventory.onEvent,
    inventory,
    call,
    node,
    `${JSON.stringify(event)}\n`,
  )
  if (status === 0) return
  throw new ReplctlError('hook-failed', `the hook ended with ${status ?? 'a kill'}`, { detail: output })
}
