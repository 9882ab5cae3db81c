import { afterAll, beforeAll, expect, it } from 'vitest'
import { awaitCondition } from '../kit/await-condition.ts'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { fingerprint } from '../kit/fingerprint.ts'
import { TestCluster } from '../kit/test-cluster.ts'
import { TestHosts } from '../kit/test-hosts.ts'

const stateDir = '/var/lib/postgresql/.replctl/shop'
const dataDir = '/var/lib/postgresql/15/shop'
const binDir = '/usr/lib/postgresql/15/bin'

describeOnHosts('a clone onto a host that is not ready for it', () => {
  let hosts: TestHosts
  let cluster: TestCluster

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [{ name: 'pg1' }, { name: 'pg2' }, { name: 'pg3', smallDisk: { path: '/data', sizeMb: 220 } }],
    })
    cluster = await TestCluster.create(hosts, { inventory: { nodes: { pg3: { data_dir: '/data/pg' } } } })
    await cluster.init()
    await cluster
      .server('pg1')
      .sql("CREATE TABLE t AS SELECT n, repeat('x', 500) AS x FROM generate_series(1, 60000) n")
  })
  afterAll(() => hosts?.destroy())

  it('P-53: without pg_basebackup it is refused before anything is done', async () => {
    const before = await fingerprint(cluster.server('pg1'))
    await hosts.exec('pg2', ['mv', `${binDir}/pg_basebackup`, '/root/pg_basebackup'])
    const refused = await cluster.replctl(['add-standby', 'pg2', '--json'])
    await hosts.exec('pg2', ['mv', '/root/pg_basebackup', `${binDir}/pg_basebackup`])
    expect([refused.exitCode, refused.json.problems[0].code]).toEqual([3, 'binaries-missing'])
    expect(refused.json.problems[0].message).toContain('pg_basebackup')
    expect(await fingerprint(cluster.server('pg1'))).toEqual(before)
  })

  it('a disk that is too small is found before the copy, with the sizes', async () => {
    const before = await fingerprint(cluster.server('pg1'))
    await hosts.fillDisk('pg3', '/data')
    const refused = await cluster.replctl(['add-standby', 'pg3', '--json'])
    expect([refused.exitCode, refused.json.problems[0].code]).toEqual([3, 'disk-full'])
    expect(refused.json.problems[0].message + refused.json.problems[0].detail).toMatch(/\d+ MiB are needed/)
    expect(await fingerprint(cluster.server('pg1'))).toEqual(before)
    await hosts.freeDisk('pg3', '/data')
  })

  it('a disk that becomes full in the middle of the copy: said so, and nothing is left of the clone', async () => {
    await hosts.limitLink('pg3', '20mbit')
    const started = cluster.startReplctl(['add-standby', 'pg3', '--json'])
    await awaitCondition(
      'files arrive',
      async () => {
        return (await hosts.exec('pg3', 'ls /data/pg/base', { check: false })).exitCode === 0
      },
      { timeoutMs: 60_000 },
    )
    await hosts.fillDisk('pg3', '/data')
    await hosts.limitLink('pg3', undefined)
    const { exitCode } = await started.finished
    expect([exitCode, JSON.parse(started.stdout()).problems[0].code], started.stdout()).toEqual([
      5,
      'disk-full',
    ])
    expect((await hosts.exec('pg3', 'ls -A /data | grep -v lost+found')).stdout).toBe('.filler\n')
    expect(await cluster.server('pg1').sql('SELECT slot_name FROM pg_replication_slots')).toEqual([])
    await hosts.freeDisk('pg3', '/data')
  })

  it('a new clone that has no room beside the old data is refused, and the standby streams on', async () => {
    const pg1 = cluster.server('pg1')
    await pg1.sql("CREATE TABLE u AS SELECT n, repeat('x', 500) AS x FROM generate_series(1, 60000) n")
    await cluster.succeed(['add-standby', 'pg3'])
    const startedAt = () => cluster.server('pg3').sqlValue('SELECT pg_postmaster_start_time()::text')
    const before = await startedAt()
    const refused = await cluster.replctl(['add-standby', 'pg3', '--reclone', '--json'])
    const [problem] = refused.json.problems
    expect([refused.exitCode, problem.code], problem.message).toEqual([3, 'disk-full'])
    expect(problem.detail).toMatch(/\d+ MiB are needed and \d+ MiB are free where \/data\/pg is/)
    expect(problem.hint).toContain('replctl remove-standby pg3 --purge, then replctl add-standby pg3')
    expect(await startedAt()).toBe(before)
    await pg1.awaitStreaming('shop_pg3')
    // As the hint says.
    await cluster.succeed(['remove-standby', 'pg3', '--purge'])
    await cluster.succeed(['add-standby', 'pg3'])
    await cluster.succeed(['remove-standby', 'pg3', '--purge'])
    await pg1.sql('DROP TABLE u')
  })

  it('P-07: a tablespace finds no folder, or one with files in it: refused before the copy', async () => {
    const pg1 = cluster.server('pg1')
    await hosts.exec('pg1', 'install -d -o postgres -g postgres -m 700 /srv/ts-a')
    await pg1.sql("CREATE TABLESPACE a LOCATION '/srv/ts-a'")
    await pg1.sql(
      "CREATE TABLE in_a TABLESPACE a AS SELECT n, repeat('x', 500) AS x FROM generate_series(1, 30000) n",
    )
    const before = await fingerprint(pg1)
    const missing = await cluster.replctl(['add-standby', 'pg2', '--json'])
    expect([missing.exitCode, missing.json.problems[0].code]).toEqual([3, 'tablespace-unmapped'])
    expect(missing.json.problems[0].message + missing.json.problems[0].detail).toContain(
      '/srv/ts-a is missing',
    )
    await hosts.exec('pg2', 'install -d -o postgres -g postgres -m 700 /srv/ts-a; echo keep >/srv/ts-a/notes')
    const full = await cluster.replctl(['add-standby', 'pg2', '--json'])
    expect([full.exitCode, full.json.problems[0].code]).toEqual([3, 'tablespace-unmapped'])
    expect(await hosts.readFile('pg2', '/srv/ts-a/notes')).toBe('keep\n')
    expect((await hosts.exec('pg2', ['test', '-e', dataDir], { check: false })).exitCode).toBe(1)
    expect(await fingerprint(pg1)).toEqual(before)
    await hosts.exec('pg2', ['rm', '/srv/ts-a/notes'])
  })

  it('P-07: a clone with tablespaces that was killed is begun anew, taken back or purged, tablespaces and WAL on another disk included', async () => {
    const link = `${dataDir}/pg_wal`
    const prepare = [
      `install -d -o postgres -g postgres -m 700 ${dataDir} /srv/wal`,
      `ln -s /srv/wal ${link}`,
    ]
    await hosts.exec('pg2', `${prepare.join('; ')}; chown -h postgres ${link}`)
    for (const next of ['abort', 'purge', 'resume']) {
      await hosts.limitLink('pg2', '20mbit')
      const started = cluster.startReplctl(['add-standby', 'pg2'])
      await awaitCondition(
        'files arrive in the tablespace',
        async () => {
          return (await hosts.exec('pg2', 'ls /srv/ts-a/PG_15*/*/*', { check: false })).exitCode === 0
        },
        { timeoutMs: 60_000 },
      )
      started.kill()
      await started.finished
      // A purge finds the copy still running.
      for (const pid of next === 'purge' ? [] : await hosts.pids('pg2', 'pg_basebackup'))
        await hosts.exec('pg2', ['kill', '-9', `${pid}`], { check: false })
      await hosts.limitLink('pg2', undefined)
      if (next === 'purge') {
        await cluster.succeed(['remove-standby', 'pg2', '--purge'])
        expect(await hosts.pids('pg2', 'pg_basebackup')).toEqual([])
      } else await cluster.succeed([next])
      if (next !== 'resume') {
        expect((await hosts.exec('pg2', 'ls -A /srv/ts-a /srv/wal')).stdout).not.toMatch(
          /PG_|00000001|archive/,
        )
      }
      expect((await hosts.exec('pg2', ['readlink', link])).stdout.trim()).toBe('/srv/wal')
    }
    await cluster.server('pg1').awaitStreaming('shop_pg2')
    expect(await cluster.server('pg2').sqlValue('SELECT count(*) FROM in_a')).toBe(30_000)
    expect((await cluster.succeed(['add-standby', 'pg2'])).json.changed).toBe(false)
  })

  it('P-07: a tablespace that is made while a standby streams; purging the standby empties its folders', async () => {
    for (const host of ['pg1', 'pg2'])
      await hosts.exec(host, 'install -d -o postgres -g postgres -m 700 /srv/ts-b')
    await cluster.server('pg1').sql("CREATE TABLESPACE b LOCATION '/srv/ts-b'")
    await cluster.server('pg1').sql('CREATE TABLE in_b TABLESPACE b AS SELECT 1 AS n')
    await cluster.server('pg2').awaitCatchup(cluster.server('pg1'))
    expect(await cluster.server('pg2').sqlValue('SELECT count(*) FROM in_b')).toBe(1)
    const reclone = await cluster.replctl(['add-standby', 'pg2', '--reclone', '--json'])
    expect([reclone.exitCode, reclone.json.problems[0].code]).toEqual([3, 'tablespace-unmapped'])
    await cluster.succeed(['remove-standby', 'pg2', '--purge'])
    expect((await hosts.exec('pg2', 'ls -A /srv/ts-a /srv/ts-b')).stdout).not.toContain('PG_')
    await cluster.succeed(['add-standby', 'pg2'])
    expect(await cluster.server('pg2').sqlValue('SELECT count(*) FROM in_b')).toBe(1)
    const { stdout } = await hosts.exec('pg2', ['ls', stateDir])
    expect(stdout.split('\n')).not.toContain('job-base-backup')
  })
})
