import type { NodeName } from '../cluster/names.ts'
import { pending, type Step, satisfied } from '../engine/step.ts'
import { ask, look } from './look.ts'

/**
 * Makes the new timeline durable in pg_control, so that pg_rewind and standbys that restart see it at once instead of
 * after the next timed checkpoint.
 */
export function ensureCheckpointOnTimeline(node: NodeName): Step {
  return {
    title: 'checkpoint, so that pg_control shows the new timeline',
    node,
    check: async (ctx) => {
      const facts = await look(ctx)
      if (facts.instance === null || facts.instance.isInRecovery) {
        return { is: 'unknown', until: 'the promotion' }
      }
      const { sql } = await ask(ctx)
      const written = await sql.value('SELECT timeline_id::text FROM pg_control_checkpoint()')
      return Number(written) === facts.instance.timeline
        ? satisfied(`pg_control says timeline ${written}`)
        : pending(`pg_control says timeline ${written}`)
    },
    apply: async (ctx) => {
      const { sql } = await ask(ctx)
      await sql.execute('CHECKPOINT', { timeoutMs: Math.max(ctx.timeoutMs, 600_000) })
    },
  }
}
