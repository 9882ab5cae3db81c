import { afterAll, beforeAll, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { awaitCondition, TestCluster, TestHosts } from '../kit/index.ts'

const archiveDir = '/var/lib/postgresql/archive'

describeOnHosts('a cluster with a WAL archive', () => {
  let hosts: TestHosts
  let cluster: TestCluster

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [{ name: 'pg1' }, { name: 'pg2', login: 'admin' }, { name: 'backup1', login: 'root' }],
    })
    cluster = await TestCluster.create(hosts, {
      nodes: ['pg1', 'pg2'],
      inventory: {
        archive: {
          host: hosts.addressOf('backup1'),
          user: 'postgres',
          dir: archiveDir,
          ssh: { user: 'root' },
        },
      },
    })
    await cluster.init()
    await cluster.addStandbys()
  })
  afterAll(() => hosts?.destroy())

  const segments = async () => {
    const listing = await hosts.exec('backup1', `ls ${archiveDir}/*/wal`, { user: 'postgres' })
    return listing.stdout.split('\n').filter((name) => /^[0-9A-F]{24}(\.\w+)?$/.test(name))
  }

  it('proves the archive by a switched segment that is read back', async () => {
    const verified = await cluster.succeed(['verify'])
    const { archive } = (verified.json as { result: { archive: { ok: boolean; segment: string } } }).result
    expect(archive.ok).toBe(true)
    expect((await segments()).map((name) => name.slice(0, 24))).toContain(archive.segment)
    const pg1 = cluster.server('pg1')
    expect(await pg1.sqlValue(`SELECT last_archived_wal >= '${archive.segment}' FROM pg_stat_archiver`)).toBe(
      true,
    )
  })

  it("lets a node's key push and fetch, and do nothing else", async () => {
    const key = '/var/lib/postgresql/.replctl/shop/archive_key'
    const login = (words: string) =>
      hosts.exec(
        'pg1',
        `ssh -i ${key} -o BatchMode=yes -o UserKnownHostsFile=/var/lib/postgresql/.replctl/shop/archive_known_hosts postgres@${hosts.addressOf('backup1')} ${words}`,
        { user: 'postgres', check: false },
      )
    expect((await login('id')).stdout).not.toContain('uid=')
    expect((await login("'cat /etc/passwd'")).stdout).not.toContain('root:')
    const mode = await hosts.exec('pg1', `stat -c %a ${key}`, { user: 'postgres' })
    expect(mode.stdout.trim()).toBe('600')
  })

  it('keeps foreign keys of authorized_keys, and one marked line for each node', async () => {
    const keys = (await hosts.exec('backup1', 'cat ~postgres/.ssh/authorized_keys', { user: 'postgres' }))
      .stdout
    expect(keys.match(/replctl:shop:pg1$/gm)).toHaveLength(1)
    expect(keys.match(/replctl:shop:pg2$/gm)).toHaveLength(1)
    expect(keys).toMatch(/replctl-tests/)
  })

  it('says that archiving fails while the archive host is off, loses nothing, and catches up', async () => {
    await hosts.powerOff('backup1')
    const failed = await cluster.replctl(['verify', '--json', '--timeout', '8s'])
    expect(failed.exitCode).toBe(9)
    const codes = (failed.json as { problems: { code: string }[] }).problems.map((problem) => problem.code)
    expect(codes).toContain('archive-failing')
    await hosts.powerOn('backup1')
    await awaitCondition(
      'the archive catches up by itself',
      async () =>
        (await cluster.replctl(['verify', '--json', '--timeout', '20s'])).exitCode === 0 || undefined,
      { timeoutMs: 150_000 },
    )
  })

  it('archives from the new primary after a failover', async () => {
    await cluster.server('pg1').kill9()
    await cluster.succeed(['promote'])
    await awaitCondition(
      'the new timeline is in the archive',
      async () => {
        await cluster.server('pg2').sql('SELECT pg_switch_wal()')
        return (await segments()).some((name) => name.startsWith('00000002')) || undefined
      },
      { timeoutMs: 60_000 },
    )
  })

  it('is as good after a switchover: every segment up to it is there, and the new primary goes on', async () => {
    await cluster.server('pg1').sql('CREATE TABLE before_switchover AS SELECT 1 AS id')
    await cluster.succeed(['switchover', 'pg2'])
    const verified = await cluster.succeed(['verify'])
    expect((verified.json as { result: { archive: { ok: boolean } } }).result.archive.ok).toBe(true)
    const files = await hosts.exec('backup1', `ls ${archiveDir}/*/wal`, { user: 'postgres' })
    expect(files.stdout).toMatch(/^00000002\.history/m)
    const old = (await segments())
      .map((name) => name.slice(0, 24))
      .filter((name) => name.startsWith('00000001'))
    const numbers = old.map((name) => Number.parseInt(name.slice(16), 16)).toSorted((a, b) => a - b)
    expect(numbers).toEqual(numbers.map((_, index) => numbers[0]! + index))
    await cluster.succeed(['switchover', 'pg1'])
  })
})
