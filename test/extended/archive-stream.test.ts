import { afterAll, beforeAll, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { awaitCondition, type ReplctlResult, TestCluster, TestHosts } from '../kit/index.ts'
import { PostgresServer } from '../kit/postgres-server.ts'

const archiveDir = '/archive'
const slow = { timeoutMs: 120_000 }
const stateDir = '/var/lib/postgresql/.replctl/shop'

describeOnHosts('a cluster whose WAL is streamed to an archive that confirms commits', () => {
  let hosts: TestHosts
  let cluster: TestCluster

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [
        { name: 'pg1' },
        { name: 'pg2' },
        { name: 'backup1', smallDisk: { path: archiveDir, sizeMb: 480 } },
        { name: 'backup2' },
      ],
    })
    await hosts.exec('backup2', `install -d -o postgres ${archiveDir}`)
    cluster = await TestCluster.create(hosts, { nodes: ['pg1', 'pg2'], inventory: inventoryWith() })
    await cluster.succeed(['init', 'primary', 'pg1'], { timeoutMs: 280_000 })
    await cluster.succeed(['add-standby', 'pg2'], { timeoutMs: 280_000 })
  })
  afterAll(() => hosts?.destroy())

  const inventoryWith = ({ host = 'backup1', synchronous = true } = {}) => ({
    cluster: 'shop',
    ssh: { connect_timeout: '10s' },
    replication: { mode: 'sync' },
    archive: {
      ...{ host: hosts.addressOf(host), user: 'postgres', dir: archiveDir },
      ...{ mode: 'stream', synchronous },
    },
  })
  const onArchive = async (script: string) =>
    (await hosts.exec('backup1', script, { user: 'postgres', check: false })).stdout.trim()
  const files = async () => (await onArchive(`ls ${archiveDir}/*/wal`)).split('\n')
  const status = async () => (await cluster.replctl(['status', '--json'])) as ReplctlResult
  const codes = (result: ReplctlResult) => result.json.problems.map((one: { code: string }) => one.code)
  const slots = (node: string) =>
    cluster
      .server(node)
      .sqlValue(
        "SELECT coalesce(string_agg(slot_name, ' ' ORDER BY slot_name), '') FROM pg_replication_slots",
      )
  const awaitNoLag = async () =>
    await awaitCondition(
      'the archive has everything',
      async () => {
        const { archive } = (await status()).json.result
        return archive.ok && archive.lag_bytes === 0
      },
      slow,
    )
  /** Digest of what the primary's current segment holds, in pg_wal and in the archive. */
  const lastBytes = async (node: string, name: string, bytes: number) => {
    const own = `head -c ${bytes} ~/15/shop/pg_wal/${name} | sha256sum`
    return {
      own: (await hosts.exec(node, own, { user: 'postgres' })).stdout.trim(),
      archived: await onArchive(`head -c ${bytes} ${archiveDir}/*/wal/${name}.partial | sha256sum`),
    }
  }
  const whereWritten = async (node: string) => ({
    name: String(await cluster.server(node).sqlValue('SELECT pg_walfile_name(pg_current_wal_lsn())')),
    bytes: Number(
      await cluster
        .server(node)
        .sqlValue('SELECT (pg_walfile_name_offset(pg_current_wal_lsn())).file_offset'),
    ),
  })

  it('proves the archive by a switched segment, shows no lag, and counts it among the synchronous', async () => {
    const verified = await cluster.succeed(['verify'])
    const { segment, ok } = verified.json.result.archive
    expect(ok).toBe(true)
    expect(await files()).toContain(segment)
    await awaitNoLag()
    expect((await status()).exitCode).toBe(0)
    const again = await cluster.succeed(['init', 'primary', 'pg1'])
    expect(again.json.changed).toBe(false)
    expect(await onArchive(`stat -c %a ${stateDir}/archive_pgpass`)).toBe('600')
    expect(await onArchive('ps -eo args | grep pg_receivewal')).not.toMatch(/password=/)
    const pg1 = cluster.server('pg1')
    expect(await pg1.sqlValue('SHOW synchronous_standby_names')).toBe('FIRST 1 ("shop_pg2", "shop_archive")')
    expect(await slots('pg1')).toBe('shop_archive shop_pg2')
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
      return seen.exitCode === 9 && codes(seen).includes('archive-failing')
    })
    const mended = await cluster.succeed(['init', 'primary', 'pg1'])
    expect(mended.json.changed).toBe(true)
    expect((await status()).exitCode).toBe(0)
  })

  it('loses nothing while its disk is full, and catches up by itself when there is room', async () => {
    const pg1 = cluster.server('pg1')
    await hosts.fillDisk('backup1', archiveDir)
    await pg1.sql('CREATE TABLE while_full AS SELECT n FROM generate_series(1, 20) n')
    const { name } = await whereWritten('pg1')
    await pg1.sql('SELECT pg_switch_wal()')
    await pg1.sql('INSERT INTO while_full VALUES (0)')
    await awaitCondition(
      'status says so',
      async () => {
        const seen = await status()
        return seen.exitCode === 9 && codes(seen).includes('archive-failing')
      },
      slow,
    )
    expect(codes(await status())).toContain('disk-full')
    await hosts.freeDisk('backup1', archiveDir)
    await awaitNoLag()
    expect(await files()).toContain(name)
    await cluster.succeed(['archive', 'check'])
  })

  it('has a commit wait while standby and archive are both gone, and lets it go when the archive is back', async () => {
    const [pg1, pg2] = [cluster.server('pg1'), cluster.server('pg2')]
    await pg1.sql('CREATE TABLE confirmed (id int)')
    await pg2.stop()
    // The archive alone is enough.
    await pg1.sql('INSERT INTO confirmed VALUES (1)')
    await hosts.powerOff('backup1')
    const insert = pg1.sql('INSERT INTO confirmed VALUES (2)', { timeoutMs: 600_000 })
    await awaitCondition(
      'status says that writes are blocked',
      async () => {
        const seen = await status()
        const blocked = seen.json.problems.find((one: { code: string }) => one.code === 'writes-blocked')
        return /Bring pg2, the archive on .* back/.test(blocked?.hint ?? '') && seen.exitCode === 9
      },
      slow,
    )
    expect(
      await pg1.sqlValue("SELECT count(*)::int FROM pg_stat_activity WHERE wait_event = 'SyncRep'"),
    ).toBe(1)
    // Without the archive: it is no longer waited for, although it cannot be asked.
    await cluster.writeInventory(inventoryWith({ synchronous: false }))
    const freed = await cluster.succeed(['init', 'primary', 'pg1'])
    expect(codes(freed)).toContain('host-unreachable')
    expect(await pg1.sqlValue('SHOW synchronous_standby_names')).toBe('FIRST 1 ("shop_pg2")')
    await cluster.writeInventory(inventoryWith())
    await hosts.powerOn('backup1')
    // Nothing there starts it at boot: doctor says so, and this does.
    const doctor = await cluster.replctl(['doctor', '--json'])
    expect(doctor.json.problems).toContainEqual(
      expect.objectContaining({ code: 'archive-unattended', severity: 'warning' }),
    )
    await cluster.succeed(['init', 'primary', 'pg1'])
    await insert
  })

  it('has the last confirmed row of a dead primary in the archive alone, and gives it to the one that is promoted, paused or not', async () => {
    const [pg1, pg2] = [cluster.server('pg1'), cluster.server('pg2')]
    await pg1.sql('INSERT INTO confirmed SELECT generate_series(3, 1000)')
    const { name, bytes } = await whereWritten('pg1')
    await pg1.kill9()
    const { own, archived } = await lastBytes('pg1', name, bytes)
    expect(archived).toBe(own)

    // It starts without its primary and without the archive: what it lacks nobody can give it.
    await hosts.stopSshd('backup1', { sessions: true })
    await pg2.start()
    const refused = await cluster.replctl(['promote', '--json'])
    expect(codes(refused)).toContain('confirmed-commits-at-risk')
    expect(refused.exitCode).toBe(3)
    expect(await pg2.isInRecovery()).toBe(true)

    await hosts.startSshd('backup1')
    await pg2.sql('SELECT pg_wal_replay_pause()')
    const promoted = await cluster.succeed(['promote'])
    expect(codes(promoted)).toEqual(['replay-paused'])
    expect(await pg2.sqlValue('SELECT count(*)::int FROM confirmed')).toBe(1000)
    await awaitNoLag()
    await pg2.sql('INSERT INTO confirmed VALUES (1001)')
    expect(await slots('pg2')).toBe('shop_archive')
    expect(await files()).toEqual(expect.arrayContaining(['00000002.history', `${name}.partial`]))
    const again = await cluster.succeed(['promote', 'pg2'])
    expect(again.json.changed).toBe(false)
  })

  it('follows a switchover as well, and is whole across both changes of timeline', async () => {
    await cluster.succeed(['rejoin', 'pg1'])
    await cluster.succeed(['switchover', 'pg1'])
    await awaitNoLag()
    expect(await slots('pg1')).toBe('shop_archive shop_pg2')
    expect(await slots('pg2')).toBe('')
    const verified = await cluster.succeed(['verify'])
    expect(verified.json.result.archive.ok).toBe(true)
    const checked = await cluster.succeed(['archive', 'check'])
    // The second timeline may have been over before it filled a segment: the third one's begins with a copy of it.
    const timelines = checked.json.result.timelines.map((one: { timeline: number }) => one.timeline)
    expect(timelines.filter((one: number) => one !== 2)).toEqual([1, 3])
    expect(checked.json.result.restorable_from).toMatch(/^00000001/)
    expect((await status()).exitCode).toBe(0)
  })

  it('K15: after a restore into the past the timeline that was left can still be restored to its last segment', async () => {
    const pg1 = cluster.server('pg1')
    await cluster.succeed(['backup'], slow)
    await pg1.sql("SELECT pg_create_restore_point('before the mistake')")
    const rows = Number(await pg1.sqlValue('SELECT count(*) FROM confirmed'))
    for (let n = 0; n < 3; n += 1) {
      await pg1.sql('INSERT INTO confirmed SELECT generate_series(1, 100)')
      await pg1.sql('SELECT pg_switch_wal()')
    }
    await awaitNoLag()
    const isWhole = (name: string) => /^[0-9A-F]{24}$/.test(name)
    const before = (await files()).filter(isWhole)
    for (const node of ['pg1', 'pg2']) await cluster.server(node).kill9()
    await hosts.exec('pg1', 'rm -rf ~/15/shop', { user: 'postgres' })
    const patience = { timeoutMs: 280_000 }
    await cluster.succeed(['restore', 'pg1', '--to-name', 'before the mistake'], patience)
    expect(Number(await pg1.sqlValue('SELECT count(*) FROM confirmed'))).toBe(rows)
    expect(await slots('pg1')).toBe('shop_archive')
    await pg1.sql('INSERT INTO confirmed VALUES (1)')
    await awaitNoLag()
    // Every segment that was whole is still there, under its name or packed.
    const after = new Set((await files()).map((name) => name.replace('.zst', '')).filter(isWhole))
    expect(before.filter((name) => !after.has(name))).toEqual([])
    expect((await files()).some((name) => /^00000003.{16}[.]zst$/.test(name))).toBe(true)
    const aside = async (dir: string, port: number, ...args: string[]) => {
      await cluster.succeed(['restore', 'pg1', '--data-dir', dir, '--port', String(port), ...args], patience)
      const server = new PostgresServer(hosts, 'pg1', { dataDir: dir, port })
      const found = Number(await server.sqlValue('SELECT count(*) FROM confirmed'))
      await server.stop('immediate')
      return found
    }
    expect(await aside('/var/lib/postgresql/left', 5501, '--timeline', '3')).toBe(rows + 300)
    expect(await aside('/var/lib/postgresql/now', 5502)).toBe(rows + 1)
  })

  it('receives on another archive host after archive.host has changed, and no longer on the one before', async () => {
    const pg1 = cluster.server('pg1')
    await cluster.writeInventory(inventoryWith({ host: 'backup2' }))
    const changed = await cluster.succeed(['init', 'primary', 'pg1'], slow)
    const before = hosts.addressOf('backup1')
    expect(changed.json.problems).toContainEqual(
      expect.objectContaining({ code: 'archive-unattended', message: expect.stringContaining(before) }),
    )
    const receivers = "SELECT string_agg(host(client_addr), ' ') FROM pg_stat_replication"
    expect(await pg1.sqlValue(`${receivers} WHERE application_name = 'shop_archive'`)).toBe(
      hosts.addressOf('backup2'),
    )
    const { name } = await whereWritten('pg1')
    const listed = await hosts.exec('backup2', `ls ${archiveDir}/*/wal`, { user: 'postgres' })
    expect(listed.stdout).toContain(`${name}.partial`)
    expect(listed.stdout).toMatch(/^[0-9A-F]{8}[.]history$/m)
    expect((await cluster.succeed(['init', 'primary', 'pg1'])).json.changed).toBe(false)
  })
})
