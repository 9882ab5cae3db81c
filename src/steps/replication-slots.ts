import { slotMayBeLeft } from '../cluster/diagnose-slots.ts'
import type { InstanceFacts, NodeFacts, ReplicationSlot } from '../cluster/facts.ts'
import { isCopied } from '../cluster/failover-slots.ts'
import type { Inventory, NodeSettings } from '../cluster/inventory.ts'
import { isOnlyKeeper } from '../cluster/kept-wal.ts'
import type { NodeName } from '../cluster/names.ts'
import { cloneApplicationName } from '../cluster/replication-names.ts'
import { archiveSlot, type Roles, staleSlots, wantedSlots } from '../cluster/roles.ts'
import { isReceivingFrom } from '../cluster/topology.ts'
import { pending, refused, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { readInstanceFacts } from '../node/instance-facts.ts'
import type { Node } from '../node/node.ts'
import { readSlotFiles } from '../node/slot-files.ts'
import { type SqlSession, sqlStateOf } from '../node/sql-session.ts'
import { quoteLiteral } from '../postgres/sql.ts'
import { ask, look, lookAtInstance, sqlNow } from './look.ts'

/** The upstream keeps WAL for this standby from now on. An inactive slot that lost its WAL is made anew. */
export function ensureReplicationSlot(upstream: NodeName, slot: string, standby: string): Step {
  const missing = 'there is no such slot'
  return {
    title: `have the replication slot "${slot}" for ${standby}`,
    node: upstream,
    check: async (ctx) => {
      const instance = await lookAtInstance(ctx)
      if (instance === null) return unknownUntil(`PostgreSQL runs on ${upstream}`)
      const found = instance.slots.find((one) => one.name === slot)
      if (found === undefined) return pending(missing)
      if (found.type === 'logical') return refused(foreignSlot(upstream, slot))
      if (found.walStatus === 'lost' && !found.isActive) return pending('its WAL is lost')
      // A slot without restart_lsn was never used and keeps nothing; it starts to keep with its standby.
      return satisfied(`it is there, restart_lsn ${found.restartLsn ?? 'not set yet'}`)
    },
    apply: async (ctx) => {
      const sql = await sqlNow(ctx)
      const name = quoteLiteral(slot)
      const isLost = (facts: NodeFacts) =>
        facts.instance?.slots.some((one) => one.name === slot && !one.isActive && one.walStatus === 'lost')
      if (await sql.value(`SELECT 1 FROM pg_replication_slots WHERE slot_name = ${name}`)) {
        if (!isLost((await ask(ctx)).facts)) return
        await sql.execute(`SELECT pg_drop_replication_slot(${name})`)
      }
      await sql
        .execute(`SELECT pg_create_physical_replication_slot(${name}, true)`)
        .catch((error: unknown) => {
          throw withRoomHint(error, upstream)
        })
    },
    // By now nobody uses it any more, but a walsender may not have noticed that yet.
    undo: async (ctx) => {
      // Where PostgreSQL has died meanwhile nothing can be dropped; that must not keep anything else from being taken back.
      if ((await look(ctx)).instance === null) {
        ctx.warn(slotStays(upstream, slot))
        return
      }
      const { facts, sql } = await ask(ctx)
      if (facts.instance?.slots.some((one) => one.name === slot)) await dropSlot(sql, slot)
    },
  }
}

const [noneAllowed, allInUse] = ['55000', '53400']

/** A promotion has no choice but to find this out when it leads already: the way out is the operator's. */
function withRoomHint(error: unknown, upstream: NodeName): unknown {
  const sqlState = sqlStateOf(error)
  if (!(error instanceof ReplctlError) || (sqlState !== noneAllowed && sqlState !== allInUse)) return error
  const drop =
    sqlState === allInUse ? 'Drop a slot there that nobody needs (pg_replication_slots), or raise' : 'Raise'
  return error.with({
    hint: `${drop} max_replication_slots on ${upstream} and restart PostgreSQL there; then run the command again, or: replctl resume`,
  })
}

/** No slot of this name holds WAL back on a node any more. Only physical slots under replctl's own names are dropped. */
export function dropReplicationSlot(node: NodeName, slot: string): Step {
  return {
    title: `drop the replication slot "${slot}"`,
    node,
    check: async (ctx) => {
      const instance = await lookAtInstance(ctx)
      if (instance === null) return satisfied('PostgreSQL does not run there')
      const found = instance.slots.find((one) => one.name === slot && one.type === 'physical')
      return found === undefined ? satisfied('there is none') : pending('it is there')
    },
    apply: async (ctx) => {
      const { sql } = await ask(ctx)
      await dropSlot(sql, slot)
    },
  }
}

/** Tells of the slot of a standby that is taken out where it cannot be dropped now: PostgreSQL does not run there. */
export function reportLeftSlot(node: NodeName, slot: string): Step {
  return {
    title: `look for the replication slot "${slot}"`,
    node,
    check: async (ctx) => {
      if (!(await slotsOnDisk(ctx.node)).some((one) => one.name === slot)) return satisfied('there is none')
      ctx.warn(slotMayBeLeft(node, slot, true))
      return satisfied('it goes when PostgreSQL runs there again')
    },
  }
}

/**
 * The slots that a node is to have in these roles: one for each standby that receives from it. Those that are there
 * stay; {@link dropStaleSlots} takes away what is left over.
 */
export function ensureWantedSlots(node: NodeName, inventory: Inventory, roles: Roles): Step[] {
  const wanted = wantedSlots(inventory, roles, node)
  return [
    ...inventory.nodes
      .filter((one) => wanted.includes(one.slotName))
      .map((one) => ensureReplicationSlot(node, one.slotName, one.name)),
    ...(roles.primary === node ? ensureArchiveSlot(node, inventory) : []),
  ]
}

/** Slots that a run which goes on behind a stop cannot make yet: it makes them once the node is back. */
export const whileItRuns = (step: Step): Step => ({
  ...step,
  check: async (ctx) => {
    const finding = await step.check(ctx)
    return finding.is === 'unknown' ? satisfied('it is stopped: they are made once it is back') : finding
  },
})

/** With `mode: stream` the node that is to lead keeps WAL for the archive from before it leads: nothing of it is missing there. */
export function ensureArchiveSlot(node: NodeName, inventory: Inventory): Step[] {
  const slot = archiveSlot(inventory)
  return slot === null ? [] : [ensureReplicationSlot(node, slot, 'the archive')]
}

/**
 * No slot of replctl's own holds WAL back on a node for nobody, be it primary or standby. One through which its standby
 * receives at this moment stays, whatever the roles say, and so does one that alone keeps what its standby asks for next;
 * slots that replctl did not make are never touched. `isReplaced`: what is in its data directory is replaced before, and no slot survives that.
 */
export function dropStaleSlots(
  node: NodeName,
  inventory: Inventory,
  roles: Roles,
  { isReplaced = false } = {},
): Step {
  const stale = async (ctx: StepContext, instance: InstanceFacts): Promise<string[]> => {
    // Each node is looked at once for all slots: with many standbys a former primary has many of them.
    const seen = new Map<NodeName, Promise<NodeFacts | null>>()
    const see = (name: NodeName) => {
      const facts = seen.get(name) ?? look(ctx, name).catch(() => null)
      seen.set(name, facts)
      return facts
    }
    const names = staleSlots(inventory, roles, node, instance)
    const isKept = await Promise.all(
      names.map(async (name) => {
        const isActive = instance.slots.some((one) => one.name === name && one.isActive)
        if (isActive && (await isUsedByOwner(ctx, inventory, name))) return true
        return await isKeptOnlyHere(name, see)
      }),
    )
    return names.filter((_, index) => isKept[index] !== true)
  }
  // Once the slot is gone its WAL goes: nothing but a new clone would then help a standby that has not come over yet.
  const isKeptOnlyHere = async (
    slot: string,
    see: (name: NodeName) => Promise<NodeFacts | null>,
  ): Promise<boolean> => {
    const owner = inventory.nodes.find((one) => one.slotName === slot)
    const upstream = owner === undefined ? undefined : roles.upstreams.get(owner.name)
    if (owner === undefined || upstream === undefined || upstream === node || owner.name === node)
      return false
    if (isReceivingFrom(inventory, (await see(owner.name))?.instance ?? null, upstream)) return false
    const all = await Promise.all(inventory.nodes.map(({ name }) => see(name)))
    return isOnlyKeeper(
      node,
      owner,
      upstream,
      all.filter((facts) => facts !== null),
    )
  }
  const isUsedByOwner = async (ctx: StepContext, inventory: Inventory, slot: string): Promise<boolean> => {
    const owner = inventory.nodes.find((one) => one.slotName === slot)
    if (owner === undefined || owner.name === node) return false
    // Whoever cannot be asked may be the one that holds it.
    const there = await lookAtInstance(ctx, owner.name).catch(() => undefined)
    return there === undefined || isReceivingFrom(inventory, there, node)
  }
  return {
    title: 'drop slots of its own that nobody receives through',
    node,
    check: async (ctx) => {
      if (ctx.isDryRun && isReplaced) return satisfied('the copy has none')
      const instance = await lookAtInstance(ctx)
      if (instance === null) {
        const asStopped = ctx.isDryRun ? { slots: await slotsOnDisk(ctx.node) } : null
        const left = staleSlots(inventory, roles, node, asStopped)
        return left.length === 0
          ? satisfied('PostgreSQL does not run there')
          : unknownUntil('PostgreSQL is started')
      }
      const names = await stale(ctx, instance)
      return names.length === 0 ? satisfied('there are none') : pending(`left over: ${names.join(', ')}`)
    },
    apply: async (ctx) => {
      const sql = await sqlNow(ctx)
      for (const name of await stale(ctx, await readInstanceFacts(sql))) await dropSlot(sql, name)
    },
  }
}

/**
 * A former primary still has the failover slots (17 and newer) that it made itself. They are on the node that leads now; here
 * they hold WAL back for ever, and keep the server from copying any slot of the new primary. One without a copy stays.
 */
export function dropCopiedSlots(node: NodeName, primary: NodeName, { isReplaced = false } = {}): Step {
  /** What there will be to do, in a plan: it has not come back yet, or has not even handed over. */
  const leftThen = async (ctx: StepContext): Promise<readonly string[]> => {
    const [own, there] = [await lookAtInstance(ctx), await lookAtInstance(ctx, primary)]
    if (isReplaced || there === null) return []
    if (own === null) {
      const onDisk = (await slotsOnDisk(ctx.node)).map((slot) => slot.name)
      return there.slots
        .filter((slot) => onDisk.includes(slot.name) && isCopied(slot, [slot]))
        .map(({ name }) => name)
    }
    return own.isInRecovery
      ? await left(ctx)
      : own.slots.filter((slot) => !slot.isSynced && isCopied(slot, there.slots)).map((slot) => slot.name)
  }
  const left = async (ctx: StepContext): Promise<readonly string[]> => {
    const own = await lookAtInstance(ctx)
    if (own?.isInRecovery !== true) return []
    const made = own.slots.filter((slot) => slot.isFailover && !slot.isSynced && !slot.isActive)
    if (made.length === 0) return []
    const there = await lookAtInstance(ctx, primary)
    const copies = there?.isInRecovery === false ? there.slots : []
    return made.filter((slot) => isCopied(slot, copies)).map((slot) => slot.name)
  }
  return {
    title: `drop failover slots of its own that ${primary} has now`,
    node,
    check: async (ctx) => {
      const names = await (ctx.isDryRun ? leftThen(ctx) : left(ctx))
      return names.length === 0 ? satisfied('there are none') : pending(`left over: ${names.join(', ')}`)
    },
    apply: async (ctx) => {
      const names = await left(ctx)
      const sql = await sqlNow(ctx)
      for (const name of names) await dropSlot(sql, name)
    },
  }
}

/** Slots of an instance that may be stopped, by their files: what they keep does not show. */
async function slotsOnDisk(node: Node): Promise<readonly ReplicationSlot[]> {
  const idle = { isActive: false, isFailover: false, isSynced: false }
  const unknown = { restartLsn: null, walStatus: null, invalidationReason: null }
  return (await readSlotFiles(node)).map((slot) => ({ ...slot, ...idle, ...unknown }))
}

/** A walsender that has not noticed that its standby is gone still holds the slot: it is ended first. */
export async function dropSlot(sql: SqlSession, slot: string): Promise<void> {
  const name = quoteLiteral(slot)
  await sql.execute(
    `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = ${name} AND active`,
  )
  const deadline = Date.now() + 10_000
  for (;;) {
    const state = await sql.value(`SELECT active::text FROM pg_replication_slots WHERE slot_name = ${name}`)
    if (state === null) return
    if (state === 'false' || Date.now() > deadline) break
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  await sql.execute(`SELECT pg_drop_replication_slot(${name})`)
}

/**
 * There are walsenders and slots left for these standbys, and for the base backups of new ones (`sendersEach`: 1 for a
 * standby that only comes over).
 */
export function requireRoomForStandby(
  upstream: NodeName,
  source: NodeName,
  standbys: readonly NodeSettings[],
  hasSlots: boolean,
  sendersEach = 2,
): Step {
  return {
    title: `require room for ${standbys.length === 1 ? 'a standby' : `${standbys.length} standbys`}: walsenders and slots`,
    node: upstream,
    check: async (ctx) => {
      const { facts } = await ask(ctx)
      const instance = facts.instance
      if (instance === null) return unknownUntil(`PostgreSQL runs on ${upstream}`)
      const limit = (name: string) => Number(instance.settings[name]?.value ?? 0)
      // A standby that streams already needs no room of its own, nor a second copy.
      const isHere = ({ applicationName }: NodeSettings) =>
        instance.replication.some(
          (one) =>
            [applicationName, cloneApplicationName(applicationName)].includes(one.applicationName) &&
            one.state === 'streaming',
        )
      const missing = standbys.filter((node) => !isHere(node))
      const hasSlot = (node: NodeSettings) => instance.slots.some((one) => one.name === node.slotName)
      const neededSlots = hasSlots ? missing.filter((node) => !hasSlot(node)).length : 0
      const usedSlots = instance.slots.length
      if (neededSlots > 0 && usedSlots + neededSlots > limit('max_replication_slots')) {
        return refused(tooLow(upstream, 'max_replication_slots', usedSlots, neededSlots, limit))
      }
      const sender = source === upstream ? instance : (await ask(ctx, source)).facts.instance
      const usedSenders = sender?.replication.length ?? 0
      const neededSenders = missing.length * sendersEach
      const senderLimit = Number(sender?.settings.max_wal_senders?.value ?? 0)
      if (neededSenders > 0 && usedSenders + neededSenders > senderLimit) {
        return refused(tooLow(source, 'max_wal_senders', usedSenders, neededSenders, () => senderLimit))
      }
      return satisfied(`${senderLimit - usedSenders} walsenders are free`)
    },
  }
}

function tooLow(
  node: NodeName,
  setting: string,
  used: number,
  needed: number,
  limit: (name: string) => number,
): ReplctlError {
  return new ReplctlError('settings-too-low', `${setting} on ${node} leaves no room for a standby`, {
    detail: `${setting} is ${limit(setting)}; ${used} are in use, ${needed} more are needed.`,
    hint: `Free one, or raise ${setting} on ${node} (it needs a restart).`,
    node,
  })
}

function slotStays(node: NodeName, slot: string): ReplctlError {
  return new ReplctlError(
    'slot-left-over',
    `slot "${slot}" stays on ${node}, where PostgreSQL does not run`,
    {
      hint: `When it runs again: SELECT pg_drop_replication_slot('${slot}');`,
      node,
    },
  )
}

function foreignSlot(node: NodeName, slot: string): ReplctlError {
  return new ReplctlError('foreign-slot', `slot "${slot}" on ${node} is a logical slot that is not ours`, {
    hint: 'Rename the node or the cluster in the inventory, or drop that slot yourself.',
    node,
  })
}
