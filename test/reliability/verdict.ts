import type { Entry } from './ledger.ts'

/** What is found at the end of a history. */
export interface Findings {
  readonly entries: readonly Entry[]
  /** Ids in the surviving primary's table. */
  readonly onPrimary: ReadonlySet<number>
  /** Ids that any rejoin wrote out as inserted on a line that was given up. */
  readonly salvaged: ReadonlySet<number>
  /** In `sync` and `quorum` mode a salvage excuses nothing. */
  readonly mode: 'async' | 'sync' | 'quorum'
}

export interface Verdict {
  readonly isGood: boolean
  readonly confirmed: number
  readonly unknown: number
  /** Confirmed, and found only in a salvage. */
  readonly inSalvage: number
  /** Confirmed, and nowhere: what must never be. */
  readonly lost: readonly Entry[]
  /** On the primary although nobody tried to write them, or the server refused them. */
  readonly phantoms: readonly number[]
}

/** Compares the ledger with what survived: each confirmed row is on the primary or, in `async` mode only, in a salvage. */
export function judge({ entries, onPrimary, salvaged, mode }: Findings): Verdict {
  const confirmed = entries.filter((entry) => entry.outcome === 'confirmed')
  const missing = confirmed.filter((entry) => !onPrimary.has(entry.id))
  const excused = mode === 'async' ? missing.filter((entry) => salvaged.has(entry.id)) : []
  const lost = missing.filter((entry) => !excused.includes(entry))
  const possible = new Set(entries.filter((entry) => entry.outcome !== 'failed').map((entry) => entry.id))
  const phantoms = [...onPrimary].filter((id) => !possible.has(id))
  return {
    isGood: lost.length === 0 && phantoms.length === 0,
    confirmed: confirmed.length,
    unknown: entries.filter((entry) => entry.outcome === 'unknown').length,
    inSalvage: excused.length,
    lost,
    phantoms,
  }
}
