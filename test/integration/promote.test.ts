import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { awaitCondition, type InventoryPart, TestCluster, TestHosts } from '../kit/index.ts'
import { Client, fingerprints, openToControlHost, WriterWatch, writersNow } from '../kit/observe.ts'
import { emptyHosts } from '../kit/empty-hosts.ts'

describeOnHosts('promote', () => {
  let hosts: TestHosts
  let cluster: TestCluster

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [{ name: 'pg1' }, { name: 'pg2', login: 'admin' }, { name: 'pg3', login: 'root' }],
    })
  })
  afterAll(() => hosts?.destroy())
  beforeEach(() => emptyHosts(hosts))

  async function build(inventory: InventoryPart = {}, nodes?: readonly string[]): Promise<void> {
    cluster = await TestCluster.create(hosts, {
      inventory: { ...openToControlHost, ...inventory },
      ...(nodes ? { nodes } : {}),
    })
    await cluster.init()
    await cluster.addStandbys()
    await sqlOn('pg1', 'CREATE TABLE ledger (id bigint)')
  }
  const sqlOn = (node: string, query: string) => cluster.server(node).sqlValue(query)
  const promote = (...args: string[]) => cluster.replctl(['promote', ...args, '--json'])
  const codes = (result: { json: { problems: { code: string }[] } }) =>
    result.json.problems.map((problem) => problem.code)
  const standbyStreams = (node: string) => cluster.server(node).awaitSql(
    "SELECT count(*) = 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'",
  )

  it('P-10: after the primary was killed, one command makes a cluster again: fenced, re-pointed, one writer all the time', async () => {
    await build({ postgres: { ...openToControlHost.postgres, parameters: { max_prepared_transactions: '10' } } })
    await sqlOn('pg1', "BEGIN; INSERT INTO ledger VALUES (4711); PREPARE TRANSACTION 'open'")
    await cluster.server('pg2').awaitCatchup(cluster.server('pg1'))
    await cluster.server('pg3').awaitCatchup(cluster.server('pg1'))
    const startedAt = await sqlOn('pg3', 'SELECT pg_postmaster_start_time()')
    const watch = new WriterWatch(hosts)
    await cluster.server('pg1').kill9()

    const done = await promote('pg2')
    expect({ exit: done.exitCode, problems: done.json?.problems, stderr: done.stderr }).toMatchObject({ exit: 0 })
    expect(done.json).toMatchObject({
      command: 'promote',
      ok: true,
      changed: true,
      result: { old_primary: 'pg1', new_primary: 'pg2', timeline: 2, fenced: true, repointed: ['pg3'] },
    })
    expect((await cluster.server('pg2').controlData()).get("Latest checkpoint's TimeLineID")).toBe('2')
    expect(await sqlOn('pg2', 'SELECT slot_name::text AS s FROM pg_replication_slots WHERE active')).toBe('shop_pg3')
    expect(await sqlOn('pg3', 'SELECT pg_postmaster_start_time()')).toBe(startedAt)
    await standbyStreams('pg3')
    expect(await sqlOn('pg3', 'SELECT sender_host FROM pg_stat_wal_receiver')).toBe(hosts.addressOf('pg2'))
    await sqlOn('pg2', "COMMIT PREPARED 'open'")
    await cluster.server('pg3').awaitSql('SELECT count(*) = 1 FROM ledger WHERE id = 4711')

    await hosts.exec('pg1', `test -f ${cluster.server('pg1').dataDir}/standby.signal`)
    await cluster.server('pg1').start() // by hand
    expect(await cluster.server('pg1').isInRecovery()).toBe(true)
    expect(await writersNow(hosts)).toEqual(['pg2'])
    expect(await watch.stop()).toEqual([])
    expect(watch.samples).toBeGreaterThan(20)
    await cluster.server('pg1').stop()

    const again = await promote('pg2')
    expect({ exit: again.exitCode, changed: again.json?.changed, problems: again.json?.problems }).toMatchObject({ exit: 0, changed: false })
    const unnamed = await promote()
    expect([unnamed.exitCode, codes(unnamed)]).toEqual([3, ['primary-alive']])
    expect(await sqlOn('pg2', 'SELECT timeline_id FROM pg_control_checkpoint()')).toBe(2)
    const verified = await cluster.replctl(['verify', 'pg3', '--json'])
    expect({ exit: verified.exitCode, problems: verified.json?.problems }).toMatchObject({ exit: 0 })
  })

  it('P-11: promote is refused while the old primary lives, and by force stops it before the candidate accepts a write', async () => {
    await build()
    const client = new Client(hosts, 'pg1')
    const watch = new WriterWatch(hosts)
    await awaitCondition('the client writes', () => client.confirmed.length > 20)
    const before = await fingerprints(hosts)
    const refused = await promote('pg2')
    expect([refused.exitCode, codes(refused)]).toEqual([3, ['primary-alive']])
    await hosts.cutLink('pg1', 'control', { port: 5432 })
    const firewalled = await promote('pg2')
    expect([firewalled.exitCode, codes(firewalled)]).toEqual([3, ['primary-alive']])
    await hosts.restoreLink('pg1', 'control')
    expect(await fingerprints(hosts)).toEqual(before)

    const seen = client.confirmed.length
    await awaitCondition('the client still writes', () => client.confirmed.length > seen)
    const forced = await promote('pg2', '--allow-split-brain')
    expect({ exit: forced.exitCode, problems: forced.json?.problems }).toMatchObject({ exit: 0 })
    expect(await watch.stop()).toEqual([])
    const confirmed = await client.stop()
    expect(await writersNow(hosts)).toEqual(['pg2'])
    expect(await cluster.server('pg1').isRunning()).toBe(false)
    // The old primary was stopped in order, so nothing that it had confirmed is missing.
    const rows = await sqlOn('pg2', `SELECT count(*) FROM ledger WHERE id <= ${confirmed.at(-1)}`)
    expect(rows).toBeGreaterThanOrEqual(confirmed.length)
    // Not even the flag makes a node the primary whose name was not said.
    const nameless = await promote('--allow-split-brain')
    expect(nameless.exitCode).toBe(3)
    expect(await writersNow(hosts)).toEqual(['pg2'])
  })
  void [writeFile, join]
})
