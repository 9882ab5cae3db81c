import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, cpSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { ReplctlResult } from './replctl.ts'
import { runProcess } from './run-process.ts'

const checkout = fileURLToPath(new URL('../..', import.meta.url))

/** Somebody on this machine who calls replctl: whoever runs the tests, or (for root) an ordinary user. */
export class SandboxCaller {
  /** Readable for everybody, and gone after `destroy`. */
  readonly folder = mkdtempSync('/tmp/replctl-caller-')
  readonly #user: string | undefined
  readonly #replctl: string

  constructor(user?: string) {
    this.#user = user
    chmodSync(this.folder, 0o777)
    // The checkout may be closed to the user, and be built anew meanwhile.
    for (const part of ['bin', 'dist', 'templates', 'package.json']) {
      cpSync(join(checkout, part), join(this.folder, 'replctl', part), { recursive: true })
    }
    this.#replctl = join(this.folder, 'replctl/bin/replctl')
  }

  async replctl(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<ReplctlResult> {
    const [program, ...words] = this.#command([process.execPath, this.#replctl, ...args], env)
    const finished = await runProcess(program!, words, { timeoutMs: 240_000 })
    return { ...finished, json: asJson(finished.stdout) }
  }

  /** Starts replctl and kills it (SIGKILL) as soon as its progress matches. Resolves with what it had printed. */
  async killAt(args: readonly string[], progress: RegExp): Promise<string> {
    const [program, ...words] = this.#command([process.execPath, this.#replctl, ...args], {})
    const child = spawn(program!, words, { stdio: ['ignore', 'ignore', 'pipe'], detached: true })
    let printed = ''
    let hasMatched = false
    child.stderr.setEncoding('utf8').on('data', (chunk) => {
      printed += chunk
      if (hasMatched || !progress.test(printed)) return
      hasMatched = true
      killTree(child)
    })
    await new Promise((resolve) => child.once('exit', resolve))
    if (!hasMatched) throw new Error(`${args.join(' ')} ended before ${progress} was seen:\n${printed}`)
    return printed
  }

  /** First column of each row, as psql prints it to whoever uses this URL. */
  async psql(url: string, statement: string): Promise<readonly string[]> {
    const [program, ...words] = this.#command(
      ['psql', '-X', '-A', '-t', '-q', '-w', url, '-c', statement],
      {},
    )
    const { exitCode, stdout, stderr } = await runProcess(program!, words)
    if (exitCode !== 0) throw new Error(stderr)
    return stdout.split('\n').filter(Boolean)
  }

  destroy(): void {
    rmSync(this.folder, { recursive: true, force: true })
  }

  #command(words: readonly string[], added: NodeJS.ProcessEnv): readonly string[] {
    const env = { PATH: process.env.PATH, HOME: this.folder, LANG: 'C.UTF-8', NO_COLOR: '1', ...added }
    const settings = Object.entries(env).map(([name, value]) => `${name}=${value}`)
    const as = this.#user === undefined ? [] : ['runuser', '-u', this.#user, '--']
    return [...as, 'env', '-i', ...settings, ...words]
  }
}

/** Command lines of all processes that have this text among their arguments or as their working directory's beginning. */
export function processesNaming(text: string): readonly string[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry) && Number(entry) !== process.pid)
    .flatMap((pid) => {
      try {
        const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim()
        return line.includes(text) ? [`${pid} ${line}`] : []
      } catch {
        return []
      }
    })
}

/** runuser stands between us and replctl: only replctl itself, the node process, is to be killed. */
function killTree(child: ChildProcess): void {
  const own = readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .filter((pid) => {
      try {
        const [, , group] = readFileSync(`/proc/${pid}/stat`, 'utf8')
          .replace(/^.*\) /s, '')
          .split(' ')
        const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8')
        return Number(group) === child.pid && line.startsWith(process.execPath)
      } catch {
        return false
      }
    })
  for (const pid of own) process.kill(Number(pid), 'SIGKILL')
}

function asJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
