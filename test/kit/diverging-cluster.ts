import { afterAll, beforeAll, beforeEach, expect } from 'vitest'
import { restoreHosts, saveHosts } from './empty-hosts.ts'
import { type InventoryPart, type ReplctlResult, TestCluster, TestHosts } from './index.ts'
import { openToControlHost, writersNow } from './observe.ts'

const state = '/var/lib/postgresql/.replctl/shop'

/**
 * A primary and two standbys, each logged into in another way, with tables that pg1 writes into when it goes its own way. To
 * be called in a `describe`: each test begins with the same healthy cluster.
 */
export function divergingCluster() {
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
    const { dataDir } = cluster.server('pg1')
    const left = await hosts.exec('pg1', `ls ${state}; grep -l replctl_rewind ${dataDir}/pg_hba.conf`, {
      check: false,
    })
    expect(left.stdout).not.toMatch(/rejoin|rewind|isolated|job-/)
  }

  return {
    get hosts() {
      return hosts
    },
    get cluster() {
      return cluster
    },
    ...{ base, state, run, value, ids, tell, told, streams, divergePg1, expectGoodCluster },
  }
}
