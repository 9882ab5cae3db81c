import { withCluster } from './lib/cluster.mjs'
import { median, replctl, rounds, time } from './lib/measure.mjs'
import { row } from './lib/report.mjs'

const bin = '/usr/lib/postgresql/15/bin'
/** Transactions that only the old primary has. */
const diverged = Number(process.env.BENCH_DIVERGED ?? 4000)
const scales = (process.env.BENCH_REJOIN_SCALES ?? '20,200').split(',').map(Number)

/** `rejoin` by rewind, the salvage included: by the size of the database, and by that of the divergence. */
export async function bench() {
  const [small, large] = [await measure(scales[0], diverged), await measure(scales[1], diverged)]
  const more = await measure(scales[0], diverged * 4)
  row(
    `rejoin by rewind, ${diverged} transactions, scale ${scales[1]}`,
    large,
    `scale ${scales[0]}`,
    small,
    large / small,
    1.5,
  )
  row(
    `rejoin by rewind, scale ${scales[0]}, ${diverged * 4} transactions`,
    more,
    `${diverged}`,
    small,
    more / small,
    null,
  )
}

async function measure(scale, transactions) {
  return await withCluster({ names: ['pg1', 'pg2'], standbys: [] }, async ({ cluster, hosts }) => {
    await hosts.exec('pg1', `${bin}/pgbench -i -q -s ${scale} postgres`, {
      user: 'postgres',
      timeoutMs: 900_000,
    })
    await hosts.exec('pg1', 'psql -qc VACUUM -c CHECKPOINT postgres', {
      user: 'postgres',
      timeoutMs: 900_000,
    })
    await cluster.addStandbys(['pg2'])
    const took = []
    let [primary, standby] = ['pg1', 'pg2']
    for (let round = 0; round < rounds; round++) {
      await cluster.server(standby).awaitCatchup(cluster.server(primary), { timeoutMs: 300_000 })
      await hosts.cutLink(primary)
      await replctl(cluster, ['promote', standby, '--allow-split-brain'])
      await hosts.exec(primary, `${bin}/pgbench -n -c 2 -t ${transactions / 2} postgres`, {
        user: 'postgres',
        timeoutMs: 900_000,
      })
      await cluster.server(primary).kill9()
      await hosts.restoreLink(primary)
      took.push(await time(() => replctl(cluster, ['rejoin', primary])))
      ;[primary, standby] = [standby, primary]
    }
    return median(took)
  })
}
