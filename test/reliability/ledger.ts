import { setTimeout as pause } from 'node:timers/promises'
import pg from 'pg'
import type { Hosts } from '../kit/hosts.ts'

/** One attempt to write a row, and what the client was told. */
export interface Entry {
  readonly id: number
  /** Node that took it, or was asked to. */
  readonly node: string
  /** `unknown`: the connection ended while the commit was on its way; the row may be there or not. */
  readonly outcome: 'confirmed' | 'failed' | 'unknown'
  /** Milliseconds since the ledger began. */
  readonly at: number
}

/** The table that clients of a ledger write to. */
export const ledgerTable = 'CREATE TABLE IF NOT EXISTS ledger (id bigint PRIMARY KEY, client int, text text)'

const idsPerClient = 1_000_000_000

/**
 * Clients as applications are: each has all hosts in its connection string, takes the one that accepts writes
 * (target_session_attrs=read-write), inserts numbered rows, and keeps for each row what it was told.
 */
export class Ledger {
  readonly entries: Entry[] = []
  readonly #startedAt = performance.now()
  readonly #loops: Promise<void>[]
  #isOver = false

  constructor(hosts: Hosts, options: { readonly clients?: number; readonly everyMs?: number } = {}) {
    const { clients = 3, everyMs = 5 } = options
    this.#loops = Array.from({ length: clients }, (_, index) => this.#write(hosts, index + 1, everyMs))
  }

  /** Rows that a client was told are committed. */
  get confirmed(): readonly Entry[] {
    return this.entries.filter((entry) => entry.outcome === 'confirmed')
  }

  async stop(): Promise<readonly Entry[]> {
    this.#isOver = true
    await Promise.all(this.#loops)
    return this.entries
  }

  async #write(hosts: Hosts, number: number, everyMs: number): Promise<void> {
    let link: { readonly client: pg.Client; readonly node: string } | null = null
    for (let id = number * idsPerClient; !this.#isOver; ) {
      link ??= await connectToPrimary(hosts)
      if (link === null) {
        await pause(25)
        continue
      }
      id += 1
      const outcome = await insert(link.client, id, number)
      this.entries.push({ id, node: link.node, outcome, at: Math.round(performance.now() - this.#startedAt) })
      if (outcome !== 'confirmed') {
        await closeQuietly(link.client)
        link = null
      }
      await pause(everyMs)
    }
    if (link !== null) await closeQuietly(link.client)
  }
}

async function insert(client: pg.Client, id: number, number: number): Promise<Entry['outcome']> {
  try {
    await client.query('INSERT INTO ledger VALUES ($1, $2, $3)', [id, number, `row ${id}`])
    return 'confirmed'
  } catch (error) {
    // The server's own refusal is sure; a connection that ended is not, nor is 57P01, which may come after the commit.
    const code = (error as { code?: string }).code ?? ''
    return code === '25006' || code === '42P01' ? 'failed' : 'unknown'
  }
}

async function connectToPrimary(hosts: Hosts): Promise<{ client: pg.Client; node: string } | null> {
  const links = await Promise.all(hosts.names.map((node) => connectIfPrimary(hosts, node)))
  const found = links.filter((link) => link !== null)
  await Promise.all(found.slice(1).map(({ client }) => closeQuietly(client)))
  return found[0] ?? null
}

async function connectIfPrimary(
  hosts: Hosts,
  node: string,
): Promise<{ client: pg.Client; node: string } | null> {
  const client = new pg.Client({
    host: hosts.addressOf(node),
    port: hosts.postgresOf(node).port,
    user: 'postgres',
    database: 'postgres',
    connectionTimeoutMillis: 800,
    query_timeout: 4_000,
  })
  client.on('error', () => undefined)
  try {
    await client.connect()
    const { rows } = await client.query('SELECT pg_is_in_recovery() AS standby')
    if (rows[0]?.standby === false) return { client, node }
  } catch {
    // Down, starting, or out of reach.
  }
  await closeQuietly(client)
  return null
}

async function closeQuietly(client: pg.Client): Promise<void> {
  await Promise.race([client.end().catch(() => undefined), pause(300)])
}
