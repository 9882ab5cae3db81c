export { ensureManagedBlock, readManagedBlock, removeManagedBlock } from './hba-block.ts'

/** One rule of pg_hba.conf. `all` and `replication` are keywords; any other database or user is taken literally. */
export interface HbaRule {
  readonly type: 'local' | 'host' | 'hostssl' | 'hostnossl' | 'hostgssenc' | 'hostnogssenc'
  readonly database: string
  readonly user: string
  /** As `hbaAddress` makes it, e.g. `10.0.0.11/32`; undefined with `local`. */
  readonly address?: string | undefined
  readonly method: string
}

/** e.g. `host    all             shop            10.0.0.0/8              scram-sha-256`. */
export function hbaLine({ type, database, user, address, method }: HbaRule): string {
  const fields = [type, quoteHbaField(database, keywords.database), quoteHbaField(user, keywords.user)]
  return alignFields([...fields, ...(address ? [quoteHbaField(address, keywords.address)] : []), method])
}

/** In columns, as the packaged pg_hba.conf has them; the method stands last. */
function alignFields(fields: readonly string[]): string {
  const widths = [7, 15, 15, 23]
  return fields
    .map((field, index) => (index === fields.length - 1 ? field : field.padEnd(widths[index] ?? 0)))
    .join(' ')
}

const keywords = {
  database: new Set(['all', 'replication']),
  user: new Set(['all']),
  address: new Set(['all', 'samehost', 'samenet']),
}

/**
 * Quotes one field of pg_hba.conf where it needs it, so that it loses any special meaning: `my db` → `"my db"`,
 * `all` → `"all"` (a name, no longer the keyword), `+dba` → `"+dba"` (a name, no longer a group).
 * Words of `kept` stay keywords.
 * @throws {RangeError} if it holds a line break or NUL, which no field can
 * @see https://www.postgresql.org/docs/current/auth-pg-hba-conf.html
 */
export function quoteHbaField(text: string, kept: ReadonlySet<string> = new Set()): string {
  if (/[\n\r\0]/.test(text)) throw new RangeError('a field of pg_hba.conf cannot hold a line break')
  if (kept.has(text)) return text
  const special = /^(all|replication|sameuser|samerole|samegroup|samehost|samenet)$/i.test(text)
  return !special && /^[\w.:-][\w.:/-]*$/.test(text) ? text : `"${text.replaceAll('"', '""')}"`
}

/**
 * What to write for a node's address: an IPv4 literal as /32, an IPv6 literal as /128, CIDR as it is.
 *
 * A host name becomes `all` (and `localhost` becomes `samehost`): PostgreSQL matches a name only if the client's
 * address resolves back to it and forth again, at every connection. Most networks lack such reverse entries, and a
 * slow or dead resolver would stop replication. The password still guards the line.
 */
export function hbaAddress(address: string): string {
  const bare = address.replace(/^\[(.*)\]$/, '$1').replace(/%[\w.-]+$/, '')
  if (/^[\d.]+\/\d+$|^[\da-f:.]*:[\da-f:.]*\/\d+$/i.test(bare)) return bare
  if (/^\d{1,3}(\.\d{1,3}){3}$/.test(bare)) return `${bare}/32`
  if (/^[\da-f:.]*:[\da-f:.]*$/i.test(bare)) return `${bare}/128`
  return bare.toLowerCase() === 'localhost' ? 'samehost' : 'all'
}

export interface ReplicationAccess {
  /** What the nodes are reached by: literals or host names. */
  readonly addresses: readonly string[]
  /** The replication role. */
  readonly user: string
  /** A database that it may log in to as well, to copy logical slots (17 and newer). */
  readonly database?: string | undefined
}

/** One line for each address from which standbys may stream; equal lines once. */
export function replicationHbaLines({ addresses, user, database }: ReplicationAccess): readonly string[] {
  // The role is always taken as a name: one called "all" must not open replication to every role.
  const databases = ['replication', ...(database === undefined ? [] : [quoteHbaField(database)])]
  const lines = databases.flatMap((name) =>
    addresses.map((address) =>
      alignFields(['host', name, quoteHbaField(user), hbaAddress(address), 'scram-sha-256']),
    ),
  )
  return [...new Set(lines)]
}
