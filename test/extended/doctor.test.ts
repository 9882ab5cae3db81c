import { afterAll, beforeAll, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { type ReplctlResult, TestCluster, TestHosts } from '../kit/index.ts'

interface Line {
  readonly node: string
  readonly check: string
  readonly ok: boolean
  readonly detail: string
}

const check = (result: ReplctlResult, node: string, name: string): Line | undefined =>
  (result.json.result.checks as Line[]).find((line) => line.node === node && line.check === name)
const failed = (result: ReplctlResult): string[] =>
  (result.json.result.checks as Line[]).filter((line) => !line.ok).map((line) => `${line.node} ${line.check}`)
const codes = (result: ReplctlResult, severity: string): string[] =>
  result.json.problems
    .filter((problem: { severity: string }) => problem.severity === severity)
    .map((problem: { node: string; code: string }) => `${problem.node} ${problem.code}`)

describeOnHosts('doctor', () => {
  let hosts: TestHosts
  let cluster: TestCluster
  const doctor = (...names: string[]) => cluster.replctl(['doctor', ...names, '--json'])

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [
        { name: 'pg1' },
        { name: 'pg2', login: 'admin' },
        { name: 'pg3', login: 'root', without: ['/usr/lib/postgresql/15/bin/pg_rewind', '/usr/bin/flock'] },
      ],
    })
    cluster = await TestCluster.create(hosts)
  })
  afterAll(() => hosts?.destroy())

  it('finds nothing in the way of a cluster to be built, and leaves nothing behind', async () => {
    const result = await doctor()
    expect(result.exitCode, result.stdout).toBe(0)
    expect(failed(result)).toEqual([])
    expect(check(result, 'pg1', 'ssh')?.detail).toContain('as "postgres"')
    expect(check(result, 'pg2', 'sudo')?.detail).toContain('by sudo from "admin"')
    expect(check(result, 'pg3', 'sudo')?.detail).toContain('as root')
    expect(check(result, 'pg2', 'reach pg1')?.detail).toContain('nothing listens')
    expect(check(result, 'pg1', 'reach pg3')?.ok).toBe(true)
    expect(codes(result, 'warning')).toContain('pg3 binaries-missing')
    expect(check(result, 'pg3', 'programs')?.detail).toContain('without pg_rewind')
    for (const host of hosts.names) {
      expect((await hosts.exec(host, 'ls -A ~postgres')).stdout).not.toContain('.replctl')
    }
    const shown = await cluster.replctl(['doctor', 'pg2'])
    expect(shown.stdout).toMatch(/^pg2\n {2}✓ {2}ssh +logged in/m)
    expect(shown.stdout).not.toMatch(/^pg3$/m)
    expect(shown.stdout).toContain('Nothing is in the way.')
  })

  it('tells of the cluster that apt made, of foreign folders, and of folders nobody may make', async () => {
    await hosts.exec('pg2', 'pg_createcluster 15 main --start >/dev/null')
    await hosts.exec(
      'pg3',
      'mkdir -p /var/lib/postgresql/15/shop && echo mine >/var/lib/postgresql/15/shop/letter',
    )
    await cluster.writeInventory({ nodes: { pg1: { data_dir: '/srv/pg/shop' } } })
    const result = await doctor()
    expect(result.exitCode).toBe(9)
    expect(codes(result, 'error')).toEqual([
      'pg1 foreign-data-directory',
      'pg2 port-in-use',
      'pg3 foreign-data-directory',
    ])
    const hints = result.json.problems.map((problem: { hint: string }) => problem.hint).join('\n')
    expect(hints).toContain('pg_dropcluster --stop 15 main')
    expect(hints).toContain('install -d -m 0700 -o postgres -g postgres /srv/pg/shop')
    await hosts.exec('pg2', 'pg_dropcluster --stop 15 main')
    await hosts.exec('pg3', 'rm -r /var/lib/postgresql/15')
    await cluster.writeInventory({})
  })

  it('tries replication logins both ways once the cluster runs, and finds the cut link', async () => {
    await hosts.exec(
      'pg3',
      'cp /bin/true /usr/bin/flock && cp /bin/true /usr/lib/postgresql/15/bin/pg_rewind',
    )
    await cluster.init()
    await cluster.addStandbys(['pg2'])
    const result = await doctor()
    expect(result.json.problems.filter((one: { severity: string }) => one.severity === 'error')).toEqual([])
    expect(result.exitCode).toBe(0)
    expect(check(result, 'pg2', 'login to pg1')?.detail).toContain('works')
    expect(check(result, 'pg1', 'login to pg2')?.detail).toContain('works')
    expect(check(result, 'pg3', 'reach pg1')?.detail).toContain('PostgreSQL answers')
    expect(check(result, 'pg3', 'room')?.ok).toBe(true)
    expect(check(result, 'pg1', 'forwarding')?.ok).toBe(true)
    await hosts.cutLink('pg2', 'pg1', { port: 5432 })
    const cut = await doctor()
    expect(cut.exitCode).toBe(9)
    expect(failed(cut)).toEqual(['pg1 login to pg2', 'pg2 login to pg1'])
    expect(codes(cut, 'error')).toEqual(['pg1 replication-login-failed', 'pg2 replication-login-failed'])
    await hosts.restoreLink('pg2', 'pg1')
    const hbaFile = '/var/lib/postgresql/15/shop/pg_hba.conf'
    const hba = await hosts.readFile('pg1', hbaFile)
    await hosts.writeFile('pg1', hbaFile, 'local all all trust\n', { owner: 'postgres' })
    await cluster.server('pg1').reload()
    const refused = await doctor('pg2')
    expect(failed(refused)).toEqual(['pg2 login to pg1'])
    expect(check(refused, 'pg2', 'ssh')?.ok).toBe(true)
    await hosts.writeFile('pg1', hbaFile, hba, { owner: 'postgres' })
    await cluster.server('pg1').reload()
    await cluster.server('pg1').awaitStreaming('shop_pg2')
  })

  it('returns in time with dead hosts, one or all', async () => {
    await hosts.powerOff('pg3')
    const one = await doctor()
    expect(one.exitCode).toBe(9)
    expect(codes(one, 'error')).toEqual(['pg3 host-unreachable'])
    expect(check(one, 'pg2', 'login to pg1')?.ok).toBe(true)
    expect(one.ms).toBeLessThan(11_000)
    await hosts.powerOff('pg1')
    await hosts.powerOff('pg2')
    const all = await doctor()
    expect(all.exitCode).toBe(9)
    expect(codes(all, 'error')).toEqual([
      'pg1 host-unreachable',
      'pg2 host-unreachable',
      'pg3 host-unreachable',
    ])
    expect(all.ms).toBeLessThan(11_000)
  })
})
