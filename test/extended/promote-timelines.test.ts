import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { restoreHosts, saveHosts } from '../kit/empty-hosts.ts'
import { type ReplctlResult, TestCluster, TestHosts } from '../kit/index.ts'
import { fingerprints, openToControlHost, writersNow } from '../kit/observe.ts'

describeOnHosts('promote where not everybody is on the newest timeline', () => {
  let hosts: TestHosts
  let cluster: TestCluster

  beforeAll(async () => {
    hosts = await TestHosts.create({ hosts: [{ name: 'pg1' }, { name: 'pg2' }, { name: 'pg3' }] })
    cluster = await TestCluster.create(hosts, {
      inventory: { ...openToControlHost, ssh: { connect_timeout: '6s' } },
    })
    await cluster.init()
    await cluster.addStandbys()
    await server('pg1').sql('CREATE TABLE ledger (id bigint PRIMARY KEY, filler text)')
    await saveHosts(hosts)
  })
  afterAll(() => hosts?.destroy())
  beforeEach(async () => {
    await restoreHosts(hosts)
    for (const name of ['pg2', 'pg3']) {
      await server(name).awaitSql("SELECT count(*) = 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'")
    }
  })

  const server = (name: string) => cluster.server(name)
  const problemsOf = (result: ReplctlResult): string[] =>
    result.json.problems.map((one: { code: string; node: string }) => `${one.code} ${one.node}`)

  /** pg1 writes what nobody else gets, three segments further on, and dies; pg2 leads on timeline 2, and pg3 has what was confirmed there. */
  async function loseMuch(): Promise<void> {
    // What is on its way to a stopped walreceiver would still arrive: its sender goes first.
    for (const name of ['pg3', 'pg2']) {
      for (const pid of await hosts.pids(name, 'walreceiver')) await hosts.kill(name, pid, 'SIGSTOP')
      const sender = `FROM pg_stat_replication WHERE application_name = 'shop_${name}'`
      await server('pg1').sql(`SELECT pg_terminate_backend(pid) ${sender}`)
      await server('pg1').awaitSql(`SELECT count(*) = 0 ${sender}`)
    }
    for (let n = 0; n < 3; n++) {
      await server('pg1').sql(`INSERT INTO ledger VALUES (${1000 + n}, 'lost')`)
      await server('pg1').sql('SELECT pg_switch_wal()')
    }
    await server('pg1').sql('CHECKPOINT')
    await server('pg1').kill9()
    for (const name of ['pg2', 'pg3']) {
      for (const pid of await hosts.pids(name, 'walreceiver')) await hosts.kill(name, pid, 'SIGCONT')
      await server(name).awaitSql('SELECT count(*) = 0 FROM pg_stat_wal_receiver')
    }
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
    await cluster.writeInventory({
      ...openToControlHost,
      ssh: { connect_timeout: '6s' },
      replication: { mode: 'sync' },
    })
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
})
