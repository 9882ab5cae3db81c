import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
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
import { Client, fingerprint, openToControlHost, WriterWatch, writersNow } from '../kit/observe.ts'

describeOnHosts('rejoin', () => {
  let hosts: TestHosts
  let cluster: TestCluster
  const base: InventoryPart = { ...openToControlHost, ssh: { connect_timeout: '10s' } }

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [{ name: 'pg1' }, { name: 'pg2', login: 'admin' }, { name: 'pg3', login: 'root' }],
    })
    cluster = await TestCluster.create(hosts, { inventory: base })
    await cluster.init()
    await cluster.addStandbys()
    await run('pg1', 'CREATE TABLE ledger (id bigint PRIMARY KEY)')
    await run('pg1', 'CREATE TABLE big AS SELECT generate_series(1, 1000) AS id')
    await run('pg1', 'CREATE TABLE gone AS SELECT generate_series(1, 100) AS id')
    await saveHosts(hosts)
  })
  afterAll(() => hosts?.destroy())
  beforeEach(async () => {
    await restoreHosts(hosts)
    for (const name of ['pg2', 'pg3']) await streams(name)
    for (const name of ['pg2', 'pg3']) await cluster.server(name).awaitCatchup(cluster.server('pg1'))
  })

  const data = () => cluster.server('pg1').dataDir
  const state = '/var/lib/postgresql/.replctl/shop'
  const run = (node: string, statement: string) => cluster.server(node).sql(statement)
  const value = (node: string, query: string) => cluster.server(node).sqlValue(query)
  const ids = (node: string) => value(node, 'SELECT array_agg(id ORDER BY id)::text FROM ledger')
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

  /** pg2 leads; pg1, cut off meanwhile, wrote on: a row, a longer table, a dropped one. */
  async function divergePg1(): Promise<void> {
    await hosts.cutLink('pg1')
    await cluster.succeed(['promote', 'pg2', '--allow-split-brain'])
    await run('pg1', 'INSERT INTO ledger VALUES (1)')
    await run('pg1', 'INSERT INTO big SELECT generate_series(1001, 1500); DROP TABLE gone')
    await run('pg2', 'INSERT INTO ledger VALUES (2)')
  }

  async function expectGoodCluster(primary = 'pg2'): Promise<void> {
    expect(await writersNow(hosts)).toEqual([primary])
    for (const name of hosts.names) {
      if (name !== primary) await cluster.server(name).awaitCatchup(cluster.server(primary))
    }
    const verify = await cluster.replctl(['verify', '--json'])
    expect(tell(verify), JSON.stringify(verify.json?.problems)).toMatchObject({ exit: 0, codes: [] })
    // Nothing of the way back is left: no role, no line for it, no passfile, no kept files.
    expect(await value(primary, "SELECT count(*) FROM pg_roles WHERE rolname = 'replctl_rewind'")).toBe(0)
    const left = await hosts.exec('pg1', `ls ${state}; grep -l replctl_rewind ${data()}/pg_hba.conf`, {
      check: false,
    })
    expect(left.stdout).not.toMatch(/rejoin|rewind|isolated|job-/)
  }

  it('P-19, P-22: a diverged former primary is rewound, keeps its own files, and what only it had is saved', async () => {
    await hosts.exec(
      'pg1',
      `cd ${data()}; echo certificate >server.crt; echo key >server.key; chmod 600 server.key
mkdir own; echo mine >own/file; sed -i "1i work_mem = '7MB'" postgresql.conf; echo 'host own own 192.0.2.1/32 reject' >>pg_hba.conf
mv pg_ident.conf ../ident && ln -s ../ident pg_ident.conf`,
      { user: 'postgres' },
    )
    const own = () =>
      hosts.exec(
        'pg1',
        `cd ${data()}; stat -c '%a %n' server.*; readlink pg_ident.conf; sha256sum server.* own/file postgresql.conf pg_hba.conf`,
      )
    const before = (await own()).stdout
    await divergePg1()
    await cluster.server('pg1').stop()
    await hosts.exec('pg2', `echo theirs >${data()}/server.key; echo theirs >${data()}/only-there`)
    await hosts.restoreLink('pg1')
    const files = await fingerprint(hosts, 'pg1')
    const planned = await rejoin('pg1', '--dry-run')
    told(planned).toMatchObject({ exit: 0, changed: false, method: 'rewind' })
    expect(await fingerprint(hosts, 'pg1')).toBe(files)
    const done = await rejoin('pg1')
    told(done).toMatchObject({ exit: 0, changed: true, method: 'rewind', codes: [] })
    const titles = ({ json }: ReplctlResult) => json.result.steps.map((step: { title: string }) => step.title)
    expect(titles(done)).toEqual(titles(planned))
    // Before it was rewound, it was said what would go.
    expect(done.stderr.slice(0, done.stderr.indexOf('pg_rewind from'))).toMatch(
      /\d+ bytes of its own WAL after the fork at [0-9A-F/]+ of timeline 1 will be discarded/,
    )
    const { fork_lsn, salvage } = done.json.result
    expect(await value('pg2', `SELECT pg_read_file('pg_wal/00000002.history') LIKE '%${fork_lsn}%'`)).toBe(
      true,
    )
    expect(salvage).toMatchObject({ complete: true })
    const rows = await hosts.readFile('pg1', `${salvage.dir}/rows.jsonl`)
    expect(rows.trim().split('\n').length).toBe(salvage.rows)
    expect(rows).toContain('"new":{"id":1}')
    await expectGoodCluster()
    expect(await ids('pg1')).toBe('{2}')
    expect(await value('pg1', 'SELECT count(*) FROM big')).toBe(1000)
    expect(await value('pg1', 'SELECT count(*) FROM gone')).toBe(100)
    expect((await own()).stdout).toBe(before)
    expect((await hosts.exec('pg1', `ls ${data()}`)).stdout).not.toContain('only-there')
    expect(await value('pg1', 'SHOW work_mem')).toBe('7MB')
    told(await rejoin('pg1')).toMatchObject({ exit: 0, changed: false, method: 'none', codes: [] })
  })

  it('P-20: one that was killed under load is recovered and rewound without ever accepting a client that could write', async () => {
    const client = new Client(hosts, 'pg1')
    await awaitCondition('the client writes', () => client.confirmed.length > 20)
    const writesOn = async () => {
      const seen = client.confirmed.length
      await awaitCondition('the client writes on', () => client.confirmed.length > seen + 20)
    }
    // pg2 goes on receiving for a while, so that it is ahead of pg3.
    await hosts.cutLink('pg1', 'pg3')
    await writesOn()
    await hosts.cutLink('pg1', 'pg2')
    await writesOn()
    await cluster.server('pg1').kill9()
    const confirmed = await client.stop()
    await cluster.succeed(['promote', 'pg2'])
    await hosts.restoreLink('pg1')
    const watch = new WriterWatch(hosts, ['pg1', 'pg2'])
    const done = await rejoin('pg1')
    told(done).toMatchObject({ exit: 0, changed: true, method: 'rewind', codes: [] })
    expect(await watch.stop()).toEqual([])
    await expectGoodCluster()
    // Every confirmed row is on the new primary, or was written out.
    const saved = await hosts.readFile('pg1', `${done.json.result.salvage.dir}/rows.jsonl`)
    const there = String(await ids('pg2'))
      .replace(/[{}]/g, '')
      .split(',')
      .map(Number)
    const lost = confirmed.filter((id) => !there.includes(id) && !saved.includes(`"new":{"id":${id}}`))
    expect(lost).toEqual([])
  })

  it('a former primary that was shut down in order follows, without a rewind', async () => {
    await cluster.server('pg1').stop()
    await cluster.succeed(['promote', 'pg2'])
    await run('pg2', 'INSERT INTO ledger VALUES (2)')
    told(await rejoin('pg2')).toMatchObject({ exit: 3, codes: ['primary-alive'] })
    const done = await rejoin('pg1')
    told(done).toMatchObject({ exit: 0, changed: true, method: 'follow', codes: [] })
    expect(done.json.result.salvage).toBeNull()
    await expectGoodCluster()
    expect(await ids('pg1')).toBe('{2}')
  })

  it('one that still accepts writes is stopped and fenced, because record and timeline say that another took over', async () => {
    await divergePg1()
    await hosts.restoreLink('pg1')
    expect(await writersNow(hosts)).toEqual(['pg1', 'pg2'])
    const before = await fingerprint(hosts, 'pg2')
    told(await rejoin('pg2')).toMatchObject({ exit: 3, changed: false, codes: ['two-writers'] })
    expect(await fingerprint(hosts, 'pg2')).toBe(before)
    const done = await rejoin('pg1')
    told(done).toMatchObject({ exit: 0, changed: true, method: 'rewind' })
    await expectGoodCluster()
    expect(await ids('pg1')).toBe('{2}')
  })

  it('P-21: where pg_rewind would not work verify says so early, and the member is cloned anew with its own files', async () => {
    await run('pg2', "ALTER SYSTEM SET full_page_writes = 'off'")
    await run('pg1', "ALTER SYSTEM SET full_page_writes = 'off'")
    for (const name of ['pg1', 'pg2']) await cluster.server(name).reload()
    await cluster.server('pg1').awaitSql("SELECT current_setting('full_page_writes') = 'off'")
    told(await cluster.replctl(['verify', '--json'])).toMatchObject({
      exit: 0,
      codes: ['rewind-unavailable'],
    })
    await hosts.exec('pg1', `mkdir /data/wal && cd ${data()} && echo key >server.key`, {
      user: 'postgres',
    })
    await divergePg1()
    await cluster.server('pg1').stop()
    await hosts.exec('pg1', `mv ${data()}/pg_wal /data/wal/shop && ln -s /data/wal/shop ${data()}/pg_wal`, {
      user: 'postgres',
    })
    await hosts.restoreLink('pg1')
    const done = await rejoin('pg1')
    told(done).toMatchObject({ exit: 0, changed: true, method: 'reclone', codes: [] })
    expect(done.json.result.reasons.join(' ')).toContain('full_page_writes is off on pg2')
    expect(done.json.result.salvage.rows).toBeGreaterThan(0)
    expect(await ids('pg1')).toBe('{2}')
    const there = await hosts.exec(
      'pg1',
      `cat ${data()}/server.key; readlink ${data()}/pg_wal; ls -d ${data()}*before* /data/wal/*`,
      {
        check: false,
      },
    )
    // Saved completely, so the old directory is gone; pg_wal still lies where it did.
    expect(there.stdout).toBe('key\n/data/wal/shop\n/data/wal/shop\n')
    await hosts.exec('pg1', 'rm -rf /data/wal')
  })

  it('P-28: a standby whose slot is lost is cloned anew, and has a valid one again', async () => {
    await run('pg1', "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'; ALTER SYSTEM SET wal_keep_size = '0'")
    await run('pg1', "ALTER SYSTEM SET max_wal_size = '32MB'; ALTER SYSTEM SET min_wal_size = '32MB'")
    await cluster.server('pg1').reload()
    await cluster.server('pg2').stop()
    for (let round = 0; round < 4; round += 1)
      await run('pg1', 'CHECKPOINT; SELECT pg_switch_wal(); INSERT INTO big SELECT 1')
    await run('pg1', 'CHECKPOINT')
    await cluster
      .server('pg1')
      .awaitSql("SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = 'shop_pg2'")
    // The clone takes more WAL than that to copy the instance.
    await run('pg1', "ALTER SYSTEM SET max_slot_wal_keep_size = '1GB'")
    await cluster.server('pg1').reload()
    const done = await rejoin('pg2')
    told(done).toMatchObject({ exit: 0, changed: true, method: 'reclone', codes: [] })
    expect(done.json.result.salvage).toBeNull()
    await streams('pg2')
    expect(
      await value(
        'pg1',
        "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'shop_pg2' AND active",
      ),
    ).toBe('reserved')
  })

  it.each([
    ['after the fence', /fence the old primary/],
    ['after the salvage', /save what only pg1 has/],
  ] as const)('killed %s, it gets to the end from another control host', async (_, step) => {
    await divergePg1()
    await cluster.server('pg1').kill9()
    await hosts.restoreLink('pg1')
    const started = cluster.startReplctl(['rejoin', 'pg1'])
    let isOver = false
    void started.finished.then(() => {
      isOver = true
    })
    const hasEnded = (title: RegExp) =>
      started
        .stderr()
        .split('\n')
        .some((line) => /^[✓·] /.test(line) && title.test(line))
    await awaitCondition(`${step} ended`, () => isOver || hasEnded(step), {
      timeoutMs: 300_000,
      everyMs: 2,
    })
    started.kill()
    await started.finished
    expect(await writersNow(hosts)).toEqual(['pg2'])
    const elsewhere = join(hosts.directory, `elsewhere-${Math.random().toString(36).slice(2)}`)
    await mkdir(elsewhere, { recursive: true })
    const ended = await cluster.replctl(['rejoin', 'pg1', '--json'], {
      cwd: elsewhere,
      env: { HOME: elsewhere },
    })
    told(ended).toMatchObject({ exit: 0 })
    await expectGoodCluster()
    expect(await ids('pg1')).toBe('{2}')
    const saved = await hosts.exec('pg1', `cat ${state}/salvage/*/rows.jsonl`)
    expect(saved.stdout).toContain('"new":{"id":1}')
  })
})
