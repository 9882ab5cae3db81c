import type { NodeName } from '../cluster/names.ts'
import { operationId } from '../cluster/unfinished.ts'
import type { ClusterLock } from './cluster-lock.ts'
import { leftBefore } from './found-journal.ts'
import type { Journal } from './journal.ts'

/** How a step begins. */
export interface Beginning {
  /** `<node>: <title>`. */
  readonly key: string
  /** It can be taken back, and has to be by whoever takes the operation back. */
  readonly isOwed?: boolean
  /** It cannot be taken back by anybody. */
  readonly isFinal?: boolean
  readonly isCrossing: boolean
  /** Nodes whose answers prove the lock, and that they have the journal; empty: any node will do. */
  readonly tells: readonly NodeName[]
}

/** The journal of one run, kept on the nodes by the lock: it says what is about to be done before it is. */
export class RunJournal {
  readonly #lock: ClusterLock
  #journal: Journal
  #turn: Promise<void> = Promise.resolve()
  /** A write that waits for its turn, and will hold whatever is begun until then. */
  #next: Promise<void> | null = null
  /** What lies on the nodes was written by this run, and says that the point of no return is crossed. */
  #hasToldCrossing = false

  constructor(lock: ClusterLock, journal: Journal) {
    this.#lock = lock
    this.#journal = journal
  }

  get isPastPointOfNoReturn(): boolean {
    return this.#journal.isPastPointOfNoReturn
  }

  /** Something was begun that cannot be taken back. */
  get isFinal(): boolean {
    return this.#journal.isFinal === true
  }

  /** Whether this run, or an earlier one that it goes on with, began anything; with a key: began that step. */
  hasBegun(key?: string): boolean {
    return key === undefined ? this.#journal.begun.length > 0 : this.#journal.begun.includes(key)
  }

  /** Resolves when the nodes know; rejects where the lock is not ours any more, or nobody can keep the journal. */
  async begin(beginning: Beginning): Promise<void> {
    if (beginning.tells.length > 0) {
      await this.#tell(this.#saying(beginning), beginning.tells)
    } else if (this.#hasToldCrossing) {
      // All of it goes forward from here, whatever was begun: what is left is to prove the lock.
      await this.#lock.prove()
      return
    } else {
      await this.#write(beginning)
    }
    this.#hasToldCrossing = this.isPastPointOfNoReturn
  }

  /** Lays ready on the nodes, where nobody reads it yet, what a later step is to begin with: its `begin` is quicker then. */
  async prepare(beginning: Beginning): Promise<void> {
    const text = JSON.stringify(this.#saying(beginning))
    await this.#inTurn(() => this.#lock.prepareJournal(text))
  }

  /** That step was taken back: whoever goes on with that need not find it any more. */
  async tellTakenBack(key: string): Promise<void> {
    const { begun, owed = [] } = this.#journal
    const isOther = (one: string) => one !== key
    this.#journal = { ...this.#journal, begun: begun.filter(isOther), owed: owed.filter(isOther) }
    await this.#lock.writeJournal(JSON.stringify(this.#journal))
  }

  /** It is known that the point of no return was not crossed: the nodes are told before anything is taken back. */
  async tellNotCrossed(): Promise<void> {
    this.#journal = { ...this.#journal, isPastPointOfNoReturn: false }
    await this.#lock.writeJournal(JSON.stringify(this.#journal))
    this.#hasToldCrossing = false
  }

  /**
   * It came to its end, and with it those that had given way to it: also where a node that is away does not know. One that
   * failed and left nothing, or that never meant to finish them, gives way again to what was unfinished before it.
   */
  async end({ hasFailed }: { readonly hasFailed: boolean }): Promise<void> {
    const { before, superseded = [], isAside } = this.#journal
    const own = operationId(this.#journal)
    const kept = hasFailed ? before : isAside === true ? leftBefore(this.#journal) : undefined
    const ended = hasFailed && before !== undefined ? [own] : [own, ...superseded]
    if (kept === undefined) await this.#lock.clearJournal(ended)
    else await this.#lock.replaceJournal(JSON.stringify(kept), ended)
  }

  /** The run had nothing to do: what had crossed its point of no return before it only waited for what is so already. */
  async endBefore(): Promise<void> {
    const { before, superseded, isAside } = this.#journal
    if (isAside !== true && before?.isPastPointOfNoReturn === true) await this.#lock.clearJournal(superseded)
  }

  #saying(beginning: Beginning): Journal {
    return {
      ...withStep(this.#journal, beginning),
      isPastPointOfNoReturn: beginning.isCrossing || this.isPastPointOfNoReturn,
    }
  }

  /** Steps that run side by side write one after the other, and those that wait meanwhile all at once. */
  async #write(begun: Beginning): Promise<void> {
    this.#journal = withStep(this.#journal, begun)
    this.#next ??= this.#inTurn(() => {
      this.#next = null
      return this.#lock.writeJournal(JSON.stringify(this.#journal))
    })
    await this.#next
  }

  /** Where one of the nodes does not answer, or cannot keep it, nothing is begun. */
  async #tell(next: Journal, provenOn: readonly NodeName[]): Promise<void> {
    const before = this.#journal
    this.#journal = next
    try {
      await this.#inTurn(() => this.#lock.writeJournal(JSON.stringify(this.#journal), provenOn))
    } catch (thrown) {
      this.#journal = before
      // Nothing was begun: no journal is left, nor one on a node that had it before another one failed.
      if (before.begun.length === 0) await this.end({ hasFailed: true }).catch(() => undefined)
      else this.#lock.writeJournal(JSON.stringify(before)).catch(() => undefined)
      throw thrown
    }
  }

  #inTurn(write: () => Promise<void>): Promise<void> {
    const turn = this.#turn.then(write)
    this.#turn = turn.catch(() => undefined)
    return turn
  }
}

const withStep = (journal: Journal, { key, isOwed, isFinal }: Beginning): Journal => ({
  ...journal,
  begun: [...new Set([...journal.begun, key])],
  ...(isOwed === true ? { owed: [...new Set([...(journal.owed ?? []), key])] } : {}),
  ...(isFinal === true ? { isFinal } : {}),
})
