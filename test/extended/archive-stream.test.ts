import { afterAll, beforeAll, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { awaitCondition, type ReplctlResult, TestCluster, TestHosts } from '../kit/index.ts'

const archiveDir = '/var/lib/postgresql/archive'
const slow = { timeoutMs: 120_000 }
const stateDir = '/var/lib/postgresql/.replctl/shop'

describeOnHosts('a cluster whose WAL is streamed to its archive', () => {
  let hosts: TestHosts
  let cluster: TestCluster

  beforeAll(async () => {
    hosts = await TestHosts.create({ hosts: [{ name: 'pg1' }, { name: 'pg2' }, { name: 'backup1' }] })
    cluster = await TestCluster.create(hosts, {
      nodes: ['pg1', 'pg2'],
      inventory: {
        ssh: { connect_timeout: '10s' },
        archive: { host: hosts.addressOf('backup1'), user: 'postgres', dir: archiveDir, mode: 'stream' },
      },
    })
    await cluster.succeed(['init', 'primary', 'pg1'], { timeoutMs: 280_000 })
    await cluster.succeed(['add-standby', 'pg2'], { timeoutMs: 280_000 })
  })
  afterAll(() => hosts?.destroy())

  const onArchive = async (script: string) =>
    (await hosts.exec('backup1', script, { user: 'postgres', check: false })).stdout.trim()
  const files = async () => (await onArchive(`ls ${archiveDir}/*/wal`)).split('\n')
  const status = async () => (await cluster.replctl(['status', '--json'])) as ReplctlResult

  it('proves the archive by a switched segment, and shows no lag', async () => {
    const verified = await cluster.succeed(['verify'])
    const { segment, ok } = verified.json.result.archive
    expect(ok).toBe(true)
    expect(await files()).toContain(segment)
    await awaitCondition(
      'no lag',
      async () => {
        const { archive } = (await status()).json.result
        return archive.ok && archive.mode === 'stream' && archive.lag_bytes === 0
      },
      slow,
    )
    expect((await status()).exitCode).toBe(0)
    const again = await cluster.succeed(['init', 'primary', 'pg1'])
    expect(again.json.changed).toBe(false)
    expect(await onArchive(`stat -c %a ${stateDir}/archive_pgpass`)).toBe('600')
    expect(await onArchive('ps -eo args | grep pg_receivewal')).not.toMatch(/password=/)
  })

  it('goes on by itself after pg_receivewal was killed; without its supervisor status says so', async () => {
    const [first] = await hosts.pids('backup1', 'pg_receivewal.* -D ')
    await hosts.kill('backup1', first!)
    await awaitCondition(
      'another one runs',
      async () => {
        const [now] = await hosts.pids('backup1', 'pg_receivewal.* -D ')
        return now !== undefined && now !== first
      },
      slow,
    )
    for (const pid of await hosts.pids('backup1', 'archive-stream$')) await hosts.kill('backup1', pid)
    for (const pid of await hosts.pids('backup1', 'pg_receivewal')) await hosts.kill('backup1', pid)
    await awaitCondition('the stream is gone', async () => {
      const seen = await status()
      return (
        seen.exitCode === 9 &&
        seen.json.problems.some((one: { code: string }) => one.code === 'archive-failing')
      )
    })
    const mended = await cluster.succeed(['init', 'primary', 'pg1'])
    expect(mended.json.changed).toBe(true)
    expect((await status()).exitCode).toBe(0)
  })

  it('has what a dead primary wrote up to the last byte, follows the new one, and is whole across the promotion', async () => {
    const [pg1, pg2] = [cluster.server('pg1'), cluster.server('pg2')]
    await pg1.sql('CREATE TABLE last_words AS SELECT n FROM generate_series(1, 1000) n')
    await pg2.awaitCatchup(pg1)
    await awaitCondition(
      'all is in the archive',
      async () => (await status()).json.result.archive.lag_bytes === 0,
    )
    const name = String(await pg1.sqlValue('SELECT pg_walfile_name(pg_current_wal_lsn())'))
    const bytes = Number(
      await pg1.sqlValue('SELECT (pg_walfile_name_offset(pg_current_wal_lsn())).file_offset'),
    )
    await pg1.kill9()
    const own = await hosts.exec('pg1', `head -c ${bytes} ~/15/shop/pg_wal/${name} | sha256sum`, {
      user: 'postgres',
    })
    expect(await onArchive(`head -c ${bytes} ${archiveDir}/*/wal/${name}.partial | sha256sum`)).toBe(
      own.stdout.trim(),
    )
    await cluster.succeed(['promote'])
    await awaitCondition(
      'the new primary streams to the archive',
      async () => {
        const { archive } = (await status()).json.result
        return archive.ok && archive.lag_bytes === 0
      },
      slow,
    )
    await pg2.sql('CREATE TABLE first_words AS SELECT 1')
    const verified = await cluster.replctl(['verify', '--json'])
    expect(verified.json.result.archive.ok).toBe(true)
    expect(await files()).toEqual(expect.arrayContaining(['00000002.history', `${name}.partial`]))
    const checked = await cluster.succeed(['archive', 'check'])
    expect(checked.json.result.timelines.map((one: { timeline: number }) => one.timeline)).toEqual([1, 2])
    expect(checked.json.result.restorable_from).toMatch(/^00000001/)
  })
})
