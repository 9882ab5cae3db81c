import type { NodeFacts } from '../cluster/facts.ts'
import type { Inventory, NodeSettings } from '../cluster/inventory.ts'
import { judgeRoom, judgeSuccessor, settingsTooLow } from '../cluster/judge-successor.ts'
import { type Exchange, hasHandedOver } from '../cluster/judge-switchover.ts'
import type { NodeName } from '../cluster/names.ts'
import { refuseWithoutRoom } from '../cluster/room-to-lead.ts'
import { pending, refused, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import type { SqlSession } from '../node/sql-session.ts'
import { ask, look } from './look.ts'

type Both = { readonly primary: NodeFacts; readonly candidate: NodeFacts }

/** A look at two nodes that may refuse. What an interrupted switchover left behind is not judged again. */
function requireOfBoth(
  exchange: Exchange,
  title: string,
  judge: (ctx: StepContext, both: Both) => ReplctlError | null | Promise<ReplctlError | null>,
  because: (both: Both) => string,
): Step {
  return {
    title,
    node: exchange.candidate,
    check: async (ctx) => {
      const [primary, candidate] = await Promise.all([
        look(ctx, exchange.oldPrimary),
        look(ctx, exchange.candidate),
      ])
      if (hasHandedOver(primary, candidate)) return satisfied('the hand-over is under way already')
      for (const facts of [primary, candidate]) {
        if (facts.instance === null) return refused(facts.instanceError ?? notRunning(facts))
      }
      const refusal = await judge(ctx, { primary, candidate })
      return refusal === null ? satisfied(because({ primary, candidate })) : refused(refusal)
    },
  }
}

/** The candidate streams from the primary, is close behind it, replays, and may lead. */
export function requireFitSuccessor(exchange: Exchange, settings: NodeSettings, inventory: Inventory): Step {
  return requireOfBoth(
    exchange,
    `require that it can take over from ${exchange.oldPrimary} without loss`,
    (_ctx, both) => judgeSuccessor({ ...both, settings, inventory }),
    ({ candidate }) => `it streams, and has replayed ${candidate.instance?.replayLsn}`,
  )
}

/** Whoever is a standby afterwards has nothing lower than the new primary: the old primary above all. */
export function requireSettingsParity(exchange: Exchange, standbys: readonly NodeName[]): Step {
  return requireOfBoth(
    exchange,
    'require settings that its standbys can follow',
    async (ctx, { primary, candidate }) => {
      const others = await Promise.all(standbys.map((name) => look(ctx, name)))
      for (const standby of [primary, ...others]) {
        const refusal = settingsTooLow(standby, candidate)
        if (refusal !== null) return refusal
      }
      return null
    },
    () => 'none of them has anything lower',
  )
}

/** Walsenders and slots are free for everybody who will follow it. */
export function requireRoomForFollowers(
  exchange: Exchange,
  followers: readonly NodeSettings[],
  hasSlots: boolean,
): Step {
  return requireOfBoth(
    exchange,
    'require walsenders and slots for those who will follow it',
    (_ctx, { candidate }) => judgeRoom(candidate, followers, hasSlots),
    () => 'there are enough',
  )
}

/** Both have room for the WAL of the exchange. */
export function requireRoomForWal(exchange: Exchange): Step {
  return requireOfBoth(
    exchange,
    'require disk space for the WAL of the exchange',
    (_ctx, { primary, candidate }) => refuseWithoutRoom(primary, candidate),
    () => 'there is enough',
  )
}

/** How long a candidate within the limit may take to replay what the primary has now. */
const catchUpMs = 10_000

/**
 * The candidate replays what the primary has at this moment: proof that WAL flows to it, where its walreceiver may be
 * frozen and still look connected.
 */
export function requireFlowingWal(exchange: Exchange): Step {
  return {
    title: `require that it replays what ${exchange.oldPrimary} has now`,
    node: exchange.candidate,
    leavesClusterAlone: true,
    check: async (ctx) => {
      const [primary, candidate] = await Promise.all([
        look(ctx, exchange.oldPrimary),
        look(ctx, exchange.candidate),
      ])
      if (hasHandedOver(primary, candidate)) return satisfied('the hand-over is under way already')
      // A primary that is at rest has nothing on its way: what was replayed long ago proves nothing.
      return pending('it is tried with a message of no consequence')
    },
    apply: async (ctx) => {
      const [{ sql: primary }, { sql }] = await Promise.all([ask(ctx, exchange.oldPrimary), ask(ctx)])
      await awaitFlow(ctx, exchange, primary, sql)
    },
    verify: async () => undefined,
  }
}

/** The same once more, on two that are about to exchange roles: much may have happened since it was required. */
export async function awaitFlow(
  ctx: StepContext,
  exchange: Exchange,
  primary: SqlSession,
  candidate: SqlSession,
): Promise<void> {
  await untilReplayed(ctx, exchange, candidate, await writeMarker(primary))
}

/** Writes something of no consequence, and gives the end of WAL after it. */
async function writeMarker(primary: SqlSession): Promise<string | null> {
  await primary.value("SELECT pg_logical_emit_message(true, 'replctl', 'flow')::text")
  return await primary.value(flushedSql)
}

async function untilReplayed(
  ctx: StepContext,
  exchange: Exchange,
  candidate: SqlSession,
  wanted: string | null,
): Promise<void> {
  const deadline = Date.now() + Math.min(ctx.timeoutMs, catchUpMs)
  while (!(await hasReplayed(candidate, wanted))) {
    if (ctx.signal.aborted) throw new ReplctlError('interrupted', 'interrupted by a signal')
    if (Date.now() > deadline) throw notFlowing(exchange, wanted)
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
}

const flushedSql = 'SELECT pg_current_wal_flush_lsn()::text'

async function hasReplayed(candidate: SqlSession, wanted: string | null): Promise<boolean> {
  const answer = await candidate.value(`SELECT (pg_last_wal_replay_lsn() >= '${wanted}')::text`, {
    timeoutMs: catchUpMs,
  })
  return answer === 'true'
}

function notFlowing({ candidate, oldPrimary }: Exchange, wanted: string | null): ReplctlError {
  return new ReplctlError(
    'lag-too-high',
    `cannot switch over to ${candidate}: WAL does not reach it in time`,
    {
      detail: `It did not replay ${wanted}, which ${oldPrimary} had when it was asked, within ${catchUpMs / 1000} s.`,
      hint: `Look at the walreceiver of ${candidate} and at the network between the two.`,
      node: candidate,
    },
  )
}

function notRunning(facts: NodeFacts): ReplctlError {
  return new ReplctlError('instance-stopped', `PostgreSQL is not running on ${facts.name}`, {
    node: facts.name,
  })
}
