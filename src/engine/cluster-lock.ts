import type { NodeFacts } from '../cluster/facts.ts'
import type { NodeName } from '../cluster/names.ts'
import { asReplctlError, ReplctlError } from '../errors.ts'
import { type Guard, type GuardAnswer, type Holder, type LookDepth, tryGuard } from '../node/guard.ts'
import type { Node } from '../node/node.ts'
import { beginSql, surveyLocked } from '../node/survey.ts'
import type { EventListener } from './events.ts'

/** A holder whose last beat is older than this is on its way out: its lock dies by itself within 60 s. */
const liveBeatSeconds = 12
/** How long to wait for a lock that its holder is giving back, where the operator did not say. */
const graceMs = 3_000
/** How long a command that began at the same moment may take to see that it came second. */
const rivalMs = 1_000

/** The cluster's lock, held on every node that could be reached, and the operation's journal beside it. */
export interface ClusterLock {
  /** Whether there is any node to hold it on. */
  readonly isHeld: boolean
  /** Journals that an unfinished operation left, the newest first. */
  readonly foundJournals: readonly string[]
  /** What was observed of a node once it was locked, where that was asked for; undefined where it keeps no lock. */
  surveyOf(node: NodeName): Promise<NodeFacts> | undefined
  /** Proves that the lock is still held on the node that is about to be changed. @throws {ReplctlError} `lock-lost` */
  confirm(node: NodeName): Promise<void>
  /** Proves as much as a journal that is written: that some node still has the lock. @throws {ReplctlError} `lock-lost` */
  prove(): Promise<void>
  /**
   * Writes the journal wherever that is possible. With `provenOn` it resolves as soon as those nodes answered: their answers prove
   * the lock there as well (one message does for both), and the others get it meanwhile. @throws {ReplctlError} `lock-lost`,
   * and `disk-full` where no node (of `provenOn`: not each node) can keep it
   */
  writeJournal(text: string, provenOn?: readonly NodeName[]): Promise<void>
  /** Lays a later journal ready on the nodes, where that is possible: just that one is then written sooner. */
  prepareJournal(text: string): Promise<void>
  /** Removes it; `ended` names the operations that are over, so that no journal of theirs counts any more. */
  clearJournal(ended?: readonly string[]): Promise<void>
  /** The journal of what counts again takes its place, at every moment one or the other; then `ended` are over. */
  replaceJournal(text: string, ended: readonly string[]): Promise<void>
  release(): Promise<void>
}

export interface LockOptions {
  readonly holder: Holder
  /** Undefined: the operator did not say, so a holder that is alive is not waited for. */
  readonly timeoutMs: number | undefined
  readonly listener: EventListener
  readonly signal: AbortSignal
  /** Observe each node as soon as it is locked. */
  readonly look?: LookDepth
}

/**
 * Takes the lock on all nodes that can be reached, or on none. It is tried everywhere at once; of two commands that start
 * together the one that has the first node by name keeps what it has until the other one has gone. A holder that is
 * alive is waited for as long as `timeoutMs` says; one that has fallen silent is waited for until its lock dies.
 * @throws {ReplctlError} `locked`, naming who holds it, where, with what command and since when;
 * `interrupted`
 */
export async function acquireClusterLock(nodes: readonly Node[], options: LockOptions): Promise<ClusterLock> {
  const startedAt = Date.now()
  const attempt = new Attempt(nodes, options)
  let hasTold = false
  for (;;) {
    const held = await attempt.take().catch((thrown: unknown) => {
      // What the signal cut off on a host says nothing of the cluster.
      throw options.signal.aborted ? interruptedEarly() : thrown
    })
    // A node that was given up because of the signal is no node that cannot keep a lock.
    if (held === null && options.signal.aborted) {
      await Promise.all(attempt.taken.map(({ guard }) => guard.release()))
      throw interruptedEarly()
    }
    if (held === null) return makeLock(attempt.taken)
    const waitedMs = Date.now() - startedAt
    const isSilent = held.beatAgeSeconds > liveBeatSeconds
    const limitMs = options.timeoutMs ?? (isSilent ? 60_000 : graceMs)
    if (options.signal.aborted) throw interruptedEarly()
    if (waitedMs >= limitMs) throw lockedError(held)
    if (!hasTold) {
      options.listener({ type: 'waiting', message: describeHolder(held) })
      hasTold = true
    }
    await wait(150)
  }
}

type Held = Extract<GuardAnswer, { is: 'held' }>
type Taken = { readonly node: Node; readonly guard: Guard; readonly facts: Promise<NodeFacts> | null }
type Answer = Held | { readonly is: 'locked'; readonly taken: Taken } | { readonly is: 'unreachable' }

/** Tries to take the lock on every node, and gives back all of it where that fails. */
class Attempt {
  taken: Taken[] = []
  readonly #nodes: readonly Node[]
  readonly #options: LockOptions

  constructor(nodes: readonly Node[], options: LockOptions) {
    this.#nodes = nodes.toSorted((a, b) => (a.name < b.name ? -1 : 1))
    this.#options = options
  }

  /** Null: taken. Else: who has it. */
  async take(): Promise<Held | null> {
    this.taken = []
    const failures: ReplctlError[] = []
    const first = await this.#tryOn(this.#nodes, failures)
    let held = first.find((answer) => answer.is === 'held')
    const owner = first.find((answer) => answer.is !== 'unreachable')
    const until = Date.now() + Math.min(rivalMs, this.#options.timeoutMs ?? rivalMs)
    // Having the first node, this command is the one that stays.
    while (held !== undefined && owner?.is === 'locked' && Date.now() < until) {
      await wait(50)
      const names = this.taken.map(({ guard }) => guard.node)
      const rest = this.#nodes.filter((node) => !names.includes(node.name))
      held = (await this.#tryOn(rest, [])).find((answer) => answer.is === 'held')
    }
    if (held !== undefined) {
      const own = this.taken.map(({ guard }) => guard.node)
      await Promise.all(this.taken.map(({ guard }) => guard.release()))
      if (isSame(held.holder, this.#options.holder)) throw sharedState(held.node, own)
      return held
    }
    // A node that cannot keep a lock (a read-only disk, say) must not stop a failover away from it.
    const [failure] = failures
    if (failure !== undefined && this.taken.length === 0) throw failure
    return null
  }

  async #tryOn(nodes: readonly Node[], failures: ReplctlError[]): Promise<readonly Answer[]> {
    const answers = await Promise.all(
      nodes.map(async (node): Promise<Answer> => {
        try {
          await node.transport.connect()
        } catch {
          return { is: 'unreachable' }
        }
        try {
          return await this.#lock(node)
        } catch (thrown) {
          failures.push(asReplctlError(thrown))
          return { is: 'unreachable' }
        }
      }),
    )
    this.taken.push(...answers.flatMap((answer) => (answer.is === 'locked' ? [answer.taken] : [])))
    return answers
  }

  async #lock(node: Node): Promise<Answer> {
    const { holder, look, signal } = this.#options
    if (look !== undefined) beginSql(node)
    const answer = await tryGuard(node, holder, look, signal)
    if (answer.is === 'held') return answer
    const facts = answer.facts === null ? null : surveyLocked(node, answer.facts)
    facts?.catch(() => undefined)
    return { is: 'locked', taken: { node, guard: answer.guard, facts } }
  }
}

function makeLock(taken: readonly Taken[]): ClusterLock {
  const guards = taken.map(({ guard }) => guard)
  const beats = setInterval(() => {
    for (const guard of guards) guard.beat().catch(() => undefined)
  }, 5_000)
  beats.unref()
  for (const { node, guard } of taken) node.shell = guard
  return {
    isHeld: guards.length > 0,
    foundJournals: guards.flatMap((guard) => guard.foundJournal ?? []),
    surveyOf: (node) => taken.find(({ guard }) => guard.node === node)?.facts ?? undefined,
    confirm: async (node) => {
      const own = guards.filter((guard) => guard.node === node)
      // A node that could not keep a lock: then all the others have to prove that the cluster is still ours.
      await Promise.all((own.length > 0 ? own : guards).map((guard) => guard.beat()))
    },
    prove: async () => {
      const results = await Promise.allSettled(guards.map((guard) => guard.ping()))
      const lost = results.find((result) => result.status === 'rejected')
      if (lost !== undefined && results.every((result) => result.status === 'rejected')) {
        throw asReplctlError(lost.reason)
      }
    },
    writeJournal: async (text, provenOn = []) => {
      const writes = guards.map((guard) => ({ node: guard.node, done: guard.writeJournal(text) }))
      const settled = Promise.allSettled(writes.map(({ done }) => done))
      if (provenOn.length > 0) {
        const needed = writes.filter(({ node }) => provenOn.some((name) => name === node))
        // As in `confirm`: for a node that could not keep a lock all the others answer.
        const canProve = provenOn.every((name) => guards.some((guard) => guard.node === name))
        const written = await Promise.all((canProve ? needed : writes).map(({ done }) => done))
        if (written.every((isWritten) => isWritten)) return
        // One node's full disk may be made good by the others; several were named because each of them has to know.
        if (provenOn.length > 1) {
          const full = needed.flatMap(({ node }, index) => (written[index] === true ? [] : [node]))
          throw journalUnwritable(canProve ? full : provenOn)
        }
      }
      const results = await settled
      // A node that went away, or whose disk is full, does not stop the others from knowing.
      if (results.some((result) => result.status === 'fulfilled' && result.value)) return
      const failed = results.find((result) => result.status === 'rejected')
      if (failed !== undefined) throw asReplctlError(failed.reason)
      if (guards.length > 0) throw journalUnwritable(guards.map((guard) => guard.node))
    },
    prepareJournal: async (text) => {
      await Promise.allSettled(guards.map((guard) => guard.prepareJournal(text)))
    },
    clearJournal: async (ended) => {
      await Promise.allSettled(guards.map((guard) => guard.clearJournal(ended)))
    },
    replaceJournal: async (text, ended) => {
      await Promise.allSettled(guards.map((guard) => guard.writeJournal(text)))
      await Promise.allSettled(guards.map((guard) => guard.noteEnded(ended)))
    },
    release: async () => {
      clearInterval(beats)
      for (const { node } of taken) node.shell = null
      await Promise.all(guards.map((guard) => guard.release()))
    },
  }
}

const wait = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

function journalUnwritable(nodes: readonly string[]): ReplctlError {
  return new ReplctlError('disk-full', 'could not write down what is about to be done', {
    detail: `The journal of an operation lies in replctl's state directory; it could not be written on ${nodes.join(', ')}.`,
    hint: 'Free some space there, then run the command again.',
  })
}

function interruptedEarly(): ReplctlError {
  return new ReplctlError('interrupted', 'interrupted while taking the cluster lock', {
    detail: 'Nothing was changed.',
  })
}

function isSame(one: Holder | null, other: Holder): boolean {
  return one?.pid === other.pid && one.host === other.host && one.since === other.since
}

/** Two nodes of this inventory are one machine in two spellings: this very operation holds the lock there. */
function sharedState(node: string, own: readonly string[]): ReplctlError {
  return new ReplctlError('inventory-invalid', `${node} shares its state directory with another node`, {
    detail: `The lock that was seen on ${node} is this operation's own, taken for ${own.length === 1 ? '' : 'one of '}${own.join(', ')}: both are the same machine, under different names.`,
    hint: `Give one of them a "state_dir" of its own in the inventory, e.g. .replctl/${node}.`,
    node,
  })
}

function describeHolder(held: Held): string {
  const { holder } = held
  if (holder === null) return `another replctl operation holds the cluster (seen on ${held.node})`
  return `${holder.user}@${holder.host} (pid ${holder.pid}) holds the cluster with "${holder.command}" since ${holder.since}`
}

function lockedError(held: Held): ReplctlError {
  return new ReplctlError('locked', 'another replctl operation holds the cluster', {
    detail: `${describeHolder(held)}; its lock was seen on ${held.node}, its last sign of life is ${held.beatAgeSeconds} s old.`,
    hint: 'Wait for it to end (--timeout says how long to wait). If its process or machine is gone, the lock dies by itself within 60 s.',
    node: held.node,
    retryable: true,
  })
}
