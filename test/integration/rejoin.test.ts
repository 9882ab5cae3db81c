import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { restoreHosts, saveHosts } from '../kit/empty-hosts.ts'
import { awaitCondition, type ReplctlResult, TestCluster, TestHosts } from '../kit/index.ts'
import { Client, openToControlHost, WriterWatch, writersNow } from '../kit/observe.ts'

describeOnHosts('rejoin', () => {
  let hosts: TestHosts
  let cluster: TestCluster

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [{ name: 'pg1' }, { name: 'pg2', login: 'admin' }, { name: 'pg3', login: 'root' }],
    })
    cluster = await TestCluster.create(hosts, { inventory: openToControlHost })
    await cluster.init()
    await cluster.addStandbys()
    await run('pg1', 'CREATE TABLE ledger (id bigint)')
    await run('pg1', 'CREATE TABLE big AS SELECT generate_series(1, 1000) AS id')
    await run('pg1', 'CREATE TABLE gone AS SELECT generate_series(1, 100) AS id')
    await saveHosts(hosts)
  })
  afterAll(() => hosts?.destroy())
  beforeEach(async () => {
    await restoreHosts(hosts)
    for (const name of ['pg2', 'pg3']) await streams(name)
    await caughtUp('pg2', 'pg1')
  })

  const run = (node: string, statement: string) => cluster.server(node).sql(statement)
  const value = (node: string, query: string) => cluster.server(node).sqlValue(query)
  const rejoin = (node: string, ...args: string[]) => cluster.replctl(['rejoin', node, ...args, '--json'])
  const tell = ({ exitCode, json }: ReplctlResult) => ({
    exit: exitCode,
    changed: json?.changed,
    method: json?.result?.method,
    codes: json?.problems.map((problem: { code: string }) => problem.code),
  })
  /** As `expect`, with replctl's own words where it fails. */
  const told = (result: ReplctlResult) =>
    expect(tell(result), `${JSON.stringify(result.json?.problems)}\n${result.stderr}`)
  const streams = (node: string) =>
    cluster.server(node).awaitSql("SELECT count(*) = 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'")
  const caughtUp = (node: string, from: string) => cluster.server(node).awaitCatchup(cluster.server(from))

  /** pg2 leads; pg1, cut off meanwhile, wrote on: rows, a longer table, a dropped one. */
  async function divergePg1(): Promise<void> {
    await hosts.cutLink('pg1')
    await cluster.succeed(['promote', 'pg2', '--allow-split-brain'])
    await run(
      'pg1',
      'INSERT INTO ledger VALUES (1); INSERT INTO big SELECT generate_series(1, 50000); DROP TABLE gone',
    )
    await run('pg2', 'INSERT INTO ledger VALUES (2)')
    await cluster.server('pg1').stop()
    await hosts.restoreLink('pg1')
  }

  async function expectGoodCluster(primary = 'pg2'): Promise<void> {
    expect(await writersNow(hosts)).toEqual([primary])
    expect((await cluster.replctl(['status', '--json'])).json.problems).toEqual([])
    const verify = await cluster.replctl(['verify', '--json'])
    expect(verify.exitCode, JSON.stringify(verify.json?.problems)).toBe(0)
  }

  it('P-19: a diverged former primary is rewound: its contents are those of the new primary, and it streams', async () => {
    await divergePg1()
    const planned = await rejoin('pg1', '--dry-run', '--allow-data-loss')
    told(planned).toMatchObject({ exit: 0, changed: false, method: 'rewind' })
    const done = await rejoin('pg1', '--allow-data-loss')
    told(done).toMatchObject({ exit: 0, changed: true, method: 'rewind', codes: [] })
    await streams('pg1')
    await caughtUp('pg1', 'pg2')
    expect(await value('pg1', 'SELECT array_agg(id ORDER BY id)::text FROM ledger')).toBe('{2}')
    expect(await value('pg1', 'SELECT count(*) FROM big')).toBe(1000)
    expect(await value('pg1', 'SELECT count(*) FROM gone')).toBe(100)
    await expectGoodCluster()
    const again = await rejoin('pg1')
    told(again).toMatchObject({ exit: 0, changed: false, method: 'none', codes: [] })
  })

  it('P-20: one that was killed under load is recovered and rewound without ever accepting a client that could write', async () => {
    const client = new Client(hosts, 'pg1')
    await awaitCondition('the client writes', () => client.confirmed.length > 50)
    await hosts.cutLink('pg1', 'pg2')
    await hosts.cutLink('pg1', 'pg3')
    const seen = client.confirmed.length
    await awaitCondition('the client writes on', () => client.confirmed.length > seen + 50)
    await cluster.server('pg1').kill9()
    await client.stop()
    await cluster.succeed(['promote', 'pg2'])
    await hosts.restoreLink('pg1')
    await run('pg2', 'INSERT INTO ledger VALUES (-1)')
    const watch = new WriterWatch(hosts, ['pg1', 'pg2'])
    const done = await rejoin('pg1', '--allow-data-loss')
    told(done).toMatchObject({ exit: 0, changed: true, method: 'rewind' })
    expect(await watch.stop()).toEqual([])
    await streams('pg1')
    await expectGoodCluster()
  })

  it('a former primary that was shut down in order follows, without a rewind', async () => {
    await cluster.server('pg1').stop()
    await cluster.succeed(['promote', 'pg2'])
    await run('pg2', 'INSERT INTO ledger VALUES (2)')
    const done = await rejoin('pg1')
    told(done).toMatchObject({ exit: 0, changed: true, method: 'follow', codes: [] })
    await caughtUp('pg1', 'pg2')
    await expectGoodCluster()
  })
})
