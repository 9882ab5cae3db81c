import type { Exchange } from '../cluster/judge-switchover.ts'
import type { NodeName } from '../cluster/names.ts'
import { pending, type Step, satisfied, unknownUntil } from '../engine/step.ts'
import { lookAtInstance, sqlNow } from './look.ts'

/**
 * Makes the new timeline durable in pg_control, so that pg_rewind and standbys that restart see it at once instead of
 * after the next timed checkpoint.
 */
export function ensureCheckpointOnTimeline(node: NodeName): Step {
  return {
    title: 'checkpoint, so that pg_control shows the new timeline',
    node,
    showsOnlyOnItsNode: true,
    check: async (ctx) => {
      const instance = await lookAtInstance(ctx)
      if (instance === null || instance.isInRecovery) return unknownUntil('the promotion')
      const sql = await sqlNow(ctx)
      const written = await sql.value('SELECT timeline_id::text FROM pg_control_checkpoint()')
      return Number(written) === instance.timeline
        ? satisfied(`pg_control says timeline ${written}`)
        : pending(`pg_control says timeline ${written}`)
    },
    apply: async (ctx) => {
      const sql = await sqlNow(ctx)
      await sql.execute('CHECKPOINT', { timeoutMs: Math.max(ctx.timeoutMs, 600_000) })
    },
  }
}

/** After a checkpoint that took longer there is much to write again. */
const longCheckpointMs = 5_000

/**
 * Writes out now, while writes go on, what the shutdown checkpoint of a primary (or the restart of a standby) would have to
 * write while they cannot. On a standby it makes a restartpoint. It changes nothing that could be taken back.
 */
export function ensureRecentCheckpoint(node: NodeName, { oldPrimary }: Exchange): Step {
  return {
    title: 'checkpoint while writes go on, so that the stop has little left to write',
    node,
    leavesClusterAlone: true,
    showsOnlyOnItsNode: true,
    check: async (ctx) => {
      const primary = await lookAtInstance(ctx, oldPrimary)
      // Nobody can write by then: no checkpoint may make that last longer.
      return primary?.isInRecovery === false
        ? pending('the less is left, the shorter is the stop')
        : satisfied(`${oldPrimary} has stopped already`)
    },
    apply: async (ctx) => {
      const sql = await sqlNow(ctx)
      const startedAt = performance.now()
      await sql.execute('CHECKPOINT', { timeoutMs: Math.max(ctx.timeoutMs, 600_000) })
      if (performance.now() - startedAt < longCheckpointMs) return
      await sql.execute('CHECKPOINT', { timeoutMs: Math.max(ctx.timeoutMs, 600_000) })
    },
    // Under load the next write comes at once, and a standby makes no restartpoint before its primary's checkpoint arrived.
    verify: async () => undefined,
  }
}
