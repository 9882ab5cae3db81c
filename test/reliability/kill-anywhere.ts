import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { WriterWatch } from '../kit/observe.ts'
import type { ReplctlResult } from '../kit/replctl.ts'
import { countPoints, disturbAt, type KillPoint, killAt } from './kill-points.ts'
import { type Arena, complaintsAbout, type Ordeal, startWriting } from './ordeals.ts'

/** What befalls a command at a point: replctl is killed, or it can reach a host no more. */
export const disasters = ['kill', 'cut'] as const
export type Disaster = (typeof disasters)[number]

/** How it is finished, from another control host. */
export const endings = ['same', 'resume', 'abort'] as const
export type Ending = (typeof endings)[number]

export interface Trial {
  readonly ordeal: Ordeal
  readonly disaster: Disaster
  readonly point: KillPoint
  readonly ending: Ending
  /** At this point there is something to finish, and a way back: `resume` and `abort` are not to be refused. */
  readonly mustEnd?: boolean
}

export interface TrialResult {
  /** The command ended before its point came: nothing was tried. */
  readonly wasEarlier: boolean
  /** Everything that is wrong afterwards; empty: all is well. */
  readonly complaints: readonly string[]
}

export const describeTrial = ({ ordeal, disaster, point, ending }: Trial): string =>
  `replctl ${ordeal.args.join(' ')}, ${disaster} after ${point.kind} ${point.n}, then ${ending}`

/** Counts the points of a command's whole, undisturbed way. */
export async function measure(arena: Arena, ordeal: Ordeal) {
  await ordeal.prepare(arena)
  return await countPoints(arena.cluster, ordeal.args)
}

/**
 * One run: the cluster is made, the command begins, something happens to it, another control host finishes it, and everything is
 * looked at. A writer's watch runs all the time.
 */
export async function attempt(arena: Arena, trial: Trial): Promise<TrialResult> {
  const { ordeal } = trial
  await ordeal.prepare(arena)
  const watch = new WriterWatch(arena.hosts)
  const writing = startWriting(arena, ordeal)
  let wasEarlier = false
  const complaints: string[] = []
  try {
    wasEarlier = await befall(arena, trial)
    complaints.push(...(await finish(arena, trial)))
  } finally {
    const [entries, overlaps] = [await writing.stop(), await watch.stop()]
    complaints.push(...overlaps, ...(await complaintsAbout(arena, ordeal, entries)))
  }
  return { wasEarlier, complaints }
}

async function befall({ hosts, cluster }: Arena, { ordeal, disaster, point }: Trial): Promise<boolean> {
  if (disaster === 'kill') return (await killAt(cluster, ordeal.args, point)).wasEarlier
  const node = ordeal.args.at(-1)!
  const args = [...ordeal.args, '--timeout', '15s']
  const { wasEarlier } = await disturbAt(cluster, args, point, () =>
    hosts.cutLink(node, 'control', { port: 22 }),
  )
  await hosts.restoreLink(node)
  return wasEarlier
}

/** Ends it by what the trial says, then asks once more for the same: that must change nothing. Gives complaints. */
async function finish(
  { hosts, cluster }: Arena,
  { ordeal, ending, mustEnd = false }: Trial,
): Promise<string[]> {
  const home = mkdtempSync(join(hosts.directory, 'elsewhere-'))
  const elsewhere = { cwd: home, env: { HOME: home } }
  const call = (...args: string[]) => cluster.replctl([...args, '--json', '--timeout', '90s'], elsewhere)
  try {
    if (ending !== 'same') {
      const first = await call(ending)
      const isOver = codeOf(first) === 'nothing-to-resume' || codeOf(first) === 'cannot-abort'
      if (first.exitCode !== 0 && (mustEnd || !isOver)) return [tell(ending, first)]
      if (codeOf(first) === 'cannot-abort') {
        const resumed = await call('resume')
        if (resumed.exitCode !== 0) return [tell('resume after an abort that was refused', resumed)]
      }
    }
    const done = await call(...ordeal.args)
    if (done.exitCode !== 0) return [tell(ordeal.args.join(' '), done)]
    const again = await call(...ordeal.args)
    if (again.exitCode !== 0 || again.json?.changed !== false)
      return [tell('the same command once more', again)]
    return []
  } finally {
    rmSync(home, { recursive: true, force: true })
  }
}

const codeOf = (result: ReplctlResult): string | undefined => result.json?.problems?.[0]?.code

function tell(what: string, { exitCode, json, stderr, stdout }: ReplctlResult): string {
  const said =
    json === undefined ? stdout + stderr : JSON.stringify({ changed: json.changed, problems: json.problems })
  return `${what}: exit ${exitCode} ${said.slice(0, 1500)}`
}
