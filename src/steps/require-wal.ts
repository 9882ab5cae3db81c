import type { Inventory } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { isReceivingFrom, receivedLsn } from '../cluster/topology.ts'
import { refused, type Step, satisfied, unknownUntil } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import type { Lsn } from '../postgres/lsn.ts'
import { defaultWalSegmentSizeBytes, walFileName } from '../postgres/wal-file.ts'
import { ask, look } from './look.ts'

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
      if (isReceivingFrom(inventory, facts, upstream)) return satisfied('it streams from there')
      const needed = receivedLsn(facts)
      if (needed === null) return satisfied('it has not replayed anything yet')
      if ((await look(ctx, upstream)).instance === null) return unknownUntil(`PostgreSQL runs on ${upstream}`)
      const { sql } = await ask(ctx, upstream)
      // The last 16 digits of a segment's name are its place in WAL, whatever its timeline.
      const oldest = await sql.value(`SELECT min(substr(name, 9)) FROM pg_ls_waldir()
        WHERE name ~ '^[0-9A-F]{24}$'`)
      const segmentBytes = Number(
        facts.instance.settings.wal_segment_size?.value ?? defaultWalSegmentSizeBytes,
      )
      const wanted = walFileName(1, needed, segmentBytes).slice(8)
      if (oldest === null || oldest <= wanted)
        return satisfied(`${upstream} has WAL from before ${needed} on`)
      if (inventory.archive !== undefined)
        return satisfied('it is no longer there: the archive has to give it')
      return refused(walRemoved(standby, upstream, needed, oldest))
    },
  }
}

function walRemoved(standby: NodeName, upstream: NodeName, needed: Lsn, oldest: string): ReplctlError {
  return new ReplctlError('wal-removed', `${upstream} no longer has the WAL that ${standby} needs`, {
    detail: `${standby} needs WAL from ${needed} on; the oldest segment on ${upstream} is …${oldest}, and there is no archive.`,
    hint: `Clone it again: replctl add-standby ${standby} --reclone`,
    node: standby,
  })
}
