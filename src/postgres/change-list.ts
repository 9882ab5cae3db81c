import type { TupleKey } from './relation-changes.ts'

/** One row to be written out: a version that stands on the diverged node, or the place of one that is gone. */
export interface ListedChange {
  /** Position of its table in the caller's list. */
  readonly table: number
  readonly key: TupleKey
  readonly isDeletion: boolean
  readonly xid: number
  /** About how many bytes the row takes. */
  readonly bytes: number
  /** When it was made, in the order of all changes. */
  readonly turn: number
}

const firstCapacity = 1024

/** Many changes in little memory (25 bytes each), given back in the order of their turns. */
export class ChangeList {
  #size = 0
  #keys = new Float64Array(firstCapacity)
  #turns = new Uint32Array(firstCapacity)
  #xids = new Uint32Array(firstCapacity)
  #bytes = new Uint32Array(firstCapacity)
  #tables = new Uint32Array(firstCapacity)

  get size(): number {
    return this.#size
  }

  add(change: ListedChange): void {
    if (this.#size === this.#keys.length) this.#grow()
    const at = this.#size
    this.#keys[at] = change.key
    this.#turns[at] = change.turn
    this.#xids[at] = change.xid
    this.#bytes[at] = Math.min(change.bytes, 0xffffffff)
    this.#tables[at] = change.table * 2 + (change.isDeletion ? 1 : 0)
    this.#size += 1
  }

  /** All changes in the order in which they were made. */
  *inOrder(): Generator<ListedChange> {
    const order = Uint32Array.from({ length: this.#size }, (_, index) => index)
    const turns = this.#turns
    order.sort((a, b) => (turns[a] ?? 0) - (turns[b] ?? 0))
    for (const at of order) {
      const table = this.#tables[at] ?? 0
      yield {
        table: table >> 1,
        isDeletion: (table & 1) === 1,
        key: (this.#keys[at] ?? 0) as TupleKey,
        xid: this.#xids[at] ?? 0,
        bytes: this.#bytes[at] ?? 0,
        turn: turns[at] ?? 0,
      }
    }
  }

  #grow(): void {
    const wider = this.#keys.length * 2
    const copy = <T extends Float64Array | Uint32Array>(to: T, from: T): T => {
      to.set(from)
      return to
    }
    this.#keys = copy(new Float64Array(wider), this.#keys)
    this.#turns = copy(new Uint32Array(wider), this.#turns)
    this.#xids = copy(new Uint32Array(wider), this.#xids)
    this.#bytes = copy(new Uint32Array(wider), this.#bytes)
    this.#tables = copy(new Uint32Array(wider), this.#tables)
  }
}
