import { readFile } from 'node:fs/promises'
import { withCluster } from './lib/cluster.mjs'
import { median, replctl, rounds, time } from './lib/measure.mjs'
import { row } from './lib/report.mjs'

/** pgbench's scale: 100 is about 1.5 GB. */
const scale = Number(process.env.BENCH_SCALE ?? 100)
const home = '/var/lib/postgresql'
const bin = '/usr/lib/postgresql/15/bin'
const key = `${home}/.ssh/bench`

/**
 * `backup` to an archive host beside pg_basebackup by hand onto the same host (which proves nothing and packs nothing), and
 * `restore` beside a plain copy of the data directory over ssh; each until everything is on disk.
 */
export async function bench() {
  const archive = { host: 'pg3', dir: `${home}/archive` }
  await withCluster({ standbys: [], archive }, async ({ cluster, hosts }) => {
    const as = { user: 'postgres', timeoutMs: 3_600_000 }
    await hosts.exec('pg1', `${bin}/pgbench -i -q -s ${scale} postgres`, as)
    await hosts.exec('pg1', `psql -qc 'VACUUM' -c CHECKPOINT postgres`, as)
    await replctl(cluster, ['backup', '--from', 'pg1'])
    const conninfo = `host=${hosts.addressOf('pg1')} user=replicator passfile=${home}/.replctl/shop/pgpass`
    const identity = await readFile(hosts.identityFile, 'utf8')
    await hosts.writeFile('pg2', key, identity, { owner: 'postgres', mode: 0o600 })
    const plainBackup = async () => {
      await hosts.exec('pg3', `rm -rf ${home}/hand; sync`, as)
      return await time(async () => {
        await hosts.exec(
          'pg3',
          `${bin}/pg_basebackup -D ${home}/hand -Fp -Xs -c fast -d '${conninfo}' 2>/dev/null`,
          as,
        )
      })
    }
    const plainCopy = async () => {
      await hosts.exec('pg2', `rm -rf ${home}/hand; mkdir -m 700 ${home}/hand; sync`, as)
      const ssh = `ssh -i ${key} -o StrictHostKeyChecking=no -c aes128-gcm@openssh.com postgres@${hosts.addressOf('pg3')}`
      return await time(async () => {
        await hosts.exec(
          'pg2',
          `${ssh} tar -cf - -C ${home}/hand . 2>/dev/null | tar -xf - -C ${home}/hand && sync -f ${home}/hand`,
          as,
        )
      })
    }
    const restore = async () => {
      const dir = '/data/bench'
      await hosts.exec('pg2', `rm -rf ${home}/hand; sync`, as)
      const ms = await time(() => replctl(cluster, ['restore', 'pg2', '--data-dir', dir, '--to-immediate']))
      await hosts.exec('pg2', `${bin}/pg_ctl stop -s -m immediate -D ${dir}; rm -rf ${dir}; sync`, as)
      return ms
    }
    const figures = { plainBackup: [], backup: [], plainCopy: [], restore: [] }
    for (let round = 0; round < rounds; round++) {
      figures.plainBackup.push(await plainBackup())
      figures.backup.push(await time(() => replctl(cluster, ['backup', '--from', 'pg1'])))
      figures.plainCopy.push(await plainCopy())
      figures.restore.push(await restore())
    }
    const ms = Object.fromEntries(Object.entries(figures).map(([name, all]) => [name, median(all)]))
    row(
      `backup, scale ${scale}, proved`,
      ms.backup,
      'pg_basebackup by hand',
      ms.plainBackup,
      ms.backup / ms.plainBackup,
      null,
    )
    row(
      `restore, scale ${scale}, proved and recovered`,
      ms.restore,
      'plain copy over ssh',
      ms.plainCopy,
      ms.restore / ms.plainCopy,
      null,
    )
  })
}
