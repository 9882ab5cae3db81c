import type { Command } from '../command.ts'
import { ReplctlError } from '../errors.ts'
import { keepWithin, throwIfGivenUp } from './bounds.ts'
import { type LaunchPad, launchCommand } from './command-launcher.ts'
import { defer, settlesWithin } from './deferred.ts'
import { createOutlet } from './outlet.ts'
import { stopLaunch } from './run-command.ts'
import type { RunningCommand, StartOptions, TransportObserver } from './transport.ts'

/** A login shell or sudo may need seconds on a busy host; where it needs longer than this, no command of ours ends in time. */
const longestBeginMs = 20_000

/** Starts a long-lived command; resolves when it has begun. */
export async function startCommand(
  pad: LaunchPad,
  command: Command,
  options: StartOptions,
  observer: TransportObserver | undefined,
): Promise<RunningCommand> {
  const { host } = pad
  throwIfGivenUp(host, command, options.signal)
  throwIfGivenUp(host, command, options.beginSignal)
  const startedAt = performance.now()
  observer?.commandStarted?.(host, command)
  const out = createOutlet()
  const err = createOutlet()
  const stopping = new AbortController()
  const sinks = { onStdout: out.push, onStderr: err.push }
  const launching = launchCommand(pad, command, { kind: 'long', signal: stopping.signal, ...sinks })
  const stop = stopLaunch(launching, stopping)
  const ended = launching.then(({ session }) => session.ended)
  const finished = keepWithin(ended, { ...options, host, command, stop })
  finished
    .then((exit) => {
      const result = { ...exit, stdout: '', stderr: '' }
      observer?.commandFinished?.(host, command, result, performance.now() - startedAt)
    })
    .catch(() => {})
  const { beginSignal: signal, beginWithinMs = longestBeginMs } = options
  const late = defer<never>()
  let clock: NodeJS.Timeout | undefined
  const beginning = async () => {
    const launched = await Promise.race([launching, finished.then(neverBegan)])
    // Its login, and its wait for a free session, have bounds of their own.
    clock = setTimeout(() => late.reject(begunTooLate(host, command, beginWithinMs)), beginWithinMs)
    await Promise.race([launched.session.begun, finished])
    return launched
  }
  const bounds = { host, command, signal, trouble: late.promise, stop }
  const { process, kill } = await keepWithin(beginning(), bounds).finally(() => clearTimeout(clock))
  return {
    finished,
    onStdout: out.listen,
    onStderr: err.listen,
    endInput: () => process.endInput(),
    write: async (text) => {
      try {
        await process.write(text)
      } catch (error) {
        // A write fails because the link or the command is gone: the end that follows tells which.
        if (await settlesWithin(finished, 1000)) await finished
        throw writeFailed(host, command, error)
      }
    },
    kill: () => {
      process.endInput()
      kill().catch(() => {})
    },
  }
}

function neverBegan(): never {
  throw new Error('a command ended before it was launched')
}

function begunTooLate(host: string, command: Command, ms: number): ReplctlError {
  return new ReplctlError('timeout', `command on ${host} does not begin: ${command.title}`, {
    detail: `The login works, but its shell, sudo or runuser have started nothing for ${ms / 1000} s; it was stopped.`,
    hint: 'Look there for a home directory on a dead disk or NFS, and for a directory service (LDAP, sssd) that is silent.',
    retryable: true,
  })
}

function writeFailed(host: string, command: Command, cause: unknown): ReplctlError {
  return new ReplctlError('remote-command-failed', `could not write to a command on ${host}`, {
    detail: `${command.title} has ended or closed its standard input.`,
    cause,
  })
}
