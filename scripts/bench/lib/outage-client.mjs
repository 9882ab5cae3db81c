/**
 * A client as an application has it, in a process of its own: it knows all hosts and writes every few ms to whichever accepts
 * writes, as libpq does with several hosts and target_session_attrs=read-write. Told `reset`, it forgets; told `report`, it
 * sends the longest time between two confirmed writes since then, in ms.
 */
import pg from 'pg'

const hosts = process.argv.slice(2)
let longest = 0
let last = performance.now()
let written = 0
let asked = null

process.on('message', (message) => {
  if (message === 'reset') {
    longest = 0
    written = 0
    process.send('ready')
  }
  // Only after a write: an outage that still lasts is not over.
  if (message === 'report') asked = written
})
process.on('disconnect', () => process.exit())

async function connect() {
  for (const host of hosts) {
    const client = new pg.Client({
      host,
      user: 'bench',
      database: 'postgres',
      connectionTimeoutMillis: 1_000,
    })
    client.on('error', () => undefined)
    try {
      await client.connect()
      const { rows } = await client.query('SELECT pg_is_in_recovery() AS standby')
      if (rows[0].standby === false) return client
    } catch {
      // The next one.
    }
    client.end().catch(() => undefined)
  }
  throw new Error('nobody accepts writes')
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
let client
for (;;) {
  try {
    client ??= await connect()
    await client.query('INSERT INTO writes VALUES (now())')
    const now = performance.now()
    longest = Math.max(longest, now - last)
    last = now
    written += 1
    if (asked !== null && written > asked + 3) {
      process.send(longest)
      asked = null
    }
    await pause(2)
  } catch {
    client?.end().catch(() => undefined)
    client = undefined
    await pause(2)
  }
}
