import { awaitedAndAway, howToServe, isCopied } from '../cluster/failover-slots.ts'
import type { Inventory } from '../cluster/inventory.ts'
import { standingFaults } from '../cluster/judge-archiving.ts'
import type { NodeName } from '../cluster/names.ts'
import { refused, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { whyArchiveIsSilent } from '../node/missing-wal.ts'
import type { SqlSession } from '../node/sql-session.ts'
import { ask, awaitState, look } from './look.ts'

/** So many segments may wait for the archive without being a sign of trouble. */
const mostReady = 16
/** A transaction that is older than this will be missed by whoever runs it. */
const longSeconds = 60

/**
 * The archive keeps up. A primary that cannot archive would leave a gap in it: what it has not archived when it is
 * stopped nobody else will, for its standbys take their copies for archived. What would end archiving with the exchange is told.
 */
export function requireArchiveKeepsUp(
  primary: NodeName,
  candidate: NodeName,
  inventory: Inventory,
  isAllowed: boolean,
): Step {
  return {
    title: 'require that the archive keeps up',
    node: primary,
    check: async (ctx) => {
      const { instance } = await look(ctx)
      for (const [error] of standingFaults(inventory, await look(ctx, candidate))) ctx.warn(error)
      if (instance === null || instance.isInRecovery) return satisfied('it is stopped already')
      const mode = instance.settings.archive_mode?.value ?? 'off'
      if (mode === 'off') return satisfied('archive_mode is off')
      const ready = instance.archiver?.readyCount ?? 0
      const isFailing = ready > 0 && instance.archiver?.isFailing === true
      const error =
        isFailing || ready > mostReady
          ? archiveBehind(primary, ready, isFailing ? instance.archiver?.lastFailedWal : null)
          : await archiveAway(ctx, [primary, candidate], inventory)
      if (error === null) return satisfied(`${ready} segment(s) wait for it`)
      if (!isAllowed) return refused(error)
      ctx.warn(error)
      return satisfied(`${ready} segment(s) wait for it, which --allow-unarchived allows`)
    },
  }
}

/** An archive that has just gone away has failed nobody yet: it is asked now, by the two that will need it. */
async function archiveAway(
  ctx: StepContext,
  names: readonly NodeName[],
  { archive }: Inventory,
): Promise<ReplctlError | null> {
  if (archive?.mode !== 'push') return null
  const answers = await Promise.all(
    names.map(async (name) => ({
      name,
      said: await whyArchiveIsSilent(ctx.on(name), await look(ctx, name), archive),
    })),
  )
  const silent = answers.find(({ said }) => said !== null)
  if (silent === undefined) return null
  return new ReplctlError('archive-failing', `${silent.name} cannot reach the archive host ${archive.host}`, {
    detail: `${silent.said} What ${names[0]} writes last could be missing in the archive: after a switchover nobody else archives it.`,
    hint: 'Bring the archive host back: replctl archive status. To go on and have a gap in the archive: --allow-unarchived',
    node: silent.name,
  })
}

function archiveBehind(primary: NodeName, ready: number, failed: string | null | undefined): ReplctlError {
  const isFailing = failed !== null && failed !== undefined
  return new ReplctlError(
    'archive-failing',
    isFailing ? `archiving fails on ${primary}` : `archiving is far behind on ${primary}`,
    {
      detail: `${ready} segment(s) are not archived yet.${isFailing ? ` The last failure was for ${failed}.` : ''} They would be missing in the archive: after a switchover nobody else archives them.`,
      hint: `Mend it (the reason stands in the log of ${primary}) and wait until it has caught up. To go on and have a gap in the archive: --allow-unarchived`,
      node: primary,
    },
  )
}

/** What clients will notice is reported, and stops nothing: long and prepared transactions, logical slots. */
export function reportOpenWork(primary: NodeName, candidate: NodeName): Step {
  return {
    title: 'look for long and prepared transactions, and for logical slots',
    node: primary,
    check: async (ctx) => {
      const { instance } = await look(ctx)
      if (instance === null || instance.isInRecovery) return satisfied('it is stopped already')
      const { sql } = await ask(ctx)
      const old = await sql.json<{ count: number; oldest: number }>(
        `SELECT json_build_object('count', count(*), 'oldest', coalesce(round(extract(epoch FROM max(clock_timestamp() - xact_start))), 0))
           FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
            AND clock_timestamp() - xact_start > interval '${longSeconds} seconds'`,
      )
      const there = (await look(ctx, candidate)).instance?.slots ?? []
      const logical = instance.slots.filter((slot) => slot.type === 'logical' && !slot.isTemporary)
      const staying = logical.filter((slot) => !isCopied(slot, there))
      if (old.count > 0) ctx.warn(longTransactions(primary, old.count, old.oldest))
      if (instance.preparedTransactions > 0) ctx.warn(prepared(primary, instance.preparedTransactions))
      if (staying.length > 0) {
        ctx.warn(
          logicalSlots(
            primary,
            staying.map((slot) => slot.name),
          ),
        )
      }
      return satisfied(
        `${old.count} long, ${instance.preparedTransactions} prepared, ${logical.length} logical slot(s)`,
      )
    },
  }
}

/**
 * A primary that stops writes its shutdown checkpoint only when logical subscribers have everything: one that is far behind, or frozen,
 * keeps everybody from writing meanwhile. From 17 on they wait for the standbys of `synchronized_standby_slots` themselves: with one of
 * those away the primary would never come down.
 * @see PostgreSQL, src/backend/replication/walsender.c, WalSndInitStopping and WalSndDone
 */
export function requireServedSubscribers(primary: NodeName, inventory: Inventory): Step {
  return {
    title: 'require that no logical subscriber holds up the stop',
    node: primary,
    check: async (ctx) => {
      const { instance } = await look(ctx)
      if (instance === null || instance.isInRecovery) return satisfied('it is stopped already')
      const away = awaitedAndAway(instance)
      if (away.length > 0) return refused(subscribersWait(inventory, primary, away))
      if (!instance.slots.some((slot) => slot.type === 'logical' && slot.isActive)) {
        return satisfied('none is connected')
      }
      const mostBytes = inventory.replication.maxCandidateLagBytes
      const late = await lateSubscriber(ctx, (await ask(ctx)).sql, mostBytes)
      return late === null ? satisfied('none is behind') : refused(subscriberLate(primary, late, mostBytes))
    },
  }
}

interface LateSubscriber {
  readonly slot: string
  readonly pid: number
  readonly bytes: number
}

/** A subscriber says how far it is every 10 s (wal_receiver_status_interval, or `--status-interval` of pg_recvlogical). */
const reportPatienceMs = 12_000

/**
 * The logical subscriber that is furthest behind: it is connected, and did not confirm meanwhile what was written so many bytes before
 * the call. Null: there is none. What it was sent tells nothing: the walsender of one that is frozen sticks in its last commit.
 */
async function lateSubscriber(
  ctx: StepContext,
  sql: SqlSession,
  mostBytes: number,
): Promise<LateSubscriber | null> {
  const now = (await sql.value('SELECT pg_current_wal_lsn()::text')) ?? '0/0'
  const deadline = Date.now() + reportPatienceMs
  return await awaitState(
    ctx,
    'logical subscribers confirm what was written',
    async () => {
      const [late] = await sql.json<readonly LateSubscriber[]>(
        `SELECT coalesce(json_agg(one ORDER BY one.bytes DESC), '[]')
           FROM (SELECT s.slot_name AS slot, r.pid, pg_wal_lsn_diff('${now}', s.confirmed_flush_lsn) AS bytes
                   FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid
                  WHERE s.slot_type = 'logical') AS one
          WHERE one.bytes > ${mostBytes}`,
      )
      if (late === undefined) return null
      return Date.now() >= deadline ? late : undefined
    },
    { everyMs: 200, timeoutMs: 2 * reportPatienceMs },
  )
}

function subscriberLate(
  node: NodeName,
  { slot, pid, bytes }: LateSubscriber,
  mostBytes: number,
): ReplctlError {
  return new ReplctlError(
    'lag-too-high',
    `cannot switch over: the logical subscriber of "${slot}" is too far behind`,
    {
      detail: `It has not confirmed ${bytes} bytes of WAL. A primary that stops waits until its logical subscribers have everything, and nobody could write meanwhile. replication.max_candidate_lag allows ${mostBytes}.`,
      hint: `Wait until it has caught up (confirmed_flush_lsn in pg_replication_slots on ${node}), or stop that client: process ${pid} serves it.`,
      node,
    },
  )
}

function subscribersWait(inventory: Inventory, node: NodeName, slots: readonly string[]): ReplctlError {
  return new ReplctlError(
    'not-streaming',
    `${node} could not be stopped: logical subscribers wait for a standby`,
    {
      detail: `synchronized_standby_slots names ${slots.join(', ')}, through which nobody receives now. A primary that stops waits for its subscribers, and they wait for that.`,
      hint: howToServe(inventory, node, slots),
      node,
    },
  )
}

function longTransactions(node: NodeName, count: number, oldest: number): ReplctlError {
  return new ReplctlError('long-transactions', `${count} long transaction(s) on ${node} are cut off`, {
    detail: `The oldest is ${oldest} s old. The stop of ${node} ends every session; what is not committed is rolled back.`,
    node,
  })
}

function prepared(node: NodeName, count: number): ReplctlError {
  return new ReplctlError(
    'prepared-transactions',
    `${count} prepared transaction(s) move to the new primary`,
    {
      detail: `They stay prepared there, with their locks, until COMMIT PREPARED or ROLLBACK PREPARED.`,
      node,
    },
  )
}

function logicalSlots(node: NodeName, names: readonly string[]): ReplctlError {
  return new ReplctlError('logical-slots-stay', `logical slots stay on ${node}: ${names.join(', ')}`, {
    detail: `They are not made on the new primary, and they hold WAL and dead rows back on ${node} while it is a standby.`,
    hint: 'Move their subscribers, or drop those that nobody uses: SELECT pg_drop_replication_slot(…);',
    node,
  })
}
