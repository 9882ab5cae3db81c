import type { NodeSettings } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { pending, type Step } from '../engine/step.ts'
import type { SqlSession } from '../node/sql-session.ts'
import { quoteLiteral } from '../postgres/sql.ts'
import { ensureReplicationSlot } from './replication-slots.ts'

/** The slots of those who will receive from a standby that is about to be promoted. */
export interface SlotsBeforePromotion {
  /** Makes those that are missing, in the promotion's own session and by one statement: that is time without a primary. */
  make(sql: SqlSession): Promise<void>
  /** See to each of them once it leads: tell the ones that were made, and make what could not be. */
  readonly steps: readonly Step[]
}

/**
 * A slot that a standby makes keeps its WAL from the last restartpoint on; one that is made after the promotion only from the
 * fork on, because PostgreSQL begins a checkpoint there. That one would remove what a standby needs that is away or lags. What
 * comes in between is behind the point of no return: nothing of it is to be taken back.
 */
export function slotsBeforePromotion(
  node: NodeName,
  followers: readonly Pick<NodeSettings, 'name' | 'slotName'>[],
): SlotsBeforePromotion {
  const made = new Set<string>()
  return {
    make: async (sql) => {
      if (followers.length === 0) return
      try {
        const names = await sql.json<string[]>(missingSlotsStatement(followers.map((one) => one.slotName)))
        for (const name of names) made.add(name)
      } catch (thrown) {
        // The promotion does not depend on them, and the steps behind it say what keeps one from being made.
        if (!sql.isOpen) throw thrown
      }
    },
    steps: followers.map(({ name, slotName }) => {
      const step = ensureReplicationSlot(node, slotName, name)
      let isTelling = false
      return {
        ...step,
        check: async (ctx) => {
          const finding = await step.check(ctx)
          isTelling = finding.is === 'satisfied' && made.delete(slotName)
          return isTelling ? pending('it was made right before the promotion') : finding
        },
        apply: async (ctx) => {
          if (!isTelling) await step.apply?.(ctx)
        },
      }
    }),
  }
}

/** Makes those of these slots that are missing, as far as there is room; answers with their names. An error would keep none. */
function missingSlotsStatement(names: readonly string[]): string {
  return `
SELECT coalesce(json_agg((pg_create_physical_replication_slot(m.name, true)).slot_name), '[]')
  FROM (SELECT w.name FROM unnest(ARRAY[${names.map(quoteLiteral).join(', ')}]::name[]) w(name)
         WHERE w.name NOT IN (SELECT slot_name FROM pg_replication_slots)
         LIMIT greatest(current_setting('max_replication_slots')::int
           - (SELECT count(*) FROM pg_replication_slots), 0)) m`
}
