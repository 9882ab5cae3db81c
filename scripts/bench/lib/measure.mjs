/** Runs things and takes their time. */
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

export const bin = fileURLToPath(new URL('../../../bin/replctl', import.meta.url))
/** How often the dear measurements are repeated. */
export const rounds = Number(process.env.BENCH_ROUNDS ?? 3)
let peak = 0

/** The most memory that any replctl of this run ever had. */
export const peakKb = () => peak

/** Runs replctl on a cluster, and watches its memory. */
export function replctl(cluster, args) {
  return run(process.execPath, [bin, ...args, '--config', cluster.inventoryFile, '--quiet'])
}

/** Runs a program to its end; 9 (a check found problems) is an end like 0. */
export function run(command, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'] })
    let said = ''
    child.stderr.on('data', (chunk) => (said = (said + chunk).slice(-2000)))
    const watch = setInterval(() => rememberPeak(child.pid), 20)
    child.on('close', (status) => {
      clearInterval(watch)
      if (status === 0 || status === 9) resolve()
      else reject(new Error(`${args.join(' ')} ended with ${status}: ${said}`))
    })
  })
}

function rememberPeak(pid) {
  try {
    const seen = /VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
    peak = Math.max(peak, Number(seen ?? 0))
  } catch {
    // It has ended.
  }
}

/** How long `work` took; where it gives a number, that is its own measure. */
export async function time(work) {
  const startedAt = performance.now()
  const given = await work()
  return typeof given === 'number' ? given : performance.now() - startedAt
}

export async function times(count, work) {
  const measured = []
  for (let round = 0; round < count; round++) measured.push(await time(work))
  return measured
}

/** Measures several things in turn, so that a machine whose speed varies varies for all; one median each. */
export async function alternating(count, ...works) {
  const measured = works.map(() => [])
  for (let round = 0; round < count; round++) {
    for (const [index, work] of works.entries()) measured[index].push(await time(work))
  }
  return measured.map(median)
}

export function median(values) {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}
