import { afterAll, beforeAll, expect, it } from 'vitest'
import { awaitCondition } from '../kit/await-condition.ts'
import { describeOnPostgres17, installPostgres17, postgres17BinDir } from '../kit/postgres-17.ts'
import { PostgresServer } from '../kit/postgres-server.ts'
import { TestCluster } from '../kit/test-cluster.ts'
import { TestHosts } from '../kit/test-hosts.ts'

await describeOnPostgres17('logical failover slots of PostgreSQL 17', () => {
  let hosts: TestHosts
  let cluster: TestCluster
  const patience = { timeoutMs: 600_000 }

  beforeAll(async () => {
    hosts = await TestHosts.create({ hosts: ['pg1', 'pg2', 'pg3'].map((name) => ({ name })) })
    await Promise.all(hosts.names.map((host) => installPostgres17(hosts, host)))
    cluster = await TestCluster.create(hosts, { inventory: inventoryWith('replica') })
    await cluster.succeed(['init', 'primary'], patience)
    await cluster.succeed(['add-standby', 'pg2', 'pg3'], patience)
  })
  afterAll(() => hosts?.destroy())

  const inventoryWith = (walLevel: string) => ({
    cluster: 'shop',
    postgres: { version: 17, parameters: { wal_level: walLevel } },
    ssh: { connect_timeout: '15s' },
  })
  const server = (host: string) => new PostgresServer(hosts, host, { binDir: postgres17BinDir })
  const make = (host: string, slot: string) =>
    server(host).sql(
      `SELECT pg_create_logical_replication_slot('${slot}', 'test_decoding', false, false, true)`,
    )
  /** The slot is there as a copy that outlives a promotion. It becomes one once its subscriber has got on. */
  const isCopied = (host: string, slot: string, primary: string) =>
    awaitCondition(
      `${host} has a copy of ${slot}`,
      async () => {
        await server(primary).sql(
          `SELECT pg_log_standby_snapshot(); SELECT pg_logical_emit_message(true, 'test', 'on');
           SELECT count(*) FROM pg_logical_slot_get_changes('${slot}', NULL, NULL)`,
        )
        return await server(host).sqlValue(
          `SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '${slot}' AND synced AND NOT temporary)`,
        )
      },
      { timeoutMs: 180_000, everyMs: 500 },
    )

  const show = async (host: string, name: string) => String(await server(host).sqlValue(`SHOW ${name}`))
  /** Whom each node has subscribers wait for: as it is in force, and as it stands in its file. */
  const awaited = async () => {
    const entries = hosts.names.map(async (host) => {
      const file = await hosts.readFile(host, `${hosts.postgresOf(host).dataDir}/replctl.conf`)
      const written = /^synchronized_standby_slots = '(.*)'$/m.exec(file)?.[1]
      const live = await show(host, 'synchronized_standby_slots')
      return [host, live === written ? live : `${live}, but its file says ${written}`]
    })
    return Object.fromEntries(await Promise.all(entries))
  }
  const slotSync = async (host: string) => ({
    inRecovery: await server(host).isInRecovery(),
    walLevel: await show(host, 'wal_level'),
    copies: await show(host, 'sync_replication_slots'),
  })

  it('wal_level: logical that waits for a restart: no change of roles has a standby copy slots before it runs with it', async () => {
    await cluster.writeInventory(inventoryWith('logical'))
    const waiting = { inRecovery: true, walLevel: 'replica', copies: 'off' }
    await cluster.succeed(['switchover', 'pg2'], patience)
    for (const host of ['pg1', 'pg3']) expect(await slotSync(host)).toEqual(waiting)
    await server('pg2').kill9()
    await cluster.succeed(['promote', 'pg1'], patience)
    expect(await slotSync('pg3')).toEqual(waiting)
    await server('pg1').awaitStreaming('shop_pg3')
    // It is started anyway: with what its file says by then.
    await cluster.succeed(['rejoin', 'pg2'], patience)
    expect(await slotSync('pg2')).toEqual({ inRecovery: true, walLevel: 'logical', copies: 'on' })
    await cluster.succeed(['add-standby', 'pg3'], patience)
    expect(await slotSync('pg3')).toEqual(waiting)
    for (const host of ['pg1', 'pg3']) await server(host).restart()
    await cluster.succeed(['add-standby', 'pg2', 'pg3'], patience)
    expect(await slotSync('pg3')).toEqual({ inRecovery: true, walLevel: 'logical', copies: 'on' })
    expect((await cluster.succeed(['add-standby', 'pg2', 'pg3'], patience)).json.changed).toBe(false)
    expect((await cluster.succeed(['status'], patience)).json.problems).toEqual([])
  })

  it('only who leads names slots that subscribers wait for: a standby has none of them', async () => {
    expect(await awaited()).toEqual({ pg1: 'shop_pg2, shop_pg3', pg2: '', pg3: '' })
    await cluster.succeed(['switchover', 'pg2'], patience)
    expect(await awaited()).toEqual({ pg1: '', pg2: 'shop_pg1, shop_pg3', pg3: '' })
    expect((await cluster.succeed(['add-standby', 'pg1', 'pg3'], patience)).json.changed).toBe(false)
    await server('pg2').kill9()
    await cluster.succeed(['promote', 'pg1'], patience)
    await server('pg1').awaitStreaming('shop_pg3')
    expect(await show('pg1', 'synchronized_standby_slots')).toBe('shop_pg3')
    expect(await show('pg3', 'synchronized_standby_slots')).toBe('')
    await cluster.succeed(['rejoin', 'pg2'], patience)
    expect(await awaited()).toEqual({ pg1: 'shop_pg2, shop_pg3', pg2: '', pg3: '' })
  })

  it('a slot goes with the primary, there and back, and slots made later are copied on as before', async () => {
    await make('pg1', 'app')
    for (const host of ['pg2', 'pg3']) await isCopied(host, 'app', 'pg1')
    const done = await cluster.succeed(['switchover', 'pg2', '--json'], patience)
    expect(done.json.problems).toEqual([])
    expect(
      await server('pg2').sqlValue("SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'app'"),
    ).toBe(1)
    await server('pg2').sql("SELECT pg_logical_emit_message(true, 'test', 'after')")
    const changes = await server('pg2').sql(
      "SELECT data FROM pg_logical_slot_get_changes('app', NULL, NULL, 'include-xids', '0')",
    )
    expect(JSON.stringify(changes)).toContain('after')
    await make('pg2', 'later')
    for (const host of ['pg1', 'pg3']) {
      await isCopied(host, 'later', 'pg2')
      await isCopied(host, 'app', 'pg2')
    }
    await cluster.succeed(['switchover', 'pg1', '--json'], patience)
    await isCopied('pg2', 'later', 'pg1')
    const status = await cluster.succeed(['status', '--json'], patience)
    expect(status.json.problems).toEqual([])
  })

  it('limits on transactions and idle sessions, meant for applications, end nothing of a switchover', async () => {
    const limits = [
      ['transaction_timeout', '100ms'],
      ['idle_session_timeout', '1s'],
    ]
    await server('pg1').sql('CREATE TABLE pages AS SELECT * FROM generate_series(1, 3000000) AS id')
    for (const host of hosts.names) {
      for (const [name, limit] of limits) await server(host).sql(`ALTER SYSTEM SET ${name} = '${limit}'`)
      await server(host).sql('SELECT pg_reload_conf()')
    }
    const done = await cluster.succeed(['switchover', 'pg2', '--json'], patience)
    expect(done.json.problems).toEqual([])
    expect(await server('pg2').sqlValue('SELECT pg_is_in_recovery()')).toBe(false)
    expect(await server('pg2').sqlValue('SHOW transaction_timeout')).toBe('100ms')
  })
})
