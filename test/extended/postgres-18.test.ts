import { afterAll, beforeAll, expect, it } from 'vitest'
import { describeOnPostgres18, installPostgres18 } from '../kit/postgres-18.ts'
import { PostgresServer } from '../kit/postgres-server.ts'
import { switchThereAndBack } from '../kit/switch-there-and-back.ts'
import { TestCluster } from '../kit/test-cluster.ts'
import { TestHosts } from '../kit/test-hosts.ts'

await describeOnPostgres18('PostgreSQL 18, beside 15 on every host', () => {
  let hosts: TestHosts
  let cluster: TestCluster
  const binDir = '/usr/lib/postgresql/18/bin'
  const patience = { timeoutMs: 600_000 }

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [{ name: 'pg1' }, { name: 'pg2', login: 'admin' }, { name: 'pg3' }, { name: 'backup1' }],
    })
    await Promise.all(hosts.names.map((host) => installPostgres18(hosts, host)))
    cluster = await TestCluster.create(hosts, {
      nodes: ['pg1', 'pg2', 'pg3'],
      inventory: {
        postgres: { version: 18, parameters: { summarize_wal: 'on' } },
        archive: { host: hosts.addressOf('backup1'), dir: '/var/lib/postgresql/archive' },
        ssh: { connect_timeout: '15s' },
      },
    })
  })
  afterAll(() => hosts?.destroy())

  const server = (host: string) => new PostgresServer(hosts, host, { binDir })
  const succeed = (...args: string[]) => cluster.succeed(args, patience)
  const problems = async () => (await succeed('status')).json.problems

  it('a cluster with an archive is built and proved; its page checksums are on', async () => {
    await succeed('init', 'primary')
    await succeed('add-standby', 'pg2', 'pg3')
    for (const host of ['pg1', 'pg2', 'pg3']) {
      expect(await server(host).sqlValue('SHOW server_version_num')).toMatch(/^18/)
      expect(await server(host).sqlValue('SHOW data_checksums')).toBe('on')
    }
    await server('pg1').sql('CREATE TABLE t AS SELECT generate_series(1, 100) AS n')
    expect((await succeed('verify')).json.result.archive).toMatchObject({ ok: true })
    expect((await succeed('add-standby', 'pg2', 'pg3')).json.changed).toBe(false)
    expect((await succeed('init', 'primary')).json.changed).toBe(false)
  })

  it('a switchover there and back loses nothing', async () => {
    await switchThereAndBack(cluster)
    expect(await problems()).toEqual([])
  })

  it('a full backup and an incremental one are taken, verified, and restored in a drill', async () => {
    const full = (await succeed('backup')).json.result
    const next = (await succeed('backup', '--incremental')).json.result
    expect([full.verified, next.verified]).toEqual([true, true])
    expect(next.bytes).toBeLessThan(full.bytes)
    const drill = (await succeed('restore', '--drill')).json.result
    expect(drill).toMatchObject({ backup: next.id })
  })

  it('a killed primary with WAL that reached nobody is replaced, rewound, and what only it had is saved', async () => {
    for (const sender of await hosts.pids('pg1', 'walsender')) await hosts.kill('pg1', sender, 'SIGSTOP')
    await server('pg1').sql('INSERT INTO t VALUES (101)')
    await server('pg1').kill9()
    for (const name of ['pg2', 'pg3'])
      await server(name).awaitSql('SELECT count(*) = 0 FROM pg_stat_wal_receiver')
    const { new_primary: primary, lost_bytes } = (await succeed('promote')).json.result
    expect(lost_bytes).toBeGreaterThan(0)
    const { method, salvage, discarded_bytes } = (await succeed('rejoin', 'pg1')).json.result
    expect([method, discarded_bytes]).toEqual(['rewind', lost_bytes])
    expect(salvage).toMatchObject({ complete: true, rows: 1 })
    expect(await hosts.readFile('pg1', `${salvage.dir}/rows.jsonl`)).toContain('"new":{"n":101}')
    await server(primary).awaitStreaming('shop_pg1')
    expect(await server('pg1').sqlValue('SELECT count(*) FROM t')).toBe(100)
    expect(await problems()).toEqual([])
  })
})
