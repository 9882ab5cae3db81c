import { afterAll, beforeAll, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { fingerprint } from '../kit/fingerprint.ts'
import { expectPlanToBeRun } from '../kit/plan-and-run.ts'
import { TestCluster } from '../kit/test-cluster.ts'
import { TestHosts } from '../kit/test-hosts.ts'

const stateDir = '/var/lib/postgresql/.replctl/shop'
const dataDir = '/var/lib/postgresql/15/shop'

describeOnHosts('init primary', () => {
  let hosts: TestHosts
  let cluster: TestCluster

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [{ name: 'pg1' }, { name: 'pg2', login: 'root' }, { name: 'pg3' }],
    })
    cluster = await TestCluster.create(hosts, {
      nodes: ['pg1', 'pg2'],
      inventory: {
        postgres: { parameters: { shared_buffers: '24MB' } },
        replication: { mode: 'sync' },
      },
    })
  })
  afterAll(() => hosts?.destroy())

  it('a plan changes nothing, and is the run line by line', async () => {
    const plan = await cluster.succeed(['init', 'primary', '--dry-run'])
    expect(plan.json.changed).toBe(false)
    const { stdout } = await hosts.exec('pg1', ['sh', '-c', `ls -d ${dataDir} ${stateDir} 2>/dev/null; :`])
    expect(stdout).toBe('')
    const run = await cluster.init()
    expectPlanToBeRun(plan, run)
  })

  it('the instance has checksums, UTF-8, collation C, and what replication and pg_rewind need', async () => {
    const pg1 = cluster.server('pg1')
    const settings = await pg1.sql(
      `SELECT name, setting FROM pg_settings WHERE name IN ('data_checksums', 'server_encoding', 'wal_level',
         'hot_standby', 'cluster_name', 'password_encryption', 'full_page_writes', 'shared_buffers') ORDER BY name`,
    )
    expect(Object.fromEntries(settings.map(({ name, setting }) => [name, setting]))).toEqual({
      cluster_name: 'shop',
      data_checksums: 'on',
      full_page_writes: 'on',
      hot_standby: 'on',
      password_encryption: 'scram-sha-256',
      server_encoding: 'UTF8',
      shared_buffers: '3072',
      wal_level: 'replica',
    })
    expect(await pg1.sqlValue("SELECT datcollate FROM pg_database WHERE datname = 'template1'")).toBe('C')
  })

  it('the replication role may replicate and no more; replication is by scram, never by trust', async () => {
    const pg1 = cluster.server('pg1')
    expect(
      await pg1.sql(
        `SELECT rolsuper, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication, rolcanlogin,
           rolpassword LIKE 'SCRAM-SHA-256$%' AS scram FROM pg_authid WHERE rolname = 'replicator'`,
      ),
    ).toEqual([
      {
        rolsuper: false,
        rolcreaterole: false,
        rolcreatedb: false,
        rolbypassrls: false,
        rolreplication: true,
        rolcanlogin: true,
        scram: true,
      },
    ])
    const rules = await pg1.sql(
      `SELECT DISTINCT auth_method FROM pg_hba_file_rules
        WHERE 'replication' = ANY (database) AND type LIKE 'host%'`,
    )
    expect(rules).toEqual([{ auth_method: 'scram-sha-256' }])
    expect(await pg1.sql("SELECT 1 FROM pg_hba_file_rules WHERE auth_method = 'trust'")).toEqual([])
  })

  it('P-02: synchronous replication without a standby yet: nothing hangs, and status says 0 of 1', async () => {
    const pg1 = cluster.server('pg1')
    await pg1.sql('CREATE DATABASE app')
    await pg1.sql('CREATE EXTENSION pg_stat_statements', { database: 'app', timeoutMs: 60_000 })
    expect(await pg1.sqlValue("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")).toBe(0)
    const status = await cluster.replctl(['status'])
    expect(status.stdout + status.stderr).toMatch(/0 of 1/)
  })

  it("P-01: init again changes nothing; the operator's own lines, files and roles stay", async () => {
    const pg1 = cluster.server('pg1')
    await pg1.sql('CREATE TABLE orders AS SELECT generate_series(1, 1000) AS n')
    await pg1.appendFile('postgresql.conf', ['work_mem = 7MB # ours', "include_dir = 'conf.d'"])
    await hosts.exec(
      'pg1',
      `mkdir ${dataDir}/conf.d && echo "temp_buffers = 9MB" >${dataDir}/conf.d/own.conf`,
      {
        user: 'postgres',
      },
    )
    await pg1.appendFile('pg_hba.conf', ['host app app 192.0.2.0/24 scram-sha-256 # ours'])
    await pg1.sql('CREATE ROLE app LOGIN')
    await cluster.init() // replctl's include is the last line again
    await pg1.restart()
    const before = await fingerprint(pg1)
    expect((await cluster.init()).json.changed).toBe(false)
    expect(await fingerprint(pg1)).toEqual(before)
    expect(await pg1.sqlValue('SELECT count(*) FROM orders')).toBe(1000)
    expect(await pg1.sqlValue('SHOW work_mem')).toBe('7MB')
    expect(await pg1.sqlValue('SHOW temp_buffers')).toBe('9MB')
  })

  it('P-01: init with another cluster name is refused, and nothing is changed', async () => {
    const other = await TestCluster.create(hosts, { cluster: 'other', nodes: ['pg1', 'pg2'] })
    const before = await fingerprint(cluster.server('pg1'))
    const refused = await other.replctl(['init', 'primary', '--json'])
    expect([refused.exitCode, refused.json.problems[0].code]).toEqual([3, 'foreign-data-directory'])
    expect(await fingerprint(cluster.server('pg1'))).toEqual(before)
    expect(await cluster.server('pg1').sqlValue('SELECT count(*) FROM orders')).toBe(1000)
  })

  it('P-01: init again forgets no standby, and keeps writes synchronous', async () => {
    await cluster.addStandbys()
    const before = await fingerprint(cluster.server('pg1'))
    expect((await cluster.init()).json.changed).toBe(false)
    expect(await fingerprint(cluster.server('pg1'))).toEqual(before)
    await cluster.server('pg1').awaitSql("SELECT sync_state = 'sync' FROM pg_stat_replication")
    expect((await cluster.succeed(['status'])).json.problems).toEqual([])
  })

  it('init of a running standby is refused, whether the primary runs or not', async () => {
    const pg1 = cluster.server('pg1')
    const alive = await cluster.replctl(['init', 'primary', 'pg2', '--json'])
    expect([alive.exitCode, alive.json.problems[0].code]).toEqual([3, 'primary-alive'])
    await pg1.stop()
    const before = await fingerprint(cluster.server('pg2'))
    const refused = await cluster.replctl(['init', 'primary', 'pg2', '--json'])
    expect([refused.exitCode, refused.json.problems[0].code]).toEqual([3, 'foreign-cluster'])
    expect(await fingerprint(cluster.server('pg2'))).toEqual(before)
  })

  it('init of the stopped primary starts it again, but not while another member cannot be asked', async () => {
    await hosts.stopSshd('pg2', { sessions: true })
    const refused = await cluster.replctl(['init', 'primary', '--json'])
    expect([refused.exitCode, refused.json.problems[0].code]).toEqual([3, 'primary-unproven'])
    expect(await cluster.server('pg1').isRunning()).toBe(false)
    await hosts.startSshd('pg2')
    expect((await cluster.init()).json.changed).toBe(true)
    await cluster.server('pg1').awaitStreaming('shop_pg2')
    await cluster.server('pg1').awaitSql("SELECT sync_state = 'sync' FROM pg_stat_replication")
  })

  it('the database that replctl is to connect to is made with the instance, whatever it is called', async () => {
    const database = `My "app's" ä`
    const own = await TestCluster.create(hosts, {
      cluster: 'own',
      nodes: ['pg3'],
      inventory: { postgres: { database, parameters: { synchronous_commit: 'on' } } },
    })
    expect((await own.init()).json.changed).toBe(true)
    const pg3 = own.server('pg3')
    const made = await pg3.sql('SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY oid')
    expect(made.map(({ datname }) => datname).sort()).toEqual([database, 'postgres'])
    expect((await own.init()).json.changed).toBe(false)
    await pg3.stop()
    await hosts.exec('pg3', ['rm', '-r', dataDir, '/var/lib/postgresql/.replctl/own'])
  })

  it('a port that another instance has, a folder with files in it: refused, and left as they are', async () => {
    const third = await TestCluster.create(hosts, { cluster: 'third', nodes: ['pg3'] })
    await hosts.exec('pg3', `mkdir -p ${dataDir} && echo keep >${dataDir}/notes`, { user: 'postgres' })
    const foreign = await third.replctl(['init', 'primary', '--json'])
    expect([foreign.exitCode, foreign.json.problems[0].code]).toEqual([3, 'foreign-data-directory'])
    expect(await hosts.readFile('pg3', `${dataDir}/notes`)).toBe('keep\n')
    await hosts.exec('pg3', ['rm', '-r', dataDir])
    const { PostgresServer } = await import('../kit/postgres-server.ts')
    const squatter = new PostgresServer(hosts, 'pg3', { dataDir: '/var/lib/postgresql/squatter' })
    await squatter.init()
    await squatter.start()
    const busy = await third.replctl(['init', 'primary', '--json'])
    expect([busy.exitCode, busy.json.problems[0].code]).toEqual([3, 'port-in-use'])
    expect(busy.json.problems[0].message + busy.json.problems[0].detail).toContain('squatter')
    expect(await squatter.isRunning()).toBe(true)
  })
})
