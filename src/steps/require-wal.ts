import type { NodeFacts } from '../cluster/facts.ts'
import type { Inventory } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { isReceivingFrom, receivedLsn } from '../cluster/topology.ts'
import { refused, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import {
  findMissingSegment,
  firstForeignSegment,
  readSegmentAges,
  type SegmentAge,
} from '../node/missing-wal.ts'
import { segmentSizeOf } from '../node/own-wal.ts'
import type { Lsn } from '../postgres/lsn.ts'
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
 */
export function requireWalFor(standby: NodeName, upstream: NodeName, inventory: Inventory): Step {
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
      const { instance: leads } = await look(ctx, upstream)
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
      const oldest = there[0]?.[0]
      if (oldest === undefined || oldest <= needed) return satisfied(`${upstream} has WAL from …${oldest} on`)
      const gone = { reached, needed, oldest }
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

function walRemoved(
  standby: NodeName,
  upstream: NodeName,
  { reached, needed, oldest }: { readonly reached: Lsn; readonly needed: string; readonly oldest: string },
  archive: string,
): ReplctlError {
  return new ReplctlError('wal-removed', `${upstream} no longer has the WAL that ${standby} needs`, {
    detail: `${standby} is at ${reached} and needs segment …${needed} next; the oldest on ${upstream} is …${oldest}, and ${archive}.`,
    hint: `Clone it again: replctl add-standby ${standby} --reclone`,
    node: standby,
  })
}
