import type { Inventory } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { isReceivingFrom, receivedLsn } from '../cluster/topology.ts'
import { refused, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import type { Lsn } from '../postgres/lsn.ts'
import { defaultWalSegmentSizeBytes, endOfLocalWal, walFileName } from '../postgres/wal-file.ts'
import { ask, look } from './look.ts'

/** Segments in pg_wal by their place in WAL (the last 16 digits of the name, whatever the timeline), with their age. */
const segmentsQuery = `SELECT coalesce(json_agg(json_build_array(place, modified) ORDER BY place), '[]') FROM (
  SELECT substr(name, 9) AS place, max(extract(epoch FROM modification)) AS modified FROM pg_ls_waldir()
  WHERE name ~ '^[0-9A-F]{24}$' GROUP BY 1) s`

/**
 * The upstream still has the WAL that a running standby asks for next, or the archive may have it: else the standby would
 * ask in vain for ever. It asks from the beginning of the segment in which its own WAL ends.
 */
export function requireWalFor(standby: NodeName, upstream: NodeName, inventory: Inventory): Step {
  return {
    title: `require the WAL on ${upstream} that it needs next`,
    node: standby,
    check: async (ctx) => {
      const facts = await look(ctx)
      if (facts.instance === null) return satisfied('it does not run: what it needs shows when it does')
      if (isReceivingFrom(inventory, facts.instance, upstream)) return satisfied('it streams from there')
      const reached = receivedLsn(facts)
      if (reached === null) return satisfied('it has not replayed anything yet')
      if ((await look(ctx, upstream)).instance === null) return unknownUntil(`PostgreSQL runs on ${upstream}`)
      const segmentBytes = Number(
        facts.instance.settings.wal_segment_size?.value ?? defaultWalSegmentSizeBytes,
      )
      const [own, there] = await Promise.all([segmentsOf(ctx, standby), segmentsOf(ctx, upstream)])
      const needed = endOfLocalWal(own, walFileName(1, reached, segmentBytes).slice(8), segmentBytes)
      const oldest = there[0]?.[0]
      if (oldest === undefined || oldest <= needed) return satisfied(`${upstream} has WAL from …${oldest} on`)
      if (inventory.archive !== undefined)
        return satisfied('it is no longer there: the archive has to give it')
      return refused(walRemoved(standby, upstream, { reached, needed, oldest }))
    },
  }
}

async function segmentsOf(ctx: StepContext, node: NodeName): Promise<readonly (readonly [string, number])[]> {
  const { sql } = await ask(ctx, node)
  return await sql.json(segmentsQuery)
}

function walRemoved(
  standby: NodeName,
  upstream: NodeName,
  { reached, needed, oldest }: { readonly reached: Lsn; readonly needed: string; readonly oldest: string },
): ReplctlError {
  return new ReplctlError('wal-removed', `${upstream} no longer has the WAL that ${standby} needs`, {
    detail: `${standby} is at ${reached} and needs segment …${needed} next; the oldest on ${upstream} is …${oldest}, and there is no archive.`,
    hint: `Clone it again: replctl add-standby ${standby} --reclone`,
    node: standby,
  })
}
