import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { restoreHosts, saveHosts } from '../kit/empty-hosts.ts'
import { awaitCondition, type ReplctlResult, TestCluster, TestHosts } from '../kit/index.ts'
import { fingerprints } from '../kit/observe.ts'
import { countPoints, killAt, spreadPoints } from '../reliability/kill-points.ts'

describeOnHosts('verify', () => {
  let hosts: TestHosts
  let cluster: TestCluster

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [{ name: 'pg1' }, { name: 'pg2', login: 'admin' }, { name: 'pg3', login: 'root' }],
    })
    cluster = await TestCluster.create(hosts)
    await cluster.init()
    await cluster.addStandbys()
    await saveHosts(hosts)
  })
  afterAll(() => hosts?.destroy())
  beforeEach(async () => {
    await restoreHosts(hosts)
    await cluster.writeInventory({})
    for (const name of ['pg2', 'pg3']) await streams(name)
  })

  const streams = (name: string) =>
    cluster.server(name).awaitSql("SELECT count(*) = 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'")
  const verify = (...args: string[]) => cluster.replctl(['verify', ...args, '--json'])
  const tell = ({ exitCode, json }: ReplctlResult) => ({
    exit: exitCode,
    ok: Object.fromEntries(
      json?.result?.nodes.map((one: { name: string; ok: boolean }) => [one.name, one.ok]) ?? [],
    ),
    found: json?.problems.map((one: { node: string; code: string }) => `${one.node} ${one.code}`),
  })
  /** As `expect`, with replctl's own words where it fails. */
  const told = (result: ReplctlResult) =>
    expect(tell(result), `${JSON.stringify(result.json?.problems)}\n${result.stderr}`)
  const ofUpstream = (result: ReplctlResult) =>
    result.json.problems.find((one: { code: string }) => one.code === 'wrong-upstream')
  const litter = () =>
    cluster
      .server('pg1')
      .sqlValue(
        "SELECT count(*) FROM pg_class WHERE relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname = 'replctl')",
      )
  const schemas = () =>
    cluster.server('pg1').sqlValue("SELECT string_agg(nspname, ',' ORDER BY nspname) FROM pg_namespace")

  it('reads a row back on every standby, says how long it took, writes JUnit, and leaves nothing behind', async () => {
    const before = await schemas()
    const report = join(hosts.directory, 'junit <&".xml')
    const done = await verify('--junit', report)
    told(done).toMatchObject({ exit: 0, ok: { pg2: true, pg3: true }, found: [] })
    expect(done.json.changed).toBe(false)
    const { token, lsn, nodes, archive } = done.json.result
    expect(token).toMatch(/^[\w-]{16,}$/)
    expect(lsn).toMatch(/^[0-9A-F]+\/[0-9A-F]+$/)
    for (const node of nodes)
      expect(node).toMatchObject({ name: node.name, ok: true, latency_ms: expect.any(Number), timeline: 1 })
    expect(archive).toBe(null)
    expect(await schemas()).toBe(before)
    const xml = await readFile(report, 'utf8')
    expect(elementsOf(xml)).toContain('testsuite')
    expect(elementsOf(xml).filter((name) => name === 'failure')).toEqual([])
    const one = await verify('pg3')
    told(one).toMatchObject({ exit: 0, ok: { pg3: true } })
    expect((await cluster.replctl(['verify', 'pg4', '--json'])).exitCode).toBe(2)
  })

  it('named alone, the primary proves nothing: that is a problem, also in the report', async () => {
    const report = join(hosts.directory, 'junit-primary.xml')
    const alone = await verify('pg1', '--junit', report)
    told(alone).toMatchObject({ exit: 9, ok: {}, found: ['pg1 not-a-standby'] })
    expect(alone.json.problems[0].message).toBe('pg1 is the primary')
    expect(elementsOf(await readFile(report, 'utf8')).filter((name) => name === 'failure')).toHaveLength(1)
    told(await verify('pg1', '--dry-run')).toMatchObject({ exit: 9, found: ['pg1 not-a-standby'] })
    const beside = await verify('pg1', 'pg3')
    told(beside).toMatchObject({ exit: 0, ok: { pg3: true }, found: ['pg1 not-a-standby'] })
  })

  it('shows logical subscribers nothing where a publication is for all tables, and proves the standbys all the same', async () => {
    const server = cluster.server('pg1')
    await server.sql('ALTER SYSTEM SET wal_level = logical')
    await server.restart()
    for (const name of ['pg2', 'pg3']) await streams(name)
    await server.sql('CREATE TABLE orders (id int PRIMARY KEY)')
    await server.sql('CREATE PUBLICATION everything FOR ALL TABLES')
    await server.sql("SELECT pg_create_logical_replication_slot('reports', 'pgoutput')")
    const before = await schemas()
    const [done, beside] = await Promise.all([verify(), verify('pg3')])
    told(done).toMatchObject({ exit: 0, ok: { pg2: true, pg3: true } })
    told(beside).toMatchObject({ exit: 0, ok: { pg3: true } })
    expect([await schemas(), await litter()]).toEqual([before, 0])
    await server.sql('INSERT INTO orders VALUES (7)')
    // The first byte of a message of pgoutput: R(elation), I(nsert), U(pdate), D(elete), T(runcate).
    const sent = await server.sqlValue(
      `SELECT string_agg(chr(get_byte(data, 0)), '') FROM pg_logical_slot_get_binary_changes('reports', NULL, NULL,
         'proto_version', '1', 'publication_names', 'everything')`,
    )
    expect(sent?.replace(/[BC]/g, '')).toBe('RI')
  })

  it('a dry run tells what would be done, and no standby that failed', async () => {
    const planned = await verify('--dry-run')
    expect(planned.json).toMatchObject({ ok: true, exit_code: 0, changed: false, problems: [] })
    expect(planned.json.result).toEqual({ token: null, lsn: null, nodes: [], archive: null })
    const { stdout } = await cluster.replctl(['verify', 'pg2', '--dry-run'])
    expect(stdout).toBe('Would write a row on pg1, read it back on pg2, and remove the row again.\n')
  })

  it('a report that cannot be written is refused before, or else a warning beside the result', async () => {
    const refused = await verify('--junit', hosts.directory)
    expect(refused.json).toMatchObject({ exit_code: 2, result: null })
    const full = await verify('--junit', '/dev/full')
    told(full).toMatchObject({
      exit: 0,
      ok: { pg2: true, pg3: true },
      found: ['null report-not-written'],
    })
    expect(await litter()).toBe(0)
  })

  it('P-08: "running" is not "attached to the right upstream": followed from another node, or from none', async () => {
    const pg3 = cluster.server('pg3')
    const conninfo: string = await pg3.sqlValue("SELECT current_setting('primary_conninfo')")
    const other = conninfo.replace(hosts.addressOf('pg1'), hosts.addressOf('pg2'))
    await pg3.sql(
      `ALTER SYSTEM SET primary_slot_name = ''; ALTER SYSTEM SET primary_conninfo = $q$${other}$q$; SELECT pg_reload_conf()`,
    )
    await cluster.server('pg2').awaitStreaming('shop_pg3')
    const wrong = await verify()
    told(wrong).toMatchObject({ exit: 9, ok: { pg2: true, pg3: false } })
    expect(ofUpstream(wrong).detail).toContain('Expected upstream: pg1; actual upstream: pg2.')
    expect(tell(wrong).found.filter((one: string) => !one.startsWith('pg3 '))).toEqual([])

    await pg3.sql("ALTER SYSTEM SET primary_conninfo = ''; SELECT pg_reload_conf()")
    await cluster.server('pg2').awaitSql('SELECT count(*) = 0 FROM pg_stat_replication')
    const report = join(hosts.directory, 'junit.xml')
    const none = await verify('--junit', report)
    told(none).toMatchObject({ exit: 9, ok: { pg2: true, pg3: false } })
    expect(ofUpstream(none)).toMatchObject({
      node: 'pg3',
      detail: expect.stringContaining('actual upstream: none'),
    })
    expect(elementsOf(await readFile(report, 'utf8'))).toContain('failure')
    told(await verify('pg2')).toMatchObject({ exit: 0, ok: { pg2: true }, found: [] })

    // The command that its hint names mends it.
    expect(ofUpstream(none).hint).toContain('replctl follow pg3 --upstream pg1')
    await cluster.succeed(['follow', 'pg3', '--upstream', 'pg1'])
    told(await verify()).toMatchObject({ exit: 0, found: [] })
  })

  it('paused replay, a stopped standby and an unreachable host are named, and nobody waits for them', async () => {
    await cluster.server('pg3').sql('SELECT pg_wal_replay_pause()')
    await cluster.server('pg3').awaitSql('SELECT pg_is_wal_replay_paused()')
    told(await verify()).toMatchObject({
      exit: 9,
      ok: { pg2: true, pg3: false },
      found: ['pg3 replay-paused'],
    })
    await cluster.server('pg3').stop()
    told(await verify()).toMatchObject({
      exit: 9,
      ok: { pg2: true, pg3: false },
      found: ['pg3 instance-stopped'],
    })
    await hosts.powerOff('pg3')
    const off = await verify()
    told(off).toMatchObject({ exit: 9, ok: { pg2: true, pg3: false }, found: ['pg3 host-unreachable'] })
    expect(off.ms).toBeLessThan(11_000)
    await hosts.powerOff('pg2')
    await hosts.cutLink('pg1', 'control')
    const all = await verify()
    told(all).toMatchObject({ exit: 9, ok: { pg2: false, pg3: false } })
    expect(all.ms).toBeLessThan(11_000)
    await hosts.restoreLink('pg1')
    expect(await litter()).toBe(0)
  })

  it('a slot that is lost is an outage: the WAL the standby needs is gone', async () => {
    const pg1 = cluster.server('pg1')
    await pg1.sql(
      `ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'; ALTER SYSTEM SET wal_keep_size = 0; ALTER SYSTEM SET max_wal_size = '32MB'; SELECT pg_reload_conf()`,
    )
    await cluster.server('pg3').stop()
    await awaitCondition('the slot of pg3 is lost', async () => {
      await pg1.sql(
        'CREATE TABLE IF NOT EXISTS filler (a int); INSERT INTO filler SELECT generate_series(1, 1000); SELECT pg_switch_wal(); CHECKPOINT',
      )
      return (
        (await pg1.sqlValue("SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'shop_pg3'")) ===
        'lost'
      )
    })
    await cluster.server('pg3').start()
    const lost = await verify()
    told(lost).toMatchObject({ exit: 9, ok: { pg2: true, pg3: false } })
    expect(tell(lost).found).toContain('pg3 slot-lost')
    expect(JSON.stringify(lost.json.problems)).toMatch(/wal_status lost/)
    expect(JSON.stringify(lost.json.problems)).toContain('replctl add-standby pg3 --reclone')
  })

  it('a standby that went its own way on another timeline is not healthy', async () => {
    const pg3 = cluster.server('pg3')
    await pg3.promote()
    await pg3.sql('CREATE TABLE own (a int)')
    told(await verify()).toMatchObject({ exit: 9, found: ['null two-writers'] })
    await pg3.stop()
    await hosts.exec('pg3', ['touch', `${pg3.dataDir}/standby.signal`], { user: 'postgres' })
    await pg3.start()
    const found = await verify()
    told(found).toMatchObject({ exit: 9, ok: { pg2: true, pg3: false } })
    expect(tell(found).found).toContain('pg3 node-diverged')
  })

  it('P-09: looking changes nothing, with everybody well, with one stopped, with one unreachable', async () => {
    const looks = [
      ['status'],
      ['verify'],
      ['verify', '--dry-run'],
      ['status', '--dry-run'],
      ['init', 'primary', 'pg1', '--dry-run'],
      ['add-standby', 'pg2', 'pg3', '--dry-run'],
      ['add-standby', 'pg3', '--reclone', '--dry-run'],
      ['promote', 'pg2', '--dry-run'],
      ['promote', 'pg2', '--allow-split-brain', '--dry-run'],
      ['remove-standby', 'pg3', '--dry-run'],
      ['remove-standby', 'pg3', '--purge', '--dry-run'],
      ['resume', '--dry-run'],
    ]
    const lookAll = async (nodes: string[]) => {
      const before = await fingerprints(hosts, nodes)
      await Promise.all(
        looks.map(async (words) => {
          const result = await cluster.replctl([...words, '--json'])
          expect({ words, changed: result.json?.changed }).toEqual({ words, changed: false })
        }),
      )
      expect(await fingerprints(hosts, nodes)).toEqual(before)
    }
    await lookAll(['pg1', 'pg2', 'pg3'])
    await cluster.server('pg3').stop()
    await lookAll(['pg1', 'pg2', 'pg3'])
    await hosts.powerOff('pg3')
    await lookAll(['pg1', 'pg2'])
  })

  it('many verifies at once, and ones that are killed, disturb neither each other nor the cluster', async () => {
    const before = await schemas()
    for (const round of [1, 2]) {
      const results = await Promise.all(Array.from({ length: 5 }, () => verify()))
      for (const result of results) expect({ round, ...tell(result) }).toMatchObject({ exit: 0, found: [] })
    }
    expect(await schemas()).toBe(before)
    const { message } = await countPoints(cluster, ['verify'])
    for (const point of spreadPoints('message', message, 4, 0.5)) {
      expect(await killAt(cluster, ['verify'], point)).toMatchObject({ wasEarlier: false })
    }
    // What killed ones may have left harms nobody: verify, and a change of roles, work as ever.
    told(await verify()).toMatchObject({ exit: 0, found: [] })
    told(await verify()).toMatchObject({ exit: 0, found: [] })
    // A backend ends a moment after its client.
    await cluster
      .server('pg1')
      .awaitSql("SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'replctl'")
  })

  it('a dump on a standby that holds the test table is not cancelled: the table goes with a later verify', async () => {
    const [pg1, pg2] = [cluster.server('pg1'), cluster.server('pg2')]
    // Whatever stands in the way of replay would be cancelled at once.
    await pg2.sql('ALTER SYSTEM SET max_standby_streaming_delay = 0')
    await pg2.sql('SELECT pg_reload_conf()')
    await pg1.sql(
      `CREATE SCHEMA replctl;
       CREATE TABLE replctl.verification (token text PRIMARY KEY, written_at timestamptz NOT NULL DEFAULT now())`,
    )
    await pg2.awaitCatchup(pg1)
    const dump = pg2.sql('BEGIN; SELECT count(*) FROM replctl.verification; SELECT pg_sleep(600)').then(
      () => 'ended',
      (error) => String(error),
    )
    const sleeping = "FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    await pg2.awaitSql(`SELECT count(*) = 1 ${sleeping}`)
    told(await verify()).toMatchObject({ exit: 0, ok: { pg2: true, pg3: true }, found: [] })
    await pg2.awaitCatchup(pg1)
    expect(await pg2.sqlValue(`SELECT count(*) ${sleeping}`)).toBe(1)
    expect(await pg1.sqlValue('SELECT count(*) FROM replctl.verification')).toBe(0)
    await pg2.sql(`SELECT pg_terminate_backend(pid) ${sleeping}`)
    expect(await dump).toMatch(/administrator command/)
    told(await verify()).toMatchObject({ exit: 0, ok: { pg2: true, pg3: true }, found: [] })
    expect(await litter()).toBe(0)
  })

  it('in mode sync with every standby gone, neither verify nor status hangs behind the missing confirmation', async () => {
    await cluster.writeInventory({ replication: { mode: 'sync' } })
    told(await cluster.replctl(['add-standby', 'pg2', 'pg3', '--json'])).toMatchObject({ exit: 0 })
    await cluster
      .server('pg1')
      .awaitSql("SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'")
    told(await verify()).toMatchObject({ exit: 0, ok: { pg2: true, pg3: true }, found: [] })
    await cluster.server('pg2').stop()
    await cluster.server('pg3').stop()
    const alone = await verify()
    told(alone).toMatchObject({ exit: 9, ok: { pg2: false, pg3: false } })
    expect(tell(alone).found).toContain('pg1 writes-blocked')
    expect(alone.ms).toBeLessThan(15_000)
    const status = await cluster.replctl(['status', '--json'])
    expect(status.json.problems).toContainEqual(
      expect.objectContaining({ code: 'writes-blocked', node: 'pg1' }),
    )
    expect(await litter()).toBe(0)
  })
})

/** Names of the elements of an XML text. @throws if it is not well-formed */
function elementsOf(xml: string): string[] {
  const names: string[] = []
  const open: string[] = []
  const text = xml.replace(/^<\?xml[^?]*\?>/, '')
  for (const [tag, close, name, rest] of text.matchAll(/<(\/?)([\w-]+)((?:\s+[\w-]+="[^"<]*")*\s*\/?)>/g)) {
    if (close) expect(open.pop()).toBe(name)
    else {
      names.push(name!)
      if (!rest!.endsWith('/')) open.push(name!)
    }
    void tag
  }
  expect(open).toEqual([])
  expect(text.replace(/<\/?[\w-]+(?:\s+[\w-]+="[^"<]*")*\s*\/?>/g, '')).not.toMatch(
    /[<>]|&(?!(amp|lt|gt|quot|apos|#\d+);)/,
  )
  return names
}
