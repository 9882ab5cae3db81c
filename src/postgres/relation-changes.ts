import type { TupleId } from './waldump.ts'

/** A tuple's place as one number, so that millions of them fit: `block * 2048 + offset`. */
export type TupleKey = number & { readonly __brand: 'TupleKey' }

/** More than the line pointers of any page: 291 on one of 8 kB, 1169 on one of 32 kB. */
const offsetsPerBlock = 2048

export const tupleKey = ({ block, offset }: TupleId): TupleKey =>
  (block * offsetsPerBlock + offset) as TupleKey

/** As SQL has it: `(12,3)`. */
export const tupleText = (key: TupleKey): string =>
  `(${Math.floor(key / offsetsPerBlock)},${key % offsetsPerBlock})`

/** The key of `(12,3)`. */
export function parseTuple(text: string): TupleKey {
  const [block = 0, offset = 0] = text.slice(1, -1).split(',').map(Number)
  return tupleKey({ block, offset })
}

/** A row of before the fork that is gone: who deleted it, and when in the order of all changes. */
export interface Deletion {
  readonly xid: number
  readonly turn: number
}

/**
 * What lost transactions did to the tuples of one file, boiled down to the effect on the state at the fork: rows that
 * are new, rows that are another version of a row that was there (its place then is the row's root), rows that are gone.
 * Fed with the changes of committed transactions only, in the order of the WAL, so that a place that is used again
 * after it was vacuumed is told from the tuple that lay there before. Each change has its turn (1, 2, …): replayed in
 * this order the effects respect foreign keys and unique constraints as the transactions themselves did.
 */
export class RelationChanges {
  /** Versions that lost transactions made and that still stand: block → turn by offset; 0: none. */
  readonly #made = new Map<number, Uint32Array>()
  /** Of these, the ones that go back to a row of before: where that one lay. */
  readonly #roots = new Map<TupleKey, TupleKey>()
  readonly #deleted = new Map<TupleKey, Deletion>()
  /** Blocks into which rows went of which only the number is known (COPY, up to PostgreSQL 15): turn and count. */
  readonly #uncertain = new Map<number, { turn: number; count: number; taken: number }>()
  #standing = 0
  #vanished = 0
  /** `#roots` the other way round, made when it is asked for. */
  #versions: ReadonlyMap<TupleKey, TupleKey> | null = null

  /** Rows that lost transactions inserted and deleted again. */
  get vanished(): number {
    return this.#vanished
  }

  /** Rows of before that are gone, by where they lay. */
  get deleted(): ReadonlyMap<TupleKey, Deletion> {
    return this.#deleted
  }

  /** Where the row lay at the fork whose version this is; undefined for a new row. */
  rootOf(key: TupleKey): TupleKey | undefined {
    return this.#roots.get(key)
  }

  /**
   * The turn in which the row that lay here at the fork was deleted or got its present version; undefined: it is as it
   * was. Where another row has its key now, that is when it gave the key up.
   */
  changedAt(root: TupleKey): number | undefined {
    const deletion = this.#deleted.get(root)
    if (deletion !== undefined) return deletion.turn
    this.#versions ??= new Map([...this.#roots].map(([version, of]) => [of, version]))
    const version = this.#versions.get(root)
    return version === undefined ? undefined : this.turnOf(version)
  }

  /** Deletions of rows that surely were there at the fork: none of a COPY whose places are not known. */
  get certainlyDeleted(): number {
    return [...this.#deleted.keys()].filter((key) => !this.isUncertain(key)).length
  }

  /** How many versions made by lost transactions are to be found in the file, at least and at most. */
  get standing(): { readonly least: number; readonly most: number } {
    let [least, most] = [this.#standing, this.#standing]
    for (const { count, taken } of this.#uncertain.values()) {
      most += count
      least += Math.max(0, count - taken)
    }
    return { least, most }
  }

  /** Blocks that hold such versions, in order. */
  get blocks(): readonly number[] {
    return [...new Set([...this.#made.keys(), ...this.#uncertain.keys()])].sort((a, b) => a - b)
  }

  get isEmpty(): boolean {
    return this.#made.size === 0 && this.#deleted.size === 0 && this.#uncertain.size === 0
  }

  /** When the version at this place was made: a new row when it was inserted, an old one when it was last changed. */
  turnOf(key: TupleKey): number {
    const [block, offset] = [Math.floor(key / offsetsPerBlock), key % offsetsPerBlock]
    return this.#made.get(block)?.[offset] || (this.#uncertain.get(block)?.turn ?? 0)
  }

  /** Rows of a COPY of unknown places went into the block of this tuple: it may be one of them. */
  isUncertain(key: TupleKey): boolean {
    return this.#uncertain.has(Math.floor(key / offsetsPerBlock))
  }

  insert(at: TupleId, turn: number): void {
    this.#make(at, turn)
  }

  insertSome(block: number, count: number, offsets: readonly number[] | null, turn: number): void {
    if (offsets !== null) {
      for (const offset of offsets) this.#make({ block, offset }, turn)
      return
    }
    const known = this.#uncertain.get(block)
    if (known === undefined) this.#uncertain.set(block, { turn, count, taken: 0 })
    else known.count += count
  }

  update(from: TupleId, to: TupleId, turn: number): void {
    const { root, madeAt } = this.#take(from)
    this.#versions = null
    this.#make(to, root === null ? madeAt : turn)
    if (root !== null) this.#roots.set(tupleKey(to), root)
  }

  delete(at: TupleId, xid: number, turn: number): void {
    const { root } = this.#take(at)
    if (root === null) this.#vanished += 1
    else this.#deleted.set(root, { xid, turn })
  }

  /** A speculative insertion was taken back: as if it had never been. */
  kill(at: TupleId): void {
    this.#unmake(at)
    this.#roots.delete(tupleKey(at))
  }

  /** Ends a version. `root` is null where lost transactions had made the row, else where the row lay at the fork. */
  #take(at: TupleId): { readonly root: TupleKey | null; readonly madeAt: number } {
    const key = tupleKey(at)
    const madeAt = this.#unmake(at)
    if (madeAt > 0) {
      const root = this.#roots.get(key) ?? null
      this.#roots.delete(key)
      return { root, madeAt }
    }
    // Maybe one of a COPY into a page that already held rows: whoever looks for the root finds out.
    const uncertain = this.#uncertain.get(at.block)
    if (uncertain !== undefined) uncertain.taken += 1
    return { root: key, madeAt: 0 }
  }

  #make({ block, offset }: TupleId, turn: number): void {
    let turns = this.#made.get(block)
    if (turns === undefined || turns.length <= offset) {
      const wider = new Uint32Array(Math.max(offset + 1, Math.ceil((turns?.length ?? 0) * 1.5), 16))
      if (turns !== undefined) wider.set(turns)
      turns = wider
      this.#made.set(block, turns)
    }
    if (turns[offset] === 0) this.#standing += 1
    turns[offset] = turn
  }

  #unmake({ block, offset }: TupleId): number {
    const turns = this.#made.get(block)
    const madeAt = turns?.[offset] ?? 0
    if (turns === undefined || madeAt === 0) return 0
    turns[offset] = 0
    this.#standing -= 1
    return madeAt
  }
}
