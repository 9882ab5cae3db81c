import type { NodeFacts } from '../cluster/facts.ts'
import type { NodeName } from '../cluster/names.ts'
import { rejoinUnderWay } from '../cluster/rejoin-under-way.ts'
import { pending, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { asReplctlError, ReplctlError } from '../errors.ts'
import { awaitReplayOfAll, isIsolated, startIsolated, stopIsolated } from '../node/isolated-instance.ts'
import { readWalEnd } from '../node/own-wal.ts'
import { isCleanShutdown } from '../postgres/control-data.ts'
import type { TimelineId } from '../postgres/lsn.ts'
import { look } from './look.ts'
import { isolatedPlaceOf } from './salvage/make-salvage.ts'

/**
 * Brings a stopped instance's data and pg_control to the end of its own WAL, which pg_rewind needs to know: after a crash,
 * and where a standby had received more than it replayed. It comes up as a standby of nobody, without network, archive or
 * client, and never accepts a write; its standby signal stays where it is. Nothing of its own is changed by that. Where
 * what only it has was read out before (`isSalvaged`), that has done it already.
 */
export function recoverInIsolation(node: NodeName, { isSalvaged = false } = {}): Step {
  return {
    title: 'recover what is in its WAL, in isolation: without network, and never read-write',
    node,
    check: async (ctx) => {
      const facts = await look(ctx)
      if (rejoinUnderWay(facts) !== null) return satisfied('the rewind has begun already')
      if (ctx.isDryRun && isSalvaged) return satisfied('it is, once what only it has is read out')
      if (facts.postmaster?.isAlive === true)
        return ctx.isDryRun ? unknownUntil('it is stopped') : pending('it runs')
      const { control } = facts
      if (control === null) return pending('pg_control cannot be read')
      if (!isCleanShutdown(control.state)) return pending(`pg_control says "${control.state}"`)
      if (control.state === 'shut down') return satisfied('it was shut down cleanly')
      const from = control.minRecoveryEndLsn ?? control.checkpointLsn
      const timeline = control.minRecoveryEndTimeline ?? control.timeline
      const { lastRecord } = await readWalEnd(ctx.node, facts, timeline, from)
      return lastRecord === 'none'
        ? satisfied(`it has replayed all WAL it has, up to ${from}`)
        : pending(`it has replayed up to ${from} and holds more`)
    },
    apply: async (ctx) => {
      const facts = await look(ctx)
      const place = placeOf(facts)
      if (facts.postmaster?.isAlive === true && !isIsolated(ctx.node, facts)) throw runs(node)
      try {
        await startIsolated(ctx.node, place, { signal: ctx.signal })
        await awaitReplayOfAll(ctx.node, place, replayed(ctx))
      } catch (thrown) {
        const error = asReplctlError(thrown)
        throw error.code === 'start-failed' ? recoveryFailed(node, error.detail ?? error.message) : error
      } finally {
        await stopIsolated(ctx.node, place)
      }
    },
    verify: async (ctx) => {
      const facts = await look(ctx)
      if (facts.postmaster?.isAlive === true) throw runs(node)
      if (facts.control === null || !isCleanShutdown(facts.control.state)) {
        throw recoveryFailed(node, `pg_control says "${facts.control?.state}".`)
      }
    },
    undo: async (ctx) => stopIsolated(ctx.node, placeOf(await look(ctx))),
  }
}

const placeOf = (facts: NodeFacts) =>
  isolatedPlaceOf(
    facts,
    Math.max(facts.control?.timeline ?? 1, facts.control?.minRecoveryEndTimeline ?? 1) as TimelineId,
  )

const replayed = (ctx: StepContext) => ({
  signal: ctx.signal,
  progress: (lsn: string) => ctx.progress({ message: `replayed ${lsn}` }),
})

function runs(node: NodeName): ReplctlError {
  return new ReplctlError('data-directory-in-use', `PostgreSQL on ${node} runs again`, {
    detail: 'Somebody, or its service, started it meanwhile.',
    hint: 'Keep it from being started, then run the command again.',
    node,
  })
}

function recoveryFailed(node: NodeName, said: string): ReplctlError {
  return new ReplctlError('start-failed', `could not recover the instance on ${node} in isolation`, {
    detail: said,
    hint: `Mend what it names, then run the command again. To clone it anew instead: replctl rejoin ${node} --reclone`,
    node,
  })
}
