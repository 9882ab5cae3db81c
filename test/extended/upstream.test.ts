import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { restoreHosts, saveHosts } from '../kit/empty-hosts.ts'
import { type InventoryPart, type ReplctlResult, TestCluster, TestHosts } from '../kit/index.ts'
import { fingerprints } from '../kit/observe.ts'
import { told } from '../kit/told.ts'

describeOnHosts('from whom a standby receives, while a link is cut', () => {
  let hosts: TestHosts
  let cluster: TestCluster
  // Under load a login takes its time; nothing here is about that.
  const patient: InventoryPart = { ssh: { connect_timeout: '20s' } }
  const cascade: InventoryPart = { ...patient, nodes: { pg3: { upstream: 'pg2' } } }

  beforeAll(async () => {
    hosts = await TestHosts.create({ hosts: [{ name: 'pg1' }, { name: 'pg2' }, { name: 'pg3' }] })
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
    for (const name of ['pg2', 'pg3']) {
      await cluster.server('pg1').awaitStreaming(`shop_${name}`)
      await cluster.server(name).awaitCatchup(cluster.server('pg1'))
    }
  })

  const status = () => cluster.replctl(['status', '--json'])
  const nodeIn = ({ json }: ReplctlResult, name: string) =>
    json.result.nodes.find((one: { name: string }) => one.name === name)
  const configure = async (node: string, setting: string, value: string) => {
    await cluster.server(node).sql(`ALTER SYSTEM SET ${setting} = '${value}'; SELECT pg_reload_conf()`)
    await cluster.server(node).awaitSql(`SELECT setting::int > 0 FROM pg_settings WHERE name = '${setting}'`)
  }
  const senders = (node: string): Promise<string[]> =>
    cluster
      .server(node)
      .sqlValue(
        'SELECT coalesce(array_agg(application_name ORDER BY application_name), $${}$$) FROM pg_stat_replication',
      )
  const receiver = (node: string, column: string) =>
    cluster.server(node).sqlValue(`SELECT ${column} FROM pg_stat_wal_receiver`)

  it('a standby that was pointed elsewhere meanwhile is shown below that one, whatever its former sender still shows', async () => {
    const [pg2, pg3] = [cluster.server('pg2'), cluster.server('pg3')]
    await configure('pg1', 'wal_sender_timeout', '15min')
    await hosts.cutLink('pg3', 'pg1')
    await pg2.sql("SELECT pg_create_physical_replication_slot('shop_pg3', true)")
    const [from, to] = [hosts.addressOf('pg1'), hosts.addressOf('pg2')]
    const file = `${pg3.dataDir}/replctl.standby.conf`
    await hosts.exec('pg3', ['sed', '-i', `s/${from}/${to}/`, file], { user: 'postgres' })
    await pg3.sql('SELECT pg_reload_conf()')
    await pg2.awaitStreaming('shop_pg3')
    // Two senders show it now, and it receives from one of them.
    expect([await senders('pg1'), await senders('pg2')]).toEqual([['shop_pg2', 'shop_pg3'], ['shop_pg3']])
    expect(await receiver('pg3', 'sender_host')).toBe(to)

    const wrong = await status()
    told(wrong).toMatchObject({ exit: 9, found: ['pg3 wrong-upstream'] })
    expect(nodeIn(wrong, 'pg3')).toMatchObject({ upstream: 'pg2', state: 'streaming', slot: 'shop_pg3' })
    expect(wrong.json.problems[0].hint).toContain('replctl follow pg3 --upstream pg1')
    expect((await cluster.replctl(['status'])).stdout).toMatch(/└─ pg2 .*\n.* {3}└─ pg3 /)
    const before = await fingerprints(hosts)
    told(await cluster.replctl(['switchover', 'pg3', '--json'])).toMatchObject({
      exit: 3,
      found: ['pg3 wrong-upstream'],
    })
    expect(await fingerprints(hosts)).toEqual(before)

    await cluster.writeInventory(cascade)
    const wished = await status()
    told(wished).toMatchObject({ exit: 0, found: [] })
    expect(nodeIn(wished, 'pg3')).toMatchObject({ upstream: 'pg2', state: 'streaming' })
    expect([await senders('pg1'), await senders('pg2')]).toEqual([['shop_pg2', 'shop_pg3'], ['shop_pg3']])

    // Back again, while the row of earlier is still there: it is no proof that it came.
    await cluster.writeInventory(patient)
    await hosts.restoreLink('pg3')
    told(await cluster.replctl(['follow', 'pg3', '--upstream', 'pg1', '--json'])).toMatchObject({
      ...{ exit: 0, changed: true, found: [] },
    })
    expect(await receiver('pg3', 'sender_host')).toBe(from)
    expect(await senders('pg2')).toEqual([])
    told(await status()).toMatchObject({ exit: 0, found: [] })
  })

  it('one that believes it streams is disconnected once its sender has given it up, and its lag grows', async () => {
    await configure('pg1', 'wal_sender_timeout', '1s')
    await configure('pg3', 'wal_receiver_timeout', '15min')
    await cluster.server('pg1').sql('INSERT INTO ledger VALUES (0)')
    await cluster.server('pg3').awaitSql('SELECT count(*) = 1 FROM ledger')
    await hosts.cutLink('pg3', 'pg1')
    await cluster.server('pg1').sql('INSERT INTO ledger VALUES (1)')
    await cluster.server('pg2').awaitSql('SELECT count(*) = 2 FROM ledger')
    await cluster
      .server('pg1')
      .awaitSql("SELECT count(*) = 0 FROM pg_stat_replication WHERE application_name = 'shop_pg3'")
    await cluster
      .server('pg3')
      .awaitSql("SELECT now() - last_msg_receipt_time > '5 s' FROM pg_stat_wal_receiver")

    const cutOff = await status()
    told(cutOff).toMatchObject({ exit: 9, found: ['pg3 not-streaming'] })
    expect(nodeIn(cutOff, 'pg2')).toMatchObject({ upstream: 'pg1', state: 'streaming' })
    const seen = nodeIn(cutOff, 'pg3')
    expect(seen).toMatchObject({ upstream: 'pg1', state: 'disconnected', sync_state: null })
    expect(seen.lag_bytes).toBeGreaterThan(0)
    expect(seen.lag_seconds).toBeGreaterThan(5)
    expect(cutOff.json.problems[0].detail).toMatch(
      /believes that it streams, and has heard nothing for \d+ s; pg1 has no connection of it/,
    )
    expect(await receiver('pg3', 'status')).toBe('streaming')
    expect(nodeIn(await status(), 'pg3').lag_seconds).toBeGreaterThan(seen.lag_seconds)
    // Nobody is put below one that gets nothing.
    told(await cluster.replctl(['follow', 'pg2', '--upstream', 'pg3', '--json'])).toMatchObject({
      ...{ exit: 3, found: ['pg3 not-streaming'] },
    })

    await hosts.restoreLink('pg3')
    await cluster.server('pg1').awaitStreaming('shop_pg3')
    await cluster.server('pg3').awaitSql('SELECT count(*) = 2 FROM ledger')
    told(await status()).toMatchObject({ exit: 0, found: [] })
  })
  it('after the primary was stopped in order nobody is late; after a crash, or where its host is off, that is not known', async () => {
    const [pg1, pg3] = [cluster.server('pg1'), cluster.server('pg3')]
    await pg1.sql('INSERT INTO ledger VALUES (1)')
    for (const name of ['pg2', 'pg3']) {
      await cluster.server(name).awaitSql('SELECT count(*) = 1 FROM ledger')
    }
    await pg1.stop('fast')
    const end = (await pg1.controlData()).get('Latest checkpoint location')
    for (const name of ['pg2', 'pg3']) {
      await cluster.server(name).awaitSql('SELECT count(*) = 0 FROM pg_stat_wal_receiver')
      await cluster.server(name).awaitSql(`SELECT pg_last_wal_replay_lsn() > '${end}'`)
    }
    await pg3.awaitSql("SELECT now() - pg_last_xact_replay_timestamp() > '3 s'")
    const stopped = await status()
    told(stopped).toMatchObject({ exit: 9, found: expect.arrayContaining(['null no-primary']) })
    for (const name of ['pg2', 'pg3']) {
      expect(nodeIn(stopped, name)).toMatchObject({ state: 'disconnected', lag_bytes: 0, lag_seconds: 0 })
    }

    await pg1.start()
    await pg1.awaitStreaming('shop_pg3')
    await pg1.kill9()
    await pg3.awaitSql('SELECT count(*) = 0 FROM pg_stat_wal_receiver')
    expect(nodeIn(await status(), 'pg3')).toMatchObject({ lag_bytes: null, lag_seconds: null })

    // Its host does not answer: as far as anybody here knows it writes, and they are cut off.
    await hosts.powerOff('pg1')
    const off = nodeIn(await status(), 'pg3')
    expect(off.lag_bytes).toBeNull()
    expect(off.lag_seconds).toBeGreaterThan(3)
  })
})
