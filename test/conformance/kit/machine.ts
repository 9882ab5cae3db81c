import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { userInfo } from 'node:os'

/** Whoever runs the tests. */
export const me = userInfo()
export const isRoot = me.uid === 0

/** Finds a program by name, also where PATH of a plain user does not look. */
export function findProgram(name: string): string | undefined {
  const folders = ['/usr/sbin', '/sbin', '/usr/bin', '/bin', '/usr/local/sbin', '/usr/local/bin']
  return folders.map((folder) => `${folder}/${name}`).find((path) => existsSync(path))
}

/** Runs a program of this machine and gives its output; for setting the stage only. */
export function exec(program: string, args: readonly string[]): string {
  return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
}

/** Says loudly what this machine cannot test. */
export function reportMissing(what: string): void {
  console.warn(`\n!!! NOT TESTED on this machine: ${what}\n`)
}

/** A port that is free now, below the ephemeral range. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 10_000)
    const isFree = await new Promise<boolean>((resolve) => {
      const server = createServer()
      server.once('error', () => resolve(false))
      server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
    })
    if (isFree) return port
  }
}

/** Waits until something holds; fails after `ms`. */
export async function until(
  what: string,
  ms: number,
  holds: () => boolean | Promise<boolean>,
): Promise<void> {
  const deadline = performance.now() + ms
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`not so after ${ms} ms: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

/** Whether a process is there and no zombie. */
export function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}

/** All descendants of a process, by /proc. */
export function descendantsOf(pid: number): readonly number[] {
  const parents = new Map<number, number>()
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    try {
      const status = readFileSync(`/proc/${name}/status`, 'utf8')
      parents.set(Number(name), Number(/^PPid:\s+(\d+)/m.exec(status)?.[1]))
    } catch {
      // It ended while we looked.
    }
  }
  const found: number[] = []
  for (const queue = [pid]; queue.length > 0; ) {
    const parent = queue.shift()
    const children = [...parents].filter(([, of]) => of === parent).map(([child]) => child)
    found.push(...children)
    queue.push(...children)
  }
  return found
}
