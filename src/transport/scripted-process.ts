import type { Command } from '../command.ts'
import { ReplctlError } from '../errors.ts'
import { defer } from './deferred.ts'
import { createOutlet } from './outlet.ts'
import type { RunningCommand } from './transport.ts'

/** The inside of a long-lived command in a test: what it reads, prints, and how it ends. */
export interface ScriptedProcess {
  readonly command: Command
  /** Called with each line written to standard input. */
  onLine(listener: (line: string) => void): void
  onInputEnd(listener: () => void): void
  onKill(listener: () => void): void
  print(text: string): void
  printError(text: string): void
  /** Ends with a status, or with a signal such as `SIGTERM`. */
  exit(ending: number | string): void
}

/** Plays a long-lived command. Unless `play` says otherwise it ends with 0 when its input ends. */
export function createScriptedProcess(
  command: Command,
  play: (process: ScriptedProcess) => void,
  gone: Promise<never>,
): RunningCommand {
  const out = createOutlet()
  const err = createOutlet()
  const ended = defer<{ status: number | null; signal: string | null }>()
  gone.catch((error: unknown) => ended.reject(error))
  const onLine: ((line: string) => void)[] = []
  const onInputEnd: (() => void)[] = []
  const onKill: (() => void)[] = []
  let unread = ''
  let isOver = false
  const exit = (ending: number | string): void => {
    isOver = true
    const isStatus = typeof ending === 'number'
    ended.resolve({ status: isStatus ? ending : null, signal: isStatus ? null : ending })
  }
  play({
    command,
    exit,
    onLine: (listener) => onLine.push(listener),
    onInputEnd: (listener) => onInputEnd.push(listener),
    onKill: (listener) => onKill.push(listener),
    print: (text) => out.push(Buffer.from(text)),
    printError: (text) => err.push(Buffer.from(text)),
  })
  const endInput = (): void => {
    for (const listener of onInputEnd) listener()
    if (onInputEnd.length === 0) exit(0)
  }
  return {
    finished: ended.promise,
    onStdout: out.listen,
    onStderr: err.listen,
    endInput,
    write: async (text) => {
      await Promise.race([gone, Promise.resolve()])
      if (isOver) throw new ReplctlError('remote-command-failed', 'could not write to a command')
      const lines = (unread + text).split('\n')
      unread = lines.pop() ?? ''
      for (const line of lines) for (const listener of onLine) listener(line)
    },
    kill: () => {
      for (const listener of onKill) listener()
      if (onKill.length === 0) exit('SIGTERM')
    },
  }
}
