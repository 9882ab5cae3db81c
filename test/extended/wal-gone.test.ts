import { afterAll, beforeAll, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { type ReplctlResult, TestCluster, TestHosts } from '../kit/index.ts'

const archiveDir = '/var/lib/postgresql/archive'

describeOnHosts(
  'P-28: a standby that was away for long, and a WAL archive that no longer reaches back to it',
  () => {
    let hosts: TestHosts
    let cluster: TestCluster
    const patience = { timeoutMs: 300_000 }

    beforeAll(async () => {
      hosts = await TestHosts.create({
        hosts: [{ name: 'pg1' }, { name: 'pg2', login: 'admin' }, { name: 'backup1' }],
      })
      cluster = await TestCluster.create(hosts, {
        nodes: ['pg1', 'pg2'],
        inventory: {
          archive: { host: hosts.addressOf('backup1'), user: 'postgres', dir: archiveDir },
          postgres: { parameters: { wal_keep_size: 0 } },
          ssh: { connect_timeout: '10s' },
        },
      })
      await cluster.succeed(['init', 'primary', 'pg1'], patience)
      await cluster.succeed(['add-standby', 'pg2'], patience)
      const pg1 = cluster.server('pg1')
      await pg1.sql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS n')
      await cluster.server('pg2').awaitCatchup(pg1)
      // Away, while pg1 writes on, and keeps nothing for it.
      await cluster.server('pg2').stop()
      await pg1.awaitSql('SELECT count(*) = 0 FROM pg_stat_replication')
      await pg1.sql("SELECT pg_drop_replication_slot('shop_pg2')")
      for (let n = 0; n < 6; n += 1) await pg1.sql('INSERT INTO t VALUES (0); SELECT pg_switch_wal()')
      await pg1.awaitSql(
        'SELECT last_archived_wal >= pg_walfile_name(pg_current_wal_lsn() - 16777216) FROM pg_stat_archiver',
        patience,
      )
      await pg1.sql('CHECKPOINT')
    })
    afterAll(() => hosts?.destroy())

    const run = (...args: string[]) => cluster.replctl([...args, '--json'], patience)
    const told = ({ exitCode, json, stderr }: ReplctlResult) =>
      expect(
        {
          ...{ exit: exitCode, method: json?.result?.method },
          codes: json?.problems.map((one: { code: string }) => one.code),
        },
        `${JSON.stringify(json?.problems)}\n${stderr}`,
      )
    const place = async () => {
      const { stdout } = await hosts.exec('pg2', [
        ...['sh', '-c', 'LC_ALL=C "$(echo /usr/lib/postgresql/*/bin)/pg_controldata" "$1"', 'sh'],
        cluster.server('pg2').dataDir,
      ])
      return /Minimum recovery ending location: +(\S+)/.exec(stdout)?.[1] ?? ''
    }

    it('follows while the archive has what it needs, or does not answer; is cloned anew where that is gone', async () => {
      const pg1 = cluster.server('pg1')
      const oldest = String(
        await pg1.sqlValue('SELECT min(name) FROM pg_ls_waldir() WHERE length(name) = 24'),
      )
      const needed = String(await pg1.sqlValue(`SELECT pg_walfile_name('${await place()}')`))
      expect(oldest > needed).toBe(true)
      told(await run('rejoin', 'pg2', '--dry-run')).toMatchObject({ exit: 0, method: 'follow' })
      told(await run('add-standby', 'pg2', '--dry-run')).toMatchObject({ exit: 0 })
      // Expired, or pruned.
      const dir = `${archiveDir}/*/wal`
      await hosts.exec(
        'backup1',
        `for at in ${dir}/????????????????????????*; do
name=\${at##*/}; [ "$(printf '%s\\n' "\${name%%.*}" '${oldest}' | sort | head -n 1)" = '${oldest}' ] || rm "$at"; done`,
      )
      const gone = await run('rejoin', 'pg2', '--dry-run')
      told(gone).toMatchObject({ exit: 0, method: 'reclone' })
      expect(gone.json.result.reasons.join(' ')).toMatch(/the archive does not have 00000001[0-9A-F]{16}/)
      const refused = await run('add-standby', 'pg2')
      told(refused).toMatchObject({ exit: 3, codes: ['wal-removed'] })
      expect(refused.json.problems[0].hint).toContain('replctl add-standby pg2 --reclone')
      // Who does not answer does not say that it has nothing.
      await hosts.cutLink('pg2', 'backup1')
      told(await run('rejoin', 'pg2', '--dry-run')).toMatchObject({ method: 'follow' })
      await hosts.restoreLink('pg2', 'backup1')
      told(await run('rejoin', 'pg2')).toMatchObject({ exit: 0, method: 'reclone', codes: [] })
      await pg1.awaitStreaming('shop_pg2')
      expect(await cluster.server('pg2').sqlValue('SELECT count(*) FROM t')).toBe(1006)
      told(await run('rejoin', 'pg2')).toMatchObject({ exit: 0, method: 'none' })
    })
  },
)
