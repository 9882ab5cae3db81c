import { hostname } from 'node:os'
import { exitCodes } from '../errors.ts'
import { localUser } from '../transport/local-user.ts'
import type { Surroundings } from './command-spec.ts'

/** The process as commands see it, and what becomes of its exit code when the answer did not get out. */
export interface ProcessSurroundings {
  readonly io: Surroundings
  /** Waits until everything was written. An answer that nobody can read is no success. */
  settle(exitCode: number): Promise<number>
}

/** Never throws: whatever is odd about the process, a command can still answer. */
export function surroundingsOf(process: NodeJS.Process): ProcessSurroundings {
  const { env } = process
  const { name, uid, home } = localUser(env, process.geteuid?.())
  let fault: NodeJS.ErrnoException | undefined
  const writeOut = (text: string): void => {
    process.stdout.write(text, (error) => {
      fault ??= error ?? undefined
    })
  }
  process.stdout.on('error', () => undefined)
  process.stderr.on('error', () => undefined)
  const io: Surroundings = {
    env,
    cwd: workingFolder(process),
    home: env.HOME || home,
    userName: name,
    uid,
    hostName: hostname(),
    pid: process.pid,
    isTerminal: process.stderr.isTTY === true,
    isOutTerminal: process.stdout.isTTY === true,
    width: process.stderr.columns ?? 100,
    writeOut,
    writeError: (text) => process.stderr.write(text),
  }
  return {
    io,
    async settle(exitCode) {
      await new Promise<void>((resolve) => process.stdout.write('', () => resolve()))
      // A reader that has read enough (`| head`) closes the pipe; a full disk is another matter.
      if (fault === undefined || fault.code === 'EPIPE') return exitCode
      io.writeError(`error: could not write to standard output: ${fault.code ?? fault.message}
hint: The command itself ended with exit code ${exitCode}; its answer is lost.\n`)
      return exitCode === exitCodes.ok ? exitCodes.internal : exitCode
    },
  }
}

/** The folder may be gone by now: relative paths then lead nowhere, which is said where one is used. */
function workingFolder(process: NodeJS.Process): string {
  try {
    return process.cwd()
  } catch {
    return process.env.PWD || '/'
  }
}
