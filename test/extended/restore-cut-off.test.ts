import { afterAll, beforeAll, expect, it } from 'vitest'
import { awaitCondition } from '../kit/await-condition.ts'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { PostgresServer } from '../kit/postgres-server.ts'
import { TestCluster } from '../kit/test-cluster.ts'
import { TestHosts } from '../kit/test-hosts.ts'

describeOnHosts('a restore whose archive goes away', () => {
  let hosts: TestHosts
  let cluster: TestCluster
  const patience = { timeoutMs: 600_000 }
  const shell = async (host: string, script: string) =>
    (await hosts.exec(host, script, { user: 'postgres' })).stdout.trim()

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [{ name: 'pg1' }, { name: 'pg2', login: 'admin' }, { name: 'backup1' }],
    })
    const archive = { host: hosts.addressOf('backup1'), user: 'postgres', dir: '/var/lib/postgresql/archive' }
    const inventory = { archive, ssh: { connect_timeout: '15s' } }
    cluster = await TestCluster.create(hosts, { nodes: ['pg1', 'pg2'], inventory })
    await cluster.succeed(['init', 'primary'], patience)
    await cluster.succeed(['add-standby', 'pg2'], patience)
    const pg1 = cluster.server('pg1')
    await pg1.sql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS n')
    await cluster.succeed(['backup'], patience)
    await pg1.sql('INSERT INTO t SELECT generate_series(1, 1000)')
    const segment = await pg1.sqlValue('SELECT pg_walfile_name(pg_switch_wal())')
    await pg1.awaitSql(`SELECT last_archived_wal >= '${segment}' FROM pg_stat_archiver`, {
      timeoutMs: 120_000,
    })
  })
  afterAll(() => hosts?.destroy())

  it.each([
    ['while the backup is fetched', 'fetching', 'restore-failed'],
    ['while it recovers', 'fetched', 'archive-failing'],
  ] as const)('K12: %s, ends by itself, opens nothing, leaves nothing', async (_when, phase, code) => {
    if (phase === 'fetching') await hosts.limitLink('pg2', '8mbit')
    const args = ['restore', 'pg2', '--data-dir', '/data/cut', '--port', '5500', '--timeout', '30s', '--json']
    const running = cluster.replctl(args, patience)
    const isThere = `grep -q '"phase":"${phase}"' ~/.replctl/shop/restore-*/restore.json`
    const isBegun = phase === 'fetching' ? `${isThere} && [ "$(ls -A /data/cut)" ]` : isThere
    let hasEnded = false
    const ended = running.then((result) => {
      hasEnded = true
      return result
    })
    await awaitCondition(
      phase,
      async () =>
        hasEnded || (await hosts.exec('pg2', isBegun, { user: 'postgres', check: false })).exitCode === 0,
      { timeoutMs: 300_000, everyMs: 10 },
    )
    await hosts.cutLink('pg2', 'backup1')
    const cutAt = Date.now()
    const result = await ended
    // 30 s of silence, and what it takes to notice and to take everything back, on a busy machine too.
    expect(Date.now() - cutAt).toBeLessThan(180_000)
    expect([result.exitCode, result.json.problems[0].code, result.json.problems[0].node]).toEqual([
      5,
      code,
      'pg2',
    ])
    expect((await hosts.exec('pg2', 'test -e /data/cut', { check: false })).exitCode).toBe(1)
    expect(await hosts.pids('pg2', '/data/cut|archive-fetch')).toEqual([])
    expect(await shell('pg2', 'ls -A /tmp | grep replctl; :')).not.toContain('.replctl-')
    await hosts.restoreLink('pg2', 'backup1')
    await hosts.limitLink('pg2', undefined)
  })

  it('the same command succeeds once the archive is back', async () => {
    await cluster.succeed(['restore', 'pg2', '--data-dir', '/data/cut', '--port', '5500'], patience)
    const restored = new PostgresServer(hosts, 'pg2', { dataDir: '/data/cut', port: 5500 })
    expect(await restored.sqlValue('SELECT count(*) FROM t')).toBe(2000)
    await restored.stop('immediate')
  })
})
