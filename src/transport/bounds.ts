import type { Command } from '../command.ts'
import { ReplctlError } from '../errors.ts'
import { defer } from './deferred.ts'
import type { RunOptions } from './transport.ts'

export interface Bounds extends RunOptions {
  readonly host: string
  readonly command: Command
  /** Rejects when the work must be stopped for another reason, e.g. too much output. */
  readonly trouble?: Promise<never> | undefined
  /** Stops the work; resolves with whether it is known to be gone. */
  stop(): Promise<boolean>
}

/**
 * Lets `work` go on until its time is over or the caller gives up; then stops it and says whether it is gone.
 * @throws {ReplctlError} `timeout`, `interrupted`, or what `trouble` was
 */
export async function keepWithin<T>(work: Promise<T>, bounds: Bounds): Promise<T> {
  const { timeoutMs, signal } = bounds
  const stopped = defer<never>()
  const onAbort = (): void => stopped.reject(interrupted(bounds))
  const onTimeout = (): void => stopped.reject(timedOut(bounds, timeoutMs ?? 0))
  const timer = timeoutMs === undefined ? undefined : setTimeout(onTimeout, timeoutMs)
  signal?.addEventListener('abort', onAbort, { once: true })
  if (signal?.aborted === true) onAbort()
  bounds.trouble?.catch((error: unknown) => stopped.reject(error))
  let isStopped = false
  stopped.promise.catch(() => {
    isStopped = true
  })
  try {
    return await Promise.race([stopped.promise, work])
  } catch (error) {
    if (!isStopped || !(error instanceof ReplctlError)) throw error
    const isGone = await bounds.stop()
    throw isGone ? error : error.with({ detail: `${error.detail} It may still be running there.` })
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', onAbort)
  }
}

/** Throws if the caller gave up before the command was even launched. */
export function throwIfGivenUp(host: string, command: Command, signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw interrupted({ host, command, signal })
}

function timedOut({ command, host }: Bounds, timeoutMs: number): ReplctlError {
  return new ReplctlError('timeout', `command on ${host} took too long: ${command.title}`, {
    detail: `It was stopped after ${timeoutMs / 1000} s.`,
    retryable: true,
  })
}

function interrupted({ command, host, signal }: Pick<Bounds, 'command' | 'host' | 'signal'>): ReplctlError {
  const reason: unknown = signal?.reason
  if (reason instanceof ReplctlError) return reason
  return new ReplctlError('interrupted', `command on ${host} interrupted: ${command.title}`, {
    detail: 'It was stopped before it ended.',
    cause: reason,
  })
}
