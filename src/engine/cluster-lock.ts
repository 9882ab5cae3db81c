import type { NodeName } from '../cluster/names.ts'
import { asReplctlError, ReplctlError } from '../errors.ts'
import { type Guard, type GuardAnswer, type Holder, tryGuard } from '../node/guard.ts'
import type { Node } from '../node/node.ts'
import type { EventListener } from './events.ts'

/** A holder whose last beat is older than this is on its way out: its lock dies by itself within 60 s. */
const liveBeatSeconds = 12
/** How long to wait for a lock that its holder is giving back, where the operator did not say. */
const graceMs = 3_000

/** The cluster's lock, held on every node that could be reached, and the operation's journal beside it. */
export interface ClusterLock {
  /** Journals that an unfinished operation left, the newest first. */
  readonly foundJournals: readonly string[]
  /** Proves that the lock is still held on the node that is about to be changed. @throws {ReplctlError} `lock-lost` */
  confirm(node: NodeName): Promise<void>
  /**
   * Writes the journal everywhere. With `provenOn` it resolves as soon as those nodes have it: their answers prove the lock
   * there as well (one message does for both), and the others get it meanwhile. @throws {ReplctlError} `lock-lost`
   */
  writeJournal(text: string, provenOn?: readonly NodeName[]): Promise<void>
  clearJournal(): Promise<void>
  release(): Promise<void>
}

export interface LockOptions {
  readonly holder: Holder
  /** Undefined: the operator did not say, so a holder that is alive is not waited for. */
  readonly timeoutMs: number | undefined
  readonly listener: EventListener
  readonly signal: AbortSignal
}

/**
 * Takes the lock on all given nodes or on none. The first node by name is taken first, so that of two commands
 * that start together one gets it all. A holder that is alive is waited for as long as `timeoutMs` says; one that has
 * fallen silent is waited for until its lock dies.
 * @throws {ReplctlError} `locked`, naming who holds it, where, with what command and since when
 */
export async function acquireClusterLock(nodes: readonly Node[], options: LockOptions): Promise<ClusterLock> {
  const startedAt = Date.now()
  let hasTold = false
  for (;;) {
    const outcome = await tryAll(nodes, options.holder)
    if (outcome.is === 'locked') return makeLock(outcome.guards)
    const waitedMs = Date.now() - startedAt
    const isSilent = outcome.held.beatAgeSeconds > liveBeatSeconds
    const limitMs = options.timeoutMs ?? (isSilent ? 60_000 : graceMs)
    if (options.signal.aborted)
      throw new ReplctlError('interrupted', 'interrupted while waiting for the cluster lock')
    if (waitedMs >= limitMs) throw lockedError(outcome.held)
    if (!hasTold) {
      options.listener({ type: 'waiting-for-lock', message: describeHolder(outcome.held) })
      hasTold = true
    }
    await new Promise((resolve) => setTimeout(resolve, 150))
  }
}

type Held = Extract<GuardAnswer, { is: 'held' }>

async function tryAll(
  nodes: readonly Node[],
  holder: Holder,
): Promise<{ is: 'locked'; guards: readonly Guard[] } | { is: 'held'; held: Held }> {
  const [first, ...rest] = nodes.toSorted((a, b) => (a.name < b.name ? -1 : 1))
  const guards: Guard[] = []
  const failures: ReplctlError[] = []
  for (const group of [first === undefined ? [] : [first], rest]) {
    const answers = await Promise.allSettled(group.map((node) => tryGuard(node, holder)))
    for (const answer of answers) {
      if (answer.status === 'fulfilled' && answer.value.is === 'locked') guards.push(answer.value.guard)
    }
    const held = answers.find((answer) => answer.status === 'fulfilled' && answer.value.is === 'held')
    const failed = answers.find((answer) => answer.status === 'rejected')
    if (held?.status === 'fulfilled' && held.value.is === 'held') {
      await Promise.all(guards.map((guard) => guard.release()))
      return { is: 'held', held: held.value }
    }
    if (failed?.status === 'rejected') failures.push(asReplctlError(failed.reason))
  }
  // A node that cannot keep a lock (full or read-only disk) must not stop a failover away from it.
  const [failure] = failures
  if (failure !== undefined && guards.length === 0) throw failure
  return { is: 'locked', guards }
}

function makeLock(guards: readonly Guard[]): ClusterLock {
  const beats = setInterval(() => {
    for (const guard of guards) guard.beat().catch(() => undefined)
  }, 5_000)
  beats.unref()
  return {
    foundJournals: guards.flatMap((guard) => guard.foundJournal ?? []),
    confirm: async (node) => {
      const own = guards.filter((guard) => guard.node === node)
      // A node that could not keep a lock: then all the others have to prove that the cluster is still ours.
      await Promise.all((own.length > 0 ? own : guards).map((guard) => guard.beat()))
    },
    // A node that went away meanwhile does not stop the others from knowing.
    writeJournal: async (text, provenOn = []) => {
      const writes = guards.map((guard) => ({ node: guard.node, done: guard.writeJournal(text) }))
      const settled = Promise.allSettled(writes.map(({ done }) => done))
      if (provenOn.length > 0) {
        const needed = writes.filter(({ node }) => provenOn.some((name) => name === node))
        // As in `confirm`: for a node that could not keep a lock all the others answer.
        const canProve = provenOn.every((name) => guards.some((guard) => guard.node === name))
        await Promise.all((canProve ? needed : writes).map(({ done }) => done))
        return
      }
      const results = await settled
      const failed = results.find((result) => result.status === 'rejected')
      if (failed?.status === 'rejected' && results.every((result) => result.status === 'rejected')) {
        throw asReplctlError(failed.reason)
      }
    },
    clearJournal: async () => {
      await Promise.allSettled(guards.map((guard) => guard.clearJournal()))
    },
    release: async () => {
      clearInterval(beats)
      await Promise.all(guards.map((guard) => guard.release()))
    },
  }
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
