import { setTimeout as pause } from 'node:timers/promises'
import pg from 'pg'
import type { Hosts } from './hosts.ts'
import { describeFailure } from './run-process.ts'

/** Lets the control host log in to every database of a test cluster, for `WriterWatch` and `Client`. */
export const openToControlHost = { postgres: { hba: ['host all all samenet trust'] } }

/**
 * What no command that only looks may change: the running postmaster, identity, configuration and signal files, slots,
 * roles, schemas and tables, the data directory itself, and replctl's own files on the node.
 */
export async function fingerprint(hosts: Hosts, node: string, cluster = 'shop'): Promise<string> {
  const { dataDir, osUser, port } = hosts.postgresOf(node)
  const script = `
data=$1 port=$2 state="$HOME/.replctl/$3"
cd /
if [ -d "$data" ]; then
  ls -di "$data" | sed 's/ .*//'
  sed -n '1p;3p' "$data/postmaster.pid" 2>/dev/null
  for bin in /usr/lib/postgresql/*/bin; do :; done
  "$bin/pg_controldata" "$data" 2>/dev/null | grep -E "system identifier|TimeLineID:"
  find "$data" -maxdepth 1 -type f \\( -name '*.conf' -o -name '*.signal' \\) -exec sha256sum {} + | sort -k 2
fi
find "$state" -type f ! -name postgresql.log ! -name beat -exec sha256sum {} + 2>/dev/null | sort -k 2
psql -X -A -t -p "$port" -d postgres 2>/dev/null <<'SQL'
SELECT slot_name, slot_type FROM pg_replication_slots ORDER BY 1;
SELECT rolname, rolpassword FROM pg_authid ORDER BY 1;
SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_(temp|toast_temp)_' ORDER BY 1;
SELECT oid, relname FROM pg_class WHERE relnamespace >= 16384 OR relnamespace = 'public'::regnamespace ORDER BY 1;
SQL
# A holder that ends may take a moment for it.
[ ! -e "$state/lock" ] || { flock -w 3 "$state/lock" true && echo free || echo held; }
`
  const { stdout } = await hosts.exec(node, ['sh', '-c', script, 'sh', dataDir, String(port), cluster], {
    user: osUser,
    check: false,
  })
  return stdout
}

/** What an operation that was taken back leaves as it was: all but the list of operations that are over. */
export async function traceOf(hosts: Hosts, node: string): Promise<string> {
  return (await fingerprint(hosts, node)).replace(/^.*\/ended\n/m, '')
}

/** The fingerprints of several nodes, to be compared before and after. */
export async function fingerprints(
  hosts: Hosts,
  nodes: readonly string[] = hosts.names,
): Promise<Readonly<Record<string, string>>> {
  return Object.fromEntries(
    await Promise.all(nodes.map(async (node) => [node, await fingerprint(hosts, node)])),
  )
}

/** What psql says of an instance that is stopped, or neither up nor down: it takes no writes at this moment. */
const notServing =
  /No such file or directory|Connection refused|the database system is |server closed the connection unexpectedly|terminating connection due to administrator command/

/**
 * Nodes whose instance is out of recovery now; looked at on the host itself, not over the network.
 * @throws {Error} if an instance can neither be asked nor is seen to be down
 */
export async function writersNow(hosts: Hosts, nodes: readonly string[] = hosts.names): Promise<string[]> {
  const answers = await Promise.all(
    nodes.map(async (node) => {
      if (!hosts.isOn(node)) return []
      const { port, osUser } = hosts.postgresOf(node)
      const query = 'SELECT pg_is_in_recovery()'
      const args = ['psql', '-X', '-A', '-t', '-p', String(port), '-d', 'postgres', '-c', query]
      // A standby answers nobody whose transactions are serializable by default.
      const PGOPTIONS = '-c default_transaction_isolation=read\\ committed'
      const env = { PGOPTIONS, PGCONNECT_TIMEOUT: '10' }
      const run = await hosts.exec(node, args, { user: osUser, env, check: false, timeoutMs: 30_000 })
      if (run.exitCode !== 0 && !notServing.test(run.stderr))
        throw new Error(describeFailure(`${node}: ${query}`, run))
      return run.stdout.trim() === 'f' ? [node] : []
    }),
  )
  return answers.flat()
}

/** A time during which a node was seen out of recovery, in every sample. */
interface Reign {
  readonly node: string
  readonly from: number
  to: number
}

/**
 * Asks every node all the time whether it is out of recovery. Two reigns that overlap are two writers; the samples of
 * one node follow each other, so that what it says is sure for all the time between the first and the last of a reign.
 */
export class WriterWatch {
  readonly #reigns: Reign[] = []
  readonly #loops: Promise<void>[]
  #isOver = false
  samples = 0

  constructor(hosts: Hosts, nodes: readonly string[] = hosts.names) {
    this.#loops = nodes.map((node) => this.#watch(hosts, node))
  }

  /**
   * Ends the watch; gives each overlap it saw, in words: none is what promise 1 says.
   * @throws {Error} if no node ever answered: it watched nothing
   */
  async stop(): Promise<string[]> {
    this.#isOver = true
    await Promise.all(this.#loops)
    if (this.samples === 0) throw new Error('the watch for writers was answered by no node')
    return this.#reigns.flatMap((a, index) =>
      this.#reigns.slice(index + 1).flatMap((b) => {
        const overlap = Math.min(a.to, b.to) - Math.max(a.from, b.from)
        return a.node !== b.node && overlap > 0
          ? [`${a.node} and ${b.node} accepted writes together for ${Math.round(overlap)} ms`]
          : []
      }),
    )
  }

  async #watch(hosts: Hosts, node: string): Promise<void> {
    let reign: Reign | undefined
    let client: pg.Client | undefined
    while (!this.#isOver) {
      const before = performance.now()
      let isWriter = false
      try {
        client ??= await connect(hosts, node)
        const { rows } = await client.query('SELECT pg_is_in_recovery() AS standby')
        isWriter = rows[0]?.standby === false
        this.samples += 1
      } catch {
        await client?.end().catch(() => undefined)
        client = undefined
      }
      if (!isWriter) reign = undefined
      else if (reign) reign.to = before
      else {
        reign = { node, from: performance.now(), to: before }
        this.#reigns.push(reign)
      }
      await pause(15)
    }
    await client?.end().catch(() => undefined)
  }
}

/** A client that inserts numbered rows into `ledger` on one node and keeps the numbers whose commit was confirmed. */
export class Client {
  readonly confirmed: number[] = []
  readonly #loop: Promise<void>
  #isOver = false

  constructor(
    hosts: Hosts,
    readonly node: string,
    first = 1,
  ) {
    this.#loop = this.#write(hosts, first)
  }

  async stop(): Promise<readonly number[]> {
    this.#isOver = true
    await this.#loop
    return this.confirmed
  }

  async #write(hosts: Hosts, first: number): Promise<void> {
    let client: pg.Client | undefined
    for (let id = first; !this.#isOver; id += 1) {
      try {
        client ??= await connect(hosts, this.node)
        await client.query('INSERT INTO ledger VALUES ($1)', [id])
        this.confirmed.push(id)
      } catch {
        await client?.end().catch(() => undefined)
        client = undefined
        await pause(20)
      }
    }
    await client?.end().catch(() => undefined)
  }
}

async function connect(hosts: Hosts, node: string): Promise<pg.Client> {
  const { port } = hosts.postgresOf(node)
  const client = new pg.Client({
    host: hosts.addressOf(node),
    port,
    user: 'postgres',
    database: 'postgres',
    connectionTimeoutMillis: 1_000,
    query_timeout: 1_000,
  })
  client.on('error', () => undefined)
  await client.connect()
  return client
}
