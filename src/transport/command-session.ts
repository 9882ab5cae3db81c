import type { Readable } from 'node:stream'
import type { Command } from '../command.ts'
import { ReplctlError } from '../errors.ts'
import { defer, settlesWithin } from './deferred.ts'
import type { FramedCommand } from './frame.ts'
import type { Exit, PipedProcess } from './piped-process.ts'
import { commandNotBegun, type Elevation, type LoginIdentity } from './run-as.ts'
import { createUnframer } from './unframe.ts'

export interface SessionOptions {
  readonly host: string
  readonly command: Command
  readonly framed: FramedCommand
  readonly elevation: Elevation
  readonly identity: LoginIdentity
  onStdout(chunk: Buffer): void
  onStderr(chunk: Buffer): void
}

/** One command under way: its output without the framing, and how it ended. */
export interface CommandSession {
  /** Resolves when the command itself, not only the login shell, has begun. */
  readonly begun: Promise<void>
  /** Resolves when it ended and all its output was handed on; rejects when it never began or the link was lost. */
  readonly ended: Promise<Exit>
  /** Process groups to signal; empty until it has begun. */
  readonly processIds: readonly string[]
}

/** A daemon left behind may hold the pipes open for ever: after this long without output we stop listening. */
const lingerMs = 300

/** Follows a process that runs a framed command. */
export function followCommand(process: PipedProcess, options: SessionOptions): CommandSession {
  const { host, command, framed, elevation, identity } = options
  const out = createUnframer(framed.marker)
  const err = createUnframer(framed.marker)
  const begun = defer()
  let received = 0
  const listen = (stream: Readable, unframer: typeof out, forward: (chunk: Buffer) => void): void => {
    stream.on('data', (chunk: Buffer) => {
      received += chunk.length
      const printed = unframer.push(chunk)
      if (unframer === out && unframer.words !== undefined) begun.resolve()
      if (printed.length > 0) forward(printed)
    })
  }
  listen(process.stdout, out, (chunk) => options.onStdout(chunk))
  listen(process.stderr, err, (chunk) => options.onStderr(chunk))

  const ended = (async (): Promise<Exit> => {
    const exit = await process.exited
    if (exit !== undefined) await drain(process, () => received)
    process.release()
    if (exit === undefined) throw connectionLost(host, command)
    if (out.words === undefined) {
      const start = { host, title: command.title, status: exit.status, noise: out.noise + err.noise }
      throw commandNotBegun(identity, elevation, start)
    }
    return exit
  })()
  ended.catch((error: unknown) => begun.reject(error))
  return {
    begun: begun.promise,
    ended,
    get processIds() {
      return [...new Set(out.words)].filter((word) => /^[1-9]\d*$/.test(word))
    },
  }
}

/** Waits for the pipes' end, but not for a daemon that keeps them open and prints nothing. */
async function drain(process: PipedProcess, received: () => number): Promise<void> {
  for (;;) {
    const before = received()
    if (await settlesWithin(process.closed, lingerMs)) return
    await Promise.race([process.closed, process.settle().catch(() => settlesWithin(process.closed, 1000))])
    if (received() === before) return
  }
}

/** The link went away under a command: nobody can say whether it finished. */
export function connectionLost(host: string, command: Command): ReplctlError {
  return new ReplctlError('connection-lost', `connection to ${host} lost`, {
    detail: `${command.title} was under way. Whether it finished is not known.`,
    hint: 'Look at the state again before repeating it.',
    retryable: true,
  })
}
