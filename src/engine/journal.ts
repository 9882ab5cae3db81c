/**
 * What an operation leaves on the nodes while it runs, so that `resume` and `abort` work from any control host.
 * It holds no secret and no result: only what was asked for and how far it got. One line of JSON.
 */
export interface Journal {
  readonly version: 1
  /** The runbook's name as typed, e.g. `add-standby`. */
  readonly command: string
  /** Arguments and flags that give the same operation again, e.g. `{ nodes: ['pg2'] }`. */
  readonly wish: Readonly<Record<string, unknown>>
  /** `user@host` of whoever began it. */
  readonly by: string
  /** ISO 8601. */
  readonly since: string
  readonly isPastPointOfNoReturn: boolean
  /** `<node>: <title>` of the steps whose apply was begun, in order: what `abort` has to take back. */
  readonly begun: readonly string[]
  /** Those of them that leave something which only their own undo takes back. */
  readonly owed?: readonly string[]
  /** One of them cannot be taken back at all: it can only be finished. */
  readonly isFinal?: true
  /** Operations that stopped part-way before and gave way to this one: they end with it. */
  readonly superseded?: readonly string[]
  /** The newest of those: it counts again where this one fails and is taken back. */
  readonly before?: Journal
  /** This one finishes nothing that had stopped before: `before` counts again, however it ends. */
  readonly isAside?: true
}

/** Reads a journal; null where it cannot be one of ours. */
export function parseJournal(text: string): Journal | null {
  try {
    const journal = JSON.parse(text) as Journal
    return journal.version === 1 && typeof journal.command === 'string' && Array.isArray(journal.begun)
      ? journal
      : null
  } catch {
    return null
  }
}

/** The newest of the journals that were found on several nodes; one that crossed the point of no return wins. */
export function newestJournal(texts: readonly string[]): Journal | null {
  const journals = texts.map(parseJournal).filter((journal) => journal !== null)
  return (
    journals.toSorted(
      (a, b) =>
        Date.parse(b.since) - Date.parse(a.since) ||
        Number(b.isPastPointOfNoReturn) - Number(a.isPastPointOfNoReturn) ||
        b.begun.length - a.begun.length,
    )[0] ?? null
  )
}
