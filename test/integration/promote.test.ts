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
import { Client, fingerprints, openToControlHost, WriterWatch, writersNow } from '../kit/observe.ts'
import { expectPlanToBeRun } from '../kit/plan-and-run.ts'

describeOnHosts('promote', () => {
  let hosts: TestHosts
  let cluster: TestCluster
  const parameters = { max_prepared_transactions: '10' }
  const base: InventoryPart = { postgres: { ...openToControlHost.postgres, parameters } }

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [{ name: 'pg1' }, { name: 'pg2', login: 'admin' }, { name: 'pg3', login: 'root' }],
    })
    cluster = await TestCluster.create(hosts, { inventory: base })
    await cluster.init()
    await cluster.addStandbys()
    await run('pg1', 'CREATE TABLE ledger (id bigint)')
    await saveHosts(hosts)
  })
  afterAll(() => hosts?.destroy())
  beforeEach(async () => {
    await restoreHosts(hosts)
    await cluster.writeInventory(base)
    for (const name of ['pg2', 'pg3']) await streams(name)
  })

  const run = (node: string, statement: string) => cluster.server(node).sql(statement)
  const value = (node: string, query: string) => cluster.server(node).sqlValue(query)
  const promote = (...args: string[]) => cluster.replctl(['promote', ...args, '--json'])
  const tell = ({ exitCode, json }: ReplctlResult) => ({
    exit: exitCode,
    changed: json?.changed,
    codes: json?.problems.map((problem: { code: string }) => problem.code),
  })
  /** As `expect`, with replctl's own words where it fails. */
  const told = (result: ReplctlResult) =>
    expect(tell(result), `${JSON.stringify(result.json?.problems)}\n${result.stderr}`)
  const streams = (node: string) =>
    cluster.server(node).awaitSql("SELECT count(*) = 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'")
  const caughtUp = async () => {
    for (const name of ['pg2', 'pg3']) await cluster.server(name).awaitCatchup(cluster.server('pg1'))
  }

  /** pg3 has 5000 rows that pg2 lacks, and the primary is dead. */
  async function losePrimaryWithPg2Behind(): Promise<void> {
    await caughtUp()
    const [receiver] = await hosts.pids('pg2', 'walreceiver')
    await hosts.kill('pg2', receiver!, 'SIGSTOP')
    await run(
      'pg1',
      "SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE application_name = 'shop_pg2'",
    )
    await cluster.server('pg1').awaitSql('SELECT count(*) = 1 FROM pg_stat_replication')
    await run('pg1', 'INSERT INTO ledger SELECT generate_series(1, 5000)')
    await cluster.server('pg3').awaitCatchup(cluster.server('pg1'))
    await cluster.server('pg1').kill9()
    await hosts.kill('pg2', receiver!, 'SIGCONT')
    await cluster.server('pg2').awaitSql('SELECT count(*) = 0 FROM pg_stat_wal_receiver')
  }

  it('P-10: after the primary was killed, one command makes a cluster again: fenced, re-pointed, one writer all the time', async () => {
    await run('pg1', "BEGIN; INSERT INTO ledger VALUES (4711); PREPARE TRANSACTION 'open'")
    await caughtUp()
    const startedAt = await value('pg3', 'SELECT pg_postmaster_start_time()')
    const watch = new WriterWatch(hosts)
    await cluster.server('pg1').kill9()

    const planned = await promote('pg2', '--dry-run')
    const done = await promote('pg2')
    expectPlanToBeRun(planned, done)
    told(done).toMatchObject({ exit: 0, changed: true, codes: [] })
    expect(done.json.result).toMatchObject({
      old_primary: 'pg1',
      new_primary: 'pg2',
      timeline: 2,
      fenced: true,
      repointed: ['pg3'],
    })
    expect((await cluster.server('pg2').controlData()).get("Latest checkpoint's TimeLineID")).toBe('2')
    expect(
      await value('pg2', 'SELECT string_agg(slot_name, $$,$$) FROM pg_replication_slots WHERE active'),
    ).toBe('shop_pg3')
    expect(await value('pg3', 'SELECT pg_postmaster_start_time()')).toBe(startedAt)
    await streams('pg3')
    expect(await value('pg3', 'SELECT sender_host FROM pg_stat_wal_receiver')).toBe(hosts.addressOf('pg2'))
    await run('pg2', "COMMIT PREPARED 'open'")
    await cluster.server('pg3').awaitSql('SELECT count(*) = 1 FROM ledger WHERE id = 4711')

    await hosts.exec('pg1', `test -f ${cluster.server('pg1').dataDir}/standby.signal`)
    await cluster.server('pg1').start() // by hand
    expect(await cluster.server('pg1').isInRecovery()).toBe(true)
    expect(await writersNow(hosts)).toEqual(['pg2'])
    expect(await watch.stop()).toEqual([])
    expect(watch.samples).toBeGreaterThan(20)
    await cluster.server('pg1').stop()

    const again = await promote('pg2')
    told(again).toMatchObject({ exit: 0, changed: false })
    expect(again.json.result).toMatchObject({ new_primary: 'pg2', repointed: [], candidates: [] })
    told(await promote()).toMatchObject({ exit: 3, codes: ['primary-alive'] })
    told(await cluster.replctl(['verify', 'pg3', '--json'])).toMatchObject({ exit: 0, codes: [] })
    expect(await value('pg2', 'SELECT timeline_id FROM pg_control_checkpoint()')).toBe(2)
    expect(await writersNow(hosts)).toEqual(['pg2'])
  })

  it('P-11: promote is refused while the old primary lives, and by force stops it before the candidate accepts a write', async () => {
    const client = new Client(hosts, 'pg1')
    const watch = new WriterWatch(hosts)
    await awaitCondition('the client writes', () => client.confirmed.length > 20)
    const before = await fingerprints(hosts)
    told(await promote('pg2')).toMatchObject({ exit: 3, changed: false, codes: ['primary-alive'] })
    await hosts.cutLink('pg1', 'control', { port: 5432 })
    told(await promote('pg2')).toMatchObject({ exit: 3, changed: false, codes: ['primary-alive'] })
    await hosts.restoreLink('pg1', 'control')
    expect(await fingerprints(hosts)).toEqual(before)

    const seen = client.confirmed.length
    await awaitCondition('the client still writes', () => client.confirmed.length > seen)
    told(await promote('pg2', '--allow-split-brain')).toMatchObject({ exit: 0, changed: true })
    expect(await watch.stop()).toEqual([])
    const confirmed = await client.stop()
    expect(await writersNow(hosts)).toEqual(['pg2'])
    expect(await cluster.server('pg1').isRunning()).toBe(false)
    // The old primary was stopped in order, so nothing that it had confirmed is missing.
    const rows = await value('pg2', `SELECT count(DISTINCT id) FROM ledger WHERE id = ANY ('{${confirmed}}')`)
    expect(rows).toBe(confirmed.length)
    // Not even the flag passes over a primary when no other node was named.
    told(await promote('--allow-split-brain')).toMatchObject({ exit: 3, codes: ['primary-alive'] })
  })

  it('P-12: the most advanced standby wins, over priority and over a wish', async () => {
    await cluster.writeInventory({ ...base, nodes: { pg2: { priority: 100 } } })
    await losePrimaryWithPg2Behind()

    const refused = await promote('pg2')
    told(refused).toMatchObject({ exit: 3, changed: false, codes: ['standby-ahead'] })
    expect(JSON.stringify(refused.json.problems)).toMatch(/pg3 by \d+ bytes/)
    expect(await writersNow(hosts)).toEqual([])
    const planned = await promote('--dry-run')
    told(planned).toMatchObject({ exit: 0, changed: false })
    const done = await promote()
    told(done).toMatchObject({ exit: 0, changed: true })
    expect(done.json.result.new_primary).toBe('pg3')
    expectPlanToBeRun(planned, done)
    expect(await value('pg3', 'SELECT count(*) FROM ledger')).toBe(5000)
    await streams('pg2')
    await cluster.server('pg2').awaitSql('SELECT count(*) = 5000 FROM ledger')
  })

  it('P-12: with --allow-data-loss the one behind is promoted, the loss is said, and the one ahead is not passed off as healthy', async () => {
    await losePrimaryWithPg2Behind()
    const done = await promote('pg2', '--allow-data-loss', '--timeout', '5s')
    told(done).toMatchObject({ exit: 0, changed: true, codes: ['node-diverged'] })
    expect(done.json.problems[0]).toMatchObject({ severity: 'warning', node: 'pg3' })
    expect(done.json.result).toMatchObject({ new_primary: 'pg2', repointed: [] })
    expect(done.json.result.lost_bytes).toBeGreaterThan(100_000)
    const status = await cluster.replctl(['status', '--json'])
    told(status).toMatchObject({ exit: 9, codes: ['node-fenced', 'node-diverged'] })
    expect(status.json.result.nodes[2]).toMatchObject({ name: 'pg3', role: 'diverged' })
    // What only pg3 has is still there.
    expect(await value('pg3', 'SELECT count(*) FROM ledger')).toBe(5000)
    expect(await writersNow(hosts)).toEqual(['pg2'])
  })

  it('says how much WAL a killed primary has that reached nobody: as much as a rejoin then saves', async () => {
    await caughtUp()
    for (const sender of await hosts.pids('pg1', 'walsender')) await hosts.kill('pg1', sender, 'SIGSTOP')
    await run('pg1', 'INSERT INTO ledger SELECT generate_series(1, 5000)')
    await cluster.server('pg1').kill9()
    for (const name of ['pg2', 'pg3'])
      await cluster.server(name).awaitSql('SELECT count(*) = 0 FROM pg_stat_wal_receiver')

    const planned = await promote('--dry-run')
    const done = await promote()
    told(done).toMatchObject({ exit: 0, changed: true, codes: [] })
    expectPlanToBeRun(planned, done)
    const { lost_bytes, new_primary } = done.json.result
    expect(lost_bytes).toBeGreaterThan(100_000)
    expect(await value(new_primary, 'SELECT count(*) FROM ledger')).toBe(0)
    // As much as a rejoin then finds, and saves.
    const rejoined = await cluster.replctl(['rejoin', 'pg1', '--json'])
    told(rejoined).toMatchObject({ exit: 0, changed: true })
    expect(rejoined.json.result.discarded_bytes).toBe(lost_bytes)
  })

  it('among equals the larger priority leads, and a node with promotable: false never does', async () => {
    await cluster.writeInventory({ ...base, nodes: { pg3: { priority: 5 }, pg2: { promotable: false } } })
    await caughtUp()
    await cluster.server('pg1').kill9()
    told(await promote('pg2')).toMatchObject({ exit: 3, changed: false, codes: ['not-promotable'] })
    told(await promote('pg2', '--allow-data-loss', '--allow-split-brain')).toMatchObject({ exit: 3 })
    await cluster.writeInventory({ ...base, nodes: { pg3: { priority: 5 } } })
    const done = await promote()
    told(done).toMatchObject({ exit: 0 })
    expect(done.json.result.new_primary).toBe('pg3')
  })
})
