import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { restoreHosts, saveHosts } from '../kit/empty-hosts.ts'
import { type InventoryPart, TestCluster, TestHosts } from '../kit/index.ts'
import { told } from '../kit/told.ts'

describeOnHosts('the place of each standby', () => {
  let hosts: TestHosts
  let cluster: TestCluster
  const patient: InventoryPart = { ssh: { connect_timeout: '5s' }, fence: { command: 'true' } }

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [{ name: 'pg1' }, { name: 'pg2', login: 'admin' }, { name: 'pg3', login: 'root' }],
    })
    cluster = await TestCluster.create(hosts, { inventory: patient })
    await cluster.init()
    await cluster.addStandbys()
    await cluster.server('pg1').sql('CREATE TABLE ledger (id bigint)')
    await saveHosts(hosts)
  })
  afterAll(() => hosts?.destroy())
  beforeEach(async () => {
    await restoreHosts(hosts)
    await cluster.writeInventory(patient)
    await cluster
      .server('pg1')
      .awaitSql("SELECT count(*) = 2 FROM pg_stat_replication WHERE state = 'streaming'")
  })

  const run = (...args: string[]) => cluster.replctl([...args, '--json'])
  const slots = (node: string): Promise<string[]> =>
    cluster
      .server(node)
      .sqlValue(
        'SELECT coalesce(array_agg(slot_name::text ORDER BY slot_name), $${}$$) FROM pg_replication_slots',
      )
  const namesOn = (node: string) =>
    cluster.server(node).sqlValue("SELECT current_setting('synchronous_standby_names')")

  it('a rejoin of the middle node leaves the standby below it where it is, and its slot', async () => {
    told(await run('follow', 'pg3', '--upstream', 'pg2')).toMatchObject({ exit: 0 })
    const healthy = await run('rejoin', 'pg2')
    told(healthy).toMatchObject({ exit: 0, changed: false })
    expect(healthy.json.result.method).toBe('none')
    expect([await slots('pg1'), await slots('pg2')]).toEqual([['shop_pg2'], ['shop_pg3']])
    await cluster.server('pg2').stop()
    told(await run('rejoin', 'pg2')).toMatchObject({ exit: 0, changed: true })
    expect([await slots('pg1'), await slots('pg2')]).toEqual([['shop_pg2'], ['shop_pg3']])
    await cluster.server('pg1').sql('INSERT INTO ledger VALUES (1)')
    await cluster.server('pg3').awaitSql('SELECT count(*) = 1 FROM ledger')
    await cluster
      .server('pg2')
      .awaitSql("SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = 'shop_pg3'")
  })

  it('promote run again while the lost primary is still away waits for nobody new: writes go on', async () => {
    await cluster.writeInventory({ ...patient, replication: { mode: 'quorum', sync_standbys: 2 } })
    told(await run('init', 'primary', 'pg1')).toMatchObject({ exit: 0 })
    expect(await namesOn('pg1')).toBe('ANY 2 ("shop_pg2", "shop_pg3")')
    await cluster.server('pg1').sql('INSERT INTO ledger VALUES (1)')
    await hosts.powerOff('pg1')
    told(await run('promote', 'pg2')).toMatchObject({ exit: 0, changed: true })
    const names = await namesOn('pg2')
    expect(names).toBe('ANY 1 ("shop_pg3")')
    const before = await slots('pg2')
    told(await run('promote', 'pg2')).toMatchObject({ exit: 0, changed: false })
    told(await run('add-standby', 'pg3')).toMatchObject({ exit: 0, changed: false })
    expect([await namesOn('pg2'), await slots('pg2')]).toEqual([names, before])
    told(await run('switchover', 'pg3')).toMatchObject({ exit: 0 })
    expect(await namesOn('pg3')).toBe('ANY 1 ("shop_pg2")')
    await cluster.server('pg3').sql("SET statement_timeout = '30s'; INSERT INTO ledger VALUES (2)")
  })

  it('a standby that lacks WAL which is gone holds no failover up', async () => {
    const [pg1, pg2, pg3] = ['pg1', 'pg2', 'pg3'].map((name) => cluster.server(name))
    await pg3!.sql("ALTER SYSTEM SET primary_conninfo = ''; SELECT pg_reload_conf()")
    await pg3!.awaitSql('SELECT count(*) = 0 FROM pg_stat_wal_receiver')
    await pg1!.sql(
      "SELECT pg_drop_replication_slot('shop_pg3'); ALTER SYSTEM SET wal_keep_size = 0; SELECT pg_reload_conf()",
    )
    for (let n = 0; n < 4; n += 1) await pg1!.sql('INSERT INTO ledger VALUES (7); SELECT pg_switch_wal()')
    await pg1!.sql('CHECKPOINT')
    await pg2!.awaitCatchup(pg1!)
    await pg2!.sql('ALTER SYSTEM SET wal_keep_size = 0; SELECT pg_reload_conf()')
    await pg2!.sql('CHECKPOINT')
    const needed = await pg3!.sqlValue('SELECT redo_wal_file FROM pg_control_checkpoint()')
    expect(await pg2!.sqlValue('SELECT min(name) FROM pg_ls_waldir()')).not.toBe(needed)
    await pg3!.sql('ALTER SYSTEM RESET primary_conninfo; SELECT pg_reload_conf()')
    await pg1!.kill9()
    const done = await run('promote', 'pg2', '--timeout', '15s')
    told(done).toMatchObject({ exit: 0, changed: true })
    const warning = done.json.problems.find(({ code }: { code: string }) => code === 'not-streaming')
    expect(warning).toMatchObject({ node: 'pg3', severity: 'warning' })
    expect(warning.hint).toContain('replctl add-standby pg3 --reclone')
    told(await run('add-standby', 'pg3', '--reclone')).toMatchObject({ exit: 0 })
    told(await run('rejoin', 'pg1')).toMatchObject({ exit: 0 })
    await pg2!.sql('INSERT INTO ledger VALUES (8)')
    for (const standby of [pg1!, pg3!]) await standby.awaitSql('SELECT count(*) = 1 FROM ledger WHERE id = 8')
    told(await run('status')).toMatchObject({ exit: 0, found: [] })
  })

  it('while nobody leads a standby follows another one, also where the dead primary’s host is off', async () => {
    await hosts.powerOff('pg1')
    told(await run('follow', 'pg3', '--upstream', 'pg2')).toMatchObject({ exit: 0, changed: true })
    await cluster
      .server('pg2')
      .awaitSql("SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = 'shop_pg3'")
  })

  it('a second, empty cluster is not begun where the data of the primary is not mounted', async () => {
    const { dataDir } = cluster.server('pg1')
    await cluster.server('pg1').stop()
    await hosts.exec('pg1', ['mv', dataDir, `${dataDir}.elsewhere`])
    const seen = await run('status')
    told(seen).toMatchObject({ exit: 9 })
    expect(JSON.stringify(seen.json.problems)).not.toContain('init primary')
    told(await run('init', 'primary', 'pg1')).toMatchObject({ exit: 3, changed: false })
    await hosts.exec('pg1', ['test', '!', '-e', dataDir])
    await hosts.exec('pg1', ['mv', `${dataDir}.elsewhere`, dataDir])
    told(await run('init', 'primary', 'pg1')).toMatchObject({ exit: 0, changed: true })
    await cluster
      .server('pg1')
      .awaitSql("SELECT count(*) = 2 FROM pg_stat_replication WHERE state = 'streaming'")
  })
})
