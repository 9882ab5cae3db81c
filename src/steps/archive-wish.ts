import type { NodeFacts } from '../cluster/facts.ts'
import type { Inventory, NodeSettings } from '../cluster/inventory.ts'
import { stateDirectoryOf } from '../cluster/state-directory.ts'
import { archiveCommandLine, archiveFiles, standbyRestoreCommandLine } from '../postgres/archive.ts'

/** The value of archive_command on a node; undefined where the inventory has no archive, or WAL is streamed to it. */
export function archiveCommandOf(
  inventory: Inventory,
  node: NodeSettings,
  facts: NodeFacts,
): string | undefined {
  if (inventory.archive?.mode !== 'push') return undefined
  return archiveCommandLine(`${stateDirectoryOf(facts.home, node)}/${archiveFiles.push}`)
}

/** The value of restore_command on a standby; undefined where the inventory has no archive. */
export function restoreCommandOf(
  inventory: Inventory,
  node: NodeSettings,
  facts: NodeFacts,
): string | undefined {
  if (inventory.archive === undefined) return undefined
  return standbyRestoreCommandLine(`${stateDirectoryOf(facts.home, node)}/${archiveFiles.fetch}`)
}
