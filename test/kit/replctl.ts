import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type FinishedProcess, runProcess } from './run-process.ts'

export interface ReplctlOptions {
  readonly cwd?: string | undefined
  /** Added to a small, fixed environment; undefined removes a variable. */
  readonly env?: Readonly<Record<string, string | undefined>> | undefined
  readonly input?: string | undefined
  /** Milliseconds after which replctl gets SIGKILL, or the signal named: for tests of interruption. */
  readonly killAfter?: number | { readonly ms: number; readonly signal: NodeJS.Signals } | undefined
  /** The call rejects after this long. Default 120 s. */
  readonly timeoutMs?: number | undefined
}

export interface ReplctlResult extends FinishedProcess {
  /** Standard output as JSON, if it is one JSON document. */
  // biome-ignore lint/suspicious/noExplicitAny: the tests check its shape
  readonly json: any
}

const bin = fileURLToPath(new URL('../../bin/replctl', import.meta.url))

/** Runs replctl as an operator's script would: without a terminal, with a home of its own. Resolves for every exit code. */
export async function runReplctl(
  args: readonly string[],
  options: ReplctlOptions = {},
): Promise<ReplctlResult> {
  const { killAfter, cwd, input, timeoutMs } = options
  const home = makeHome()
  try {
    const finished = await runProcess(process.execPath, [bin, ...args], {
      cwd,
      input,
      timeoutMs,
      env: replctlEnvironment(home, options.env),
      killAfter: typeof killAfter === 'number' ? { ms: killAfter, signal: 'SIGKILL' } : killAfter,
    })
    return { ...finished, json: asJson(finished.stdout) }
  } finally {
    removeHome(home)
  }
}

export interface StartedReplctl {
  /** Leader of its own process group. */
  readonly child: ChildProcess
  /** What it printed so far. */
  stdout(): string
  stderr(): string
  /** Sends a signal to replctl alone, as `kill` does. Default SIGKILL. */
  kill(signal?: NodeJS.Signals): void
  /** Resolves when it has ended. */
  readonly finished: Promise<{ readonly exitCode: number | null; readonly signal: NodeJS.Signals | null }>
}

/** Starts replctl and returns at once: to kill it at a chosen moment, or to have two of them at a time. */
export function startReplctl(args: readonly string[], options: ReplctlOptions = {}): StartedReplctl {
  const home = makeHome()
  const child = spawn(process.execPath, [bin, ...args], {
    cwd: options.cwd,
    env: replctlEnvironment(home, options.env),
    stdio: 'pipe',
    detached: true,
  })
  let out = ''
  let err = ''
  child.stdout.setEncoding('utf8').on('data', (chunk) => {
    out += chunk
  })
  child.stderr.setEncoding('utf8').on('data', (chunk) => {
    err += chunk
  })
  child.stdin.on('error', () => {})
  child.stdin.end(options.input)
  return {
    child,
    stdout: () => out,
    stderr: () => err,
    kill: (signal = 'SIGKILL') => void child.kill(signal),
    finished: new Promise((resolve, reject) => {
      child.once('error', reject)
      child.once('close', (exitCode, signal) => {
        removeHome(home)
        resolve({ exitCode, signal })
      })
    }),
  }
}

/** A fresh home for one call. A worker of vitest gets no `exit` event, so nothing may be left to tidy up at the end. */
function makeHome(): string {
  return mkdtempSync(join(tmpdir(), 'replctl-home-'))
}

function removeHome(home: string): void {
  rmSync(home, { recursive: true, force: true })
}

function replctlEnvironment(home: string, added: ReplctlOptions['env'] = {}): NodeJS.ProcessEnv {
  return {
    PATH: process.env.PATH,
    HOME: home,
    USER: process.env.USER,
    LANG: 'C.UTF-8',
    NO_COLOR: '1',
    ...added,
  }
}

function asJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
