import { configuredUpstream } from '../cluster/configured-upstream.ts'
import type { InstanceFacts, NodeFacts } from '../cluster/facts.ts'
import { insufficientSettings, replayPaused, tellInsufficient } from '../cluster/insufficient-settings.ts'
import type { NodeName } from '../cluster/names.ts'
import { isDeafForDelay } from '../cluster/topology.ts'
import { pending, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import type { Node } from '../node/node.ts'
import { compareLsn, parseLsn } from '../postgres/lsn.ts'
import { endWalReceiver } from './end-walreceiver.ts'
import { ask, awaitState, look, lookAtInstance, sqlNow } from './look.ts'
import { secondWriter } from './who-leads-beside.ts'

/** Waits until the standby streams from its upstream, on the upstream's timeline, and has replayed what it had. */
export function awaitStreaming(standby: NodeName, upstream: NodeName): Step {
  return {
    title: `wait until it streams from ${upstream}`,
    node: standby,
    // To wait is no change, and there is nothing to be finished or taken back.
    leavesClusterAlone: true,
    comesOfEarlier: true,
    check: async (ctx) => {
      const state = await streamingState(ctx, standby, upstream)
      if (state.isStreaming) {
        await tellPausedFor(ctx, standby)
        return satisfied(state.because)
      }
      return ctx.isDryRun ? unknownUntil('PostgreSQL is started') : pending(state.because)
    },
    apply: async (ctx) => {
      await untilStreaming(ctx, standby, upstream)
      await tellPausedFor(ctx, standby)
    },
    verify: async () => undefined,
  }
}

/** How long a bystander whose replay is paused is waited for: one that only reads its settings connects sooner. */
const pausedPatienceMs = 6_000

/**
 * The same for one that others do not wait for: where it does not come, that is told, and what is under way goes on. It may lack WAL
 * that nobody has any more, and only a new clone helps it then. One whose replay is paused is not waited for: it comes when that
 * goes on.
 */
export function awaitBystander(standby: NodeName, upstream: NodeName): Step {
  const streaming = awaitStreaming(standby, upstream)
  return {
    ...streaming,
    apply: async (ctx) => {
      try {
        const seen = await untilStreaming(ctx, standby, upstream, pausedPatienceMs)
        if (seen === 'held-by-pause') ctx.warn(await pausedMeanwhile(ctx, standby, upstream))
        if (seen === 'accepts-writes') ctx.warn(secondWriter(standby))
      } catch (error) {
        if (!(error instanceof ReplctlError) || error.code === 'interrupted' || ctx.signal.aborted)
          throw error
        ctx.warn(
          new ReplctlError('not-streaming', `${standby} does not stream from ${upstream}`, {
            detail: error.detail ?? error.message,
            hint: `Its log tells why. Where it lacks WAL that is gone: replctl add-standby ${standby} --reclone`,
            node: standby,
          }),
        )
      }
    },
  }
}

/**
 * The same, and proved: what the primary commits afterwards arrives at the standby by way of its upstream. A standby that
 * replays late, or is paused, has received it; any other one has replayed it. `primary`: null where nobody leads.
 */
export function awaitFollowing(standby: NodeName, upstream: NodeName, primary: NodeName | null): Step {
  const streaming = awaitStreaming(standby, upstream)
  if (primary === null) return streaming
  return {
    ...streaming,
    title: `wait until it streams from ${upstream} and gets what ${primary} writes`,
    apply: async (ctx) => {
      await untilStreaming(ctx, standby, upstream)
      const { sql } = await ask(ctx, primary)
      // A transaction without a table: its commit is flushed, and the message moves the end of WAL.
      await sql.value("SELECT pg_logical_emit_message(true, 'replctl', 'follow')::text")
      const marker = parseLsn((await sql.value('SELECT pg_current_wal_flush_lsn()::text')) ?? '0/0')
      let last = ''
      await awaitState(
        ctx,
        `${standby} gets what ${primary} writes`,
        async () => {
          const instance = await lookAtInstance(ctx)
          if (isDeafForDelay(instance)) return true
          const isLate = ctx.node.settings.delayMs > 0 || instance?.isReplayPaused === true
          const reached = isLate ? instance?.receiveLsn : instance?.replayLsn
          last = `${standby} has ${isLate ? 'received' : 'replayed'} ${reached} of ${marker}`
          return reached && compareLsn(reached, marker) >= 0 ? true : undefined
        },
        { last: () => `Last seen: ${last}.`, everyMs: 30 },
      )
    },
  }
}

/** `pausedMs`: after how long it is given up where only its paused replay keeps it; undefined: not before the time limit. */
async function untilStreaming(
  ctx: StepContext,
  standby: NodeName,
  upstream: NodeName,
  pausedMs?: number,
): Promise<'streaming' | 'held-by-pause' | 'accepts-writes'> {
  let last = ''
  let heldSince: number | null = null
  return await awaitState(
    ctx,
    `${standby} streams from ${upstream}`,
    async () => {
      const state = await streamingState(ctx, standby, upstream)
      last = state.because
      ctx.progress({ message: state.because })
      if (state.isHeldByFormer === true) await endWalReceiver(ctx, await sqlNow(ctx, standby))
      if (state.isStreaming) return 'streaming' as const
      // It comes back by a rejoin alone.
      if (state.isWriter === true && pausedMs !== undefined) return 'accepts-writes' as const
      heldSince = state.isHeldByPause === true ? (heldSince ?? performance.now()) : null
      const isGivenUp =
        pausedMs !== undefined && heldSince !== null && performance.now() - heldSince > pausedMs
      return isGivenUp ? ('held-by-pause' as const) : undefined
    },
    { last: () => `Last seen: ${last}.`, everyMs: 30 },
  )
}

/** It is told to receive from its new upstream, and does so once its replay goes on. */
async function pausedMeanwhile(
  ctx: StepContext,
  standby: NodeName,
  upstream: NodeName,
): Promise<ReplctlError> {
  const facts = await look(ctx, standby)
  const low = insufficientSettings(facts)
  const why = low.length === 0 ? '' : `PostgreSQL paused it: ${tellInsufficient(low)}. `
  return replayPaused(facts).with({
    detail: `${why}Until it goes on it asks nobody for WAL; then it streams from ${upstream}.`,
  })
}

/** It receives, and yet gets nowhere: PostgreSQL paused its replay for a setting that is too low, and a new clone would not help. */
async function tellPausedFor(ctx: StepContext, standby: NodeName): Promise<void> {
  if ((await lookAtInstance(ctx, standby))?.isReplayPaused !== true) return
  const facts = await look(ctx, standby)
  if (insufficientSettings(facts).length > 0 && !ctx.isDryRun) ctx.warn(replayPaused(facts))
}

interface StreamingState {
  readonly isStreaming: boolean
  readonly because: string
  /** It holds a transaction back, and goes on receiving from another one meanwhile. */
  readonly isHeldByFormer?: boolean
  /** Its replay is paused, and until that goes on it asks nobody for WAL. */
  readonly isHeldByPause?: boolean
  readonly isWriter?: boolean
}

async function streamingState(
  ctx: StepContext,
  standby: NodeName,
  upstream: NodeName,
): Promise<StreamingState> {
  const [own, there] = await Promise.all([lookAtInstance(ctx, standby), lookAtInstance(ctx, upstream)])
  const no = (because: string) => ({ isStreaming: false, because })
  if (own === null) return no('PostgreSQL does not answer yet')
  if (!own.isInRecovery) return { ...no('it is not in recovery'), isWriter: true }
  if (isDeafForDelay(own) && isPointedAt(await look(ctx, standby), ctx.on(upstream))) {
    return {
      isStreaming: true,
      because: `it holds a transaction back on purpose, and asks ${upstream} for WAL after that`,
    }
  }
  const connection = connectionOf(there, ctx.on(standby).settings.applicationName)
  // It is told to receive from here, and does not do so yet: a connection of it that is still shown is one of earlier.
  const isHeldByFormer =
    receivesElsewhere(own, ctx.on(upstream)) && isPointedAt(await look(ctx, standby), ctx.on(upstream))
  const isIdle = own.receiver === null || own.receiver.status === 'waiting'
  if (own.isReplayPaused && (isIdle || isHeldByFormer)) {
    return { ...no('its replay is paused: until that goes on it asks nobody for WAL'), isHeldByPause: true }
  }
  if (connection === undefined || isHeldByFormer) {
    const none = no(
      isHeldByFormer
        ? `it still receives from ${own.receiver?.senderHost}`
        : `${upstream} has no connection of it`,
    )
    // It changes over at the end of a segment of its replay: that may be as far away as its delay is long.
    return { ...none, isHeldByFormer: isHeldByFormer && own.isAwaitingDelay }
  }
  if (connection.state !== 'streaming') return no(`its state is ${connection.state}`)
  if (own.receiver?.status !== 'streaming') return no('its walreceiver is not streaming yet')
  // Right after a promotion it first streams the rest of the timeline it comes from; a delayed one gets there late.
  const [timeline, wanted] = [own.timeline, there?.timeline]
  if (wanted !== undefined && timeline < wanted && ctx.on(standby).settings.delayMs === 0) {
    return no(`it is on timeline ${timeline}, ${upstream} on ${wanted}`)
  }
  const { replayLsn } = own
  if (replayLsn === null || connection.sentLsn === null) return no('nothing is replayed yet')
  const delayMs = ctx.on(standby).settings.delayMs
  if (delayMs === 0 && !own.isReplayPaused && compareLsn(replayLsn, connection.sentLsn) < 0) {
    const isClose = connection.replayLsn !== null && compareLsn(replayLsn, connection.replayLsn) >= 0
    if (!isClose) return no(`it has replayed ${replayLsn} of ${connection.sentLsn}`)
  }
  return {
    isStreaming: true,
    because: `streaming on timeline ${own.timeline}, replayed ${replayLsn}`,
  }
}

/** PostgreSQL starts no walreceiver while it waits for recovery_min_apply_delay: all that can be seen is what it will do. */
function isPointedAt(own: NodeFacts, { settings }: Node): boolean {
  const target = configuredUpstream(own)
  return target?.host === settings.address && target.port === settings.postgres.port
}

function receivesElsewhere({ receiver }: InstanceFacts, { settings }: Node): boolean {
  if (receiver === null || receiver.senderHost === null) return false
  return receiver.senderHost !== settings.address || receiver.senderPort !== settings.postgres.port
}

function connectionOf(upstream: InstanceFacts | null, applicationName: string) {
  return upstream?.replication.find(
    (one) => one.applicationName === applicationName && one.state !== 'backup',
  )
}
