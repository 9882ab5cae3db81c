import { access, readdir, readFile, rm, rmdir, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { problemOf } from '../../cluster/problem.ts'
import { acquireClusterLock } from '../../engine/cluster-lock.ts'
import type { StepReport } from '../../engine/events.ts'
import { asReplctlError, exitCodes, ReplctlError } from '../../errors.ts'
import { openCluster } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
import { inventoryOf, readMark, type SandboxMark } from '../sandbox/folder.ts'
import { callOn } from '../sandbox/observe-sandbox.ts'
import { findPlace, type SandboxPlace } from '../sandbox/place.ts'
import { runProgram } from '../sandbox/run-program.ts'
import { endProcesses } from '../sandbox/sandbox-processes.ts'

/** `replctl sandbox down [--dir DIR]`: also of a sandbox that is half made, or whose inventory is broken. */
export async function run(call: Call): Promise<Answer> {
  const place = await findPlace(call)
  const mark = await readMark(place)
  if (mark === null) return answerOf(place, false, [], `There is no sandbox in ${place.dir}.\n`)
  const entries = await readdir(place.dir, { withFileTypes: true })
  const nodes = entries
    .filter((entry) => entry.isDirectory() && /^pg\d+$/.test(entry.name))
    .map(({ name }) => name)
  await requireOwn(call, place, nodes)
  const titles = [
    ...nodes.map((node) => ({ node, title: 'end PostgreSQL' })),
    { node: call.io.hostName, title: 'delete the folder with everything in it' },
  ]
  const steps = titles.map((step, index) => ({
    n: index + 1,
    ...step,
    state: 'planned' as StepReport['state'],
    ms: 0,
  }))
  if (call.flags.isDryRun) {
    return answerOf(place, false, steps, steps.map(({ node, title }) => `${node}: ${title}\n`).join(''))
  }
  await waitForOthers(call, place)
  return await takeAway(place, mark, nodes, steps)
}

/** Does the steps, one after the other, and says how far it came. */
async function takeAway(
  place: SandboxPlace,
  mark: SandboxMark,
  nodes: readonly string[],
  steps: StepReport[],
): Promise<Answer> {
  let hasChanged = false
  const onChange = (): void => {
    hasChanged = true
  }
  const work = [
    ...nodes.map((node) => () => endNode(join(place.dir, node), place, onChange)),
    () => deleteFolder(place, mark, onChange),
  ]
  for (const [index, act] of work.entries()) {
    const startedAt = performance.now()
    const finish = (state: StepReport['state']): void => {
      steps[index] = { ...steps[index]!, state, ms: Math.round(performance.now() - startedAt) }
    }
    try {
      await act()
      finish('applied')
    } catch (thrown) {
      // Instances that were ended stay so: no word of "nothing was changed" then.
      if (!hasChanged) throw thrown
      finish('failed')
      const problems = [problemOf(asReplctlError(thrown))]
      return { ...answerOf(place, true, steps, ''), exitCode: exitCodes.partial, problems }
    }
  }
  return answerOf(place, true, steps, `The sandbox in ${place.dir} is gone.\n`)
}

/**
 * Nobody but root can end another user's instances, and whoever may delete files without that takes them away under them.
 * @throws {ReplctlError} `sandbox-unavailable`
 */
async function requireOwn(call: Call, place: SandboxPlace, nodes: readonly string[]): Promise<void> {
  if (call.io.uid === 0) return
  for (const path of [place.dir, ...nodes.map((node) => join(place.dir, node))]) {
    const uid = (await stat(path).catch(() => null))?.uid
    if (uid === undefined || uid === call.io.uid) continue
    throw new ReplctlError('sandbox-unavailable', `the sandbox in ${place.dir} is another user's`, {
      detail: `${path} belongs to the user with the number ${uid}. Nothing was changed.`,
      hint: 'Run the command as whoever started it, or as root.',
    })
  }
}

/** @throws {ReplctlError} `locked` while another replctl works on the sandbox */
async function waitForOthers(call: Call, place: SandboxPlace): Promise<void> {
  if (
    !(await access(inventoryOf(place)).then(
      () => true,
      () => false,
    ))
  )
    return
  try {
    const session = await openCluster(callOn(call, place))
    try {
      const { userName: user, hostName: host, pid } = call.io
      const holder = { user, host, pid, command: 'replctl sandbox down', since: new Date().toISOString() }
      const { timeoutMs } = call.flags
      const lock = await acquireClusterLock([...session.nodes.values()], {
        ...{ holder, timeoutMs, signal: call.signal },
        listener: (event) => {
          if (event.type === 'waiting') call.io.writeError(`${event.message}\n`)
        },
      })
      await lock.release()
    } finally {
      await session.close()
    }
  } catch (thrown) {
    const error = asReplctlError(thrown)
    // Whatever else is broken is about to be deleted.
    if (error.code === 'locked' || error.code === 'interrupted') throw error
  }
}

async function endNode(folder: string, place: SandboxPlace, onChange: () => void): Promise<void> {
  const directories = (await readdir(folder).catch(() => [])).filter((name) => name.startsWith('data'))
  const files = directories.map((name) =>
    readFile(join(folder, name, 'postmaster.pid'), 'utf8').catch(() => ''),
  )
  const texts = await Promise.all(files)
  await endProcesses(folder, place, onChange)
  for (const text of texts) await removeSharedMemory(text.split('\n')[6] ?? '')
}

/** A postmaster that was killed leaves a few bytes of System V shared memory behind: key and id stand in its file. */
async function removeSharedMemory(line: string): Promise<void> {
  const [key, id] = line.trim().split(/\s+/)
  const segments = await readFile('/proc/sysvipc/shm', 'utf8').catch(() => '')
  const isUnused = segments.split('\n').some((row) => {
    const [ownKey, ownId, , , , , attached] = row.trim().split(/\s+/)
    return ownKey === key && ownId === id && attached === '0'
  })
  if (isUnused && id !== undefined) await runProgram('ipcrm', ['-m', id])
}

async function deleteFolder(place: SandboxPlace, mark: SandboxMark, onChange: () => void): Promise<void> {
  try {
    // The mark goes last: what is left of a deletion that was cut short is still known to be ours.
    const entries = (await readdir(place.dir)).filter((name) => name !== 'sandbox.json')
    for (const name of entries) {
      onChange()
      await rm(join(place.dir, name), { recursive: true, force: true, maxRetries: 5 })
    }
    if (/^\/tmp\/replctl-[0-9a-f]{10}$/.test(mark.socket_dir))
      await rm(mark.socket_dir, { recursive: true, force: true })
    await rm(place.dir, { recursive: true, force: true })
    if (place.isDefault) await rmdir(dirname(place.dir)).catch(() => undefined)
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException
    throw new ReplctlError('stop-failed', `could not delete ${place.dir}`, {
      detail: `The system says ${code}. No instance of the sandbox runs any more.`,
      hint: 'Mend that, then run the command again.',
      cause: thrown,
    })
  }
}

function answerOf(place: SandboxPlace, changed: boolean, steps: readonly StepReport[], text: string): Answer {
  const result = { dir: place.dir, steps }
  return { exitCode: exitCodes.ok, changed, cluster: 'sandbox', result, problems: [], text }
}
