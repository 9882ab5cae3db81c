import type { LaunchKind } from './piped-process.ts'

/** Lets only so many in at once; the others wait their turn. */
export interface Gate {
  /** Resolves with the function that gives the place back. */
  enter(kind: LaunchKind, signal: AbortSignal): Promise<() => void>
  /** How many wait for their turn. */
  waiting(): number
  /** The host refused one more: no more than there are now, from now on. False if nobody will make room. */
  lower(): boolean
}

interface Waiting {
  readonly kind: LaunchKind
  readonly admit: () => void
}

/**
 * Makes a gate for `limit` at once. `urgent` never waits; `long` ones count, but when they alone fill all places
 * the next one goes in nevertheless: waiting for them could last for ever.
 */
export function createGate(limit: number): Gate {
  let most = limit
  const inside: Record<LaunchKind, number> = { short: 0, long: 0, urgent: 0 }
  const waiting: Waiting[] = []
  const count = (): number => inside.short + inside.long + inside.urgent
  const hasRoom = (kind: LaunchKind): boolean => kind === 'urgent' || count() < most || inside.short === 0
  const admitNext = (): void => {
    const next = waiting[0]
    if (next === undefined || !hasRoom(next.kind)) return
    waiting.shift()
    next.admit()
    admitNext()
  }
  const take = (kind: LaunchKind): (() => void) => {
    inside[kind] += 1
    let isInside = true
    return () => {
      if (!isInside) return
      isInside = false
      inside[kind] -= 1
      admitNext()
    }
  }
  return {
    enter: (kind, signal) =>
      new Promise((resolve, reject) => {
        signal.throwIfAborted()
        if (hasRoom(kind) && (waiting.length === 0 || kind === 'urgent')) return resolve(take(kind))
        const place: Waiting = { kind, admit: () => resolve(take(kind)) }
        waiting.push(place)
        signal.addEventListener('abort', () => {
          const index = waiting.indexOf(place)
          if (index >= 0) waiting.splice(index, 1)
          reject(signal.reason)
        })
      }),
    waiting: () => waiting.length,
    lower: () => {
      most = Math.max(1, Math.min(most, count()))
      return inside.short > 0
    },
  }
}
