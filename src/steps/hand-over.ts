import type { NodeFacts } from '../cluster/facts.ts'
import type { Inventory } from '../cluster/inventory.ts'
import { type Exchange, hasHandedOver } from '../cluster/judge-switchover.ts'
import type { NodeName } from '../cluster/names.ts'
import { triggerFileOf } from '../cluster/node-configuration.ts'
import { shellScript } from '../command.ts'
import { pending, refused, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { type HeldPrimary, holdPrimary } from '../node/primary-stop.ts'
import type { SqlSession } from '../node/sql-session.ts'
import { compareLsn, type Lsn, parseLsn } from '../postgres/lsn.ts'
import { capabilitiesOf, choosePromotionMethod } from '../postgres/versions.ts'
import { keepWalForArchive, openKeeper } from './keep-wal.ts'
import { binDirectoryOf, look, majorOf, sqlOf } from './look.ts'
import { mayHaveLed } from './may-have-led.ts'
import { preparedRecoveryFile } from './prepare-demotion.ts'
import { promotionTitle } from './promote-instance.ts'
import { putPrimaryBack } from './put-primary-back.ts'
import { awaitFlow } from './require-successor.ts'
import { wakeAgainAfter, wakeIfAsleep } from './wake-startup.ts'
import { askWhetherTheyLead, leaderAmong, ledMeanwhile, secondWriter } from './who-leads-beside.ts'

/** How long the candidate may take to get the last record of a primary that it was streaming from. */
const lastRecordMs = 10_000
/** How long other standbys have to answer while nobody can write. */
const glanceMs = 50
/** A session on the candidate that says nothing for so long is of no use while nobody can write. */
const silenceMs = 5_000

/**
 * The time without a primary, in three steps: the old one is stopped, the candidate is seen to have its shutdown checkpoint,
 * the candidate is promoted. Whatever could be prepared is prepared before, sessions stay open, and in between nothing is
 * looked up that one of them can say. What the three tell each other in memory only saves a look: a run that begins in the
 * middle reads it from pg_control.
 */
export class Handover {
  readonly #exchange: Exchange
  readonly #others: readonly NodeName[]
  readonly #inventory: Inventory
  #candidate: NodeFacts | null = null
  #checkpoint: Lsn | null = null
  #stoppedAt: number | null = null
  /** Other standbys, as far as they answer; null: nobody was asked yet. */
  #lookouts: readonly NodeName[] | null = null
  /** The candidate was just seen to be past the checkpoint: nothing is looked up twice while nobody can write. */
  #isCaughtUp = false
  /** From the word to stop to the first write that the new primary confirmed; null where this run did not see both. */
  writeOutageMs: number | null = null

  /** `others`: running nodes beside the old primary, the candidate included. */
  constructor(exchange: Exchange, others: readonly NodeName[], inventory: Inventory) {
    this.#exchange = exchange
    this.#inventory = inventory
    this.#others = others
  }

  /** Stops the old primary; from its signal on it comes up only as a standby. Undone, it is in service again. */
  stopPrimary(): Step {
    const { oldPrimary, candidate } = this.#exchange
    return {
      title: `stop the primary, so that it comes up only as a standby; ${candidate} takes over`,
      node: oldPrimary,
      mustNotStandAlone: true,
      beginsWith: [oldPrimary, candidate],
      check: async (ctx) => {
        const [facts, other] = await Promise.all([look(ctx), look(ctx, candidate)])
        this.#candidate = other
        if (other.instance?.isInRecovery === false) return satisfied(`${candidate} leads already`)
        if (!hasHandedOver(facts, other)) {
          const second = await this.#whoElseLeads(ctx)
          return second === null
            ? pending(`it leads, at ${facts.instance?.currentLsn}`)
            : refused(secondWriter(second))
        }
        const isDown = facts.postmaster?.isAlive !== true || facts.control?.state === 'shut down'
        if (!isDown)
          return facts.instance === null ? pending('it is shutting down') : refused(startedAgain(facts))
        return facts.control?.state === 'shut down' && facts.hasStandbySignal
          ? satisfied(`it is shut down, its checkpoint stands at ${facts.control.checkpointLsn}`)
          : refused(noCleanStop(facts))
      },
      apply: (ctx) => this.#stop(ctx),
      // Apply ends with the proof from pg_control; nobody can write until the candidate is promoted.
      verify: async () => undefined,
      undo: (ctx) => putPrimaryBack(ctx, oldPrimary, this.#others),
    }
  }

  async #stop(ctx: StepContext): Promise<void> {
    // Identity and role right before the stop: the one that was seen leads still, with the same system identifier.
    const [facts, candidate] = await Promise.all([look(ctx), look(ctx, this.#exchange.candidate)])
    const { postmaster } = facts
    this.#candidate = candidate
    if (candidate.instance?.isInRecovery !== true || postmaster?.isAlive !== true) throw changed(facts)
    if (facts.instance?.isInRecovery === true) throw changed(facts)
    const has = capabilitiesOf(majorOf(facts))
    const holding = holdPrimary(ctx.node, {
      pid: postmaster.pid,
      binDirectory: binDirectoryOf(facts),
      preparedFile: has.recoveryConf ? preparedRecoveryFile : '',
    })
    const [held, awake] = await Promise.allSettled([holding, this.#awaken(ctx, facts)])
    if (held.status === 'rejected') throw held.reason
    if (awake.status === 'rejected') {
      held.value.release()
      throw awake.reason
    }
    await this.#tellToStop(ctx, facts, held.value)
  }

  async #tellToStop(ctx: StepContext, facts: NodeFacts, held: HeldPrimary): Promise<void> {
    try {
      await ctx.node.closeSql()
      if (ctx.signal.aborted) throw new ReplctlError('interrupted', 'interrupted by a signal')
      this.#stoppedAt = performance.now()
      const stopped = await held.stop({
        timeoutMs: ctx.timeoutMs,
        signal: ctx.signal,
        onWait: () => ctx.progress({ message: 'waiting for the shutdown checkpoint' }),
      })
      if (stopped.is === 'ended' || stopped.control.systemIdentifier !== facts.control?.systemIdentifier) {
        throw noCleanStop({ ...facts, control: stopped.control })
      }
      this.#checkpoint = stopped.control.checkpointLsn
    } finally {
      held.release()
    }
  }

  /**
   * From now on the candidate keeps what it may owe to the archive; and it replays what the old primary has right now, unless
   * that one was told to stop before and says nothing any more.
   */
  async #awaken(ctx: StepContext, primary: NodeFacts): Promise<void> {
    const sql = await this.#sql(ctx)
    const keeper = await openKeeper(this.#inventory, ctx.on(this.#exchange.candidate))
    await keepWalForArchive(this.#inventory, keeper ?? sql, { timeoutMs: silenceMs })
    if (primary.instance === null) await sql.value('SELECT 1', { timeoutMs: silenceMs })
    else await awaitFlow(ctx, this.#exchange, await sqlOf(ctx, primary), sql)
  }

  /** The candidate has replayed the old primary's shutdown checkpoint: nothing that was ever confirmed is missing there. */
  awaitShutdownCheckpoint(): Step {
    const { oldPrimary, candidate } = this.#exchange
    return {
      title: `require that it has replayed the shutdown checkpoint of ${oldPrimary}`,
      node: candidate,
      leavesClusterAlone: true,
      comesOfEarlier: true,
      check: async (ctx) => {
        if (ctx.isDryRun) return unknownUntil(`${oldPrimary} is stopped`)
        const [seen, leader] = await Promise.all([this.#replayed(ctx), this.#whoElseLeads(ctx)])
        if (seen === 'leads') return satisfied('it leads already')
        if (leader !== null) return refused(ledMeanwhile(candidate, leader))
        const checkpoint = await this.#shutdownCheckpoint(ctx)
        this.#isCaughtUp = isPast(seen, checkpoint)
        return this.#isCaughtUp
          ? satisfied(`it has replayed ${seen}, past ${checkpoint}`)
          : pending(`it has replayed ${seen}, the checkpoint stands at ${checkpoint}`)
      },
      apply: async (ctx) => {
        const checkpoint = await this.#shutdownCheckpoint(ctx)
        const deadline = Date.now() + Math.min(ctx.timeoutMs, lastRecordMs)
        for (;;) {
          const [seen, leader] = await Promise.all([this.#replayed(ctx), this.#whoElseLeads(ctx)])
          if (leader !== null && seen !== 'leads') throw ledMeanwhile(candidate, leader)
          this.#isCaughtUp = seen !== 'leads' && isPast(seen, checkpoint)
          if (seen === 'leads' || this.#isCaughtUp) return
          if (ctx.signal.aborted) throw new ReplctlError('interrupted', 'interrupted by a signal')
          if (Date.now() > deadline) throw lastRecordMissing(this.#exchange, seen, checkpoint)
          await new Promise((resolve) => setTimeout(resolve, 2))
        }
      },
      verify: async () => undefined,
    }
  }

  /**
   * Promotes the candidate. The journals of both say so first: with the old primary's own word that it was not told, that
   * one may be put back by whoever finds it, without it never.
   */
  promoteCandidate(): Step {
    const { oldPrimary, candidate } = this.#exchange
    return {
      title: promotionTitle,
      node: candidate,
      pointOfNoReturn: true,
      crossesWith: [oldPrimary],
      check: async (ctx) => {
        if (ctx.isDryRun || this.#isCaughtUp) return pending('it is in recovery')
        const seen = await this.#replayed(ctx)
        return seen === 'leads' ? satisfied('it leads') : pending(`it is in recovery, at ${seen}`)
      },
      apply: (ctx) => this.#promote(ctx),
      verify: async () => undefined,
      hasCrossed: (ctx) => mayHaveLed(ctx.node),
    }
  }

  async #promote(ctx: StepContext): Promise<void> {
    const sql = await this.#sql(ctx)
    const checkpoint = await this.#shutdownCheckpoint(ctx)
    const facts = this.#candidate ?? (await look(ctx))
    const options = { timeoutMs: silenceMs }
    if (choosePromotionMethod(majorOf(facts), 'auto') === 'pg_promote') {
      const promote = `SELECT CASE WHEN pg_last_wal_replay_lsn() > '${checkpoint}' THEN pg_promote(false)::text END`
      if ((await sql.value(promote, options)) === null)
        throw lastRecordMissing(this.#exchange, null, checkpoint)
    } else {
      const path = triggerFileOf(facts.home, ctx.node.settings)
      await ctx.node.output(shellScript(`create ${path}`, ': > "$1"', [path]))
    }
    await this.#awaitFirstWrite(ctx, sql)
    if (this.#stoppedAt !== null) this.writeOutageMs = Math.round(performance.now() - this.#stoppedAt)
  }

  /**
   * Wakes the startup process: asleep in wal_retrieve_retry_interval it would notice up to 5 s later. A write
   * of our own (a message in WAL, committed and flushed, of which no table knows) shows that writes are accepted.
   */
  async #awaitFirstWrite(ctx: StepContext, sql: SqlSession): Promise<void> {
    const toldAt = Date.now()
    const deadline = toldAt + ctx.timeoutMs
    let nextWakeAt = 0
    for (;;) {
      if (Date.now() >= nextWakeAt) {
        await sql.execute(wakeIfAsleep)
        nextWakeAt = Date.now() + wakeAgainAfter(Date.now() - toldAt)
      }
      const written = await sql.value(
        "SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_logical_emit_message(true, 'replctl', 'switchover')::text END",
      )
      if (written !== null) return
      if (Date.now() > deadline) {
        throw new ReplctlError('timeout', `${ctx.node.name} was told to promote and is still in recovery`, {
          detail: `Waited ${ctx.timeoutMs / 1000} s.`,
          hint: 'Look with "replctl status"; go on with "replctl resume".',
          node: ctx.node.name,
        })
      }
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }

  /** How far the candidate has replayed, by one statement in the session that is open. */
  async #replayed(ctx: StepContext): Promise<Lsn | 'leads' | null> {
    const sql = await this.#sql(ctx)
    const text = await sql.value(
      "SELECT CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_replay_lsn()::text, '') ELSE 'leads' END",
      { timeoutMs: silenceMs },
    )
    if (text === 'leads') return 'leads'
    return text === null || text === '' ? null : parseLsn(text)
  }

  /**
   * Somebody may promote another standby by hand at any moment. Whoever did not answer before the stop is not asked after it, when
   * nobody can write.
   */
  async #whoElseLeads(ctx: StepContext): Promise<NodeName | null> {
    const others = this.#lookouts ?? this.#others.filter((name) => name !== this.#exchange.candidate)
    const answers = await askWhetherTheyLead(ctx, others, this.#lookouts === null ? undefined : glanceMs)
    this.#lookouts ??= [...answers.keys()]
    return leaderAmong(answers)
  }

  async #sql(ctx: StepContext): Promise<SqlSession> {
    this.#candidate ??= await look(ctx, this.#exchange.candidate)
    if (this.#candidate.instance === null)
      throw this.#candidate.instanceError ?? candidateGone(this.#exchange)
    return await sqlOf(ctx, this.#candidate)
  }

  /** Where the old primary's shutdown checkpoint stands: told by the stop, else by its pg_control. */
  async #shutdownCheckpoint(ctx: StepContext): Promise<Lsn> {
    if (this.#checkpoint === null) {
      const facts = await look(ctx, this.#exchange.oldPrimary)
      if (facts.control?.state !== 'shut down') throw noCleanStop(facts)
      this.#checkpoint = facts.control.checkpointLsn
    }
    return this.#checkpoint
  }
}

/** The record of a shutdown checkpoint is the last one of its timeline: whoever is past its beginning has replayed it. */
const isPast = (seen: Lsn | null, checkpoint: Lsn) => seen !== null && compareLsn(seen, checkpoint) > 0

function changed(facts: NodeFacts): ReplctlError {
  return new ReplctlError('operation-unfinished', 'who leads and who follows has changed since the survey', {
    hint: 'Look with "replctl status", then run the command again.',
    node: facts.name,
  })
}

function noCleanStop(facts: NodeFacts): ReplctlError {
  return new ReplctlError('stop-failed', `${facts.name} did not shut down cleanly`, {
    detail: `pg_control says "${facts.control?.state ?? 'nothing'}": what it wrote last may not be on any standby.`,
    hint: 'The reason stands in its log.',
    node: facts.name,
  })
}

function startedAgain(facts: NodeFacts): ReplctlError {
  return new ReplctlError('stop-failed', `${facts.name} was started again after its stop`, {
    detail: 'It runs as a standby while nobody leads: something on its host starts it.',
    node: facts.name,
  })
}

function lastRecordMissing({ candidate, oldPrimary }: Exchange, seen: Lsn | null, wanted: Lsn): ReplctlError {
  return new ReplctlError('not-streaming', `${candidate} did not get the last WAL of ${oldPrimary}`, {
    detail: `It has replayed ${seen ?? 'less'}; the shutdown checkpoint stands at ${wanted}.`,
    hint: `Look at the network between the two and at the log of ${candidate}.`,
    node: candidate,
  })
}

function candidateGone({ candidate }: Exchange): ReplctlError {
  return new ReplctlError('not-answering', `PostgreSQL on ${candidate} does not answer any more`, {
    hint: `The reason stands in its log.`,
    node: candidate,
  })
}
