import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { awaitCondition } from '../kit/await-condition.ts'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { restoreHosts, saveHosts } from '../kit/empty-hosts.ts'
import { type InventoryPart, type ReplctlResult, TestCluster, TestHosts } from '../kit/index.ts'
import { fingerprints, openToControlHost, writersNow } from '../kit/observe.ts'

describeOnHosts('promote where not everybody is on the newest timeline', () => {
  let hosts: TestHosts
  let cluster: TestCluster
  const patient: InventoryPart = { ...openToControlHost, ssh: { connect_timeout: '6s' } }

  beforeAll(async () => {
    hosts = await TestHosts.create({ hosts: [{ name: 'pg1' }, { name: 'pg2' }, { name: 'pg3' }] })
    cluster = await TestCluster.create(hosts, { inventory: patient })
    await cluster.init()
    await cluster.addStandbys()
    await server('pg1').sql('CREATE TABLE ledger (id bigint PRIMARY KEY, filler text)')
    await saveHosts(hosts)
  })
  afterAll(() => hosts?.destroy())
  beforeEach(async () => {
    await restoreHosts(hosts)
    await cluster.writeInventory(patient)
    for (const name of ['pg2', 'pg3']) {
      await server(name).awaitSql("SELECT count(*) = 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'")
    }
  })

  const server = (name: string) => cluster.server(name)
  const problemsOf = (result: ReplctlResult): string[] =>
    result.json.problems.map((one: { code: string; node: string }) => `${one.code} ${one.node}`)

  /** Its walreceiver is stopped. What is on its way to it would still arrive: its sender goes first. */
  async function keepWalFrom(name: string): Promise<void> {
    for (const pid of await hosts.pids(name, 'walreceiver')) await hosts.kill(name, pid, 'SIGSTOP')
    const sender = `FROM pg_stat_replication WHERE application_name = 'shop_${name}'`
    await server('pg1').sql(`SELECT pg_terminate_backend(pid) ${sender}`)
    await server('pg1').awaitSql(`SELECT count(*) = 0 ${sender}`)
  }

  /** After the primary is gone. */
  async function letGoOn(name: string): Promise<void> {
    for (const pid of await hosts.pids(name, 'walreceiver')) await hosts.kill(name, pid, 'SIGCONT')
    await server(name).awaitSql('SELECT count(*) = 0 FROM pg_stat_wal_receiver')
  }

  /** pg1 writes what nobody else gets, three segments further on, and dies; pg2 leads on timeline 2, and pg3 has what was confirmed there. */
  async function loseMuch(): Promise<void> {
    for (const name of ['pg3', 'pg2']) await keepWalFrom(name)
    for (let n = 0; n < 3; n++) {
      await server('pg1').sql(`INSERT INTO ledger VALUES (${1000 + n}, 'lost')`)
      await server('pg1').sql('SELECT pg_switch_wal()')
    }
    await server('pg1').sql('CHECKPOINT')
    await server('pg1').kill9()
    for (const name of ['pg2', 'pg3']) await letGoOn(name)
    await cluster.succeed(['promote', 'pg2'])
    await server('pg2').sql("INSERT INTO ledger VALUES (1, 'confirmed on timeline 2')")
    await server('pg3').awaitCatchup(server('pg2'))
  }

  it('never chooses a former primary that came back as a standby, however large its LSN is', async () => {
    await loseMuch()
    await server('pg1').start()
    const larger = `SELECT pg_last_wal_replay_lsn() > '${await server('pg3').lsn('replay')}'`
    await server('pg1').awaitSql(larger)
    await server('pg2').kill9()
    const before = await fingerprints(hosts, ['pg3'])
    const refused = await cluster.replctl(['promote', 'pg1', '--json'])
    expect([refused.exitCode, refused.json.changed]).toEqual([3, false])
    expect(problemsOf(refused)).toContain('confirmed-commits-at-risk pg1')
    expect(await fingerprints(hosts, ['pg3'])).toEqual(before)

    const promoted = await cluster.succeed(['promote'])
    expect(promoted.json.result).toMatchObject({
      new_primary: 'pg3',
      old_primary: 'pg2',
      fenced: true,
      timeline: 3,
    })
    expect(problemsOf(promoted)).toContain('node-diverged pg1')
    expect(await writersNow(hosts)).toEqual(['pg3'])
    expect(await server('pg3').sqlValue('SELECT filler FROM ledger WHERE id = 1')).toBe(
      'confirmed on timeline 2',
    )
    for (const name of ['pg1', 'pg2']) await cluster.succeed(['rejoin', name], { timeoutMs: 200_000 })
    expect((await cluster.replctl(['verify', '--json'])).json.problems).toEqual([])
  })

  it('promote of the primary leaves a standby that is away its slot, and what it confirms', async () => {
    await cluster.writeInventory({ ...patient, replication: { mode: 'sync' } })
    await cluster.succeed(['init', 'primary', 'pg1'])
    await cluster.succeed(['add-standby', 'pg2', 'pg3'])
    const asked = () => server('pg1').sqlValue("SELECT current_setting('synchronous_standby_names')")
    const slots = () =>
      server('pg1').sqlValue("SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots")
    const before = [await asked(), await slots()]
    expect(before).toEqual(['FIRST 1 ("shop_pg2", "shop_pg3")', 'shop_pg2 shop_pg3'])
    await hosts.powerOff('pg3')
    const again = await cluster.succeed(['promote', 'pg1'])
    expect(again.json.changed).toBe(false)
    expect([await asked(), await slots()]).toEqual(before)
  })

  it('a candidate whose replay is paused gets what a standby alone received that is not to lead', async () => {
    await cluster.writeInventory({ ...patient, nodes: { pg3: { promotable: false } } })
    await server('pg2').sql('SELECT pg_wal_replay_pause()')
    await keepWalFrom('pg2')
    await server('pg1').sql("INSERT INTO ledger SELECT n, 'only on pg3' FROM generate_series(1, 5000) n")
    await server('pg3').awaitCatchup(server('pg1'))
    await server('pg1').kill9()
    await letGoOn('pg2')
    expect(await server('pg2').sqlValue('SELECT pg_is_wal_replay_paused()')).toBe(true)

    const promoted = await cluster.succeed(['promote'], { timeoutMs: 120_000 })
    expect(promoted.json.result).toMatchObject({ new_primary: 'pg2', repointed: ['pg3'] })
    expect(problemsOf(promoted)).toEqual(['replay-paused pg2'])
    expect(await server('pg2').sqlValue('SELECT count(*) FROM ledger')).toBe(5000)
    await server('pg2').awaitStreaming('shop_pg3')
  })

  it('a standby that is away keeps on the new primary the WAL that it needs, from before the promotion', async () => {
    await server('pg2').sql('ALTER SYSTEM SET wal_keep_size = 0')
    await server('pg2').sql('SELECT pg_reload_conf()')
    await server('pg3').stop()
    for (let n = 0; n < 4; n++) {
      await server('pg1').sql(`INSERT INTO ledger VALUES (${n}, 'while pg3 was away')`)
      await server('pg1').sql('SELECT pg_switch_wal()')
    }
    await server('pg2').awaitCatchup(server('pg1'))
    await server('pg1').kill9()
    const planned = await cluster.succeed(['promote', 'pg2', '--dry-run'])
    const promoted = await cluster.succeed(['promote', 'pg2'])
    // The server makes a checkpoint of its own after a promotion: whose comes first is another matter each time.
    const stepsOf = (result: ReplctlResult, done: string) =>
      result.json.result.steps
        .filter(({ title }: Record<string, string>) => !title!.startsWith('checkpoint, so that pg_control'))
        .map(
          ({ n, title, state }: Record<string, string>) =>
            `${n} ${title}: ${state === done ? 'done' : state}`,
        )
    expect(stepsOf(promoted, 'applied')).toEqual(stepsOf(planned, 'planned'))
    await server('pg2').sql('CHECKPOINT')
    const added = await cluster.succeed(['add-standby', 'pg3'], { timeoutMs: 120_000 })
    expect(added.json.changed).toBe(true)
    await server('pg2').awaitStreaming('shop_pg3')
    await server('pg3').awaitSql("SELECT count(*) = 4 FROM ledger WHERE filler = 'while pg3 was away'")
    expect((await cluster.succeed(['promote', 'pg2'])).json.changed).toBe(false)
  })

  it('a standby that PostgreSQL paused for a setting that is too low is not resumed, not promoted, and told with both values', async () => {
    await cluster.writeInventory({ ...patient, nodes: { pg2: { priority: 100 } } })
    const raise = async (name: string) => {
      await server(name).sql('ALTER SYSTEM SET max_connections = 300')
      await server(name).restart()
    }
    const before = await server('pg2').sqlValue("SELECT current_setting('max_connections')")
    await raise('pg3')
    await raise('pg1')
    await server('pg2').awaitSql('SELECT pg_is_wal_replay_paused()')
    await server('pg1').sql("INSERT INTO ledger VALUES (1, 'received by both')")
    await server('pg3').awaitCatchup(server('pg1'))
    await server('pg2').awaitSql(`SELECT pg_last_wal_receive_lsn() >= '${await server('pg3').lsn('replay')}'`)
    const { json } = await cluster.replctl(['status', '--json'])
    const paused = json.problems.find((one: { code: string }) => one.code === 'replay-paused')
    expect(paused).toMatchObject({ node: 'pg2', severity: 'error' })
    expect(paused.hint).toContain(`raise max_connections from ${before} to 300`)
    expect(paused.hint).not.toContain('pg_wal_replay_resume')

    await server('pg1').kill9()
    const refused = await cluster.replctl(['promote', 'pg2', '--json'])
    expect([refused.exitCode, refused.json.changed]).toEqual([3, false])
    expect(refused.json.problems[0].message).toContain(`max_connections is ${before}`)
    const promoted = await cluster.succeed(['promote', '--timeout', '5s'])
    expect(promoted.json.result).toMatchObject({ new_primary: 'pg3', old_primary: 'pg1' })
    expect(await server('pg2').sqlValue('SELECT pg_is_wal_replay_paused()')).toBe(true)
    await raise('pg2')
    await server('pg3').awaitStreaming('shop_pg2')
    await server('pg2').awaitSql('SELECT count(*) = 1 FROM ledger')
  })

  /** Killed and started again, PostgreSQL says no more than that it is starting up until \`letStart\`. */
  async function restartHeld(name: string): Promise<void> {
    const hold = "restore_command = 'while ! test -e /tmp/go; do sleep 0.1; done; false'"
    await hosts.exec(name, ['rm', '-f', '/tmp/go'])
    await server(name).appendFile('postgresql.auto.conf', [hold])
    await server(name).kill9()
    const { dataDir } = server(name)
    const start = `${await server(name).binDir()}/pg_ctl start -W -s -D ${dataDir} -l ${dataDir}.log`
    await hosts.exec(name, start, { user: 'postgres' })
    await awaitCondition(`PostgreSQL on ${name} runs its restore_command`, async () => {
      const { stdout } = await hosts.exec(name, ['cat', `${dataDir}/postmaster.pid`])
      return stdout.includes('starting') && (await hosts.pids(name, 'test -e /tmp/go')).length > 0
    })
  }
  const letStart = (name: string) => hosts.exec(name, ['touch', '/tmp/go'])

  it.each([
    ['all others have lost their power, too', ['pg2', 'pg3']],
    ['the other one runs, and has less', ['pg2']],
  ])('waits for standbys that are just starting: %s', async (_, restarted) => {
    await keepWalFrom('pg3')
    await server('pg1').sql("INSERT INTO ledger VALUES (1, 'only pg2 has it')")
    await server('pg2').awaitCatchup(server('pg1'))
    await server('pg1').kill9()
    await letGoOn('pg3')
    await Promise.all(restarted.map(restartHeld))
    const running = cluster.replctl(['promote', '--json'])
    await awaitCondition('promote holds the lock of pg2', async () => {
      const holder = await hosts.exec('pg2', ['cat', '/var/lib/postgresql/.replctl/shop/holder'], {
        check: false,
      })
      return holder.stdout.includes('replctl promote')
    })
    await Promise.all(restarted.map(letStart))
    const promoted = await running
    expect(promoted).toMatchObject({ exitCode: 0, json: { result: { new_primary: 'pg2' } } })
    expect(await server('pg2').sqlValue('SELECT count(*) FROM ledger')).toBe(1)
    await server('pg3').awaitCatchup(server('pg2'))
    expect(await writersNow(hosts, ['pg1', 'pg2', 'pg3'])).toEqual(['pg2'])
  })
})
