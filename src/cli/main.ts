import { setMaxListeners } from 'node:events'
import { CommanderError } from 'commander'
import { problemOf } from '../cluster/problem.ts'
import { packageVersion } from '../config/load-template.ts'
import { asReplctlError, exitCodes, ReplctlError } from '../errors.ts'
import type { Answer, Call, CommandSpec, FoundCluster, Surroundings } from './command-spec.ts'
import { commands } from './commands/index.ts'
import { configIn } from './config-in.ts'
import { makeProgram } from './program.ts'
import { surroundingsOf } from './surroundings.ts'

/** Runs replctl for a process; gives the exit code and never throws. */
export async function main(process: NodeJS.Process): Promise<number> {
  const { io, settle } = surroundingsOf(process)
  return await settle(await runIn(process, io))
}

async function runIn(process: NodeJS.Process, io: Surroundings): Promise<number> {
  const words = process.argv.slice(2)
  if (words.length === 1 && (words[0] === '--version' || words[0] === '-V')) {
    io.writeOut(`${packageVersion()}\n`)
    return exitCodes.ok
  }
  const found: FoundCluster = { isSought: false, name: null }
  const of: ReportOn = {
    command: commandIn(words),
    isJson: words.includes('--json'),
    config: configIn(words),
    found,
  }
  const interruption = listenToSignals(process, io, of)
  let exitCode: number = exitCodes.ok
  const program = makeProgram({
    version: packageVersion,
    env: io.env,
    writeOut: io.writeOut,
    writeError: io.writeError,
    run: async (spec, call) => {
      exitCode = await answer(spec, { ...call, io, signal: interruption, found })
      // Its connections are still open, and nobody waits for them.
      if (spec.onlyLooks === true && interruption.aborted) process.exit(exitCode)
    },
  })
  answerUncaught(process, io, of)
  try {
    if (words[0] === 'complete') {
      const { complete } = await import('./complete.ts')
      return await complete(words.slice(1), io)
    }
    await program.parseAsync(words, { from: 'user' })
    return exitCode
  } catch (thrown) {
    if (thrown instanceof CommanderError) return await usageExit(thrown, of, io)
    await report(io, of, failed(thrown), 0)
    return asReplctlError(thrown).exitCode
  }
}

/** Nothing may end this process without an answer, not even an error that nobody waited for; and nothing may keep it. */
function answerUncaught(process: NodeJS.Process, io: Surroundings, of: ReportOn): void {
  let isEnding = false
  process.on('uncaughtException', (thrown) => {
    // What breaks while the first error is being reported must not cut that report off.
    if (isEnding) return
    isEnding = true
    const end = () => process.exit(exitCodes.internal)
    setTimeout(end, 5_000).unref()
    report(io, { ...of, isUrgent: true }, failed(thrown), 0).then(end, end)
  })
}

/** Runs one command and reports its answer; every way out of a command ends here. */
async function answer(spec: CommandSpec, call: Call): Promise<number> {
  const startedAt = performance.now()
  let given: Answer
  try {
    const running = (await spec.load()).run(call)
    given = await (spec.onlyLooks === true ? Promise.race([running, interrupted(call.signal)]) : running)
  } catch (thrown) {
    given = failed(thrown, call)
  }
  if (spec.isRaw === true && given.exitCode === exitCodes.ok) {
    call.io.writeOut(given.text)
    return given.exitCode
  }
  await report(
    call.io,
    { command: call.command, isJson: call.flags.isJson, config: call.flags.config, found: call.found, call },
    given,
    performance.now() - startedAt,
  )
  return given.exitCode
}

/** Rejects when the operator wants no answer any more. */
function interrupted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const end = () =>
      reject(new ReplctlError('interrupted', 'interrupted by a signal', { detail: 'Nothing was changed.' }))
    if (signal.aborted) end()
    else signal.addEventListener('abort', end, { once: true })
  })
}

/** The answer of a command that could not be carried out. */
function failed(thrown: unknown, call?: Call): Answer {
  const error = asReplctlError(thrown)
  const isTerminated = error.code === 'interrupted' && call?.signal.reason === 'SIGTERM'
  return {
    exitCode: isTerminated ? exitCodes.terminated : error.exitCode,
    changed: false,
    cluster: null,
    result: null,
    problems: [problemOf(error)],
    text: '',
  }
}

interface ReportOn {
  readonly command: string
  readonly isJson: boolean
  /** Value of --config. */
  readonly config: string | undefined
  readonly found: FoundCluster
  readonly call?: Call
  /** Nothing more is looked up for it. */
  readonly isUrgent?: true
}

/** Exactly one JSON document on standard output, or the answer there and the problems on standard error. */
async function report(io: Surroundings, on: ReportOn, given: Answer, elapsedMs: number): Promise<void> {
  if (on.isJson) {
    const { jsonDocument } = await import('../report/json-document.ts')
    io.writeOut(
      jsonDocument({
        command: on.command,
        cluster: given.cluster ?? (await clusterNameOf(on, io)),
        exitCode: given.exitCode,
        changed: given.changed,
        elapsedMs: Math.round(elapsedMs),
        result: given.result,
        problems: given.problems,
      }),
    )
    return
  }
  const { reportProblems } = await import('./report-problems.ts')
  reportProblems(io, on.call, given)
}

/** Longer than this nobody waits for a pipe, only to be told of a wrong option. */
const longestLookMs = 2_000

/** The cluster's name for an answer that failed before it could say it; null where the inventory is not, or cannot be read. */
async function clusterNameOf(on: ReportOn, { env, cwd, home }: Surroundings): Promise<string | null> {
  if (on.found.isSought || on.isUrgent === true) return on.found.name
  if (commands.find(({ name }) => name === on.command)?.readsNoInventory === true) return null
  try {
    const [{ findInventoryPath }, { loadInventory }] = await Promise.all([
      import('../config/find-inventory.ts'),
      import('../config/load-inventory.ts'),
    ])
    const path = findInventoryPath({ flag: on.config, env, cwd, home })
    return (await loadInventory(path, { env, home, signal: AbortSignal.timeout(longestLookMs) })).cluster
  } catch {
    return null
  }
}

/** commander's own errors: help and version are no failure, everything else is a usage error. */
async function usageExit(thrown: CommanderError, on: ReportOn, io: Surroundings): Promise<number> {
  if (thrown.code === 'commander.version') {
    if (on.isJson) {
      const of = { ...on, command: on.command || '--version', isUrgent: true as const }
      await report(io, of, versionAnswer(thrown.message), 0)
    } else io.writeOut(`${thrown.message}\n`)
  }
  if (thrown.exitCode === 0) return exitCodes.ok
  if (on.isJson) {
    const message = thrown.message.replace(/^error: /, '')
    const error = new ReplctlError('usage', message === '(outputHelp)' ? 'a command is missing' : message, {
      hint: 'See replctl --help.',
    })
    await report(io, on, failed(error), 0)
  }
  return exitCodes.usage
}

function versionAnswer(version: string): Answer {
  const common = { exitCode: exitCodes.ok, changed: false, cluster: null, problems: [], text: '' }
  return { ...common, result: { version } }
}

/** The command that was meant, e.g. `backup list` (not `backup`); where there is no such command, what was typed. */
function commandIn(words: readonly string[]): string {
  const typed = words.filter((word) => !word.startsWith('-')).join(' ')
  const positionOf = (name: string) => ` ${typed} `.indexOf(` ${name} `)
  const known = commands.map(({ name }) => name).filter((name) => positionOf(name) >= 0)
  return known.toSorted((a, b) => positionOf(a) - positionOf(b) || b.length - a.length)[0] ?? typed
}

/** What a run is like, by its command line: runs of one kind call much the same functions. There are not many kinds. */
export function runKind(words: readonly string[]): string {
  if (words[0] === 'complete') return 'complete'
  if (words.some((word) => ['help', '--help', '-h'].includes(word))) return 'help'
  const name = commandIn(words)
  if (!commands.some((command) => command.name === name)) return ''
  return words.includes('--dry-run') ? `${name} --dry-run` : name
}

/** The first signal asks the running operation to stop cleanly; the second one ends the process, and says so. */
function listenToSignals(process: NodeJS.Process, io: Surroundings, of: ReportOn): AbortSignal {
  const controller = new AbortController()
  // Each host that is waited for listens to it: many are no leak, of which Node.js would warn the operator.
  setMaxListeners(0, controller.signal)
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => {
      if (!controller.signal.aborted) {
        controller.abort(name)
        return
      }
      const exitCode = name === 'SIGINT' ? exitCodes.interrupted : exitCodes.terminated
      const end = () => process.exit(exitCode)
      const error = new ReplctlError('interrupted', 'interrupted by a second signal', {
        detail: 'What it was doing may stand half done.',
        hint: 'Look with "replctl status"; "replctl resume" goes on, "replctl abort" takes it back.',
      })
      const given = { ...failed(error), exitCode }
      report(io, { ...of, isUrgent: true }, given, 0).then(end, end)
    })
  }
  return controller.signal
}
