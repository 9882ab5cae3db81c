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
import { openToControlHost, writersNow } from '../kit/observe.ts'

describeOnHosts('rejoin, killed in the middle of a rewind', () => {
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

  it.each([
    ['after pg_rewind was tried', /try pg_rewind/],
    ['in the middle of pg_rewind', null],
    ['after pg_rewind', /rewind it with pg_rewind/],
    ['after the own files were put back', /put the node's own files back/],
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
    if (step === null) {
      await awaitCondition('pg_rewind is about to start', () => isOver || hasEnded(/try pg_rewind/), {
        timeoutMs: 300_000,
        everyMs: 2,
      })
      await awaitCondition('pg_rewind was killed', async () => isOver || (await killRewind()), {
        timeoutMs: 60_000,
        everyMs: 2,
      })
    } else {
      await awaitCondition(`${step} ended`, () => isOver || hasEnded(step), {
        timeoutMs: 300_000,
        everyMs: 2,
      })
    }
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

  /** What stopped in the middle of it cannot be started, by nobody. */
  async function killRewind(): Promise<boolean> {
    const pids = await hosts.pids('pg1', 'bin/pg_rewind -D .*--no-ensure-shutdown$')
    if (pids.length === 0) return false
    for (const pid of pids) await hosts.kill('pg1', pid).catch(() => undefined)
    if ((await hosts.exec('pg1', `stat -c %a ${data()}`)).stdout.trim() !== '701') return false
    await expect(cluster.server('pg1').start()).rejects.toThrow()
    return true
  }
})
