import { failover } from './lib/failover.mjs'
import { median, replctl, rounds } from './lib/measure.mjs'
import { hasRepmgr, repmgrCommand, setUpRepmgr } from './lib/repmgr.mjs'
import { row } from './lib/report.mjs'

/** After the primary's PostgreSQL was killed: from the start of the command to the first accepted write. */
export async function bench() {
  const [own, hand, repmgr] = [[], [], []]
  for (let round = 0; round < rounds; round++) {
    own.push(await failover(async ({ cluster }) => await replctl(cluster, ['promote', 'pg2'])))
    hand.push(await failover(async (_, session) => await session.query('SELECT pg_promote(false)')))
    if (!hasRepmgr()) continue
    const repmgrPromotes = async ({ hosts }) =>
      await hosts.exec('pg2', `${repmgrCommand} standby promote`, { user: 'postgres' })
    repmgr.push(await failover(repmgrPromotes, setUpRepmgr))
  }
  const [a, b] = [median(own), median(hand)]
  row('promote, PostgreSQL killed', a, 'pg_promote() in an open session', b, a - b, 700, 'ms more')
  if (repmgr.length === 0) return
  const c = median(repmgr)
  row('promote, PostgreSQL killed', a, 'repmgr standby promote', c, a / c, null)
}
