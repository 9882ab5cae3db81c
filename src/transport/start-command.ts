import type { Command } from '../command.ts'
import { ReplctlError } from '../errors.ts'
import { keepWithin, throwIfGivenUp } from './bounds.ts'
import { type LaunchPad, launchCommand } from './command-launcher.ts'
import { settlesWithin } from './deferred.ts'
import { createOutlet } from './outlet.ts'
import { stopLaunch } from './run-command.ts'
import type { RunningCommand, RunOptions, TransportObserver } from './transport.ts'

/** Starts a long-lived command; resolves when it has begun. */
export async function startCommand(
  pad: LaunchPad,
  command: Command,
  options: RunOptions,
  observer: TransportObserver | undefined,
): Promise<RunningCommand> {
  const { host } = pad
  throwIfGivenUp(host, command, options.signal)
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
  const { process, session, kill } = await Promise.race([launching, finished.then(neverBegan)])
  await Promise.race([session.begun, finished])
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

function writeFailed(host: string, command: Command, cause: unknown): ReplctlError {
  return new ReplctlError('remote-command-failed', `could not write to a command on ${host}`, {
    detail: `${command.title} has ended or closed its standard input.`,
    cause,
  })
}
