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
import { Client, openToControlHost, WriterWatch } from '../kit/observe.ts'

const tell = ({ exitCode, json }: ReplctlResult) => ({
  exit: exitCode,
  changed: json?.changed,
  found: json?.problems.map((one: { node: string; code: string }) => `${one.node} ${one.code}`),
})
/** As `expect`, with replctl's own words where it fails. */
const told = (result: ReplctlResult) =>
  expect(tell(result), `${JSON.stringify(result.json?.problems)}\n${result.stderr}`)

describeOnHosts('modes sync and quorum', () => {
  let hosts: TestHosts
  let cluster: TestCluster
  const inMode = (mode: string, count: number, more: InventoryPart = {}): InventoryPart => ({
    ...openToControlHost,
    // Under load a login takes its time; nothing here is about that.
    ssh: { connect_timeout: '20s' },
    replication: { mode, sync_standbys: count },
    ...more,
  })

  beforeAll(async () => {
    hosts = await TestHosts.create({ hosts: ['pg1', 'pg2', 'pg3'].map((name) => ({ name })) })
    cluster = await TestCluster.create(hosts, { inventory: inMode('quorum', 1) })
    // P-02: no standby is there yet, and nothing hangs behind the missing confirmation.
    const built = await cluster.init()
    told(built).toMatchObject({ exit: 0, changed: true })
    await saveHosts(hosts)
  })
  afterAll(() => hosts?.destroy())
  beforeEach(async () => {
    await restoreHosts(hosts)
    await cluster.writeInventory(inMode('quorum', 1))
  })

  const run = (...args: string[]) => cluster.replctl([...args, '--json'])
  const names = (node = 'pg1') =>
    cluster.server(node).sqlValue("SELECT current_setting('synchronous_standby_names')")
  /** Who confirms by the server's own view. */
  const confirming = (node = 'pg1'): Promise<string[]> =>
    cluster
      .server(node)
      .sqlValue(
        "SELECT coalesce(array_agg(application_name || ' ' || sync_state ORDER BY 1), '{}') FROM pg_stat_replication WHERE sync_state <> 'async'",
      )
  /** Whom commits wait for, as a node was told: a failover that finds no primary goes by that. */
  const recorded = async (node: string): Promise<string[]> => {
    const { stdout } = await hosts.exec(node, 'cat ~postgres/.replctl/shop/cluster.json')
    return JSON.parse(stdout).confirmers
  }
  const message = ({ json }: ReplctlResult, code: string) =>
    json.problems.find((one: { code: string }) => one.code === code)

  it('P-02, P-39: the set follows membership: added, removed, more wanted, cascaded, back again', async () => {
    const alone = await run('status')
    expect(message(alone, 'durability-reduced').message).toBe('0 of 1 sync standbys')
    await cluster.server('pg1').sql('CREATE TABLE ledger (id bigint)')
    expect(await names()).toBe('')

    told(await run('add-standby', 'pg2')).toMatchObject({ exit: 0 })
    expect(await names()).toBe('ANY 1 ("shop_pg2")')
    told(await run('add-standby', 'pg3')).toMatchObject({ exit: 0 })
    expect(await names()).toBe('ANY 1 ("shop_pg2", "shop_pg3")')
    await awaitCondition('both confirm', async () => (await confirming()).length === 2)
    told(await run('status')).toMatchObject({ exit: 0, found: [] })

    await cluster.writeInventory(inMode('sync', 2, { nodes: { pg3: { priority: 5 } } }))
    expect(message(await run('status'), 'durability-reduced').message).toBe('1 of 2 sync standbys')
    told(await run('add-standby', 'pg2', 'pg3')).toMatchObject({ exit: 0 })
    expect(await names()).toBe('FIRST 2 ("shop_pg3", "shop_pg2")')
    // Two are promised: pg3 cannot leave the primary for pg2.
    told(await run('follow', 'pg3', '--upstream', 'pg2')).toMatchObject({
      exit: 3,
      changed: false,
      found: ['pg3 durability-reduced'],
    })

    await cluster.writeInventory(inMode('quorum', 1))
    told(await run('follow', 'pg3', '--upstream', 'pg2')).toMatchObject({ exit: 0, changed: true })
    expect(await names()).toBe('ANY 1 ("shop_pg2")')
    await awaitCondition('pg2 has everything', async () => {
      told(await run('follow', 'pg3', '--upstream', 'pg2')).toMatchObject({ exit: 0 })
      return (await recorded('pg3')).join() === 'shop_pg2'
    })
    await cluster.server('pg1').sql('INSERT INTO ledger VALUES (1)')
    await cluster.server('pg3').awaitSql('SELECT count(*) = 1 FROM ledger')
    told(await run('follow', 'pg3', '--upstream', 'pg1')).toMatchObject({ exit: 0, changed: true, found: [] })
    expect(await names()).toBe('ANY 1 ("shop_pg2", "shop_pg3")')
    for (const node of hosts.names) expect(await recorded(node)).toEqual(['shop_pg2', 'shop_pg3'])
    told(await run('follow', 'pg3', '--upstream', 'pg1')).toMatchObject({ exit: 0, changed: false })

    told(await run('remove-standby', 'pg3')).toMatchObject({ exit: 0 })
    expect(await names()).toBe('ANY 1 ("shop_pg2")')
    told(await run('remove-standby', 'pg2')).toMatchObject({ exit: 0 })
    expect(await names()).toBe('')
    await cluster.server('pg1').sql('INSERT INTO ledger VALUES (2)')
    for (const count of [3, 0, -1]) {
      await cluster.writeInventory(inMode('quorum', count))
      told(await run('status')).toMatchObject({ exit: 2 })
    }
  })

  it('P-40: the last sync standby is lost, or only its link: writes wait, status says so, one command sets them free', async () => {
    told(await run('add-standby', 'pg2')).toMatchObject({ exit: 0 })
    const pg1 = cluster.server('pg1')
    await pg1.sql('CREATE TABLE ledger (id bigint)')
    await awaitCondition('pg2 confirms', async () => (await confirming()).join() === 'shop_pg2 quorum')
    // Only the link between the two: to the primary it still looks connected.
    await hosts.cutLink('pg1', 'pg2')
    const insert = pg1.sql('INSERT INTO ledger VALUES (1)')
    await pg1.awaitSql("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
    await awaitCondition(
      'status says that writes are blocked',
      async () => message(await run('status'), 'writes-blocked') !== undefined,
    )
    const blocked = await run('status')
    expect(blocked.exitCode).toBe(9)
    expect(message(blocked, 'writes-blocked')).toMatchObject({
      node: 'pg1',
      severity: 'error',
      message: 'writes blocked: 0 of 1 sync standbys',
      hint: expect.stringContaining('replctl remove-standby pg2'),
    })
    await hosts.restoreLink('pg1')
    await insert

    await cluster.server('pg2').stop()
    const waiting = pg1.sql('INSERT INTO ledger VALUES (2)')
    await pg1.awaitSql("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
    const verified = await run('verify')
    told(verified).toMatchObject({ exit: 9 })
    expect(tell(verified).found).toContain('pg1 writes-blocked')
    told(await run('remove-standby', 'pg2')).toMatchObject({ exit: 0, changed: true })
    await waiting
    await pg1.sql('INSERT INTO ledger VALUES (3)')
    expect(message(await run('status'), 'durability-reduced').message).toBe('0 of 1 sync standbys')
    // It comes back: what was written meanwhile is on it, and it confirms again.
    told(await run('add-standby', 'pg2')).toMatchObject({ exit: 0, changed: true })
    await cluster.server('pg2').awaitSql('SELECT count(*) = 3 FROM ledger')
    expect(await names()).toBe('ANY 1 ("shop_pg2")')
    await awaitCondition('pg2 confirms', async () => (await confirming()).join() === 'shop_pg2 quorum')
  })

  it('a standby that commits wait for is cloned anew where writes go on meanwhile, or where that is what sets them free', async () => {
    await cluster.writeInventory(inMode('sync', 1))
    told(await run('add-standby', 'pg2')).toMatchObject({ exit: 0 })
    const pg1 = cluster.server('pg1')
    await pg1.sql('CREATE TABLE ledger (id bigint)')
    const confirm = (...who: string[]) =>
      awaitCondition(`${who} confirm`, async () => (await confirming()).join() === who.join())
    await confirm('shop_pg2 sync')

    const refused = await run('add-standby', 'pg2', '--reclone')
    told(refused).toMatchObject({ exit: 3, changed: false, found: ['pg2 writes-blocked'] })
    const { hint } = message(refused, 'writes-blocked')
    expect(hint).toContain('Add another standby first: replctl add-standby pg3; or')
    const alike = await run('rejoin', 'pg2', '--reclone')
    told(alike).toMatchObject({ exit: 3, changed: false, found: ['pg2 writes-blocked'] })
    expect(message(alike, 'writes-blocked').hint).toContain(
      'replctl remove-standby pg2, then replctl rejoin pg2 --reclone',
    )
    expect(await confirming()).toEqual(['shop_pg2 sync'])
    // One way that the hint names: commits do without meanwhile.
    expect(hint).toContain('replctl remove-standby pg2, then replctl add-standby pg2 --reclone')
    told(await run('remove-standby', 'pg2')).toMatchObject({ exit: 0 })
    await pg1.sql('INSERT INTO ledger VALUES (1)')
    told(await run('add-standby', 'pg2', '--reclone')).toMatchObject({ exit: 0 })
    await confirm('shop_pg2 sync')
    told(await run('remove-standby', 'pg2')).toMatchObject({ exit: 0 })
    told(await run('rejoin', 'pg2', '--reclone')).toMatchObject({ exit: 0 })
    await confirm('shop_pg2 sync')

    // The other way: somebody else confirms meanwhile, and never the copy itself.
    told(await run('add-standby', 'pg3')).toMatchObject({ exit: 0 })
    await confirm('shop_pg2 sync', 'shop_pg3 potential')
    await hosts.limitLink('pg2', '20mbit')
    const started = cluster.startReplctl(['add-standby', 'pg2', '--reclone', '--json'])
    const copies = "SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'backup'"
    await pg1.awaitSql(
      `${copies} AND EXISTS (SELECT 1 FROM pg_stat_replication WHERE state = 'streaming' AND application_name LIKE '%pg2')`,
    )
    expect(await confirming()).toEqual(['shop_pg3 sync'])
    await pg1.sql('INSERT INTO ledger VALUES (2)')
    expect(await pg1.sqlValue(copies)).toBe(true)
    await hosts.limitLink('pg2', undefined)
    const { exitCode } = await started.finished
    expect(exitCode, started.stdout()).toBe(0)
    await confirm('shop_pg2 sync', 'shop_pg3 potential')

    // The only one is lost: its new clone sets writes free.
    told(await run('remove-standby', 'pg3')).toMatchObject({ exit: 0 })
    await cluster.server('pg2').stop()
    const waiting = pg1.sql('INSERT INTO ledger VALUES (3)')
    await pg1.awaitSql("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
    told(await run('add-standby', 'pg2', '--reclone')).toMatchObject({ exit: 0 })
    await waiting
    await confirm('shop_pg2 sync')
    await cluster.server('pg2').awaitSql('SELECT count(*) = 3 FROM ledger')
  })

  it('two failovers, and no rejoin between them: what was lost first is in the way only where commits waited for it again', async () => {
    told(await run('add-standby', 'pg2', 'pg3')).toMatchObject({ exit: 0 })
    await cluster.server('pg1').sql('CREATE TABLE ledger (id bigint)')
    await awaitCondition('both confirm', async () => (await confirming()).length === 2)
    let written = 0
    const failOver = async (leader: string): Promise<string> => {
      written += 1
      await cluster.server(leader).sql(`INSERT INTO ledger VALUES (${written})`)
      await cluster.server(leader).kill9()
      const done = await run('promote')
      told(done).toMatchObject({ exit: 0, changed: true })
      const next = done.json.result.new_primary
      expect(await cluster.server(next).sqlValue('SELECT count(*) FROM ledger')).toBe(written)
      return next
    }
    const second = await failOver('pg1')
    const third = second === 'pg2' ? 'pg3' : 'pg2'
    expect(await recorded(third)).toEqual([`shop_${third}`])

    // It came back, and commits wait for it: now it is one that is missed.
    told(await run('rejoin', 'pg1')).toMatchObject({ exit: 0, changed: true })
    for (const node of hosts.names) expect(await recorded(node)).toEqual(['shop_pg1', `shop_${third}`])
    await cluster.server('pg1').stop()
    await cluster.server(second).kill9()
    const refused = await run('promote', third)
    told(refused).toMatchObject({
      exit: 3,
      changed: false,
      found: expect.arrayContaining([`${third} confirmed-commits-at-risk`]),
    })
    expect(message(refused, 'confirmed-commits-at-risk').message).toContain('pg1 may hold confirmed commits')

    await cluster.server(second).start()
    await cluster.server('pg1').start()
    await awaitCondition('both confirm', async () => (await confirming(second)).length === 2)
    const fourth = await failOver(second)
    // One of them is fenced, the other one streams: that has every commit.
    await awaitCondition('the last one confirms', async () => (await confirming(fourth)).length === 1)
    const last = await failOver(fourth)
    expect(new Set([second, fourth, last])).toEqual(new Set(hosts.names))
  })

  it('a delayed and a not promotable standby: neither waited for nor chosen, and healthy', async () => {
    const wish = inMode('quorum', 1, { nodes: { pg3: { delay: '1h', priority: 100 } } })
    await cluster.writeInventory(wish)
    told(await run('add-standby', 'pg2', 'pg3')).toMatchObject({ exit: 0 })
    expect(await names()).toBe('ANY 1 ("shop_pg2")')
    const [pg1, pg3] = [cluster.server('pg1'), cluster.server('pg3')]
    expect(await pg3.sqlValue("SELECT current_setting('recovery_min_apply_delay')")).toBe('1h')
    await pg1.sql('CREATE TABLE ledger (id bigint)')
    const verified = await run('verify')
    told(verified).toMatchObject({ exit: 0, found: [] })
    expect(verified.json.result.nodes).toContainEqual(
      expect.objectContaining({
        name: 'pg3',
        ok: true,
        proof: 'received',
        latency_ms: null,
        delay_seconds: 3600,
      }),
    )
    told(await run('status')).toMatchObject({ exit: 0, found: [] })
    // pg2 lacks the last WAL, which the delayed one has received: it leads all the same, and gets that from there first.
    await cluster.writeInventory({ ...wish, replication: { mode: 'async' } })
    told(await run('add-standby', 'pg2')).toMatchObject({ exit: 0 })
    const [receiver] = await hosts.pids('pg2', 'walreceiver')
    await hosts.kill('pg2', receiver!, 'SIGSTOP')
    await pg1.sql(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE application_name = 'shop_pg2'",
    )
    await pg1.sql('INSERT INTO ledger SELECT generate_series(1, 100)')
    await pg3.awaitSql(`SELECT pg_last_wal_receive_lsn() >= '${await pg1.lsn('flush')}'::pg_lsn`)
    await pg1.kill9()
    await hosts.kill('pg2', receiver!, 'SIGCONT')
    await cluster.server('pg2').awaitSql('SELECT count(*) = 0 FROM pg_stat_wal_receiver')
    const done = await run('promote')
    told(done).toMatchObject({ exit: 0, changed: true })
    expect(done.json.result).toMatchObject({ new_primary: 'pg2', repointed: ['pg3'] })
    expect(await cluster.server('pg2').sqlValue('SELECT count(*) FROM ledger')).toBe(100)
    // PostgreSQL asks for WAL again when the transaction that is held back is due; until then the slot keeps it.
    const waiting = await run('status')
    expect(waiting.json.problems).toContainEqual(
      expect.objectContaining({ code: 'not-streaming', severity: 'warning', node: 'pg3' }),
    )
    expect(
      await cluster
        .server('pg2')
        .sqlValue("SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'shop_pg3'"),
    ).toBe(1)
    expect(await pg3.sqlValue("SELECT count(*) FROM pg_class WHERE relname = 'ledger'")).toBe(0)
    expect(await pg3.sqlValue('SELECT count(*) FROM pg_replication_slots')).toBe(0)
    await cluster.writeInventory(inMode('async', 1, {}))
    told(await run('add-standby', 'pg3')).toMatchObject({ exit: 0, changed: true })
    await cluster.server('pg2').awaitStreaming('shop_pg3')

    await cluster.writeInventory(inMode('quorum', 1, { nodes: { pg3: { promotable: false } } }))
    await cluster.server('pg2').kill9()
    const refused = await run('promote', 'pg3')
    told(refused).toMatchObject({ exit: 3, changed: false, found: ['pg3 not-promotable'] })
  })
})

describeOnHosts('sync and quorum over repeated failovers', () => {
  it.each([
    ['sync', ['any', 'First', 'n-2']],
    ['quorum', ['N3', 'ANY', 'first']],
  ])(
    'mode %s, P-41: names that need quotes; three failovers under load lose no confirmed row',
    async (mode, nodes) => {
      const hosts = await TestHosts.create({ hosts: ['a', 'b', 'c'].map((name) => ({ name })) })
      try {
        const cluster = await TestCluster.create(hosts, { nodes: ['a'] })
        const { readFile, writeFile } = await import('node:fs/promises')
        const { parse, stringify } = await import('yaml')
        const inventory = parse(await readFile(cluster.inventoryFile, 'utf8'))
        const { ssh } = inventory.nodes.a
        const hostOf = new Map(nodes.map((name, index) => [name, hosts.names[index]!]))
        inventory.nodes = Object.fromEntries(
          nodes.map((name) => [name, { host: hosts.addressOf(hostOf.get(name)!), ssh }]),
        )
        inventory.postgres.hba = openToControlHost.postgres.hba
        inventory.ssh.connect_timeout = '20s'
        inventory.replication = { mode, sync_standbys: 1 }
        await writeFile(cluster.inventoryFile, stringify(inventory))
        const run = (...args: string[]) => cluster.replctl([...args, '--json'])
        const server = (name: string) => cluster.server(hostOf.get(name)!)
        told(await run('init', 'primary')).toMatchObject({ exit: 0 })
        told(await run('add-standby', ...nodes.slice(1))).toMatchObject({ exit: 0 })
        const method = mode === 'sync' ? 'FIRST' : 'ANY'
        let leader = nodes[0]!
        await server(leader).sql('CREATE TABLE ledger (id bigint)')
        const confirmed: number[] = []
        const watch = new WriterWatch(hosts)
        for (let round = 1; round <= 3; round += 1) {
          const others = nodes.filter((name) => name !== leader)
          const list = others.map((name) => `"shop_${name}"`).join(', ')
          expect(await server(leader).sqlValue("SELECT current_setting('synchronous_standby_names')")).toBe(
            `${method} 1 (${list})`,
          )
          await server(leader).awaitSql(
            `SELECT count(*) = ${mode === 'sync' ? 1 : 2} FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')`,
          )
          const clients = [0, 1].map(
            (n) => new Client(hosts, hostOf.get(leader)!, (round * 10 + n) * 1_000_000),
          )
          await awaitCondition('the clients write', () => clients.every((one) => one.confirmed.length > 20))
          await server(leader).kill9()
          confirmed.push(...(await Promise.all(clients.map((one) => one.stop()))).flat())
          const done = await run('promote')
          told(done).toMatchObject({ exit: 0, changed: true })
          const lost = leader
          leader = done.json.result.new_primary
          expect(
            await server(leader).sqlValue(
              `SELECT count(DISTINCT id) FROM ledger WHERE id = ANY ('{${confirmed}}')`,
            ),
          ).toBe(confirmed.length)
          // The lost one comes back as it can: a new clone, once what only it had is given up.
          const { dataDir } = server(lost)
          await hosts.exec(hostOf.get(lost)!, ['sh', '-c', 'rm -rf "$1"', 'sh', dataDir])
          told(await run('add-standby', lost)).toMatchObject({ exit: 0 })
        }
        expect(confirmed.length).toBeGreaterThan(100)
        expect(await watch.stop()).toEqual([])
        told(await run('verify')).toMatchObject({ exit: 0, found: [] })
        const log = await hosts.exec(
          hostOf.get(leader)!,
          'cat ~postgres/.replctl/shop/postgresql.log /var/lib/postgresql/15/*/log/* 2>/dev/null; :',
        )
        expect(log.stdout).not.toContain('invalid value for parameter "synchronous_standby_names"')
      } finally {
        await hosts.destroy()
      }
    },
    900_000,
  )
})
