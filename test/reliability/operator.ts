import { setTimeout as pause } from 'node:timers/promises'
import type { ReplctlResult } from '../kit/replctl.ts'
import type { TestCluster } from '../kit/test-cluster.ts'
import { type KillPoint, killAt } from './kill-points.ts'

/** What an operator sees of a node in `status --json`. */
interface SeenNode {
  readonly name: string
  readonly reachable: boolean
  readonly role: string
  readonly state: string
}

/** One command as the history shows it. */
export interface Done {
  readonly line: string
  readonly exitCode: number | null
  readonly codes: readonly string[]
}

/**
 * Whoever sits at the keyboard: looks at `status`, and types what it (or common sense) says, until everything is well. Knows
 * nothing that replctl does not say.
 */
export class Operator {
  readonly history: Done[] = []
  readonly #cluster: TestCluster
  readonly #log: (line: string) => void

  constructor(cluster: TestCluster, log: (line: string) => void) {
    this.#cluster = cluster
    this.#log = log
  }

  async call(...args: string[]): Promise<ReplctlResult> {
    const result = await this.#cluster.replctl([...args, '--json', '--timeout', '40s'], {
      timeoutMs: 240_000,
    })
    const codes = (result.json?.problems ?? []).map((one: { code: string; node: string | null }) =>
      one.node ? `${one.node} ${one.code}` : one.code,
    )
    this.#note(`replctl ${args.join(' ')}`, result.exitCode, codes)
    return result
  }

  /** Types a command and kills it at a point of its way. */
  async callAndKill(args: readonly string[], point: KillPoint): Promise<void> {
    const { exitCode, wasEarlier } = await killAt(this.#cluster, args, point)
    const how = wasEarlier ? 'was to be' : 'was'
    this.#note(`replctl ${args.join(' ')}, which ${how} killed after ${point.kind} ${point.n}`, exitCode, [])
  }

  /** Who leads, by `status`; null where nobody does or it cannot be told. */
  async primary(): Promise<string | null> {
    const { json } = await this.#cluster.replctl(['status', '--json'])
    return json?.result?.primary ?? null
  }

  /**
   * Mends until `status` finds nothing wrong.
   * @throws {Error} with all that was tried, if that cannot be had
   */
  async mend(limitMs: number): Promise<void> {
    const deadline = Date.now() + limitMs
    for (let turn = 0; ; turn += 1) {
      const status = await this.call('status')
      if (status.exitCode === 0 && !codesOf(status).includes('operation-unfinished')) return
      if (Date.now() > deadline) {
        const last = JSON.stringify(status.json?.problems, null, 1)
        throw new Error(`the cluster could not be mended in ${limitMs} ms; status says\n${last}`)
      }
      await this.#mendOnce(status, turn)
    }
  }

  async #mendOnce(status: ReplctlResult, turn: number): Promise<void> {
    const { json } = status
    if (codesOf(status).includes('operation-unfinished')) {
      const resumed = await this.call('resume')
      if (resumed.exitCode === 0) return
    }
    const nodes: readonly SeenNode[] = json?.result?.nodes ?? []
    if ((json?.result?.primary ?? null) === null) {
      await this.call('promote')
      return
    }
    const broken = nodes.filter(
      ({ reachable, role, state }) =>
        reachable && role !== 'primary' && !(role === 'standby' && state === 'streaming'),
    )
    for (const { name, role, state } of broken) {
      // One that only lags or has just lost its sender finds its way by itself; later on, it is helped.
      const isOnItsWay = role === 'standby' && ['catchup', 'disconnected'].includes(state)
      if (isOnItsWay && turn < 2) continue
      await this.call('rejoin', name)
    }
    await pause(broken.length === 0 ? 700 : 300)
  }

  #note(line: string, exitCode: number | null, codes: readonly string[]): void {
    this.history.push({ line, exitCode, codes })
    this.#log(
      `${line}: ${exitCode === null ? 'killed' : `exit ${exitCode}`}${codes.length > 0 ? ` (${codes.join(', ')})` : ''}`,
    )
  }
}

function codesOf({ json }: ReplctlResult): readonly string[] {
  return (json?.problems ?? []).map((one: { code: string }) => one.code)
}
