import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { PostgresServer } from '../kit/postgres-server.ts'
import { TestCluster } from '../kit/test-cluster.ts'
import { TestHosts } from '../kit/test-hosts.ts'

const dataDir = '/var/lib/postgresql/15/shop'
const walDir = '/data/wal/shop'

describeOnHosts('P-54: other segment sizes, pg_wal on another disk, PGDATA that its group may read', () => {
  const patience = { timeoutMs: 600_000 }

  describe.each([1, 64])('segments of %i MB', (sizeMb) => {
    let hosts: TestHosts
    let cluster: TestCluster
    const shell = async (host: string, script: string, user = 'postgres') =>
      (await hosts.exec(host, script, { user })).stdout.trim()
    const layout = (host: string, dir = dataDir) =>
      shell(host, `readlink ${dir}/pg_wal; stat -c '%a %U' ${dir} ${dir}/PG_VERSION`)
    const expected = (wal = walDir) => `${wal}\n750 postgres\n640 postgres`
    const rows = (server: PostgresServer) => server.sqlValue('SELECT count(*) FROM t')

    beforeAll(async () => {
      hosts = await TestHosts.create({
        hosts: [{ name: 'pg1' }, { name: 'pg2', login: 'admin' }, { name: 'backup1' }],
      })
      const archive = {
        host: hosts.addressOf('backup1'),
        user: 'postgres',
        dir: '/var/lib/postgresql/archive',
      }
      const inventory = { archive, ssh: { connect_timeout: '15s' } }
      cluster = await TestCluster.create(hosts, { nodes: ['pg1', 'pg2'], inventory })
      // The standby's link is there beforehand at one size; at the other its folder alone, in the primary's place.
      for (const host of ['pg1', 'pg2']) {
        await shell(host, 'install -d -o postgres -m 700 /data/wal /data/wal/shop /data/elsewhere', 'root')
      }
      if (sizeMb === 1)
        await shell('pg2', `mkdir -p -m 700 ${dataDir} && ln -s /data/elsewhere ${dataDir}/pg_wal`)
      await cluster
        .server('pg1')
        .init([], [`--wal-segsize=${sizeMb}`, '--allow-group-access', `--waldir=${walDir}`])
      await cluster.server('pg1').start()
      await cluster.succeed(['init', 'primary', '--adopt', '--yes'], patience)
    })
    afterAll(() => hosts?.destroy())

    it('is adopted, cloned, archived, backed up, switched over, rejoined and restored, and stays as it is', async () => {
      const standbyWal = sizeMb === 1 ? '/data/elsewhere' : walDir
      await cluster.server('pg1').sql('CREATE TABLE t AS SELECT generate_series(1, 50000) AS n')
      await cluster.succeed(['add-standby', 'pg2'], patience)
      await cluster.server('pg1').awaitStreaming('shop_pg2')
      expect(await layout('pg1')).toBe(expected())
      expect(await layout('pg2')).toBe(expected(standbyWal))
      expect(
        await cluster
          .server('pg2')
          .sqlValue("SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size'"),
      ).toBe(sizeMb * 2 ** 20)
      const taken = await cluster.succeed(['backup'], patience)
      await cluster.server('pg1').sql('INSERT INTO t SELECT generate_series(1, 50000)')
      expect((await cluster.succeed(['verify'], patience)).json.result.archive).toMatchObject({ ok: true })
      expect((await cluster.replctl(['archive', 'check', '--json'], patience)).json).toMatchObject({
        ...{ exit_code: 0, problems: [], result: { segment_size_bytes: sizeMb * 2 ** 20 } },
      })
      const status = await cluster.succeed(['status'], patience)
      expect(status.json.result.archive).toMatchObject({ ok: true, last_backup: taken.json.result.id })
      expect(status.json.result.archive.lag_bytes).toBeLessThan(sizeMb * 2 ** 20)
      // An old primary that comes back keeps its link, whatever way it takes.
      await cluster.server('pg1').kill9()
      await cluster.succeed(['promote', 'pg2'], patience)
      await cluster.succeed(['rejoin', 'pg1'], patience)
      await cluster.server('pg2').awaitStreaming('shop_pg1')
      expect(await layout('pg1')).toBe(expected())
      await cluster.succeed(['add-standby', 'pg1', '--reclone'], patience)
      expect(await layout('pg1')).toBe(expected())
      expect(await rows(cluster.server('pg1'))).toBe(100_000)
      await cluster.succeed(['backup', 'verify'], patience)
      await shell('pg1', 'mkdir -m 700 /data/aside && mkdir /data/elsewhere/aside', 'root')
      await shell(
        'pg1',
        'chown postgres: /data/aside /data/elsewhere/aside && ln -s /data/elsewhere/aside /data/aside/pg_wal',
        'root',
      )
      await cluster.succeed(['restore', 'pg1', '--data-dir', '/data/aside', '--port', '5500'], patience)
      const restored = new PostgresServer(hosts, 'pg1', { dataDir: '/data/aside', port: 5500 })
      expect(await rows(restored)).toBe(100_000)
      expect(await layout('pg1', '/data/aside')).toBe(expected('/data/elsewhere/aside'))
      await restored.stop('immediate')
    })
  })
})
