import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { restoreHosts, saveHosts } from '../kit/empty-hosts.ts'
import { type InventoryPart, type ReplctlResult, TestCluster, TestHosts } from '../kit/index.ts'
import { fingerprints, openToControlHost, WriterWatch, writersNow } from '../kit/observe.ts'
import { expectPlanToBeRun } from '../kit/plan-and-run.ts'

const tell = ({ exitCode, json }: ReplctlResult) => ({
  exit: exitCode,
  changed: json?.changed,
  found: json?.problems.map((one: { node: string; code: string }) => `${one.node} ${one.code}`),
})
/** As `expect`, with replctl's own words where it fails. */
const told = (result: ReplctlResult) =>
  expect(tell(result), `${JSON.stringify(result.json?.problems)}\n${result.stderr}`)

describeOnHosts('remove-standby', () => {
  let hosts: TestHosts
  let cluster: TestCluster
  const base: InventoryPart = {
    postgres: { ...openToControlHost.postgres, parameters: { wal_level: 'logical' } },
  }

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [{ name: 'pg1' }, { name: 'pg2', login: 'admin' }, { name: 'pg3', login: 'root' }],
    })
    cluster = await TestCluster.create(hosts, { inventory: base })
    await cluster.init()
    await cluster.addStandbys()
    await saveHosts(hosts)
  })
  afterAll(() => hosts?.destroy())
  beforeEach(async () => {
    await restoreHosts(hosts)
    await cluster.writeInventory(base)
    for (const name of ['pg2', 'pg3']) {
      await cluster
        .server(name)
        .awaitSql("SELECT count(*) = 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'")
    }
  })

  const remove = (...args: string[]) => cluster.replctl(['remove-standby', ...args, '--json'])
  const slots = (node: string): Promise<string[]> =>
    cluster
      .server(node)
      .sqlValue(
        'SELECT coalesce(array_agg(slot_name::text ORDER BY slot_name), $${}$$) FROM pg_replication_slots',
      )
  const files = async (node: string, path: string) =>
    (
      await hosts.exec(node, ['find', path, '-maxdepth', '1', '-printf', '%f\n'], { check: false })
    ).stdout.split('\n')

  it('P-25: a standby whose host is dead is taken out: no slot, no member; its return shows an orphan, and it can come back', async () => {
    await hosts.powerOff('pg3')
    const planned = await remove('pg3', '--dry-run')
    const removed = await remove('pg3')
    expectPlanToBeRun(planned, removed)
    told(removed).toMatchObject({ exit: 0, changed: true, found: ['pg3 host-unreachable'] })
    expect(removed.json.problems[0].severity).toBe('warning')
    expect(await slots('pg1')).toEqual(['shop_pg2'])
    expect(await slots('pg2')).toEqual([])
    told(await remove('pg3')).toMatchObject({ exit: 0, changed: false })
    told(await cluster.replctl(['verify', 'pg2', '--json'])).toMatchObject({ exit: 0, found: [] })

    await hosts.powerOn('pg3')
    await hosts.exec('pg3', ['rm', '-f', `${cluster.server('pg3').dataDir}/postmaster.pid`])
    await cluster.server('pg3').start()
    const status = await cluster.replctl(['status', '--json'])
    expect(status.exitCode).toBe(9)
    expect(tell(status).found).toContain('pg3 orphan-standby')
    // Removing it again, now that its host answers, ends the orphan; its data stays.
    told(await remove('pg3')).toMatchObject({ exit: 0, changed: true })
    expect(await cluster.server('pg3').isRunning()).toBe(false)
    expect(await files('pg3', cluster.server('pg3').dataDir)).toContain('PG_VERSION')
    told(await cluster.replctl(['add-standby', 'pg3', '--json'])).toMatchObject({ exit: 0 })
    told(await cluster.replctl(['status', '--json'])).toMatchObject({ exit: 0, found: [] })
  })

  it('a living standby is stopped, its data stays without --purge and goes with it; run twice changes nothing', async () => {
    const planned = await remove('pg3', '--dry-run')
    const removed = await remove('pg3')
    told(removed).toMatchObject({ exit: 0, changed: true, found: [] })
    expectPlanToBeRun(planned, removed)
    expect(await cluster.server('pg3').isRunning()).toBe(false)
    expect(await files('pg3', cluster.server('pg3').dataDir)).toEqual(
      expect.arrayContaining(['PG_VERSION', 'standby.signal']),
    )
    expect(await files('pg3', '/var/lib/postgresql/.replctl/shop')).not.toContain('pgpass')
    expect(await slots('pg1')).toEqual(['shop_pg2'])
    told(await remove('pg3')).toMatchObject({ exit: 0, changed: false, found: [] })
    const plannedPurge = await remove('pg3', '--purge', '--dry-run')
    const purged = await remove('pg3', '--purge')
    told(purged).toMatchObject({ exit: 0, changed: true, found: [] })
    expectPlanToBeRun(plannedPurge, purged)
    expect(await files('pg3', cluster.server('pg3').dataDir)).not.toContain('PG_VERSION')
    told(await remove('pg3', '--purge')).toMatchObject({ exit: 0, changed: false, found: [] })
    expect(await writersNow(hosts)).toEqual(['pg1'])
    told(await cluster.replctl(['add-standby', 'pg3', '--json'])).toMatchObject({ exit: 0 })
  })

  it('the primary is never removed, and what is not a standby of this cluster is never deleted; refusals change nothing', async () => {
    let before = await fingerprints(hosts)
    told(await remove('pg1')).toMatchObject({ exit: 3, changed: false, found: ['pg1 primary-alive'] })
    told(await remove('pg1', '--purge')).toMatchObject({ exit: 3, changed: false })
    expect((await remove('pg4')).exitCode).toBe(2)
    expect(await fingerprints(hosts)).toEqual(before)

    // Another cluster's data, stopped, where the standby should be.
    const pg3 = cluster.server('pg3')
    await pg3.stop()
    await hosts.exec('pg3', ['mv', pg3.dataDir, `${pg3.dataDir}.mine`])
    await pg3.init()
    await hosts.exec('pg3', ['touch', `${pg3.dataDir}/standby.signal`], { user: 'postgres' })
    before = await fingerprints(hosts)
    told(await remove('pg3', '--purge')).toMatchObject({
      exit: 3,
      changed: false,
      found: ['pg3 foreign-data-directory'],
    })
    expect(await fingerprints(hosts)).toEqual(before)
    // Running, too: it is somebody else's, and stays up whatever is said.
    await pg3.start()
    before = await fingerprints(hosts)
    told(await remove('pg3', '--purge')).toMatchObject({
      exit: 3,
      changed: false,
      found: ['pg3 foreign-data-directory'],
    })
    expect(await fingerprints(hosts)).toEqual(before)
    told(await remove('pg3')).toMatchObject({ exit: 0, changed: true })
    expect(await pg3.isRunning()).toBe(true)
    expect(await slots('pg1')).toEqual(['shop_pg2'])
  })

  it('a former primary that crashed is not deleted: it may hold what nobody else has', async () => {
    await cluster.server('pg1').kill9()
    told(await cluster.replctl(['promote', 'pg2', '--json'])).toMatchObject({ exit: 0 })
    const before = await fingerprints(hosts)
    told(await remove('pg1', '--purge')).toMatchObject({ exit: 3, changed: false })
    expect(await fingerprints(hosts)).toEqual(before)
  })

  it('a standby that others receive from is not removed under them', async () => {
    await cluster.writeInventory({ ...base, nodes: { pg3: { upstream: 'pg2' } } })
    told(await cluster.replctl(['add-standby', 'pg3', '--json'])).toMatchObject({ exit: 0 })
    const before = await fingerprints(hosts)
    told(await remove('pg2')).toMatchObject({ exit: 3, changed: false, found: ['pg2 wrong-upstream'] })
    expect(await fingerprints(hosts)).toEqual(before)
    told(await remove('pg3')).toMatchObject({ exit: 0, changed: true })
    expect(await slots('pg2')).toEqual([])
  })

  it('P-26: slots that replctl did not make survive everything', async () => {
    const foreign = ['app_logical', 'mine', 'shop_pg3_backup', 'zz_shop_pg3']
    const pg1 = cluster.server('pg1')
    await pg1.sql(`SELECT pg_create_physical_replication_slot('mine', true); SELECT pg_create_physical_replication_slot('shop_pg3_backup');
      SELECT pg_create_physical_replication_slot('zz_shop_pg3'); SELECT pg_create_logical_replication_slot('app_logical', 'test_decoding')`)
    await cluster.server('pg2').sql("SELECT pg_create_physical_replication_slot('mine_on_pg2', true)")
    told(await remove('pg3')).toMatchObject({ exit: 0 })
    told(await cluster.replctl(['add-standby', 'pg3', '--json'])).toMatchObject({ exit: 0 })
    told(await cluster.replctl(['add-standby', 'pg3', '--reclone', '--json'])).toMatchObject({ exit: 0 })
    told(await cluster.replctl(['verify', '--json'])).toMatchObject({ exit: 0 })
    expect(await slots('pg1')).toEqual([...foreign, 'shop_pg2', 'shop_pg3'].toSorted())
    told(await cluster.replctl(['promote', 'pg2', '--allow-split-brain', '--json'])).toMatchObject({
      exit: 0,
    })
    expect(await slots('pg2')).toEqual(['mine_on_pg2', 'shop_pg3'])
    await hosts.exec('pg1', ['rm', `${pg1.dataDir}/standby.signal`])
    await cluster.server('pg2').stop()
    await pg1.start() // by hand, to look at it
    expect(await slots('pg1')).toEqual(expect.arrayContaining(foreign))
  })
})

describeOnHosts('P-27: node names that are no slot names', () => {
  it('live through build, verify, failover and removal, and are found again in the server’s own views', async () => {
    const long = `db-${'x'.repeat(67)}`
    const names = ['pg-1', 'PG.2.example.com', long]
    const hosts = await TestHosts.create({ hosts: [{ name: 'a' }, { name: 'b' }, { name: 'c' }] })
    try {
      const cluster = await TestCluster.create(hosts, { nodes: ['a'] })
      const { writeFile } = await import('node:fs/promises')
      const { parse, stringify } = await import('yaml')
      const { readFile } = await import('node:fs/promises')
      const inventory = parse(await readFile(cluster.inventoryFile, 'utf8'))
      const login = inventory.nodes.a.ssh
      inventory.nodes = Object.fromEntries(
        names.map((name, index) => [name, { host: hosts.addressOf(hosts.names[index]!), ssh: login }]),
      )
      inventory.postgres.hba = openToControlHost.postgres.hba
      await writeFile(cluster.inventoryFile, stringify(inventory))
      const run = (...args: string[]) => cluster.replctl([...args, '--json'])
      const watch = new WriterWatch(hosts)
      told(await run('init', 'primary')).toMatchObject({ exit: 0 })
      told(await run('add-standby', names[1]!, long)).toMatchObject({ exit: 0 })
      const status = await run('status')
      told(status).toMatchObject({ exit: 0, found: [] })
      expect(
        status.json.result.nodes.map((one: Record<string, unknown>) => [one.name, one.upstream, one.state]),
      ).toEqual([
        ['pg-1', null, 'running'],
        ['PG.2.example.com', 'pg-1', 'streaming'],
        [long, 'pg-1', 'streaming'],
      ])
      const first = cluster.server('a')
      expect(await first.sqlValue('SELECT count(*) FROM pg_replication_slots WHERE active')).toBe(2)
      expect(
        await first.sqlValue('SELECT bool_and(length(application_name) <= 63) FROM pg_stat_replication'),
      ).toBe(true)
      told(await run('verify')).toMatchObject({ exit: 0, found: [] })
      await first.kill9()
      const promoted = await run('promote', 'PG.2.example.com')
      told(promoted).toMatchObject({ exit: 0 })
      expect(promoted.json.result).toMatchObject({ new_primary: 'PG.2.example.com', repointed: [long] })
      told(await run('verify', long)).toMatchObject({ exit: 0, found: [] })
      told(await run('remove-standby', long, '--purge')).toMatchObject({ exit: 0 })
      expect(await cluster.server('b').sqlValue('SELECT count(*) FROM pg_replication_slots')).toBe(0)
      expect(await watch.stop()).toEqual([])
    } finally {
      await hosts.destroy()
    }
  })
})
