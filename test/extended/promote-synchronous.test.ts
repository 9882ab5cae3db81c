import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { restoreHosts, saveHosts } from '../kit/empty-hosts.ts'
import {
  awaitCondition,
  type InventoryPart,
  type ReplctlResult,
  TestCluster,
  TestHosts,
} from '../kit/index.ts'
import { Client, openToControlHost, WriterWatch, writersNow } from '../kit/observe.ts'

describeOnHosts('promote in the modes sync and quorum', () => {
  let hosts: TestHosts
  let cluster: TestCluster
  const inMode = (mode: string): InventoryPart => ({ ...openToControlHost, replication: { mode } })

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [{ name: 'pg1' }, { name: 'pg2' }, { name: 'pg3', login: 'admin' }],
    })
    cluster = await TestCluster.create(hosts, { inventory: inMode('quorum') })
    await cluster.init()
    await cluster.addStandbys()
    await cluster.server('pg1').sql('CREATE TABLE ledger (id bigint)')
    await saveHosts(hosts)
  })
  afterAll(() => hosts?.destroy())
  beforeEach(async () => {
    await restoreHosts(hosts)
    await cluster.writeInventory(inMode('quorum'))
    await cluster.server('pg1').awaitSql('SELECT count(*) = 2 FROM pg_stat_replication')
  })

  const tell = ({ exitCode, json }: ReplctlResult) => ({
    exit: exitCode,
    changed: json?.changed,
    errors: json?.problems.flatMap((one: { code: string; severity: string }) =>
      one.severity === 'error' ? [one.code] : [],
    ),
  })
  /** As `expect`, with replctl's own words where it fails. */
  const told = (result: ReplctlResult) =>
    expect(tell(result), `${JSON.stringify(result.json?.problems)}\n${result.stderr}`)
  const warningOf = ({ json }: ReplctlResult) =>
    json.problems.find(
      ({ code, severity, node }: { code: string; severity: string; node: string }) =>
        code === 'writes-blocked' && severity === 'warning' && node === 'pg3',
    )
  const promote = (...args: string[]) => cluster.replctl(['promote', ...args, '--json'])

  it.each(['sync', 'quorum'])(
    'mode %s: no confirmed row is lost over a failover under load, and what follows is as safe',
    async (mode) => {
      await cluster.writeInventory(inMode(mode))
      told(await cluster.replctl(['add-standby', 'pg2', 'pg3', '--json'])).toMatchObject({ exit: 0 })
      const clients = ['pg1', 'pg1', 'pg1'].map(
        (node, index) => new Client(hosts, node, index * 1_000_000 + 1),
      )
      await awaitCondition('the clients write', () => clients.every((client) => client.confirmed.length > 30))
      const watch = new WriterWatch(hosts)
      await cluster.server('pg1').kill9()
      const confirmed = (await Promise.all(clients.map((client) => client.stop()))).flat()
      const done = await promote()
      told(done).toMatchObject({ exit: 0, changed: true, errors: [] })
      const { new_primary: leader, repointed } = done.json.result
      const server = cluster.server(leader)
      expect(
        await server.sqlValue(`SELECT count(DISTINCT id) FROM ledger WHERE id = ANY ('{${confirmed}}')`),
      ).toBe(confirmed.length)
      expect(await server.sqlValue("SELECT current_setting('synchronous_standby_names')")).toContain(
        `shop_${repointed[0]}`,
      )
      await server.awaitSql(
        `SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')`,
      )
      expect(await watch.stop()).toEqual([])
      // Written right after: confirmed only with a second copy, so the loss of the new primary loses nothing either.
      await server.sql('INSERT INTO ledger VALUES (-1)')
      await server.kill9()
      await cluster.server(repointed[0]).awaitSql('SELECT count(*) = 1 FROM ledger WHERE id = -1')
    },
  )

  it('P-13: with two nodes gone the survivor may miss confirmed commits: refused by name, until the loss is allowed', async () => {
    await hosts.powerOff('pg2')
    await cluster.server('pg1').kill9()
    const refused = await promote('pg3')
    told(refused).toMatchObject({ exit: 3, changed: false, errors: ['confirmed-commits-at-risk'] })
    expect(JSON.stringify(refused.json.problems)).toContain('pg2')
    expect(await writersNow(hosts, ['pg1', 'pg3'])).toEqual([])
    const planned = await promote('pg3', '--allow-data-loss', '--dry-run')
    told(planned).toMatchObject({ exit: 0, changed: false, errors: [] })
    expect(warningOf(planned)).toMatchObject({
      message: 'writes will be blocked on pg3: 0 of 1 sync standbys',
      hint: expect.stringContaining('replctl remove-standby pg2'),
    })
    const done = await promote('pg3', '--allow-data-loss')
    told(done).toMatchObject({ exit: 0, changed: true, errors: [] })
    expect(await writersNow(hosts, ['pg1', 'pg3'])).toEqual(['pg3'])
    // Nobody is left to confirm: writes wait, and it says so with the command that sets them free, as status does.
    expect(warningOf(done)).toMatchObject({
      message: 'writes blocked: 0 of 1 sync standbys',
      hint: expect.stringContaining('replctl remove-standby pg2'),
    })
    const status = await cluster.replctl(['status', '--json'])
    expect(status.json.problems).toContainEqual(
      expect.objectContaining({ code: 'writes-blocked', node: 'pg3' }),
    )
    told(await cluster.replctl(['remove-standby', 'pg2', '--json'])).toMatchObject({ exit: 0 })
    await cluster.server('pg3').sql('INSERT INTO ledger VALUES (1)')
  })

  it('two are to confirm, and one of the three that are left is down: promote says that writes wait, and for whom', async () => {
    await cluster.writeInventory({ ...openToControlHost, replication: { mode: 'quorum', sync_standbys: 2 } })
    told(await cluster.replctl(['add-standby', 'pg2', 'pg3', '--json'])).toMatchObject({ exit: 0 })
    await cluster.server('pg2').stop()
    await cluster.server('pg1').kill9()
    const done = await promote()
    told(done).toMatchObject({ exit: 0, errors: [] })
    expect(done.json.result.new_primary).toBe('pg3')
    expect(warningOf(done)).toMatchObject({ message: 'writes blocked: 0 of 2 sync standbys' })
    const waiting = cluster.server('pg3').sql('INSERT INTO ledger VALUES (1)')
    await cluster
      .server('pg3')
      .awaitSql("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
    told(await cluster.replctl(['remove-standby', 'pg2', '--json'])).toMatchObject({ exit: 0 })
    await waiting
    // What comes back confirms: there is nothing to warn of, but that one more is wanted.
    const back = await cluster.replctl(['rejoin', 'pg1', '--json'])
    told(back).toMatchObject({ exit: 0, errors: [] })
    expect(back.json.problems.map((one: { code: string }) => one.code)).toEqual(['durability-reduced'])
  })

  it('a standby that alone confirmed the last commits is the one that leads, or promote refuses', async () => {
    const [receiver] = await hosts.pids('pg2', 'walreceiver')
    await hosts.kill('pg2', receiver!, 'SIGSTOP')
    await cluster
      .server('pg1')
      .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE application_name = 'shop_pg2'")
    await cluster.server('pg1').sql('INSERT INTO ledger SELECT generate_series(1, 100)')
    await cluster.server('pg1').kill9()
    await hosts.kill('pg2', receiver!, 'SIGCONT')
    await cluster.server('pg2').awaitSql('SELECT count(*) = 0 FROM pg_stat_wal_receiver')
    told(await promote('pg2')).toMatchObject({ exit: 3, changed: false, errors: ['standby-ahead'] })
    const done = await promote()
    told(done).toMatchObject({ exit: 0 })
    expect(done.json.result.new_primary).toBe('pg3')
    expect(await cluster.server('pg3').sqlValue('SELECT count(*) FROM ledger')).toBe(100)
  })
})
