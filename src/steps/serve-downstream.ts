import { configuredUpstream, nodeAt } from '../cluster/configured-upstream.ts'
import type { Inventory, NodeSettings } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { isDeafForDelay } from '../cluster/topology.ts'
import { pending, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { asReplctlError, exitCodes, ReplctlError } from '../errors.ts'
import { awaitState, look, lookAtInstance } from './look.ts'
import { ensureReplicationSlot } from './replication-slots.ts'
import { requireWalFor } from './require-wal.ts'

/** A standby below a node that was built anew: by its settings, or by the inventory where it does not run. */
export interface Downstream {
  readonly node: NodeSettings
  /** The node that was built, and who leads (or serves in the place of who leads). */
  readonly upstream: NodeName
  readonly primary: NodeName
}

/**
 * A node that was built anew has no slot for those who received from it before, and without its own none of them comes back. The
 * slot goes with the data directory it lies in, and is no reason to take a clone back that streams.
 */
export function keepSlotForDownstream({ node, upstream }: Downstream): Step {
  const { undo: _, ...step } = ensureReplicationSlot(upstream, node.slotName, node.name)
  return {
    ...step,
    check: async (ctx) => {
      // Before it is replaced, the old one's slots are what is seen.
      return ctx.isDryRun ? unknownUntil(`${upstream} streams`) : await step.check(ctx)
    },
    apply: async (ctx) => {
      await step.apply?.(ctx).catch((thrown: unknown) => ctx.warn(asReplctlError(thrown)))
    },
    verify: async () => undefined,
  }
}

/**
 * Looks whether such a standby came back, and tells where it did not, with the command that mends it. It comes by itself or not at
 * all: what it needs next may lie before the first segment of the new clone.
 */
export function awaitDownstream(downstream: Downstream, inventory: Inventory): Step {
  const { node, upstream } = downstream
  return {
    title: `see whether ${node.name} streams from it again`,
    node: upstream,
    leavesClusterAlone: true,
    comesOfEarlier: true,
    check: async (ctx) => {
      if (ctx.isDryRun) return unknownUntil(`${upstream} streams`)
      const { isThere, because } = await standing(ctx, downstream, inventory)
      return isThere ? satisfied(because) : pending(because)
    },
    apply: async (ctx) => {
      try {
        await requireWalThere(ctx, downstream, inventory)
        await untilThere(ctx, downstream, inventory)
      } catch (thrown) {
        const error = asReplctlError(thrown)
        if (error.code === 'interrupted' || error.code === 'internal-error' || ctx.signal.aborted)
          throw thrown
        ctx.warn(doesNotStream(downstream, error))
      }
    },
    verify: async () => undefined,
  }
}

/** Where nobody has what it needs next, there is nothing to wait for. An archive may get it in a moment. */
async function requireWalThere(
  ctx: StepContext,
  { node, upstream }: Downstream,
  inventory: Inventory,
): Promise<void> {
  if ((await look(ctx, node.name)).instance === null) {
    throw new ReplctlError('instance-stopped', `PostgreSQL does not run on ${node.name}`)
  }
  if (inventory.archive !== undefined) return
  const there = { ...ctx, node: ctx.on(node.name) }
  const finding = await requireWalFor(node.name, upstream, inventory).check(there)
  if (finding.is === 'refused') throw finding.error
}

async function untilThere(ctx: StepContext, downstream: Downstream, inventory: Inventory): Promise<void> {
  let last = ''
  await awaitState(
    ctx,
    `${downstream.node.name} streams from ${downstream.upstream}`,
    async () => {
      const { isThere, because } = await standing(ctx, downstream, inventory)
      last = because
      ctx.progress({ message: because })
      return isThere ? true : undefined
    },
    { last: () => `Last seen: ${last}.` },
  )
}

async function standing(
  ctx: StepContext,
  { node, upstream }: Downstream,
  inventory: Inventory,
): Promise<{ readonly isThere: boolean; readonly because: string }> {
  const instance = await lookAtInstance(ctx)
  const row = instance?.replication.find(
    (one) => one.applicationName === node.applicationName && one.state !== 'backup',
  )
  if (row?.state === 'streaming') return { isThere: true, because: 'it streams' }
  const facts = await look(ctx, node.name).catch(() => null)
  const asks = facts === null ? null : configuredUpstream(facts)
  if (
    isDeafForDelay(facts?.instance) &&
    asks !== null &&
    nodeAt(inventory, asks.host, asks.port) === upstream
  ) {
    return { isThere: true, because: 'it holds a transaction back on purpose, and asks for WAL after that' }
  }
  const because =
    row === undefined ? `${upstream} has no connection of ${node.name}` : `its state is ${row.state}`
  return { isThere: false, because }
}

function doesNotStream({ node: { name }, upstream, primary }: Downstream, error: ReplctlError): ReplctlError {
  const command = `replctl follow ${name} --upstream ${primary}`
  const isAway = error.code === 'instance-stopped' || error.exitCode === exitCodes.unreachable
  return new ReplctlError('not-streaming', `${name} does not stream from ${upstream}, which was built anew`, {
    detail: error.detail ?? `${error.message}.`,
    hint: isAway
      ? `When it runs again and does not come by itself: ${command}`
      : `${primary} may have what it lacks: ${command}`,
    node: name,
  })
}
