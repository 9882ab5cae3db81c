import { lstat, readdir, readFile, readlink, realpath, stat } from 'node:fs/promises'
import { basename } from 'node:path'
import { ReplctlError } from '../../errors.ts'
import type { SandboxPlace } from './place.ts'
import { runProgram } from './run-program.ts'

interface LocalProcess {
  readonly pid: number
  readonly uid: number
  readonly args: readonly string[]
  /** Working directory, where the system tells it. */
  readonly cwd: string | null
}

/** What replctl and PostgreSQL start; a shell or an editor that the operator has in these folders is not among it. */
const ownPrograms = /^(postgres|initdb|pg_\w+|sh|dash)\b/

/**
 * Ends whatever works in this folder as the user whose it is: instances (at once, as after a crash: their data is not
 * needed any more), and what a killed replctl left running, initdb or a base backup. `onEnd`: called before the first ends.
 * @throws {ReplctlError} `stop-failed`
 */
export async function endProcesses(folder: string, place: SandboxPlace, onEnd?: () => void): Promise<void> {
  const uid = await userOf(folder, place)
  for (let tries = 0; tries < 200; tries++) {
    const left = await processesIn(folder, uid)
    if (left.length === 0) return
    onEnd?.()
    for (const { pid, args } of left) {
      const isServer = basename(args[0] ?? '').startsWith('postgres')
      signal(pid, tries >= 60 ? 'SIGKILL' : isServer ? 'SIGQUIT' : 'SIGTERM')
      // A stopped process acts on nothing but SIGKILL before it goes on.
      signal(pid, 'SIGCONT')
    }
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  throw new ReplctlError('stop-failed', `could not end all processes in ${folder}`)
}

/** The sandbox may be another user's, and root the one who takes it away. What root itself does in there is never ended. */
async function userOf(folder: string, { owner }: SandboxPlace): Promise<number | undefined> {
  const found = await lstat(folder).catch(() => null)
  return found === null || found.uid === 0 ? (owner?.uid ?? process.getuid?.()) : found.uid
}

async function processesIn(folder: string, uid: number | undefined): Promise<readonly LocalProcess[]> {
  const wanted = [folder, await realpath(folder).catch(() => folder)]
  const isIn = (path: string) => wanted.some((folder) => path === folder || path.startsWith(`${folder}/`))
  const all = await listProcesses()
  return all.filter(
    ({ pid, uid: own, args, cwd }) =>
      pid !== process.pid &&
      own === uid &&
      ownPrograms.test(basename(args[0]?.split(':')[0] ?? '')) &&
      ((cwd !== null && isIn(cwd)) || args.some(isIn)),
  )
}

async function listProcesses(): Promise<readonly LocalProcess[]> {
  const entries = await readdir('/proc').catch(() => [])
  const pids = entries.filter((entry) => /^\d+$/.test(entry))
  if (pids.length === 0) return await listByPs()
  return (await Promise.all(pids.map(readProcess))).filter((found) => found !== null)
}

async function readProcess(pid: string): Promise<LocalProcess | null> {
  try {
    const [{ uid }, line] = await Promise.all([
      stat(`/proc/${pid}`),
      readFile(`/proc/${pid}/cmdline`, 'utf8'),
    ])
    const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => null)
    return line === '' ? null : { pid: Number(pid), uid, args: line.split('\0'), cwd }
  } catch {
    return null
  }
}

/** macOS and BSD. */
async function listByPs(): Promise<readonly LocalProcess[]> {
  const { stdout } = await runProgram('ps', ['-axww', '-o', 'pid=,uid=,command='])
  return stdout.split('\n').flatMap((line) => {
    const [, pid, uid, command = ''] = /^\s*(\d+)\s+(\d+)\s+(.*)$/.exec(line) ?? []
    return pid === undefined
      ? []
      : [{ pid: Number(pid), uid: Number(uid), args: command.split(' '), cwd: null }]
  })
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name)
  } catch {
    // It has ended meanwhile.
  }
}
