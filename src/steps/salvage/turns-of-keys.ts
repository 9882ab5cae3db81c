/** A change with its place in the order of all changes. */
export interface Turn {
  readonly turn: number
  /** The change that frees its key; undefined: nothing is in the way. */
  readonly after: number | undefined
}

/**
 * Each change stands once, at one of the turns in which its row was written. A row may have got, later than that, a key
 * that another one gave up in between: it has to come after that other one.
 */
export class TurnsOfKeys<T extends Turn> {
  #waiting: { readonly one: T; readonly after: number }[] = []

  /** What can be written now: this one, unless it has to wait, and those that waited for it. */
  next(one: T): readonly T[] {
    const blocked = this.#waiting.find(({ one: other }) => other.turn === one.after)
    const after = blocked?.after ?? one.after ?? 0
    if (after > one.turn) {
      this.#waiting.push({ one, after })
      return []
    }
    const due = this.#waiting.filter((other) => other.after <= one.turn)
    this.#waiting = this.#waiting.filter((other) => other.after > one.turn)
    return [one, ...due.map((other) => other.one)]
  }

  rest(): readonly T[] {
    const left = this.#waiting.map(({ one }) => one)
    this.#waiting = []
    return left
  }
}
