import { afterAll, beforeAll, expect, it } from 'vitest'
import { awaitCondition } from '../kit/await-condition.ts'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { fingerprint } from '../kit/fingerprint.ts'
import { TestCluster } from '../kit/test-cluster.ts'
import { TestHosts } from '../kit/test-hosts.ts'

const stateDir = '/var/lib/postgresql/.replctl/shop'
const dataDir = '/var/lib/postgresql/15/shop'

describeOnHosts('an operation and what may happen to it', () => {
  let hosts: TestHosts
  let cluster: TestCluster

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [{ name: 'pg1' }, { name: 'pg2', login: 'admin' }, { name: 'pg3' }],
    })
    cluster = await TestCluster.create(hosts)
  })
  afterAll(() => hosts?.destroy())

  it('a bystander that is down is a warning', async () => {
    await hosts.powerOff('pg3')
    const init = await cluster.init()
    expect(init.json.problems).toMatchObject([{ code: 'host-unreachable', severity: 'warning', node: 'pg3' }])
    await cluster
      .server('pg1')
      .sql("CREATE TABLE t AS SELECT n, repeat('x', 500) AS x FROM generate_series(1, 60000) n")
  })

  it('a host to act on that is down: exit 4, also if the other one answers, and nothing is changed', async () => {
    const before = await fingerprint(cluster.server('pg1'))
    const refused = await cluster.replctl(['add-standby', 'pg2', 'pg3', '--json'])
    expect([refused.exitCode, refused.json.problems[0].code, refused.json.problems[0].node]).toEqual([
      4,
      'host-unreachable',
      'pg3',
    ])
    expect(await fingerprint(cluster.server('pg1'))).toEqual(before)
    expect((await hosts.exec('pg2', ['test', '-e', dataDir], { check: false })).exitCode).toBe(1)
    await hosts.powerOn('pg3')
  })

  it('a host whose key has changed: exit 4, and nothing is changed', async () => {
    const before = await fingerprint(cluster.server('pg1'))
    await hosts.rotateHostKey('pg3')
    const refused = await cluster.replctl(['add-standby', 'pg3', '--json'])
    expect([refused.exitCode, refused.json.problems[0].code]).toEqual([4, 'host-key-changed'])
    expect(await fingerprint(cluster.server('pg1'))).toEqual(before)
    await hosts.writeKnownHosts()
  })

  it('interrupted by SIGINT in the middle of a clone: exit 130, and all is taken back', async () => {
    const before = await fingerprint(cluster.server('pg1'))
    await hosts.limitLink('pg2', '8mbit')
    const started = cluster.startReplctl(['add-standby', 'pg2', '--json'])
    await cloning('pg2')
    started.kill('SIGINT')
    const { exitCode } = await started.finished
    expect(exitCode, started.stderr()).toBe(130)
    expect(JSON.parse(started.stdout())).toMatchObject({ exit_code: 130, changed: false })
    expect(await fingerprint(cluster.server('pg1'))).toEqual(before)
    await nothingIsLeft('pg2')
  })

  it('a second operation: exit 8, and says who holds the cluster, where, with what, since when', async () => {
    const started = cluster.startReplctl(['add-standby', 'pg2'])
    await cloning('pg2')
    const second = await cluster.replctl(['add-standby', 'pg3', '--json'])
    expect([second.exitCode, second.json.problems[0].code]).toEqual([8, 'locked'])
    const { message, detail } = second.json.problems[0]
    expect(`${message} ${detail}`).toMatch(
      /\S+@\S+ \(pid \d+\).*"replctl add-standby pg2" since \d{4}-\d\d-\d\dT/,
    )
    started.kill()
    await started.finished
    const free = await cluster.replctl(['add-standby', 'pg3', '--dry-run', '--json'])
    expect(free.exitCode).toBe(0)
    const startedAt = performance.now()
    expect((await cluster.replctl(['abort', '--json'])).exitCode).toBe(0) // the lock died with its holder
    expect(performance.now() - startedAt).toBeLessThan(30_000)
    await nothingIsLeft('pg2')
  })

  it('the control host loses its links in the middle of a clone: exit 6, the copy goes on, resume gets to the end', async () => {
    const started = cluster.startReplctl(['add-standby', 'pg2', '--json'])
    await cloning('pg2')
    await Promise.all(['pg1', 'pg2'].map((host) => hosts.cutLink(host, 'control')))
    const { exitCode } = await started.finished
    expect(exitCode, started.stdout() + started.stderr()).toBe(6)
    await hosts.limitLink('pg2', undefined)
    await Promise.all(['pg1', 'pg2'].map((host) => hosts.restoreLink(host)))
    const resumed = await awaitCondition(
      'the lock of the vanished control host is gone',
      async () => {
        const result = await cluster.replctl(['resume', '--json', '--timeout', '90s'])
        return result.exitCode === 8 ? undefined : result
      },
      { timeoutMs: 120_000 },
    )
    expect(resumed.exitCode, resumed.stdout).toBe(0)
    await cluster.server('pg1').awaitStreaming('shop_pg2')
    expect(await cluster.server('pg2').sqlValue('SELECT count(*) FROM t')).toBe(60_000)
    await expectNoJournal()
  })

  const cloning = (host: string) =>
    awaitCondition(
      'the clone runs',
      async () => (await hosts.pids(host, '^\\S*/pg_basebackup -D')).length > 0,
      {
        timeoutMs: 60_000,
      },
    )

  async function nothingIsLeft(host: string): Promise<void> {
    const files = ['node.json', 'pgpass', 'journal', 'job-base-backup', 'tablespaces'].map(
      (name) => `${stateDir}/${name}`,
    )
    const { stdout } = await hosts.exec(host, [
      'sh',
      '-c',
      'ls -d "$@" 2>/dev/null; :',
      'sh',
      dataDir,
      ...files,
    ])
    expect(stdout).toBe('')
    expect(await hosts.pids(host, 'pg_basebackup')).toEqual([])
    expect(await cluster.server('pg1').sql('SELECT slot_name FROM pg_replication_slots')).toEqual([])
    await expectNoJournal()
  }

  async function expectNoJournal(): Promise<void> {
    for (const host of hosts.names) {
      const { exitCode } = await hosts.exec(host, ['test', '-e', `${stateDir}/journal`], { check: false })
      expect(exitCode, `journal on ${host}`).toBe(1)
    }
  }
})
