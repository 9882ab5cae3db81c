import { readFile, writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { parseDocument } from 'yaml'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { restoreHosts, saveHosts } from '../kit/empty-hosts.ts'
import {
  awaitCondition,
  type InventoryPart,
  type ReplctlResult,
  TestCluster,
  TestHosts,
} from '../kit/index.ts'
import { fingerprints, openToControlHost, WriterWatch, writersNow } from '../kit/observe.ts'
import { expectPlanToBeRun } from '../kit/plan-and-run.ts'
import { RovingWriter } from '../kit/roving-writer.ts'

describeOnHosts('switchover', () => {
  let hosts: TestHosts
  let cluster: TestCluster
  const parameters = { max_prepared_transactions: '5', wal_level: 'logical' }
  const base: InventoryPart = {
    postgres: { ...openToControlHost.postgres, parameters },
    replication: { max_candidate_lag: '1MB' },
    ssh: { connect_timeout: '10s' },
  }

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
    for (const name of ['pg2', 'pg3']) await streams(name, 'pg1')
  })

  const run = (node: string, statement: string) => cluster.server(node).sql(statement)
  const value = (node: string, query: string) => cluster.server(node).sqlValue(query)
  const switchover = (...args: string[]) => cluster.replctl(['switchover', ...args, '--json'])
  const tell = ({ exitCode, json }: ReplctlResult) => ({
    exit: exitCode,
    changed: json?.changed,
    codes: json?.problems.map((problem: { code: string }) => problem.code),
  })
  /** As `expect`, with replctl's own words where it fails. */
  const told = (result: ReplctlResult) =>
    expect(tell(result), `${JSON.stringify(result.json?.problems)}\n${result.stderr}`)
  /** By both their own words. */
  const streams = async (node: string, upstream: string) => {
    await cluster.server(upstream).awaitStreaming(`shop_${node}`)
    await cluster
      .server(node)
      .awaitSql(
        `SELECT count(*) = 1 FROM pg_stat_wal_receiver WHERE status = 'streaming' AND sender_host = '${hosts.addressOf(upstream)}'`,
      )
  }
  const slots = (node: string) =>
    value(
      node,
      "SELECT coalesce(string_agg(slot_name, ',' ORDER BY slot_name), '') FROM pg_replication_slots",
    )
  const activeSlots = (node: string) =>
    value(
      node,
      "SELECT coalesce(string_agg(slot_name, ',' ORDER BY slot_name), '') FROM pg_replication_slots WHERE active",
    )

  /** `primary` leads alone, the two others stream from it over their own slots, and nothing of the exchange is left over. */
  async function expectOrder(primary: string, timeline: number): Promise<void> {
    const standbys = ['pg1', 'pg2', 'pg3'].filter((name) => name !== primary)
    expect(await writersNow(hosts)).toEqual([primary])
    for (const name of standbys) await streams(name, primary)
    expect(await activeSlots(primary)).toBe(standbys.map((name) => `shop_${name}`).join())
    expect(await slots(primary)).toBe(standbys.map((name) => `shop_${name}`).join())
    for (const name of standbys) expect(await slots(name)).toBe('')
    expect(await value(primary, 'SELECT timeline_id FROM pg_control_checkpoint()')).toBe(timeline)
    for (const name of ['pg1', 'pg2', 'pg3']) {
      const files = await hosts.exec(name, 'ls ~postgres/.replctl/shop', { user: 'postgres' })
      expect(files.stdout).not.toMatch(/fenced\.json|journal|recovery\.conf/)
    }
  }

  it('P-14, P-15: under load nothing confirmed is lost, one writer all the time; there and back again, slots exact each time', async () => {
    const writers = [0, 1, 2, 3].map((n) => new RovingWriter(hosts, ['pg1', 'pg2', 'pg3'], n * 1_000_000 + 1))
    await awaitCondition('all write', () => writers.every((writer) => writer.confirmed.length > 20))
    const startedAt = await value('pg3', 'SELECT pg_postmaster_start_time()')
    const watch = new WriterWatch(hosts)
    const planned = await switchover('pg2', '--dry-run')
    const done = await switchover('pg2')
    const seen = writers.map((writer) => writer.confirmed.length)
    await awaitCondition('all write again', () =>
      writers.every((writer, index) => writer.confirmed.length > (seen[index] ?? 0) + 20),
    )
    const confirmed = (await Promise.all(writers.map((writer) => writer.stop()))).flat()
    expect(await watch.stop()).toEqual([])

    told(done).toMatchObject({ exit: 0, changed: true, codes: [] })
    expect(done.json.result).toMatchObject({
      old_primary: 'pg1',
      new_primary: 'pg2',
      timeline: 2,
      repointed: ['pg1', 'pg3'],
      fenced: false,
      lost_bytes: 0,
    })
    const { write_outage_ms: outage, lsn } = done.json.result
    expect(outage).toBeGreaterThan(0)
    expect(outage).toBeLessThan(20_000)
    expect(lsn).toMatch(/^[0-9A-F]+\/[0-9A-F]+$/)
    expect(Math.max(...writers.map((writer) => writer.longestGapMs))).toBeLessThan(20_000)
    expectPlanToBeRun(planned, done)
    const kept = `SELECT count(DISTINCT id) FROM ledger WHERE id = ANY ('{${confirmed}}')`
    expect(await value('pg2', kept)).toBe(confirmed.length)
    // Another standby goes on without a restart.
    expect(await value('pg3', 'SELECT pg_postmaster_start_time()')).toBe(startedAt)
    await expectOrder('pg2', 2)

    for (const [index, name] of ['pg1', 'pg3', 'pg1'].entries()) {
      told(await switchover(name)).toMatchObject({ exit: 0, changed: true, codes: [] })
      await expectOrder(name, index + 3)
      told(await cluster.replctl(['verify', '--json'])).toMatchObject({ exit: 0, codes: [] })
    }
    const already = { old_primary: null, new_primary: 'pg1', repointed: [] }
    for (const command of ['switchover', 'promote']) {
      const again = await cluster.replctl([command, 'pg1', '--json'])
      told(again).toMatchObject({ exit: 0, changed: false, codes: [] })
      expect(again.json.result).toMatchObject(already)
      expect((await cluster.replctl([command, 'pg1'])).stdout).toBe(
        'pg1 is the primary already; nothing was changed.\n',
      )
    }
    expect(await value('pg1', kept)).toBe(confirmed.length)
    told(await cluster.replctl(['status', '--json'])).toMatchObject({ exit: 0, codes: [] })
  })

  it('P-17: no or an unfit candidate is refused, each with its own reason, and nothing is changed', async () => {
    const before = await fingerprints(hosts)
    told(await switchover('pg1')).toMatchObject({ exit: 0, changed: false, codes: [] })
    told(await switchover('pg9')).toMatchObject({ exit: 2, changed: false, codes: ['unknown-node'] })
    await cluster.writeInventory({ ...base, nodes: { pg2: { promotable: false } } })
    told(await switchover('pg2')).toMatchObject({ exit: 3, changed: false, codes: ['not-promotable'] })
    await cluster.writeInventory({ ...base, nodes: { pg2: { delay: '1h' } } })
    told(await switchover('pg2')).toMatchObject({ exit: 3, changed: false, codes: ['not-promotable'] })
    await cluster.writeInventory(base)
    // An older copy of the inventory, from before pg3 was added.
    const whole = await readFile(cluster.inventoryFile, 'utf8')
    const older = parseDocument(whole)
    older.deleteIn(['nodes', 'pg3'])
    await writeFile(cluster.inventoryFile, older.toString())
    told(await switchover('pg2')).toMatchObject({ exit: 3, changed: false, codes: ['orphan-standby'] })
    await writeFile(cluster.inventoryFile, whole)

    await run('pg2', 'SELECT pg_wal_replay_pause()')
    told(await switchover('pg2')).toMatchObject({ exit: 3, changed: false, codes: ['replay-paused'] })
    // By default the other one is chosen then.
    const planned = await switchover('--dry-run')
    told(planned).toMatchObject({ exit: 0, changed: false })
    expect(JSON.stringify(planned.json.result.steps)).toContain('hand over to pg3')
    await run('pg2', 'SELECT pg_wal_replay_resume()')

    const [receiver] = await hosts.pids('pg2', 'walreceiver')
    await hosts.kill('pg2', receiver!, 'SIGSTOP')
    // It still looks connected, and does not lack much: tried for real, nothing reaches it.
    await run('pg1', 'INSERT INTO ledger VALUES (1)')
    told(await switchover('pg2', '--timeout', '1s')).toMatchObject({
      exit: 3,
      changed: false,
      codes: ['lag-too-high'],
    })
    await run('pg1', "SELECT pg_logical_emit_message(false, 'test', repeat('x', 3000000))")
    const behind = await switchover('pg2')
    told(behind).toMatchObject({ exit: 3, changed: false, codes: ['lag-too-high'] })
    expect(behind.json.problems[0].detail).toMatch(/\d{7} bytes.* allows 1048576/)
    await hosts.kill('pg2', receiver!, 'SIGCONT')
    await cluster.server('pg2').awaitCatchup(cluster.server('pg1'))

    await run('pg2', "ALTER SYSTEM SET primary_conninfo = ''")
    await cluster.server('pg2').reload()
    await cluster.server('pg2').awaitSql('SELECT count(*) = 0 FROM pg_stat_wal_receiver')
    told(await switchover('pg2')).toMatchObject({ exit: 3, changed: false, codes: ['not-streaming'] })
    await run('pg2', 'ALTER SYSTEM RESET primary_conninfo')
    await cluster.server('pg2').reload()
    await streams('pg2', 'pg1')

    for (const name of ['pg2', 'pg3']) await cluster.server(name).stop()
    told(await switchover()).toMatchObject({ exit: 3, changed: false, codes: ['no-candidate'] })
    await cluster.server('pg1').stop()
    told(await switchover('pg2')).toMatchObject({ exit: 3, changed: false, codes: ['no-primary'] })
    for (const name of ['pg1', 'pg2', 'pg3']) await cluster.server(name).start()
    await streams('pg2', 'pg1')
    await hosts.powerOff('pg2')
    told(await switchover('pg2')).toMatchObject({ exit: 4, changed: false })
    await hosts.powerOn('pg2')
    await cluster.server('pg2').start()
    await streams('pg2', 'pg1')
    const after = await fingerprints(hosts)
    const withoutStart = (prints: Readonly<Record<string, string>>) =>
      Object.values(prints).map((print) =>
        print
          .split('\n')
          .filter((line) => !/^\d+$/.test(line) && !/postgresql\.auto\.conf/.test(line))
          .join('\n'),
      )
    expect(withoutStart(after)).toEqual(withoutStart(before))
  })

  it('P-16: an archive that fails or is far behind is caught first; with the flag it is in nobody’s way', async () => {
    await run('pg1', "ALTER SYSTEM SET archive_mode = 'on'")
    await run('pg1', "ALTER SYSTEM SET archive_command = 'false'")
    await cluster.server('pg1').restart()
    for (const name of ['pg2', 'pg3']) await streams(name, 'pg1')
    await run('pg1', 'SELECT pg_switch_wal()')
    await run('pg1', 'INSERT INTO ledger VALUES (1)')
    await run('pg1', 'SELECT pg_switch_wal()')
    await cluster.server('pg1').awaitSql('SELECT failed_count > 0 FROM pg_stat_archiver')
    const ready = await value(
      'pg1',
      "SELECT count(*) FROM pg_ls_dir('pg_wal/archive_status') f(n) WHERE n LIKE '%.ready'",
    )
    const before = await fingerprints(hosts)
    const refused = await switchover('pg2')
    told(refused).toMatchObject({ exit: 3, changed: false, codes: ['archive-failing'] })
    expect(refused.json.problems[0].detail).toContain(`${ready} segment(s)`)
    expect(refused.json.problems[0].detail).toMatch(/last failure was for [0-9A-F]{24}/)
    expect(refused.json.problems[0].hint).toContain('--allow-unarchived')
    expect(await fingerprints(hosts)).toEqual(before)
    await run('pg1', 'INSERT INTO ledger VALUES (2)')

    const done = await switchover('pg2', '--allow-unarchived')
    told(done).toMatchObject({ exit: 0, changed: true, codes: ['archive-failing'] })
    expect(done.json.problems[0].severity).toBe('warning')
    // The archiver tries for seconds more; nobody waits for it before writes are possible again.
    expect(done.json.result.write_outage_ms).toBeLessThan(20_000)
    await expectOrder('pg2', 2)
    expect(await value('pg2', 'SELECT count(*) FROM ledger')).toBe(2)
  })

  it('P-18, P-44: the way back is tried before going: login, walsenders, settings', async () => {
    const hba = await hosts.readFile('pg2', '/var/lib/postgresql/15/shop/pg_hba.conf')
    const reject = `host replication all ${hosts.addressOf('pg1')}/32 reject\n`
    const write = (text: string) =>
      hosts.writeFile('pg2', '/var/lib/postgresql/15/shop/pg_hba.conf', text, {
        owner: 'postgres',
        mode: 0o600,
      })
    await write(reject + hba)
    await cluster.server('pg2').reload()
    const before = await fingerprints(hosts)
    const refused = await switchover('pg2')
    told(refused).toMatchObject({ exit: 3, changed: false, codes: ['replication-login-failed'] })
    expect(refused.json.problems[0]).toMatchObject({ node: 'pg1' })
    expect(await fingerprints(hosts)).toEqual(before)
    await write(hba)
    await cluster.server('pg2').reload()

    // Only the way to pg2's port is cut: pg2's own connection goes to pg1's.
    await hosts.exec(
      'pg2',
      'nft add table inet way; nft add chain inet way in "{ type filter hook input priority 0; }"',
    )
    await hosts.exec('pg2', `nft add rule inet way in ip saddr ${hosts.addressOf('pg1')} tcp dport 5432 drop`)
    await streams('pg2', 'pg1')
    told(await switchover('pg2')).toMatchObject({
      exit: 3,
      changed: false,
      codes: ['replication-login-failed'],
    })
    await hosts.exec('pg2', 'nft delete table inet way')

    // The candidate has more than the old primary could follow.
    await run('pg2', "ALTER SYSTEM SET max_connections = '150'")
    await cluster.server('pg2').restart()
    await streams('pg2', 'pg1')
    const low = await switchover('pg2')
    told(low).toMatchObject({ exit: 3, changed: false, codes: ['settings-too-low'] })
    expect(low.json.problems[0]).toMatchObject({ node: 'pg1' })
    // And less: replay has paused because of it.
    await run('pg1', "ALTER SYSTEM SET max_connections = '200'")
    await cluster.server('pg1').restart()
    await cluster.server('pg2').awaitSql('SELECT pg_is_wal_replay_paused()')
    const high = await switchover('pg2')
    told(high).toMatchObject({ exit: 3, changed: false, codes: ['settings-too-low'] })
    expect(high.json.problems[0]).toMatchObject({ node: 'pg2' })
    expect(await writersNow(hosts)).toEqual(['pg1'])
  })

  it('P-26: slots that are not ours stay; what clients will notice is reported; a bystander that is down stops nothing', async () => {
    await run('pg1', "SELECT pg_create_physical_replication_slot('theirs', true)")
    await run('pg1', "SELECT pg_create_physical_replication_slot('shop_pg2_backup', true)")
    await run('pg1', "SELECT pg_create_logical_replication_slot('decoder', 'test_decoding')")
    await run('pg1', "BEGIN; INSERT INTO ledger VALUES (1); PREPARE TRANSACTION 'open'")
    await cluster.server('pg3').stop()
    const done = await switchover('pg2')
    told(done).toMatchObject({ exit: 0, changed: true })
    expect(
      done.json.problems.map((one: { code: string; node: string }) => `${one.node} ${one.code}`).toSorted(),
    ).toEqual(['pg1 logical-slots-stay', 'pg1 prepared-transactions', 'pg3 instance-stopped'])
    expect(await slots('pg1')).toBe('decoder,shop_pg2_backup,theirs')
    expect(await slots('pg2')).toBe('shop_pg1,shop_pg3')
    await run('pg2', "COMMIT PREPARED 'open'")
    await cluster.server('pg3').start()
    told(await cluster.replctl(['add-standby', 'pg3', '--json'])).toMatchObject({ exit: 0 })
    await streams('pg3', 'pg2')

    await hosts.powerOff('pg3')
    const back = await switchover('pg1')
    told(back).toMatchObject({ exit: 0, changed: true, codes: ['host-unreachable'] })
    expect(await slots('pg1')).toBe('decoder,shop_pg2,shop_pg2_backup,shop_pg3,theirs')
    expect(await slots('pg2')).toBe('')
    expect(await value('pg1', 'SELECT count(*) FROM ledger')).toBe(1)
  })
})
