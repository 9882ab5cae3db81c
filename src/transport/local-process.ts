import type { Readable, Writable } from 'node:stream'
import { ReplctlError } from '../errors.ts'
import { defer } from './deferred.ts'
import type { Exit, Launch, PipedProcess } from './piped-process.ts'

export interface LocalLauncher {
  readonly launch: Launch
  /** Lets go of all processes that still run: they see the end of their input, and nobody waits for them. */
  releaseAll(): void
}

/** Launches shell lines on this machine, each in a process group of its own. */
export function createLocalLauncher(): LocalLauncher {
  const running = new Set<() => void>()
  return {
    releaseAll: () => {
      for (const lose of running) lose()
    },
    launch: async (line, _kind, signal) => {
      const { execa } = await import('execa')
      signal.throwIfAborted()
      const child = execa('/bin/sh', ['-c', line], {
        env: {},
        extendEnv: false,
        cwd: '/',
        detached: true,
        cleanup: false,
        buffer: false,
        reject: false,
        stdin: 'pipe',
      })
      // Everything we need comes by events; execa's own promise never rejects.
      child.catch(() => {})
      const exited = defer<Exit | undefined>()
      const closed = defer()
      const lose = (): void => {
        child.stdin.end()
        // This process ends without it, even where it hangs.
        child.unref()
        exited.resolve(undefined)
        closed.resolve()
      }
      running.add(lose)
      child.on('error', lose)
      child.on('exit', (status, signalName) => exited.resolve({ status, signal: signalName }))
      child.on('close', () => closed.resolve())
      closed.promise.then(() => running.delete(lose)).catch(() => {})
      child.stdin.on('error', () => {})
      return pipesOf(child.stdin, child.stdout, child.stderr, exited.promise, closed.promise)
    },
  }
}

function pipesOf(
  stdin: Writable,
  stdout: Readable,
  stderr: Readable,
  exited: Promise<Exit | undefined>,
  closed: Promise<void>,
): PipedProcess {
  return {
    stdout,
    stderr,
    exited,
    closed,
    write: (data) => writeAll(stdin, data),
    endInput: () => stdin.end(),
    // What a process wrote to a local pipe can be read at once, unless we were too busy to look.
    settle: () => new Promise((resolve) => setImmediate(() => setImmediate(resolve))),
    terminate: () => {},
    release: () => {
      stdin.destroy()
      stdout.destroy()
      stderr.destroy()
    },
  }
}

/** Resolves when the stream took the data, rejects when it never will. */
export function writeAll(stream: Writable, data: string | Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    if (!stream.writable) return reject(inputClosed())
    stream.write(data, (error) => (error ? reject(error) : resolve()))
  })
}

function inputClosed(): ReplctlError {
  return new ReplctlError(
    'remote-command-failed',
    'could not write to a command: its standard input is closed',
  )
}
