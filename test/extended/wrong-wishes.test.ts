import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { restoreHosts, saveHosts } from '../kit/empty-hosts.ts'
import { type InventoryPart, type ReplctlResult, TestCluster, TestHosts } from '../kit/index.ts'
import { openToControlHost } from '../kit/observe.ts'

/** As `expect`, with replctl's own words where it fails. */
const told = (result: ReplctlResult) =>
  expect(
    {
      exit: result.exitCode,
      changed: result.json?.changed,
      found: result.json?.problems.map((one: { code: string }) => one.code),
    },
    `${JSON.stringify(result.json?.problems)}\n${result.stderr}`,
  )

describeOnHosts('wishes that PostgreSQL, or another setting, does not grant', () => {
  let hosts: TestHosts
  let cluster: TestCluster
  const base: InventoryPart = { ...openToControlHost, ssh: { connect_timeout: '10s' } }
  const postgres = openToControlHost.postgres as Readonly<Record<string, unknown>>
  const synchronous: InventoryPart = { replication: { mode: 'sync', sync_standbys: 1 } }

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [{ name: 'pg1' }, { name: 'pg2', login: 'admin' }, { name: 'pg3' }],
    })
    cluster = await TestCluster.create(hosts, { inventory: { ...base, ...synchronous } })
    await cluster.init()
    await cluster.addStandbys(['pg2'])
    await saveHosts(hosts)
  })
  afterAll(() => hosts?.destroy())
  beforeEach(async () => {
    await restoreHosts(hosts)
    await cluster.writeInventory({ ...base, ...synchronous })
    await cluster.server('pg1').awaitStreaming('shop_pg2')
  })

  const run = (...args: string[]) => cluster.replctl([...args, '--json'])
  const text = (node: string, file: string) => hosts.readFile(node, `${cluster.server(node).dataDir}/${file}`)
  const names = (node: string) => cluster.server(node).sqlValue('SHOW synchronous_standby_names')

  it('a rule that PostgreSQL does not understand leaves no trace on any node', async () => {
    const before = await Promise.all(['pg1', 'pg2'].map((node) => text(node, 'pg_hba.conf')))
    const hba = ['host all all 10.0.0.0/8 scram-sha256']
    await cluster.writeInventory({ ...base, ...synchronous, postgres: { ...postgres, hba } })
    const refused = await run('add-standby', 'pg3')
    told(refused).toMatchObject({ exit: 5, changed: false, found: ['sql-failed'] })
    expect(await Promise.all(['pg1', 'pg2'].map((node) => text(node, 'pg_hba.conf')))).toEqual(before)
    expect(
      await cluster.server('pg1').sqlValue('SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL'),
    ).toBe(0)
    await cluster.server('pg1').restart()
  })

  it('a setting that PostgreSQL would not start with leaves the file as it was', async () => {
    const before = await text('pg1', 'replctl.conf')
    const parameters = { work_mem: '64mb' }
    await cluster.writeInventory({ ...base, ...synchronous, postgres: { ...postgres, parameters } })
    const refused = await run('init', 'primary')
    told(refused).toMatchObject({ exit: 5, changed: false, found: ['start-failed'] })
    expect(refused.json.problems[0].detail).toContain('work_mem')
    expect(await text('pg1', 'replctl.conf')).toBe(before)
    await cluster.server('pg1').restart()
  })

  it('what was rendered before a later step failed is in force no more: files, settings, rules, whom commits wait for', async () => {
    const pg1 = cluster.server('pg1')
    const files = () => Promise.all(['replctl.conf', 'pg_hba.conf'].map((file) => text('pg1', file)))
    const inForce = async () => [
      await pg1.sqlValue('SHOW work_mem'),
      await names('pg1'),
      await pg1.sqlValue('SELECT count(*)::int FROM pg_hba_file_rules'),
    ]
    const before = [await files(), await inForce()]
    await cluster.writeInventory({
      ...base,
      postgres: {
        ...postgres,
        parameters: { work_mem: '7MB' },
        hba: ['host all all 10.0.0.0/8 scram-sha256'],
      },
    })
    const failed = await run('init', 'primary')
    told(failed).toMatchObject({ exit: 5, changed: false, found: ['sql-failed'] })
    const rendering = failed.json.result.steps.filter(({ title }: { title: string }) =>
      title.includes('render'),
    )
    expect(rendering).toMatchObject([{ node: 'pg1', state: 'undone' }])
    expect([await files(), await inForce()]).toEqual(before)
  })

  it('a clone does not listen where only its source can', async () => {
    const own = hosts.addressOf('pg1')
    await cluster.server('pg1').sql(`ALTER SYSTEM SET listen_addresses = 'localhost, ${own}'`)
    await cluster.server('pg1').sql("ALTER SYSTEM SET work_mem = '5MB'")
    await cluster.server('pg1').sql('ALTER SYSTEM SET wal_keep_size = 0')
    const added = await run('add-standby', 'pg3')
    told(added).toMatchObject({ exit: 0, found: ['setting-overridden'] })
    expect(added.json.problems[0]).toMatchObject({ node: 'pg1', severity: 'warning' })
    // Addresses that others reach are as good as all of them.
    expect(added.json.problems[0].detail).toMatch(/^wal_keep_size is '0' in \S+postgresql.auto.conf: /)
    expect(await cluster.server('pg3').sqlValue('SHOW listen_addresses')).toBe('*')
    expect(await cluster.server('pg3').sqlValue('SHOW work_mem')).toBe('5MB')
    expect(await text('pg1', 'postgresql.auto.conf')).toContain(own)
  })

  it('a setting that waits for a restart is told for as long as it does, and by a plan', async () => {
    const parameters = { max_locks_per_transaction: '96' }
    await cluster.writeInventory({ ...base, ...synchronous, postgres: { ...postgres, parameters } })
    for (const flags of [[], [], ['--dry-run']]) {
      const added = await run('add-standby', 'pg2', ...flags)
      told(added).toMatchObject({ exit: 0, found: ['restart-needed', 'restart-needed'] })
      const nodes = added.json.problems.map(({ node }: { node: string }) => node)
      expect(nodes.toSorted()).toEqual(['pg1', 'pg2'])
      expect(added.json.problems[0].detail).toContain('max_locks_per_transaction is as rendered')
    }
    for (const node of ['pg2', 'pg1']) await cluster.server(node).restart()
    await cluster.server('pg1').awaitStreaming('shop_pg2')
    told(await run('add-standby', 'pg2')).toMatchObject({ exit: 0, changed: false, found: [] })
  })

  it('who is waited for is read back: an ALTER SYSTEM of the operator’s is told, not passed over', async () => {
    await cluster.server('pg1').sql(`ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (shop_pg2)'`)
    await cluster.server('pg1').reload()
    const added = await run('add-standby', 'pg3')
    expect(added.exitCode).not.toBe(0)
    expect(added.json.problems[0]).toMatchObject({ code: 'setting-overridden', node: 'pg1' })
    await cluster.server('pg1').sql('ALTER SYSTEM RESET synchronous_standby_names')
    told(await run('add-standby', 'pg3')).toMatchObject({ exit: 0 })
    expect(await names('pg1')).toBe('FIRST 1 ("shop_pg2", "shop_pg3")')
  })

  it('init primary again has nobody waited for who was left out by a failover, and forgets nobody who was not', async () => {
    told(await run('init', 'primary')).toMatchObject({ exit: 0, changed: false })
    for (const node of ['pg2', 'pg1']) await cluster.server(node).stop()
    told(await run('init', 'primary')).toMatchObject({ exit: 0 })
    expect(await names('pg1')).toBe('FIRST 1 ("shop_pg2")')
    await cluster.server('pg2').start()
    await cluster.server('pg1').awaitStreaming('shop_pg2')
    await cluster.server('pg1').kill9()
    told(await run('promote', 'pg2')).toMatchObject({ exit: 0 })
    expect(await names('pg2')).toBe('')
    told(await run('init', 'primary', 'pg2')).toMatchObject({ exit: 0, changed: false })
    expect(await names('pg2')).toBe('')
    await cluster.server('pg2').sql('CREATE TABLE written (id int)')
  })

  it('an archive directory that cannot be made: nothing is begun, and the hint makes it', async () => {
    const archive = { host: hosts.addressOf('pg3'), user: 'postgres', dir: '/var/lib/replctl/shop' }
    await cluster.writeInventory({ ...base, ...synchronous, archive })
    const planned = await run('init', 'primary', '--dry-run')
    told(planned).toMatchObject({ exit: 3, changed: false, found: ['archive-failing'] })
    const refused = await run('init', 'primary')
    told(refused).toMatchObject({ exit: 3, changed: false, found: ['archive-failing'] })
    expect(refused.json.problems[0]).toMatchObject({
      detail: '"postgres" may not write to /var/lib. Nothing was changed.',
    })
    await hosts.exec('pg3', refused.json.problems[0].hint.replace(/^.*: /, ''))
    told(await run('init', 'primary')).toMatchObject({ exit: 0, changed: true })
  })

  it('an archive host that does not answer: nothing is begun for a new node, an equipped one goes on', async () => {
    const archive = { host: hosts.addressOf('pg3'), user: 'postgres', dir: '/var/lib/postgresql/archive' }
    await cluster.writeInventory({ ...base, ...synchronous, archive })
    for (const args of [
      ['init', 'primary'],
      ['add-standby', 'pg2'],
    ])
      told(await run(...args)).toMatchObject({ exit: 0 })
    await cluster.server('pg1').restart()
    await hosts.stopSshd('pg3', { sessions: true })
    told(await run('add-standby', 'pg2')).toMatchObject({
      exit: 0,
      changed: false,
      // The archive host, and the node that is the same machine.
      found: ['host-unreachable', 'host-unreachable'],
    })
    await hosts.startSshd('pg3')
    await cluster.writeInventory({ ...base, ...synchronous, archive: { ...archive, port: 2222 } })
    const refused = await run('add-standby', 'pg3')
    told(refused).toMatchObject({ exit: 4, changed: false })
    expect(refused.json.problems[0].code).toBe('host-unreachable')
    expect(await cluster.server('pg1').sqlValue('SELECT count(*) FROM pg_replication_slots')).toBe(1)
    const left = await hosts.exec('pg3', `ls ${cluster.server('pg3').dataDir}`, { check: false })
    expect(left.stdout).toBe('')
  })
})
