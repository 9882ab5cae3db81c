import { configuredUpstream } from '../cluster/configured-upstream.ts'
import type { NodeFacts, Survey } from '../cluster/facts.ts'
import type { Inventory, NodeSettings } from '../cluster/inventory.ts'
import { holds, keepersOf, keepsFrom, neededLsn } from '../cluster/kept-wal.ts'
import type { NodeName } from '../cluster/names.ts'
import { segmentSizeOf } from '../cluster/segment-size.ts'
import { isReceiving, isReceivingFrom, receivedLsn } from '../cluster/topology.ts'
import { refused, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import {
  findMissingSegment,
  firstForeignSegment,
  readSegmentAges,
  type SegmentAge,
} from '../node/missing-wal.ts'
import { compareLsn, type Lsn } from '../postgres/lsn.ts'
import { parseTimelineHistory } from '../postgres/timeline-history.ts'
import {
  endOfLocalWal,
  segmentNumber,
  walFileName,
  walFileNameOf,
  walFileStart,
} from '../postgres/wal-file.ts'
import { ask, look } from './look.ts'

/** Segments in pg_wal by their place in WAL (the last 16 digits of the name, whatever the timeline), with their age. */
const segmentsQuery = `SELECT coalesce(json_agg(json_build_array(place, modified) ORDER BY place), '[]') FROM (
  SELECT substr(name, 9) AS place, max(extract(epoch FROM modification)) AS modified FROM pg_ls_waldir()
  WHERE name ~ '^[0-9A-F]{24}$' GROUP BY 1) s`

/**
 * The upstream still has the WAL that a standby asks for next, or the archive may have it: else the standby would
 * ask in vain for ever. A running one asks from the beginning of the segment in which its own WAL ends.
 * `mustBeKept`: one that holds a transaction back asks only after its delay; by then what no slot keeps may be gone.
 */
export function requireWalFor(
  standby: NodeName,
  upstream: NodeName,
  inventory: Inventory,
  { mustBeKept = false } = {},
): Step {
  return {
    title: `require the WAL on ${upstream} that it needs next`,
    node: standby,
    check: async (ctx) => {
      const facts = await look(ctx)
      const { instance } = facts
      if (instance === null && !isBuilt(facts)) return satisfied('what it needs shows when it runs')
      if (instance !== null && isReceivingFrom(inventory, instance, upstream))
        return satisfied('it streams from there')
      const reached = instance === null ? replaysFrom(facts) : receivedLsn(facts)
      if (reached === null) return satisfied('it has not replayed anything yet')
      const source = await look(ctx, upstream)
      const { instance: leads } = source
      if (leads === null) return unknownUntil(`PostgreSQL runs on ${upstream}`)
      const size = segmentSizeOf(facts)
      const [own, there] = await Promise.all([
        instance === null ? readSegmentAges(ctx.node) : segmentsOf(ctx, standby),
        segmentsOf(ctx, upstream),
      ])
      const foreign = firstForeignSegment(own, reached, size)
      const needed =
        instance === null
          ? walFileNameOf(1, foreign, size).slice(8)
          : endOfLocalWal(own, walFileName(1, reached, size).slice(8), size)
      const isAskedLater = mustBeKept && inventory.replication.slots && instance?.isAwaitingDelay === true
      const kept = isAskedLater ? keepsFrom(source, ctx.node.settings.slotName) : null
      const oldest = kept === null ? there[0]?.[0] : walFileName(1, kept, size).slice(8)
      if (oldest === undefined || oldest <= needed) return satisfied(`${upstream} has WAL from …${oldest} on`)
      const gone = {
        reached,
        needed,
        oldest,
        keeper: await keeperFor(ctx, { standby, upstream, needed }, inventory),
      }
      const { archive } = inventory
      if (archive === undefined) return refused(walRemoved(standby, upstream, gone, 'there is no archive'))
      const missing = await findMissingSegment({
        ...{ node: ctx.node, facts, archive, needs: foreign },
        kept: segmentNumber(walFileStart(`00000001${oldest}`, size), size),
        history: parseTimelineHistory(leads.history ?? '', leads.timeline),
      })
      return missing === null
        ? satisfied('it is no longer there: the archive has to give it')
        : refused(walRemoved(standby, upstream, gone, `the archive does not have ${missing}`))
    },
  }
}

/**
 * Says so where a standby that is away, or holds a transaction back, will ask in vain for WAL: nobody can be refused for it, and
 * nobody is to learn it only when that standby does not come back.
 */
export function reportKeptWal(standby: NodeSettings, upstream: NodeName, inventory: Inventory): Step {
  return {
    title: `see whether WAL is kept that ${standby.name} needs next`,
    node: upstream,
    check: async (ctx) => {
      const own = await look(ctx, standby.name).catch(() => undefined)
      if (own?.instance != null && isReceiving(own)) return satisfied('it streams')
      const survey = await lookAtAll(ctx, inventory)
      const source = survey.find((one) => one.name === upstream)
      if (source?.instance == null) return unknownUntil(`PostgreSQL runs on ${upstream}`)
      const least = neededLsn(standby, own, survey, upstream)
      if (least === null) return satisfied('what it needs shows when it is back')
      const size = segmentSizeOf(source)
      const kept = inventory.replication.slots ? keepsFrom(source, standby.slotName) : null
      const needed = holds(kept, least, size) ? least : await endOfItsWal(ctx, own, least)
      if (holds(kept, needed, size)) return satisfied(`WAL is kept from ${kept} on`)
      const oldest = (await segmentsOf(ctx, upstream))[0]?.[0]
      const isGone = oldest !== undefined && oldest > walFileName(1, needed, size).slice(8)
      if (!isGone && !inventory.replication.slots) return satisfied('it is there; no slot keeps it')
      if (own === undefined && inventory.archive !== undefined) return satisfied('it may be in the archive')
      const from = isGone ? walFileStart(`00000001${oldest}`, size) : kept
      if (await mayArchiveGive(ctx, { own, source, needed, from }, inventory))
        return satisfied('the archive has to give what is gone')
      const keeper = keepersOf(standby, needed, survey).find((name) => name !== upstream) ?? null
      const down = inventory.nodes.find(
        ({ name }) =>
          name !== standby.name && survey.every((one) => one.name !== name || one.instance === null),
      )
      ctx.warn(
        notKept(standby.name, upstream, { own, needed, kept, keeper, isGone, down: down?.name ?? null }),
      )
      return satisfied(isGone ? 'it is gone there' : 'no slot keeps it there')
    },
  }
}

/** Where the WAL ends that a stopped standby has on its disk, to the segment: it may be far past what it has replayed. */
async function endOfItsWal(ctx: StepContext, own: NodeFacts | undefined, least: Lsn): Promise<Lsn> {
  if (own === undefined || own.instance !== null || !isBuilt(own)) return least
  const size = segmentSizeOf(own)
  const foreign = firstForeignSegment(await readSegmentAges(ctx.on(own.name)), least, size)
  const last = walFileStart(walFileNameOf(1, foreign - 1n, size), size)
  return compareLsn(last, least) > 0 ? last : least
}

/** Nobody has said that the archive lacks what is gone: as long as that is so, it may have it. */
async function mayArchiveGive(
  ctx: StepContext,
  wal: {
    readonly own: NodeFacts | undefined
    readonly source: NodeFacts
    readonly needed: Lsn
    readonly from: Lsn | null
  },
  { archive }: Inventory,
): Promise<boolean> {
  const { own, source, needed, from } = wal
  if (archive === undefined || own === undefined || from === null || source.instance === null) return false
  const size = segmentSizeOf(source)
  const missing = await findMissingSegment({
    ...{ node: ctx.on(own.name), facts: own, archive },
    ...{ needs: segmentNumber(needed, size), kept: segmentNumber(from, size) },
    history: parseTimelineHistory(source.instance.history ?? '', source.instance.timeline),
  })
  return missing === null
}

interface Unkept {
  readonly own: NodeFacts | undefined
  readonly needed: Lsn
  readonly kept: Lsn | null
  readonly keeper: NodeName | null
  readonly isGone: boolean
  /** Another node that does not run: what slots it has does not show. */
  readonly down: NodeName | null
}

function notKept(standby: NodeName, upstream: NodeName, { own, needed, kept, keeper, isGone, down }: Unkept) {
  const what = isGone ? 'no longer has' : 'does not keep'
  const since = kept === null ? '' : `; the slot on ${upstream} keeps WAL from ${kept} on`
  const still = keeper === null ? '' : ` The slot on ${keeper} keeps what it needs, and stays.`
  const maybe =
    keeper === null && down !== null
      ? `${down} may still keep it: bring that back first. If it does not: `
      : ''
  const way = `${maybe}${wayToWal(standby, keeper, own?.instance != null)}`
  const first = isGone
    ? ''
    : `What it needs is still there: bring it back soon (replctl add-standby ${standby}). Else: `
  return new ReplctlError('wal-removed', `${upstream} ${what} the WAL that ${standby} needs next`, {
    detail: `${standby} has WAL up to ${needed} at least${since}.${still}`,
    hint: own?.instance != null ? way : `${first}${way}`,
    node: standby,
  })
}

/** How a standby gets WAL that its upstream has removed. */
function wayToWal(standby: NodeName, keeper: NodeName | null, isRunning: boolean): string {
  if (keeper === null) return `Clone it again: replctl add-standby ${standby} --reclone`
  return isRunning
    ? `Let it catch up from ${keeper} first: replctl follow ${standby} --upstream ${keeper}`
    : `Let it catch up from ${keeper} first: replctl add-standby ${standby} --from ${keeper}`
}

/** Another node that has what the standby needs, and keeps it. */
async function keeperFor(
  ctx: StepContext,
  { standby, upstream, needed }: { standby: NodeName; upstream: NodeName; needed: string },
  inventory: Inventory,
): Promise<{ readonly name: NodeName; readonly isItsUpstream: boolean; readonly isRunning: boolean } | null> {
  const survey = await lookAtAll(ctx, inventory)
  const own = survey.find((one) => one.name === standby)
  const from = walFileStart(`00000001${needed}`, own === undefined ? 0 : segmentSizeOf(own))
  const name = keepersOf(ctx.on(standby).settings, from, survey).find((one) => one !== upstream)
  if (own === undefined || name === undefined) return null
  const { settings } = ctx.on(name)
  const target = configuredUpstream(own)
  const isItsUpstream = target?.host === settings.address && target.port === settings.postgres.port
  return { name, isItsUpstream, isRunning: own.instance !== null }
}

/** Every node that can be asked. */
async function lookAtAll(ctx: StepContext, inventory: Inventory): Promise<Survey> {
  const all = await Promise.all(inventory.nodes.map(({ name }) => look(ctx, name).catch(() => null)))
  return all.filter((facts) => facts !== null)
}

/** A clone that is not complete yet has what it needs with it. */
function isBuilt({ dataDirectoryState, mark }: NodeFacts): boolean {
  return dataDirectoryState === 'instance' && (mark === null || mark.phase === 'done')
}

/** Up to here at least a stopped one has replayed. */
const replaysFrom = ({ control }: NodeFacts): Lsn | null =>
  control?.minRecoveryEndLsn ?? control?.redoLsn ?? null

async function segmentsOf(ctx: StepContext, node: NodeName): Promise<readonly SegmentAge[]> {
  const { sql } = await ask(ctx, node)
  return await sql.json(segmentsQuery)
}

interface Gone {
  readonly reached: Lsn
  readonly needed: string
  readonly oldest: string
  readonly keeper: Awaited<ReturnType<typeof keeperFor>>
}

function walRemoved(
  standby: NodeName,
  upstream: NodeName,
  { reached, needed, oldest, keeper }: Gone,
  archive: string,
): ReplctlError {
  const way =
    keeper?.isItsUpstream === true && keeper.isRunning
      ? `It gets it from ${keeper.name}: run this again when it has caught up there, or clone it anew: replctl add-standby ${standby} --reclone`
      : wayToWal(standby, keeper?.name ?? null, keeper?.isRunning === true)
  return new ReplctlError('wal-removed', `${upstream} no longer has the WAL that ${standby} needs`, {
    detail: `${standby} is at ${reached} and needs segment …${needed} next; the oldest on ${upstream} is …${oldest}, and ${archive}.`,
    hint: way,
    node: standby,
  })
}
