import { afterAll, beforeAll, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { type InventoryPart, type ReplctlResult, TestCluster, TestHosts } from '../kit/index.ts'
import { openToControlHost, WriterWatch, writersNow } from '../kit/observe.ts'

/** Words of the syntax of synchronous_standby_names, capitals, and characters that no slot name may have. */
const names = ['any', 'First', 'n-2']

describeOnHosts('switchover in the modes sync and quorum, and in a cascade, with awkward names', () => {
  let hosts: TestHosts
  let cluster: TestCluster
  const base: InventoryPart = { ...openToControlHost, ssh: { connect_timeout: '10s' } }
  const inMode = (mode: string) => cluster.writeInventory({ ...base, replication: { mode } })

  beforeAll(async () => {
    hosts = await TestHosts.create({ hosts: names.map((name) => ({ name })) })
    cluster = await TestCluster.create(hosts, { inventory: { ...base, replication: { mode: 'quorum' } } })
    await cluster.init()
    await cluster.addStandbys()
    await cluster.server('any').sql('CREATE TABLE ledger (id int)')
  })
  afterAll(() => hosts?.destroy())

  const value = (node: string, query: string) => cluster.server(node).sqlValue(query)
  const told = ({ exitCode, json, stderr }: ReplctlResult) =>
    expect(
      { exit: exitCode, codes: json?.problems.map((one: { code: string }) => one.code) },
      `${JSON.stringify(json?.problems)}\n${stderr}`,
    )
  const switchover = (node: string) => cluster.replctl(['switchover', node, '--json'])

  it.each([
    ['quorum', 'First', 'ANY 1 ("shop_any", "shop_n-2")'],
    ['sync', 'n-2', 'FIRST 1 ("shop_any", "shop_First")'],
    ['sync', 'any', 'FIRST 1 ("shop_First", "shop_n-2")'],
  ])(
    'P-39, P-41: mode %s, to %s: the right names before it accepts a write, each standby confirms or waits its turn',
    async (mode, node, wanted) => {
      await inMode(mode)
      const watch = new WriterWatch(hosts)
      told(await switchover(node)).toMatchObject({ exit: 0, codes: [] })
      expect(await watch.stop()).toEqual([])
      expect(await value(node, 'SHOW synchronous_standby_names')).toBe(wanted)
      // A commit returns: somebody confirms it.
      await cluster.server(node).sql(`INSERT INTO ledger VALUES (1)`)
      const states = mode === 'quorum' ? 'quorum,quorum' : 'potential,sync'
      await cluster
        .server(node)
        .awaitSql(
          `SELECT string_agg(sync_state, ',' ORDER BY sync_state) = '${states}' FROM pg_stat_replication`,
        )
      const log = await hosts.exec(
        node,
        'cat ~postgres/.replctl/shop/postgresql.log /var/log/postgresql/*.log',
        {
          user: 'postgres',
          check: false,
        },
      )
      expect(log.stdout).not.toMatch(/invalid value for parameter "synchronous_standby_names"/)
      const rows = await value(node, 'SELECT count(*) FROM ledger')
      expect(rows).toBeGreaterThan(0)
      // A commit waits until the row is on the other's disk, not until it is to be seen there.
      for (const name of names) {
        await cluster.server(name).awaitSql(`SELECT count(*) = ${rows} FROM ledger`)
      }
    },
  )

  it('a wished upstream is kept: the old primary feeds its standby again, over its slot', async () => {
    await cluster.writeInventory({ ...base, nodes: { 'n-2': { upstream: 'any' } } })
    told(await switchover('First')).toMatchObject({ exit: 0, codes: [] })
    expect(await writersNow(hosts)).toEqual(['First'])
    await cluster.server('First').awaitStreaming('shop_any')
    await cluster.server('any').awaitStreaming('shop_n-2')
    const slots =
      "SELECT coalesce(string_agg(slot_name, ',' ORDER BY slot_name), '') FROM pg_replication_slots"
    expect(await Promise.all(names.map((name) => value(name, slots)))).toEqual(['shop_n_2', 'shop_any', ''])
    expect((await cluster.replctl(['status', '--json'])).json.problems).toEqual([])
    // Only who receives from the primary itself can be handed over to.
    told(await switchover('n-2')).toMatchObject({ exit: 3, codes: ['wrong-upstream'] })
    told(await switchover('any')).toMatchObject({ exit: 0, codes: [] })
    await cluster.server('any').awaitStreaming('shop_First')
    await cluster.server('any').awaitStreaming('shop_n-2')
    expect(await Promise.all(names.map((name) => value(name, slots)))).toEqual([
      'shop_first,shop_n_2',
      '',
      '',
    ])
  })

  it('a standby whose walreceiver is frozen holds the old postmaster, and not for long: it is named, and no archive that does not exist', async () => {
    await inMode('quorum')
    const leader = (await writersNow(hosts))[0]!
    const candidate = names.find((name) => name !== leader && name !== 'n-2')!
    const [receiver] = await hosts.pids('n-2', 'walreceiver')
    await hosts.kill('n-2', receiver!, 'SIGSTOP')
    const done = await cluster.replctl(['switchover', candidate, '--timeout', '20s', '--json'])
    await hosts.kill('n-2', receiver!, 'SIGCONT').catch(() => undefined)
    expect(done.exitCode, done.stdout).toBe(0)
    expect(done.json.problems.map((one: { code: string }) => one.code)).not.toContain('archive-failing')
    expect(done.json.problems).toContainEqual(
      expect.objectContaining({
        code: 'stop-failed',
        severity: 'warning',
        node: leader,
        detail: expect.stringMatching(
          /^3 s after its shutdown checkpoint it still waited for: .*walsender replicator .* streaming/,
        ),
        hint: 'Look at the walreceiver of n-2: it does not take what it is sent.',
      }),
    )
    await cluster.server(candidate).awaitStreaming('shop_n-2')
  })
})
