import { withCluster } from './lib/cluster.mjs'
import { median, replctl, time, times } from './lib/measure.mjs'
import { row } from './lib/report.mjs'

/** The same commands with two and with sixteen standbys. */
export async function bench() {
  const [few, many] = [await measure(2), await measure(16)]
  row('status, 1 + 16', many.look, '1 + 2', few.look, many.look / few.look, 3)
  row('verify, 1 + 16', many.verify, '1 + 2', few.verify, many.verify / few.verify, 3)
  row('promote, 1 + 16', many.promoted, '1 + 2', few.promoted, many.promoted / few.promoted, 3)
}

async function measure(standbys) {
  const names = Array.from({ length: standbys + 1 }, (_, index) => `pg${index + 1}`)
  const parameters = { shared_buffers: '16MB', max_wal_senders: 40, max_replication_slots: 40 }
  return await withCluster({ names, parameters }, async ({ cluster }) => {
    const look = median(await times(5, () => replctl(cluster, ['status'])))
    const verify = median(await times(5, () => replctl(cluster, ['verify'])))
    await cluster.server('pg1').kill9()
    const promoted = await time(() => replctl(cluster, ['promote', 'pg2']))
    return { look, verify, promoted }
  })
}
