import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { awaitCondition } from '../kit/await-condition.ts'
import type { TestCluster } from '../kit/test-cluster.ts'

/** What replctl just did when something happens to it: ended a remote command or a step, or handed a piece to the network. */
export type PointKind = 'command' | 'step' | 'message'

/** The n-th such moment of a run, from 1. */
export interface KillPoint {
  readonly kind: PointKind
  readonly n: number
}

export type Points = Readonly<Record<PointKind, number>>

const hook = fileURLToPath(new URL('../../test/reliability/kill-hook.mjs', import.meta.url))
let calls = 0

interface Ending {
  /** Null: killed. */
  readonly exitCode: number | null
  /** It ended before the point came. */
  readonly wasEarlier: boolean
  readonly stderr: string
}

/** Runs a command to its end and counts the points of its way. */
export async function countPoints(cluster: TestCluster, args: readonly string[]): Promise<Points> {
  const mark = nextMark(cluster)
  const env = environment(mark)
  const { exitCode, stderr } = await cluster.replctl([...args, '--verbose'], { env })
  if (exitCode !== 0) throw new Error(`replctl ${args.join(' ')} failed by itself:\n${stderr}`)
  const counts = JSON.parse(readFileSync(`${mark}.counts`, 'utf8')) as Points
  rmSync(`${mark}.counts`)
  return counts
}

/** Runs a command and kills it at a point, by a SIGKILL of its own: nothing it could do about it. */
export async function killAt(
  cluster: TestCluster,
  args: readonly string[],
  point: KillPoint,
): Promise<Ending> {
  const mark = nextMark(cluster)
  const env = environment(mark, point, 'kill')
  const { exitCode, signal, stderr } = await cluster.replctl([...args, '--verbose'], { env })
  rmSync(`${mark}.counts`, { force: true })
  return { exitCode, wasEarlier: signal !== 'SIGKILL', stderr }
}

/** Runs a command, has it stand still at a point until `deed` is done, and lets it go on to whatever end. */
export async function disturbAt(
  cluster: TestCluster,
  args: readonly string[],
  point: KillPoint,
  deed: () => Promise<void>,
): Promise<Ending> {
  const mark = nextMark(cluster)
  const started = cluster.startReplctl([...args, '--verbose'], { env: environment(mark, point, 'pause') })
  let isOver = false
  const ended = started.finished.then((end) => {
    isOver = true
    return end
  })
  await awaitCondition('the point to break something at', () => isOver || existsSync(mark), {
    timeoutMs: 90_000,
    everyMs: 3,
  })
  const wasEarlier = !existsSync(mark)
  if (!wasEarlier) await deed()
  writeFileSync(`${mark}.go`, '')
  const { exitCode } = await ended
  for (const file of [mark, `${mark}.go`, `${mark}.counts`]) rmSync(file, { force: true })
  return { exitCode, wasEarlier, stderr: started.stderr() }
}

function nextMark(cluster: TestCluster): string {
  calls += 1
  return join(cluster.hosts.directory, `point-${calls}`)
}

function environment(mark: string, point?: KillPoint, deed?: 'kill' | 'pause'): Record<string, string> {
  return {
    NODE_OPTIONS: `--import=${pathToFileURL(hook).href}`,
    RELIABILITY_MARK: mark,
    ...(point === undefined ? {} : { RELIABILITY_AT: `${point.kind}:${point.n}` }),
    ...(deed === undefined ? {} : { RELIABILITY_DEED: deed }),
  }
}

/** About `count` points of one kind, evenly spread over all of them, moved along by `shift` from run to run. */
export function spreadPoints(kind: PointKind, total: number, count: number, shift = 0): readonly KillPoint[] {
  const wanted = Math.min(count, total)
  const stride = total / wanted
  return Array.from({ length: wanted }, (_, index) => ({
    kind,
    n: Math.min(total, 1 + Math.floor(((index + (shift % 1)) * stride) % total)),
  }))
}
