import type { NodeSettings } from '../cluster/inventory.ts'
import { receivedLsn, timelineOf } from '../cluster/topology.ts'
import { pending, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { asReplctlError } from '../errors.ts'
import { compareLsn, type Lsn } from '../postgres/lsn.ts'
import type { ClusterInput } from './cluster-input.ts'
import { ensureStandbySettings } from './ensure-standby-settings.ts'
import { awaitState, look } from './look.ts'
import { ensureReplicationSlot } from './replication-slots.ts'
import { resumeReplay } from './resume-replay.ts'

/**
 * Before it is promoted, the candidate gets what only standbys have received that are not meant to lead (delayed, not
 * promotable): it follows the one with most WAL for a moment. The old primary is stopped by then: no more can come.
 * `former`: whom it received from, for the way back.
 */
export function fetchMissingWal(
  candidate: NodeSettings,
  reserves: readonly NodeSettings[],
  former: NodeSettings | null,
  input: ClusterInput,
): Step {
  const { name, slotName } = candidate
  const slots = input.inventory.replication.slots
  const furthest = async (ctx: StepContext) => {
    const facts = await look(ctx)
    const own = receivedLsn(facts)
    let best: { readonly node: NodeSettings; readonly lsn: Lsn } | null = null
    for (const node of reserves) {
      const there = await look(ctx, node.name)
      const lsn = receivedLsn(there)
      if (lsn === null || own === null || compareLsn(lsn, own) <= 0) continue
      // Nobody can follow one whose timeline is older than its own: that would wait for ever.
      if ((timelineOf(there) ?? 0) < (timelineOf(facts) ?? 0)) continue
      if (best === null || compareLsn(lsn, best.lsn) > 0) best = { node, lsn }
    }
    return best
  }
  return {
    title: fetchTitle(reserves),
    node: name,
    comesOfEarlier: true,
    check: async (ctx) => {
      if (ctx.isDryRun) return unknownUntil('the old primary is stopped')
      if ((await look(ctx)).instance?.isInRecovery !== true) return satisfied('it is no standby any more')
      const source = await furthest(ctx)
      return source === null
        ? satisfied('they have nothing that it lacks')
        : pending(`${source.node.name} has WAL up to ${source.lsn}`)
    },
    apply: async (ctx) => {
      const source = await furthest(ctx)
      if (source === null) return
      if (slots) {
        const there = { ...ctx, node: ctx.on(source.node.name) }
        const slot = ensureReplicationSlot(source.node.name, slotName, name)
        if ((await slot.check(there)).is !== 'satisfied') await slot.apply?.(there)
      }
      await resumeReplay(ctx, await look(ctx))
      const settings = ensureStandbySettings(name, source.node, input)
      await settings.apply?.(ctx)
      await settings.verify?.(ctx)
      await awaitState(
        ctx,
        `${name} gets what ${source.node.name} received`,
        async () => {
          const own = receivedLsn(await look(ctx))
          return own !== null && compareLsn(own, source.lsn) >= 0 ? true : undefined
        },
        { everyMs: 20 },
      )
    },
    undo: async (ctx) => {
      if (former === null) return
      const settings = ensureStandbySettings(name, former, input)
      await settings.apply?.(ctx)
      await settings.verify?.(ctx)
      if (!slots) return
      for (const reserve of reserves.filter((one) => one.name !== former.name)) {
        const there = { ...ctx, node: ctx.on(reserve.name) }
        // What cannot be dropped now must not keep anything else from being taken back.
        await ensureReplicationSlot(reserve.name, slotName, name)
          .undo?.(there)
          .catch((thrown: unknown) => ctx.warn(asReplctlError(thrown)))
      }
    },
  }
}

/** A journal that holds it says that the candidate was told to follow one of them. */
export const fetchTitle = (reserves: readonly { readonly name: string }[]): string =>
  `get what ${reserves.map((node) => node.name).join(', ')} alone received`
