import { withCluster } from './lib/cluster.mjs'
import { median, replctl, rounds, time } from './lib/measure.mjs'
import { row } from './lib/report.mjs'

/** pgbench's scale. */
const scale = Number(process.env.BENCH_SCALE ?? 100)
const home = '/var/lib/postgresql'
const bin = '/usr/lib/postgresql/15/bin'

/** `add-standby` beside `pg_basebackup` by hand, both until everything is on disk. */
export async function bench() {
  await withCluster({ standbys: [] }, async ({ cluster, hosts }) => {
    await hosts.exec('pg1', `${bin}/pgbench -i -q -s ${scale} postgres`, { user: 'postgres' })
    await hosts.exec('pg1', `psql -qc 'VACUUM' -c CHECKPOINT postgres`, { user: 'postgres' })
    await cluster.addStandbys(['pg2'])
    const passfile = `${home}/hand-pgpass`
    const { stdout: password } = await hosts.exec('pg2', `cat ${home}/.replctl/shop/pgpass`, {
      user: 'postgres',
    })
    for (const name of ['pg2', 'pg3'])
      await hosts.writeFile(name, passfile, password, { owner: 'postgres', mode: 0o600 })
    const conninfo = `host=${hosts.addressOf('pg1')} user=replicator passfile=${passfile}`
    const byHand = async (...names) => {
      const onEach = (script) =>
        Promise.all(names.map((name) => hosts.exec(name, script, { user: 'postgres' })))
      await onEach(`rm -rf ${home}/15/hand; sync`)
      const copy = `${bin}/pg_basebackup -D ${home}/15/hand -Fp -Xs -P -R -c fast -d '${conninfo}' 2>/dev/null`
      const ms = await time(async () => void (await onEach(copy)))
      await onEach(`rm -rf ${home}/15/hand; sync`)
      return ms
    }
    const ours = async (...nodes) => {
      for (const node of nodes) await remove(cluster, node)
      await hosts.exec('pg1', 'sync', {})
      return await time(() => replctl(cluster, ['add-standby', ...nodes]))
    }
    const [hand, handTwo, one, two] = [[], [], [], []]
    for (let round = 0; round < rounds; round++) {
      hand.push(await byHand('pg2'))
      handTwo.push(await byHand('pg2', 'pg3'))
      one.push(await ours('pg2'))
      two.push(await ours('pg2', 'pg3'))
      await remove(cluster, 'pg3')
    }
    const [byHandMs, handTwoMs, oneMs, twoMs] = [hand, handTwo, one, two].map(median)
    console.error(
      `by hand ${hand.map(Math.round)}; two ${handTwo.map(Math.round)}; own ${one.map(Math.round)}; two ${two.map(Math.round)}`,
    )
    row(`add-standby, scale ${scale}`, oneMs, 'pg_basebackup by hand', byHandMs, oneMs / byHandMs, 0.95)
    row('add-standby of two at once', twoMs, 'of one', oneMs, twoMs / oneMs, 1.5)
    // What the machine leaves to two copies at once, be they whose they may.
    row('pg_basebackup by hand, two at once', handTwoMs, 'one', byHandMs, handTwoMs / byHandMs, null)
    row('add-standby of two at once', twoMs, 'pg_basebackup by hand', handTwoMs, twoMs / handTwoMs, null)
    await hosts.limitLink('pg1', '200mbit')
    const slowHand = await byHand('pg2')
    const slowOwn = await ours('pg2')
    row('add-standby at 200 Mbit/s', slowOwn, 'pg_basebackup by hand', slowHand, slowOwn / slowHand, 0.6)
    await hosts.limitLink('pg1', undefined)
  })
}

async function remove(cluster, node) {
  const result = await cluster.replctl(['remove-standby', node, '--purge'])
  if (result.exitCode !== 0 && !/empty|not built/.test(result.stderr))
    throw new Error(result.stderr.slice(0, 500))
}
