import { refuseInsufficient } from '../cluster/insufficient-settings.ts'
import type { Inventory } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { triggerFileOf } from '../cluster/node-configuration.ts'
import { shellScript } from '../command.ts'
import { pending, refused, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { asReplctlError, ReplctlError } from '../errors.ts'
import type { SqlSession } from '../node/sql-session.ts'
import { choosePromotionMethod, type PromotionMethod } from '../postgres/versions.ts'
import { keepWalForArchive, openKeeper } from './keep-wal.ts'
import { look, lookAnew, sqlOf } from './look.ts'
import { mayHaveLed } from './may-have-led.ts'
import type { SlotsBeforePromotion } from './slots-before-promotion.ts'
import { wakeAgainAfter, wakeIfAsleep } from './wake-startup.ts'
import { ledMeanwhile, whoLeadsBeside } from './who-leads-beside.ts'

/** The step that makes a primary, in every operation: a journal that holds it names who may lead. */
export const promotionTitle = 'promote it to primary'

/**
 * Promotes a standby. From here on there is only forward: writes may be accepted on a new timeline.
 * While it promotes, its startup process is woken every few ms by a reload: asleep in wal_retrieve_retry_interval it
 * would otherwise notice up to 5 s later. `others`: who must not lead beside it, as they answer right before.
 */
export function promoteInstance(
  node: NodeName,
  method: PromotionMethod,
  inventory: Inventory,
  slots: Pick<SlotsBeforePromotion, 'make'>,
  others: readonly NodeName[],
): Step {
  let seen: Glance | null = null
  return {
    title: promotionTitle,
    node,
    pointOfNoReturn: true,
    check: async (ctx) => {
      const [instance, leader] = await Promise.all([glance(ctx), whoLeadsBeside(ctx, others)])
      seen = instance
      if (instance === null) return refused(gone(node))
      if (!instance.isInRecovery) return satisfied(`it leads, on timeline ${instance.timeline}`)
      // One that is to be stopped before leads in a plan.
      if (leader !== null && !ctx.isDryRun) return refused(ledMeanwhile(node, leader))
      try {
        choosePromotionMethod(instance.major, method)
      } catch (thrown) {
        return refused(asReplctlError(thrown))
      }
      // Paused for a setting that is too low it would shut down, not lead.
      const low = instance.isReplayPaused
        ? refuseInsufficient(await look(ctx), `cannot promote ${node}`)
        : null
      if (low !== null) return refused(low)
      return pending(`it is in recovery on timeline ${instance.timeline}`)
    },
    apply: async (ctx) => {
      // What the check saw a moment ago serves here: nothing may lie between the decision and the promotion.
      const instance = seen?.sql.isOpen === true ? seen : await glance(ctx)
      if (instance === null) throw gone(node)
      const { sql } = instance
      const [keeper] = await Promise.all([openKeeper(inventory, ctx.node), slots.make(sql)])
      await keepWalForArchive(inventory, keeper ?? sql)
      if (instance.isReplayPaused) await sql.execute('SELECT pg_wal_replay_resume()')
      if (choosePromotionMethod(instance.major, method) === 'pg_promote') {
        await sql.execute('SELECT pg_promote(false), pg_reload_conf()')
      } else {
        const path = triggerFileOf((await look(ctx)).home, ctx.node.settings)
        await ctx.node.output(shellScript(`create ${path}`, ': > "$1"', [path]))
        await sql.execute('SELECT pg_reload_conf()')
      }
      try {
        await awaitPromotion(ctx, sql)
      } catch (thrown) {
        throw await whyItEnded(ctx, asReplctlError(thrown))
      }
    },
    // Apply ends with this very proof, out of recovery by the server's own word.
    verify: async () => undefined,
    hasCrossed: (ctx) => mayHaveLed(ctx.node, endMs),
  }
}

/** How long one that crashes over its promotion may take to end. */
const endMs = 10_000

interface Glance {
  readonly sql: SqlSession
  readonly major: number
  readonly isInRecovery: boolean
  readonly isReplayPaused: boolean
  readonly timeline: number
}

const glanceQuery = `SELECT json_build_object(
  'version', current_setting('server_version_num')::int,
  'recovery', pg_is_in_recovery(),
  'paused', CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END,
  'timeline', CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint())
    ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END)`

/**
 * The instance as it is now, by one statement in the session that the survey opened: every look at the host would
 * lengthen the time without a primary. Null: it does not answer.
 */
async function glance(ctx: StepContext): Promise<Glance | null> {
  const open = await ctx.node.openSql()
  if (open !== null) {
    try {
      return await askGlance(open.sql)
    } catch (thrown) {
      if (open.sql.isOpen) throw thrown
    }
  }
  const facts = await look(ctx)
  return facts.instance === null ? null : await askGlance(await sqlOf(ctx, facts))
}

async function askGlance(sql: SqlSession): Promise<Glance> {
  const said = await sql.json<{ version: number; recovery: boolean; paused: boolean; timeline: number }>(
    glanceQuery,
  )
  return {
    sql,
    major: Math.floor(said.version / 10_000),
    isInRecovery: said.recovery,
    isReplayPaused: said.paused,
    timeline: said.timeline,
  }
}

async function awaitPromotion(ctx: StepContext, sql: SqlSession): Promise<void> {
  const toldAt = Date.now()
  const deadline = toldAt + ctx.timeoutMs
  // A reload wakes it; the first one went with the promotion itself.
  let nextWakeAt = toldAt + wakeAgainAfter(0)
  const isWaiting = async () => {
    if (Date.now() >= nextWakeAt) {
      await sql.execute(wakeIfAsleep)
      nextWakeAt = Date.now() + wakeAgainAfter(Date.now() - toldAt)
    }
    return (await sql.value('SELECT pg_is_in_recovery()::text')) === 'true'
  }
  while (await isWaiting()) {
    if (Date.now() > deadline) {
      throw new ReplctlError('timeout', `${ctx.node.name} was told to promote and is still in recovery`, {
        detail: `Waited ${ctx.timeoutMs / 1000} s. It may have much WAL left to replay.`,
        hint: 'Look with "replctl status"; go on with "replctl resume".',
        node: ctx.node.name,
      })
    }
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
}

/** The session was closed: that the instance went down with it says more. */
async function whyItEnded(ctx: StepContext, error: ReplctlError): Promise<ReplctlError> {
  if (error.code === 'timeout') return error
  const facts = await lookAnew(ctx).catch(() => null)
  if (facts === null || facts.instance !== null) return error
  return new ReplctlError('not-answering', `PostgreSQL on ${ctx.node.name} went down when it was promoted`, {
    detail: `${error.message}. pg_control says "${facts.control?.state ?? 'nothing'}".`,
    hint: `Its log tells why. "replctl promote" chooses anew among the standbys that run.`,
    node: ctx.node.name,
    cause: error,
  })
}

function gone(node: NodeName): ReplctlError {
  return new ReplctlError('not-answering', `${node} does not answer as a primary`, {
    hint: 'Look at its log, then run "replctl promote" again: it chooses anew.',
    node,
  })
}
