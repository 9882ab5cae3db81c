import { afterAll, beforeAll, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { TestCluster, TestHosts } from '../kit/index.ts'

describeOnHosts('promotion of the middle node of a cascade', () => {
  let hosts: TestHosts
  let cluster: TestCluster
  beforeAll(async () => {
    hosts = await TestHosts.create({ hosts: ['pg1', 'pg2', 'pg3'].map((name) => ({ name })) })
    cluster = await TestCluster.create(hosts, { inventory: { nodes: { pg3: { upstream: 'pg2' } } } })
    await cluster.init()
    await cluster.addStandbys()
  })
  afterAll(() => hosts?.destroy())

  it('works by the trigger file while replay is paused, and its child follows without a restart (P-24)', async () => {
    const [pg1, pg2, pg3] = ['pg1', 'pg2', 'pg3'].map((name) => cluster.server(name))
    await pg2!.awaitStreaming('shop_pg3')
    const startedAt = await pg3!.sqlValue('SELECT pg_postmaster_start_time()::text')
    await pg2!.sql('SELECT pg_wal_replay_pause()')
    await pg1!.kill9()
    await cluster.succeed(['promote', 'pg2', '--method', 'trigger-file'])
    expect(await pg2!.isInRecovery()).toBe(false)
    await pg2!.sql('CREATE TABLE after_promotion AS SELECT 1 AS id')
    await pg3!.awaitCatchup(pg2!)
    expect(await pg3!.sqlValue('SELECT id FROM after_promotion')).toBe(1)
    expect(await pg3!.sqlValue('SELECT pg_postmaster_start_time()::text')).toBe(startedAt)
    expect(await pg3!.sqlValue('SELECT received_tli FROM pg_stat_wal_receiver')).toBe(2)
    expect(await pg3!.sqlValue('SELECT conninfo FROM pg_stat_wal_receiver')).not.toMatch(
      /password=(?!\*+(\s|$))/,
    )
  })
})
