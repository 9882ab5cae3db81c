import type { NodeFacts } from '../cluster/facts.ts'
import type { NodeName } from '../cluster/names.ts'
import { triggerFileOf } from '../cluster/node-configuration.ts'
import { shellScript } from '../command.ts'
import { pending, refused, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { asReplctlError, ReplctlError } from '../errors.ts'
import type { SqlSession } from '../node/sql-session.ts'
import { choosePromotionMethod, type PromotionMethod } from '../postgres/versions.ts'
import { look, majorOf, sqlOf } from './look.ts'

/**
 * Promotes a standby. From here on there is only forward: writes may be accepted on a new timeline.
 * While it promotes, its startup process is woken every few ms by a reload: asleep in wal_retrieve_retry_interval it
 * would otherwise notice up to 5 s later.
 */
export function promoteInstance(node: NodeName, method: PromotionMethod): Step {
  let seen: NodeFacts | null = null
  return {
    title: 'promote it to primary',
    node,
    pointOfNoReturn: true,
    check: async (ctx) => {
      const facts = await look(ctx)
      seen = facts
      if (facts.instance === null) return refused(gone(node))
      if (!facts.instance.isInRecovery) return satisfied(`it leads, on timeline ${facts.instance.timeline}`)
      try {
        choosePromotionMethod(majorOf(facts), method)
      } catch (thrown) {
        return refused(asReplctlError(thrown))
      }
      return pending(`it is in recovery on timeline ${facts.instance.timeline}`)
    },
    apply: async (ctx) => {
      // What the check saw a moment ago serves here: nothing may lie between the decision and the promotion.
      const facts = seen ?? (await look(ctx))
      const sql = await sqlOf(ctx, facts)
      if (facts.instance?.isReplayPaused === true) await sql.execute('SELECT pg_wal_replay_resume()')
      if (choosePromotionMethod(majorOf(facts), method) === 'pg_promote') {
        await sql.execute('SELECT pg_promote(false)')
      } else {
        const path = triggerFileOf(facts.home, ctx.node.settings)
        await ctx.node.output(shellScript(`create ${path}`, ': > "$1"', [path]))
      }
      await awaitPromotion(ctx, sql)
    },
    verify: async (ctx) => {
      const facts = await look(ctx)
      if (facts.instance === null || facts.instance.isInRecovery) throw gone(node)
    },
  }
}

async function awaitPromotion(ctx: StepContext, sql: SqlSession): Promise<void> {
  const deadline = Date.now() + ctx.timeoutMs
  let nextWakeAt = 0
  while ((await sql.value('SELECT pg_is_in_recovery()::text')) === 'true') {
    if (Date.now() > deadline) {
      throw new ReplctlError('timeout', `${ctx.node.name} was told to promote and is still in recovery`, {
        detail: `Waited ${ctx.timeoutMs / 1000} s. It may have much WAL left to replay.`,
        hint: 'Look with "replctl status"; go on with "replctl resume".',
        node: ctx.node.name,
      })
    }
    if (Date.now() >= nextWakeAt) {
      await sql.execute('SELECT pg_reload_conf()')
      nextWakeAt = Date.now() + 10
    }
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
}

function gone(node: NodeName): ReplctlError {
  return new ReplctlError('not-answering', `${node} does not answer as a primary`, {
    hint: 'Look at its log, then run "replctl promote" again: it chooses anew.',
    node,
  })
}
