import { readFile } from 'node:fs/promises'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { installPostgres11, postgres11BinDir } from '../kit/packaged-postgres.ts'
import { PostgresServer } from '../kit/postgres-server.ts'
import { switchThereAndBack } from '../kit/switch-there-and-back.ts'
import { TestCluster } from '../kit/test-cluster.ts'
import { TestHosts } from '../kit/test-hosts.ts'

const dataDir = '/var/lib/postgresql/15/shop'

describeOnHosts('PostgreSQL 11, beside 15 on every host', () => {
  let hosts: TestHosts
  let cluster: TestCluster

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [{ name: 'pg1' }, { name: 'pg2', login: 'admin' }, { name: 'pg3' }],
    })
    await Promise.all(['pg1', 'pg2'].map((host) => installPostgres11(hosts, host)))
    cluster = await TestCluster.create(hosts, { inventory: { postgres: { version: 11 } } })
  })
  afterAll(() => hosts?.destroy())

  it('P-53: of two major versions side by side, the one of the inventory is used', async () => {
    await cluster.init()
    expect(await cluster.server('pg1').sqlValue('SHOW server_version_num')).toMatch(/^11/)
  })

  it('P-53: a host that has only another major version is refused before the copy', async () => {
    const refused = await cluster.replctl(['add-standby', 'pg2', 'pg3', '--json'])
    expect([refused.exitCode, refused.json.problems[0].code]).toEqual([3, 'version-mismatch'])
    expect(refused.json.problems[0].node).toBe('pg3')
    for (const host of ['pg2', 'pg3']) {
      expect((await hosts.exec(host, ['test', '-e', dataDir], { check: false })).exitCode).toBe(1)
    }
    await installPostgres11(hosts, 'pg3')
  })

  it('standbys get a recovery.conf, private to the PostgreSQL OS user, and stream', async () => {
    await cluster.server('pg1').sql('CREATE TABLE t AS SELECT 1 AS n')
    await cluster.addStandbys()
    for (const host of ['pg2', 'pg3']) {
      await cluster.server('pg1').awaitStreaming(`shop_${host}`)
      const recovery = await hosts.readFile(host, `${dataDir}/recovery.conf`)
      expect(recovery).toMatch(/^standby_mode = 'on'$/m)
      expect(recovery).toMatch(/^primary_conninfo = '.*passfile=.*'$/m)
      expect(recovery).toMatch(/^trigger_file = '.+'$/m)
      expect((await hosts.exec(host, ['stat', '-c', '%a %U', `${dataDir}/recovery.conf`])).stdout).toBe(
        '600 postgres\n',
      )
      expect(await cluster.server(host).sqlValue('SHOW server_version_num')).toMatch(/^11/)
    }
    expect((await cluster.replctl(['verify', '--json'])).exitCode).toBe(0)
    expect((await cluster.addStandbys()).json.changed).toBe(false)
    expect((await cluster.init()).json.changed).toBe(false)
  })

  it('archive.mode stream: what a standby keeps for the archive is dropped there, and nowhere else', async () => {
    const template = await readFile(
      new URL('../../templates/archive/archive-stream.sh', import.meta.url),
      'utf8',
    )
    const asked = /^standby="(.*)"$/m.exec(template)?.[1]
    const recovery = await hosts.readFile('pg3', `${dataDir}/recovery.conf`)
    const conninfo = /^primary_conninfo = '(.*)'$/m.exec(recovery)?.[1]
    expect([asked, conninfo]).toEqual([expect.any(String), expect.stringMatching(/host=\S+ /)])
    const drop = async (host: string) => {
      const address = hosts.sshConfigFor(host).host
      const to = `${conninfo!.replace(/host=\S+/, `host=${address}`)} ${asked}`
      const command = [
        `${postgres11BinDir}/pg_receivewal`,
        '--no-password',
        '-d',
        to,
        '--slot=left',
        '--drop-slot',
      ]
      return await hosts.exec('pg3', command, { user: 'postgres', check: false })
    }
    for (const host of ['pg1', 'pg2']) {
      await cluster.server(host).sql("SELECT pg_create_physical_replication_slot('left')")
    }
    const slots = (host: string) =>
      cluster.server(host).sqlValue("SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'left'")
    await cluster.server('pg1').sql('ALTER SYSTEM SET default_transaction_read_only = on')
    await cluster.server('pg1').sql('SELECT pg_reload_conf()')
    expect((await drop('pg1')).stderr).toContain('session is not read-only')
    await cluster.server('pg1').sql('ALTER SYSTEM RESET default_transaction_read_only')
    await cluster.server('pg1').sql('SELECT pg_reload_conf()')
    expect(await drop('pg2')).toMatchObject({ exitCode: 0, stderr: '' })
    expect(await Promise.all(['pg1', 'pg2'].map(slots))).toEqual([1, 0])
    await cluster.server('pg1').sql("SELECT pg_drop_replication_slot('left')")
  })

  it('a delay that a running standby is given is in force afterwards, and is gone when it is taken away', async () => {
    const [pg1, pg2, pg3] = ['pg1', 'pg2', 'pg3'].map((name) => cluster.server(name))
    await cluster.writeInventory({ postgres: { version: 11 }, nodes: { pg3: { delay: '1h' } } })
    await cluster.succeed(['add-standby', 'pg3'])
    await pg1!.sql('INSERT INTO t VALUES (2)')
    await pg2!.awaitSql('SELECT count(*) = 2 FROM t')
    await pg3!.awaitSql('SELECT count(*) = 1 FROM t')
    await cluster.writeInventory({ postgres: { version: 11 } })
    await cluster.succeed(['add-standby', 'pg3'])
    await pg3!.awaitSql('SELECT count(*) = 2 FROM t')
    expect((await cluster.addStandbys()).json.changed).toBe(false)
    await pg1!.sql('DELETE FROM t WHERE n = 2')
  })

  it('switchover there and back: recovery.conf is left by the stop, and the other standby follows by a restart', async () => {
    await switchThereAndBack(cluster)
    expect((await cluster.replctl(['status', '--json'])).json.problems).toEqual([])
  })

  it('promote by trigger file, and then by what serves best; the other standby follows', async () => {
    await cluster.server('pg1').kill9()
    await cluster.succeed(['promote', 'pg2', '--method', 'trigger-file'])
    await cluster.server('pg2').awaitStreaming('shop_pg3')
    expect(await cluster.server('pg2').isInRecovery()).toBe(false)
    // Its standby mode taken away by hand, the old primary is fenced again by its start guard.
    await hosts.exec('pg1', ['rm', `${dataDir}/recovery.conf`])
    const start = await hosts.exec('pg1', '.replctl/shop/start-guard', { user: 'postgres', check: false })
    expect(start.exitCode).toBe(1)
    expect(start.stderr).toMatch(/pg2 is a primary on timeline 4 of cluster shop/)
    expect(await hosts.readFile('pg1', `${dataDir}/recovery.conf`)).toBe("standby_mode = 'on'\n")
    await cluster.server('pg2').sql('INSERT INTO t VALUES (2)')
    await cluster.server('pg3').awaitCatchup(cluster.server('pg2'))
    await cluster.server('pg2').kill9()
    await cluster.succeed(['promote', 'pg3'])
    expect(await cluster.server('pg3').isInRecovery()).toBe(false)
    expect(await cluster.server('pg3').sqlValue('SELECT count(*) FROM t')).toBe(2)
    expect(await cluster.server('pg3').sqlValue('SHOW server_version_num')).toMatch(/^11/)
  })
})

describeOnHosts('an instance of PostgreSQL 11 that takes few connections, taken over', () => {
  let hosts: TestHosts
  let pg1: PostgresServer

  beforeAll(async () => {
    hosts = await TestHosts.create({ hosts: [{ name: 'pg1' }] })
    await installPostgres11(hosts, 'pg1')
    pg1 = new PostgresServer(hosts, 'pg1', { binDir: postgres11BinDir })
    await pg1.init(['max_connections = 30', 'max_wal_senders = 10'])
    await pg1.start()
    await pg1.sql('CREATE TABLE precious AS SELECT 1 AS n')
  })
  afterAll(() => hosts?.destroy())

  const adopt = async (parameters: Record<string, string>, ...flags: string[]) => {
    const cluster = await TestCluster.create(hosts, { inventory: { postgres: { version: 11, parameters } } })
    return await cluster.replctl(['init', 'primary', '--adopt', '--yes', '--json', ...flags])
  }

  it('more walsenders than fit among the connections are refused while it runs on: it would not start again', async () => {
    const startedAt = await pg1.sqlValue('SELECT pg_postmaster_start_time()::text')
    for (const flags of [['--dry-run'], []]) {
      const refused = await adopt({ max_wal_senders: '50' }, ...flags)
      expect([refused.exitCode, refused.json.problems[0].code]).toEqual([3, 'settings-too-low'])
      expect(refused.json.problems[0].detail).toMatch(
        /max_connections is 30, 3 of them .*max_wal_senders is to be 50/,
      )
    }
    expect(await pg1.sqlValue('SELECT pg_postmaster_start_time()::text')).toBe(startedAt)
  })

  it('it gets as many walsenders as leave room for clients, and starts with them', async () => {
    const adopted = await adopt({})
    expect(adopted.exitCode, adopted.stdout).toBe(0)
    const names = ['max_connections', 'max_wal_senders', 'wal_log_hints']
    expect(await Promise.all(names.map((name) => pg1.sqlValue(`SHOW ${name}`)))).toEqual(['30', '22', 'on'])
    expect(await pg1.sqlValue('SELECT n FROM precious')).toBe(1)
    expect((await adopt({})).json.changed).toBe(false)
  })
})
