import type { Inventory, NodeSettings } from '../cluster/inventory.ts'
import { quoteForShell } from '../command.ts'
import { ReplctlError } from '../errors.ts'
import type { FenceCommand } from '../steps/fence-unreachable.ts'
import type { Call } from './command-spec.ts'

const limitMs = 60_000

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
): Promise<Ended> {
  const { execa } = await import('execa')
  const filled =
    node === undefined
      ? line
      : line.replaceAll('{node}', quoteForShell(node.name)).replaceAll('{host}', quoteForShell(node.host))
  const result = await execa('sh', ['-c', filled], {
    cwd: inventory.folder,
    env: {
      ...call.io.env,
      REPLCTL_CLUSTER: inventory.cluster,
      ...(node === undefined ? {} : { REPLCTL_NODE: node.name, REPLCTL_HOST: node.host }),
    },
    extendEnv: false,
    input,
    timeout: limitMs,
    reject: false,
    all: true,
    maxBuffer: 1_000_000,
  })
  return { status: result.exitCode ?? null, output: (result.all ?? '').slice(-2_000) }
}

/** The inventory's fence command; null where it has none. */
export function fenceCommandOf(inventory: Inventory, call: Call): FenceCommand | null {
  const line = inventory.fenceCommand
  if (line === undefined) return null
  return async (node) => {
    const { status, output } = await runLocally(line, inventory, call, node, '')
    return { hasFenced: status === 0, said: output.trim() }
  }
}

/** Gives one event to the inventory's hook. @throws {ReplctlError} `hook-failed` */
export async function runHook(inventory: Inventory, call: Call, event: object): Promise<void> {
  if (inventory.onEvent === undefined) return
  const { status, output } = await runLocally(
    inventory.onEvent,
    inventory,
    call,
    undefined,
    `${JSON.stringify(event)}\n`,
  )
  if (status === 0) return
  throw new ReplctlError('hook-failed', `the hook ended with ${status ?? 'a kill'}`, { detail: output })
}
