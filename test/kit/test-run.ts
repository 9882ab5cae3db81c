import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { createInterface } from 'node:readline'
import { awaitCondition } from './await-condition.ts'
import { holderScript } from './host-scripts.ts'
import { layerFolder, layerFolders } from './hosts-available.ts'
import { ipBatch, machinePath } from './test-host.ts'

/** A run's directory: holds the pid of its holder, and when that started. */
const runName = /^replctl-hosts-(\d+)-(\d+)(-layers)?$/

/** Where the upper layers of a run's hosts lie. */
export function layersOf(run: string): string {
  return join(layerFolder(), `${basename(run)}-layers`)
}

/** Removes the directories of runs whose holder was killed before it could tidy up. */
export async function removeLeftovers(): Promise<void> {
  for (const { path, pid, startTime } of runFolders()) {
    if (startTimeOf(pid) === startTime) continue
    await rm(path, { recursive: true, force: true, maxRetries: 5 }).catch(() => {})
  }
}

/**
 * Ends one run that was created with `keep`, named by its directory, and no other: runs of other people are theirs to end.
 * @throws {Error} if there is no such run
 */
export async function destroyKept(directory: string): Promise<void> {
  const run = keptRuns().find(({ path }) => path === directory)
  if (!run) throw new Error(`${directory} is not the directory of test hosts that were kept`)
  process.kill(-run.pid, 'SIGTERM')
  await awaitCondition(`the hosts of ${directory} are gone`, () => startTimeOf(run.pid) !== run.startTime)
  await removeLeftovers()
}

/** The runs that were created with `keep` and live: by directory. */
export function keptRuns(): { readonly path: string; readonly pid: number; readonly startTime: string }[] {
  const isKept = (pid: number) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').endsWith('\0keep\0')
  return runFolders().filter(({ path, pid, startTime }) => {
    return !path.endsWith('-layers') && startTimeOf(pid) === startTime && isKept(pid)
  })
}

/** The directories of all runs, with the pid and the start time of their holders. */
function runFolders(): { readonly path: string; readonly pid: number; readonly startTime: string }[] {
  return [...new Set(layerFolders())].flatMap((folder) =>
    readdirSync(folder).flatMap((name) => {
      const run = runName.exec(name)
      return run ? [{ path: join(folder, name), pid: Number(run[1]), startTime: run[2]! }] : []
    }),
  )
}

/** Clock ticks since boot when a live process started: with the pid, this names a process for good. */
function startTimeOf(pid: number): string | undefined {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ')
    return fields[0] === 'Z' ? undefined : fields[19]
  } catch {
    return undefined
  }
}

/** Starts the process on which a run hangs; resolves with it and the run's directory. */
export async function startHolder(keep: boolean): Promise<{ holder: ChildProcess; directory: string }> {
  const args = ['--net', 'sh', '-c', holderScript, 'holder', tmpdir(), layerFolder(), keep ? 'keep' : 'test']
  const stdio = [keep ? 'ignore' : 'pipe', 'pipe', 'inherit'] as const
  const holder = spawn('unshare', args, { stdio: [...stdio], detached: true, env: { PATH: machinePath } })
  const lines = createInterface({ input: holder.stdout! })
  const [directory] = await Promise.race([once(lines, 'line'), once(lines, 'close')])
  if (!directory) throw new Error('could not make a network namespace for the test hosts')
  holder.unref()
  for (const pipe of [holder.stdin, holder.stdout]) {
    if (pipe && 'unref' in pipe && typeof pipe.unref === 'function') pipe.unref()
  }
  return { holder, directory }
}

/** Name of the control host's end of a network, unique as its address is: `replctl7` for `10.123.7.1`. */
export function controlInterface(address: string): string {
  return `replctl${address.split('.')[2]}`
}

/** Plugs the control host into the switch and returns the run's own subnet, e.g. `10.123.7`. */
export async function connectControlHost(switchPid: number): Promise<string> {
  const first = process.pid % 254
  for (let attempt = 0; attempt < 254; attempt++) {
    const number = ((first + attempt) % 254) + 1
    const address = `10.123.${number}.1`
    const name = controlInterface(address)
    try {
      await ipBatch(undefined, [`link add ${name} type veth peer name control netns ${switchPid}`])
    } catch (error) {
      if (String(error).includes('File exists')) continue // another run has this number
      throw error
    }
    await ipBatch(switchPid, ['link set control master br0', 'link set control up'])
    await ipBatch(undefined, [`address add ${address}/24 dev ${name}`, `link set ${name} up`])
    return `10.123.${number}`
  }
  throw new Error('all 254 networks for test hosts are taken')
}
