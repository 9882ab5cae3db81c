import type { NodeFacts } from '../cluster/facts.ts'
import type { NodeSettings } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { type Step, type StepContext, satisfied } from '../engine/step.ts'
import type { Node } from '../node/node.ts'
import { look } from './look.ts'

/** A node whose instance an earlier step stops. */
const stopped: Partial<NodeFacts> = { instance: null, instanceError: null, postmaster: null }

/** A node that is stopped, and whose place for the data directory is free: what else is known of it still holds. */
export const emptied: Partial<NodeFacts> = {
  ...stopped,
  ...{ dataDirectoryState: 'empty', dataDirectoryInode: '', mark: null, rejoin: null },
  ...{ hasStandbySignal: false, recoveryConf: '', standbyConf: '', autoConf: '', hasRewindInProgress: false },
}

/** A node that is stopped, and has a clone in the place of its data directory, with the node's own files in it. */
export const recloned: Partial<NodeFacts> = { ...stopped, mark: null, rejoin: null, hasStandbySignal: true }

/**
 * A step after one that stops the node, or takes its old data away: a plan checks it as the node will be by then, not as it is.
 * `until`: what of that has still to be done; null where it is done already.
 */
export function asItWillBe(
  step: Step,
  until: (ctx: StepContext) => Promise<Partial<NodeFacts> | null>,
): Step {
  return {
    ...step,
    check: async (ctx) => {
      const changes = ctx.isDryRun ? await until(ctx) : null
      return await step.check(changes === null ? ctx : await imagine(ctx, ctx.node, changes))
    },
  }
}

/** What answers SQL there now is the old instance: it is not asked. */
async function imagine(ctx: StepContext, as: Node, changes: Partial<NodeFacts>): Promise<StepContext> {
  const facts = { ...(await look(ctx, as.name)), ...changes }
  const { activity } = as
  const node: Node = {
    ...as,
    // Seen at the end of time, so that it is never looked at anew.
    lastSurvey: { at: Number.MAX_VALUE, activity: activity.count, facts: Promise.resolve(facts) },
    openSql: async () => null,
  }
  const on: StepContext['on'] = (name) => (name === node.name ? node : ctx.on(name))
  return { ...ctx, node: on(ctx.node.name), on }
}

/** The same where an earlier step stops what runs there now. */
export const asOnceStopped = (step: Step): Step =>
  asItWillBe(step, async (ctx) => ((await look(ctx)).postmaster?.isAlive === true ? stopped : null))

/** A step after one that points a standby at another upstream: a plan checks it as if the standby received from there by now. */
export const onceFollowing = (step: Step, standby: NodeName, upstream: NodeSettings): Step => ({
  ...step,
  check: async (ctx) => {
    const instance = ctx.isDryRun ? (await look(ctx, standby)).instance : null
    if (instance === null) return await step.check(ctx)
    const receiver = {
      ...{ slotName: null, receivedTimeline: null, latestEndLsn: null, silenceSeconds: 0 },
      ...{ status: 'streaming', senderHost: upstream.address, senderPort: upstream.postgres.port },
    }
    return await step.check(await imagine(ctx, ctx.on(standby), { instance: { ...instance, receiver } }))
  },
})

/** Its files are rendered before a rewind, and put back after it: a plan expects nothing more to be done. */
export const keptThroughRewind = (step: Step): Step => ({
  ...step,
  check: async (ctx) =>
    ctx.isDryRun ? satisfied('it is put back as it was before the rewind') : await step.check(ctx),
})
