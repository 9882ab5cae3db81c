import type { Duplex } from 'node:stream'
import type { Command } from '../command.ts'
import { ReplctlError } from '../errors.ts'
import { defer } from './deferred.ts'
import { createScriptedProcess, type ScriptedProcess } from './scripted-process.ts'
import type {
  CommandResult,
  RunningCommand,
  RunOptions,
  StartOptions,
  Transport,
  TransportObserver,
} from './transport.ts'
import { socketRefused } from './unix-socket.ts'

/** Which commands an answer is for: a title, a pattern for titles, or anything else about them. */
export type CommandMatcher = string | RegExp | ((command: Command) => boolean)

/** A string is standard output with status 0; an error is thrown. */
export type ScriptedAnswer = string | Partial<CommandResult> | ReplctlError
export type AnswerMaker = (command: Command) => ScriptedAnswer | Promise<ScriptedAnswer>

export interface RecordedCall {
  readonly method: 'run' | 'start' | 'openUnixSocket'
  /** The command's title, or the socket's path. */
  readonly title: string
  /** Undefined for a socket. */
  readonly command: Command | undefined
  readonly options: RunOptions
}

export interface RecordingTransportOptions {
  readonly host?: string
  readonly socketPeerIsOsUser?: boolean
  readonly observer?: TransportObserver | undefined
  /** Does what has no scripted answer; without it that is an error. */
  readonly inner?: Transport
}

/** A transport for tests: answers as it was told, and records what it was asked. */
export interface RecordingTransport extends Transport {
  readonly calls: readonly RecordedCall[]
  /** Titles of the commands, in order. */
  readonly titles: readonly string[]
  /** Answers `run`. Several answers are given one after the other, the last for ever; later rules go first. */
  answer(match: CommandMatcher, ...answers: readonly (ScriptedAnswer | AnswerMaker)[]): RecordingTransport
  /** Answers `start`: `play` acts the command's part. */
  answerStart(match: CommandMatcher, play: (process: ScriptedProcess) => void): RecordingTransport
  answerSocket(path: string, open: () => Duplex): RecordingTransport
  /** As if the network went away: what is pending and what comes later rejects with `connection-lost`. */
  loseConnection(): void
}

interface Rule<T> {
  readonly match: CommandMatcher
  readonly answers: T[]
}

/** Makes a transport that answers from a script. */
export function createRecordingTransport(options: RecordingTransportOptions = {}): RecordingTransport {
  const { host = 'fake', inner, observer } = options
  const calls: RecordedCall[] = []
  const runRules: Rule<ScriptedAnswer | AnswerMaker>[] = []
  const startRules: Rule<(process: ScriptedProcess) => void>[] = []
  const sockets = new Map<string, () => Duplex>()
  const gone = defer<never>()
  const lose = (): void => gone.reject(new ReplctlError('connection-lost', `connection to ${host} lost`))
  const whileLinked = <T>(work: () => Promise<T>): Promise<T> =>
    Promise.race([gone.promise, Promise.resolve().then(work)])
  const record = (
    method: RecordedCall['method'],
    command: Command | string,
    runOptions: RunOptions,
  ): void => {
    const isPath = typeof command === 'string'
    const title = isPath ? command : command.title
    calls.push({ method, title, command: isPath ? undefined : command, options: runOptions })
  }

  const run = async (command: Command, runOptions: RunOptions): Promise<CommandResult> => {
    const answer = nextAnswer(runRules, command)
    if (answer === undefined && inner) return inner.run(command, runOptions)
    observer?.commandStarted?.(host, command)
    const given = typeof answer === 'function' ? await answer(command) : answer
    const result = resultOf(given, command)
    observer?.commandFinished?.(host, command, result, 0)
    return result
  }
  const start = async (command: Command, runOptions: StartOptions): Promise<RunningCommand> => {
    const play = nextAnswer(startRules, command)
    if (play !== undefined) return createScriptedProcess(command, play, gone.promise)
    if (inner) return inner.start(command, runOptions)
    throw unanswered(command.title)
  }
  const openUnixSocket = async (path: string): Promise<Duplex> => {
    const open = sockets.get(path)
    if (open === undefined && inner) return inner.openUnixSocket(path)
    if (open === undefined) throw socketRefused(host, path, 'ENOENT')
    return open()
  }

  const transport: RecordingTransport = {
    host,
    calls,
    get titles() {
      return calls.flatMap(({ command }) => command?.title ?? [])
    },
    socketPeerIsOsUser: options.socketPeerIsOsUser ?? inner?.socketPeerIsOsUser ?? true,
    connect: (options) => whileLinked(async () => inner?.connect(options)),
    run: (command, runOptions = {}) => {
      record('run', command, runOptions)
      return whileLinked(() => run(command, runOptions))
    },
    start: (command, runOptions = {}) => {
      record('start', command, runOptions)
      return whileLinked(() => start(command, runOptions))
    },
    openUnixSocket: (path) => {
      record('openUnixSocket', path, {})
      return whileLinked(() => openUnixSocket(path))
    },
    close: async () => {
      await inner?.close()
      lose()
    },
    answer: (match, ...answers) => {
      runRules.unshift({ match, answers: [...answers] })
      return transport
    },
    answerStart: (match, play) => {
      startRules.unshift({ match, answers: [play] })
      return transport
    },
    answerSocket: (path, open) => {
      sockets.set(path, open)
      return transport
    },
    loseConnection: lose,
  }
  return transport
}

function nextAnswer<T>(rules: readonly Rule<T>[], command: Command): T | undefined {
  const rule = rules.find(({ match }) => isMatch(match, command))
  return rule && (rule.answers.length > 1 ? rule.answers.shift() : rule.answers[0])
}

function isMatch(match: CommandMatcher, command: Command): boolean {
  if (typeof match === 'function') return match(command)
  return typeof match === 'string' ? match === command.title : match.test(command.title)
}

function resultOf(answer: ScriptedAnswer | undefined, { title }: Command): CommandResult {
  if (answer === undefined) throw unanswered(title)
  if (answer instanceof ReplctlError) throw answer
  if (typeof answer === 'string') return { status: 0, signal: null, stdout: answer, stderr: '' }
  const status = answer.signal ? null : (answer.status ?? 0)
  return { status, signal: answer.signal ?? null, stdout: answer.stdout ?? '', stderr: answer.stderr ?? '' }
}

function unanswered(title: string): ReplctlError {
  return new ReplctlError('internal-error', `the recording transport has no answer for: ${title}`)
}
