import { setTimeout as pause } from 'node:timers/promises'

export interface AwaitOptions {
  /** Default 30 s. */
  readonly timeoutMs?: number
  /** Pause between two looks. Default 25 ms. */
  readonly everyMs?: number
}

/**
 * Looks again and again until `look` returns something truthy, and returns that. Errors count as "not yet".
 * @throws {Error} at the deadline, naming the condition and the last value (or error) seen
 */
export async function awaitCondition<T>(
  description: string,
  look: () => T | Promise<T>,
  { timeoutMs = 30_000, everyMs = 25 }: AwaitOptions = {},
): Promise<NonNullable<T>> {
  const deadline = performance.now() + timeoutMs
  for (;;) {
    let seen: string
    try {
      const value = await look()
      if (value) return value
      seen = JSON.stringify(value) ?? String(value)
    } catch (error) {
      seen = error instanceof Error ? error.message : String(error)
    }
    if (performance.now() > deadline) {
      throw new Error(`waited ${timeoutMs} ms in vain for: ${description}\nlast seen: ${seen}`)
    }
    await pause(everyMs)
  }
}
