import { withCluster } from './lib/cluster.mjs'
import { failOver } from './lib/failover.mjs'
import { median, replctl, rounds, times } from './lib/measure.mjs'
import { row } from './lib/report.mjs'

/** The same commands with two and with sixteen standbys. */
export async function bench() {
  const [few, many] = [await measure(2), await measure(16)]
  row('status, 1 + 16', many.look, '1 + 2', few.look, many.look / few.look, 3)
  row('verify, 1 + 16', many.verify, '1 + 2', few.verify, many.verify / few.verify, 3)
  row('promote, 1 + 16', many.promoted, '1 + 2', few.promoted, many.promoted / few.promoted, 3)
  row('promote, 1 + 16, to the first write', many.led, '1 + 2', few.led, many.led / few.led, null)
}

async function measure(standbys) {
  const names = Array.from({ length: standbys + 1 }, (_, index) => `pg${index + 1}`)
  const parameters = { shared_buffers: '16MB', max_wal_senders: 40, max_replication_slots: 40 }
  return await withCluster({ names, parameters }, async (it) => {
    const { cluster, hosts } = it
    const look = median(await times(5, () => replctl(cluster, ['status'])))
    const verify = median(await times(5, () => replctl(cluster, ['verify'])))
    const table = ['-qc', 'CREATE TABLE writes (at timestamptz)', '-c', 'CREATE ROLE bench SUPERUSER LOGIN']
    await hosts.exec('pg1', ['psql', ...table, 'postgres'], { user: 'postgres' })
    const promoted = []
    for (let round = 0; round < rounds; round++) {
      const [from, to] = round % 2 === 0 ? ['pg1', 'pg2'] : ['pg2', 'pg1']
      promoted.push(await failOver(it, from, to, () => replctl(cluster, ['promote', to])))
      await replctl(cluster, ['rejoin', from])
    }
    console.error(`promote ${promoted.map(({ wholeMs }) => Math.round(wholeMs))}`)
    return {
      ...{ look, verify, promoted: median(promoted.map(({ wholeMs }) => wholeMs)) },
      led: median(promoted.map(({ firstWriteMs }) => firstWriteMs)),
    }
  })
}
