import type { Command } from '../command.ts'
import { ReplctlError } from '../errors.ts'
import { keepWithin, throwIfGivenUp } from './bounds.ts'
import { type LaunchPad, launchCommand } from './command-launcher.ts'
import { defer, settlesWithin } from './deferred.ts'
import type { CommandResult, RunOptions, TransportObserver } from './transport.ts'

/** More than this on one stream is no answer but a mistake; it would cost the memory of this process. */
const mostOutputBytes = 64 * 1024 * 1024

/** Runs a command to its end and collects what it printed. */
export async function runCommand(
  pad: LaunchPad,
  command: Command,
  options: RunOptions,
  observer: TransportObserver | undefined,
): Promise<CommandResult> {
  const { host } = pad
  throwIfGivenUp(host, command, options.signal)
  const startedAt = performance.now()
  const trouble = defer<never>()
  const stopping = new AbortController()
  const out = collectOutput(() => trouble.reject(tooMuchOutput(host, command)))
  const err = collectOutput(() => trouble.reject(tooMuchOutput(host, command)))
  observer?.commandStarted?.(host, command)
  const sinks = { onStdout: out.add, onStderr: err.add }
  const launching = launchCommand(pad, command, { kind: 'short', signal: stopping.signal, ...sinks })
  const stop = stopLaunch(launching, stopping)
  const ended = launching.then(({ session }) => session.ended)
  ended.catch(() => {})
  const exit = await keepWithin(ended, { ...options, host, command, trouble: trouble.promise, stop })
  const result = { ...exit, stdout: out.text(), stderr: err.text() }
  observer?.commandFinished?.(host, command, result, performance.now() - startedAt)
  return result
}

/** How long a launch that is called off may take to notice. */
const callOffPatienceMs = 2000

/** Kills a command, or calls it off while it still waits for its turn; one that begins late is killed then. */
export function stopLaunch(
  launching: Promise<{ kill(): Promise<boolean> }>,
  stopping: AbortController,
): () => Promise<boolean> {
  return async () => {
    stopping.abort()
    const killing = launching.then(
      (launched) => launched.kill(),
      () => true,
    )
    return (await settlesWithin(launching, callOffPatienceMs)) ? killing : true
  }
}

interface Collector {
  readonly add: (chunk: Buffer) => void
  text(): string
}

function collectOutput(onOverflow: () => void): Collector {
  const chunks: Buffer[] = []
  let size = 0
  return {
    add: (chunk) => {
      size += chunk.length
      if (size > mostOutputBytes) onOverflow()
      else chunks.push(chunk)
    },
    text: () => Buffer.concat(chunks).toString('utf8'),
  }
}

function tooMuchOutput(host: string, command: Command): ReplctlError {
  return new ReplctlError('remote-command-failed', `command on ${host} printed too much: ${command.title}`, {
    detail: `It printed more than ${mostOutputBytes / 1024 / 1024} MiB and was stopped.`,
  })
}
