/** One failover, measured as a client sees it: from the start of the command to the first write that is accepted. */
import pg from 'pg'
import { withCluster } from './cluster.mjs'

/** Builds a cluster, loses its primary, and measures from the start of `act` to the first write on pg2. */
export async function failover(act, prepare, lose) {
  return await withCluster({ fence: { command: 'true' }, ssh: { connect_timeout: '1s' } }, async (it) => {
    const { hosts } = it
    await hosts.exec(
      'pg1',
      `psql -qc 'CREATE TABLE writes (at timestamptz)' -c 'CREATE ROLE bench SUPERUSER LOGIN' postgres`,
      { user: 'postgres' },
    )
    await prepare?.(it)
    return (await failOver(it, 'pg1', 'pg2', act, lose)).firstWriteMs
  })
}

/** Loses the primary `from`, runs `act`, which promotes `to`, and measures from its start: to the first write there, and to its end. */
export async function failOver(it, from, to, act, lose = () => it.cluster.server(from).kill9()) {
  const { hosts, cluster } = it
  await cluster.server(to).awaitCatchup(cluster.server(from))
  const client = () => new pg.Client({ host: hosts.addressOf(to), user: 'bench', database: 'postgres' })
  const [session, writer] = [client(), client()]
  for (const one of [session, writer]) {
    one.on('error', () => undefined)
    await one.connect()
  }
  await lose(it)
  const startedAt = performance.now()
  let endedAt
  const acting = Promise.resolve(act(it, session)).finally(() => (endedAt = performance.now()))
  acting.catch(() => undefined)
  let writtenAt
  for (let tries = 0; writtenAt === undefined && tries < 30_000; tries++) {
    try {
      await writer.query('INSERT INTO writes VALUES (now())')
      writtenAt = performance.now()
    } catch {
      if (endedAt !== undefined && tries > 20_000) break
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }
  await acting
  await session.end()
  await writer.end()
  if (writtenAt === undefined) throw new Error('no write was ever accepted')
  return { firstWriteMs: writtenAt - startedAt, wholeMs: endedAt - startedAt }
}
