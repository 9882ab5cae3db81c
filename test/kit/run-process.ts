import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'
import { once } from 'node:events'

/** What a finished process left. Exactly one of `exitCode` and `signal` is set. */
export interface FinishedProcess {
  readonly exitCode: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
  /** From spawn to exit. */
  readonly ms: number
}

export interface RunProcessOptions {
  readonly input?: string | Uint8Array | undefined
  readonly cwd?: string | undefined
  /** Replaces the environment; the test's own by default. */
  readonly env?: NodeJS.ProcessEnv | undefined
  /** The whole process group gets SIGKILL after this long, and the call rejects. Default 120 s. */
  readonly timeoutMs?: number | undefined
  /** The whole process group gets this signal after this long; the call resolves with what was left. */
  readonly killAfter?: { readonly ms: number; readonly signal: NodeJS.Signals } | undefined
}

/** How long output may still arrive after the exit: a daemon that was started may hold the pipes open for ever. */
const drainMs = 250

/** Runs a program without a shell and without a terminal, and collects what it prints. Resolves for every exit status. */
export function runProcess(
  program: string,
  args: readonly string[],
  options: RunProcessOptions = {},
): Promise<FinishedProcess> {
  return new Promise((resolve, reject) => {
    const startedAt = performance.now()
    const timeoutMs = options.timeoutMs ?? 120_000
    const child = spawn(program, [...args], spawnOptions(options))
    const stdout: Buffer[] = []
    const stderr: Buffer[] = []
    let timedOut = false
    child.stdout?.on('data', (chunk: Buffer) => stdout.push(chunk))
    child.stderr?.on('data', (chunk: Buffer) => stderr.push(chunk))
    child.stdin?.on('error', () => {}) // EPIPE: it did not want all of its input
    child.stdin?.end(options.input)

    const killer = options.killAfter
    const killTimer = killer && setTimeout(() => signalGroup(child, killer.signal), killer.ms)
    const timer = setTimeout(() => {
      timedOut = true
      signalGroup(child, 'SIGKILL')
    }, timeoutMs)

    child.once('error', (error) => {
      clearTimeout(timer)
      clearTimeout(killTimer)
      reject(error)
    })
    child.once('exit', (exitCode, signal) => {
      const ms = performance.now() - startedAt
      clearTimeout(timer)
      clearTimeout(killTimer)
      const finish = () => {
        clearTimeout(drain)
        child.stdout?.destroy()
        child.stderr?.destroy()
        const out = Buffer.concat(stdout).toString()
        const err = Buffer.concat(stderr).toString()
        if (timedOut) {
          reject(new Error(`${describe(program, args)} did not end within ${timeoutMs} ms\n${out}${err}`))
        } else resolve({ exitCode, signal, stdout: out, stderr: err, ms })
      }
      const drain = setTimeout(finish, drainMs)
      child.once('close', finish)
    })
  })
}

/** As `runProcess`, but rejects unless the exit status is 0; resolves with standard output. */
export async function runChecked(
  program: string,
  args: readonly string[],
  options: RunProcessOptions = {},
): Promise<string> {
  const finished = await runProcess(program, args, options)
  if (finished.exitCode !== 0) throw new Error(describeFailure(describe(program, args), finished))
  return finished.stdout
}

/** One message with all a reader needs to see why a command failed. */
export function describeFailure(title: string, finished: FinishedProcess): string {
  const how = finished.signal ? `was ended by ${finished.signal}` : `ended with status ${finished.exitCode}`
  return [`${title} ${how}`, finished.stderr.trim(), finished.stdout.trim()].filter(Boolean).join('\n')
}

/** Sends a signal to a child that was spawned `detached`, and to all of its process group. */
export function signalGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined) return
  try {
    process.kill(-child.pid, signal)
  } catch {
    // It has ended already.
  }
}

/** Resolves when a child has ended, also one that was unref'd, also if it had ended before. */
export async function exitOf(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.ref()
  await once(child, 'exit')
}

function spawnOptions(options: RunProcessOptions): SpawnOptions {
  return { cwd: options.cwd, env: options.env ?? process.env, stdio: 'pipe', detached: true }
}

function describe(program: string, args: readonly string[]): string {
  const text = [program, ...args].join(' ')
  return text.length > 300 ? `${text.slice(0, 300)} …` : text
}
