import type { NodeFacts } from '../cluster/facts.ts'
import type { Inventory } from '../cluster/inventory.ts'

/** The value of archive_command on a node; undefined where the inventory has no archive, or WAL is streamed to it. */
export function archiveCommandOf(inventory: Inventory, facts: NodeFacts): string | undefined {
  if (inventory.archive?.mode !== 'push') return undefined
  return `'${facts.home}/.replctl/${inventory.cluster}/archive-push' '%p' '%f'`
}

/** The value of restore_command on a standby; undefined where the inventory has no archive. */
export function restoreCommandOf(inventory: Inventory, facts: NodeFacts): string | undefined {
  if (inventory.archive === undefined) return undefined
  return `'${facts.home}/.replctl/${inventory.cluster}/archive-fetch' '%f' '%p'`
}
