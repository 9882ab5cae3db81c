import type { Inventory } from '../cluster/inventory.ts'
import type { Node } from '../node/node.ts'
import type { SqlSession } from '../node/sql-session.ts'

/**
 * Keeps the WAL of a standby that is about to be promoted for as long as replctl is connected, where it may still owe some to
 * the archive. A standby marks what it received as archived, and the checkpoint that follows the promotion removes
 * what is so marked: just what a dead primary had not archived any more. A temporary slot needs no clearing up, whatever
 * becomes of replctl. Without a free slot nothing is kept: then {@link archiveTimelineEnd} tells what is missing.
 * @param sql a session of its own ({@link openKeeper}), else the one that there is
 */
export async function keepWalForArchive(
  { archive }: Inventory,
  sql: SqlSession,
  options: { readonly timeoutMs?: number } = {},
): Promise<void> {
  if (archive?.mode === 'push') await sql.execute(keepStatement, options)
}

/**
 * The session whose slot will keep that WAL: a checkpoint ends it where that is more than max_slot_wal_keep_size, so it is none that
 * anything else needs. null where nothing has to be kept, or no other session can be had.
 */
export async function openKeeper(
  { archive }: Inventory,
  node: Pick<Node, 'openAside'>,
): Promise<SqlSession | null> {
  return archive?.mode === 'push' ? await node.openAside().catch(() => null) : null
}

// An error would release the temporary slots of the session: so none is asked for.
const keepStatement = `
SELECT pg_create_physical_replication_slot('replctl_promotion', true, true)
 WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = 'replctl_promotion')
   AND (SELECT count(*) FROM pg_replication_slots) < current_setting('max_replication_slots')::int`
