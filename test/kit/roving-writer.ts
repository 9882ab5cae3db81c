import { setTimeout as pause } from 'node:timers/promises'
import pg from 'pg'
import type { Hosts } from './hosts.ts'

/**
 * A client as an application has it: it knows all hosts, writes numbered rows into `ledger` where it is let, and keeps the
 * numbers whose commit was confirmed. As libpq does with several hosts and target_session_attrs=read-write it tries one
 * after the other, always from the first.
 */
export class RovingWriter {
  readonly confirmed: number[] = []
  /** Longest time between two confirmed writes, in ms. */
  longestGapMs = 0
  readonly #loop: Promise<void>
  #isOver = false

  constructor(
    readonly hosts: Hosts,
    readonly nodes: readonly string[],
    first = 1,
  ) {
    this.#loop = this.#write(first)
  }

  async stop(): Promise<readonly number[]> {
    this.#isOver = true
    await this.#loop
    return this.confirmed
  }

  async #write(first: number): Promise<void> {
    let client: pg.Client | undefined
    let last = performance.now()
    for (let id = first; !this.#isOver; id += 1) {
      try {
        client ??= await this.#connect()
        await client.query('INSERT INTO ledger VALUES ($1)', [id])
        this.confirmed.push(id)
        const now = performance.now()
        this.longestGapMs = Math.max(this.longestGapMs, now - last)
        last = now
        await pause(2)
      } catch {
        await client?.end().catch(() => undefined)
        client = undefined
        await pause(5)
      }
    }
    await client?.end().catch(() => undefined)
  }

  async #connect(): Promise<pg.Client> {
    for (const node of this.nodes) {
      const { port } = this.hosts.postgresOf(node)
      const client = new pg.Client({
        host: this.hosts.addressOf(node),
        port,
        user: 'postgres',
        database: 'postgres',
        connectionTimeoutMillis: 1_000,
        query_timeout: 5_000,
      })
      client.on('error', () => undefined)
      try {
        await client.connect()
        const { rows } = await client.query('SELECT pg_is_in_recovery() AS standby')
        if (rows[0]?.standby === false) return client
      } catch {
        // The next one.
      }
      await client.end().catch(() => undefined)
    }
    throw new Error('nobody accepts writes')
  }
}
