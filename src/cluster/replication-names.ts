import { createHash } from 'node:crypto'

/** Longest identifier and application_name that PostgreSQL keeps, in bytes (NAMEDATALEN - 1). */
const longestName = 63

/**
 * Name of the replication slot that serves a node, e.g. `shop_pg2`: PostgreSQL allows only a-z, 0-9 and _ in it.
 * Different nodes may get the same name (`a-b`, `a_b`, `A_b`); an inventory where they do is refused.
 * @see https://www.postgresql.org/docs/current/warm-standby.html#STREAMING-REPLICATION-SLOTS-MANIPULATION
 */
export function slotNameFor(cluster: string, node: string): string {
  const fullName = `${cluster}_${node}`
  return shorten(fullName.toLowerCase().replaceAll(/[^a-z0-9_]/g, '_'), fullName)
}

/** The application_name by which a node's upstream knows it, e.g. `shop_pg-2.example.com`; unlike a slot's it keeps all characters. */
export function applicationNameFor(cluster: string, node: string): string {
  const fullName = `${cluster}_${node}`
  return shorten(fullName, fullName)
}

/**
 * The application_name of the copy that becomes a node's data. Not the node's own: pg_basebackup reports what it has flushed of the WAL
 * meanwhile, and a primary whose commits wait for that name would wait for the end of a segment there, and take it for a confirmation.
 * @see src/bin/pg_basebackup/receivelog.c, ReceiveXlogStream
 */
export function cloneApplicationName(applicationName: string): string {
  const name = `clone:${applicationName}`
  return shorten(name, name)
}

/** The slot and the application_name of pg_receivewal on the archive host; no node may be called so then. */
export function archiveStreamNames(cluster: string): { readonly slot: string; readonly application: string } {
  return { slot: slotNameFor(cluster, 'archive'), application: applicationNameFor(cluster, 'archive') }
}

/** Cuts a name that PostgreSQL would cut, but so that two long names with the same beginning stay different. */
function shorten(name: string, fullName: string): string {
  if (name.length <= longestName) return name
  const hash = createHash('sha256').update(fullName).digest('hex').slice(0, 8)
  return `${name.slice(0, longestName - hash.length - 1)}_${hash}`
}
