import { readFileSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import {
  awaitCondition,
  type PostgresServer,
  type ReplctlResult,
  TestCluster,
  TestHosts,
} from '../kit/index.ts'

const archiveDisk = '/archive'
const archiveDir = `${archiveDisk}/shop`
const slow = { timeoutMs: 120_000 }

describeOnHosts('a cluster with a WAL archive', () => {
  let hosts: TestHosts
  let cluster: TestCluster

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [
        { name: 'pg1' },
        { name: 'pg2', login: 'admin' },
        { name: 'backup1', login: 'root', smallDisk: { path: archiveDisk, sizeMb: 400 } },
      ],
    })
    cluster = await TestCluster.create(hosts, { nodes: ['pg1', 'pg2'], inventory: inventoryWith(archiveDir) })
    await cluster.succeed(['init', 'primary', 'pg1'], { timeoutMs: 280_000 })
    await cluster.succeed(['add-standby', 'pg2'], { timeoutMs: 280_000 })
  })
  afterAll(() => hosts?.destroy())

  const inventoryWith = (dir: string) => ({
    cluster: 'shop',
    ssh: { connect_timeout: '10s' },
    // As little as there can be: a slot is lost soon.
    replication: { max_slot_wal_keep_size: '32MB' },
    postgres: { parameters: { wal_keep_size: 0 } },
    archive: { host: hosts.addressOf('backup1'), user: 'postgres', dir, ssh: { user: 'root' } },
  })
  const segments = async () => {
    const listing = await hosts.exec('backup1', `ls ${archiveDir}/*/wal`, { user: 'postgres' })
    return listing.stdout.split('\n').filter((name) => /^[0-9A-F]{24}(\.\w+)?$/.test(name))
  }

  /** Finishes a segment: PostgreSQL's archiver, which else tries again after a minute, looks at once. */
  const switchSegment = async () => {
    const pg1 = cluster.server('pg1')
    await pg1.sql('CREATE TABLE IF NOT EXISTS switched (at timestamptz)')
    await pg1.sql('INSERT INTO switched VALUES (now())')
    return String(await pg1.sqlValue('SELECT pg_walfile_name(pg_switch_wal())'))
  }
  /** The segment that is written now; where one has just ended, the name of its last byte is that of an archived file. */
  const segmentBegun = async (server: PostgresServer) =>
    String(await server.sqlValue("SELECT pg_walfile_name(pg_create_restore_point('begun'))"))
  const awaitFailing = async (detail = /./) => {
    let seen: ReplctlResult | undefined
    await awaitCondition(
      'status says that archiving fails',
      async () => {
        await switchSegment()
        seen = await cluster.replctl(['status', '--json'])
        const problems: { code: string; detail?: string }[] = seen.json.problems
        const isSaid = problems.some((one) => one.code === 'archive-failing' && detail.test(one.detail ?? ''))
        return seen.exitCode === 9 && isSaid
      },
      slow,
    )
    return seen!
  }
  /**
   * From here on the primary archives nothing; its standby has what it owes, and believes it archived. Gives the segments
   * that were finished so, the oldest first.
   */
  const oweSegments = async (primary: string, standby: string, count: number): Promise<readonly string[]> => {
    const server = cluster.server(primary)
    await server.sql("ALTER SYSTEM SET archive_command = 'false'")
    await server.sql('SELECT pg_reload_conf()')
    await server.sql('CREATE TABLE IF NOT EXISTS owed (n int)')
    const owed: string[] = []
    for (let n = 0; n < count; n++) {
      await server.sql('INSERT INTO owed VALUES (1)')
      owed.push(String(await server.sqlValue('SELECT pg_walfile_name(pg_switch_wal())')))
    }
    await cluster.server(standby).awaitCatchup(server)
    return owed
  }
  const awaitAllArchived = async () =>
    await awaitCondition(
      'the archive has caught up',
      async () => {
        const last = await switchSegment()
        const query = `SELECT last_archived_wal >= '${last}' FROM pg_stat_archiver`
        await awaitCondition('it is archived', async () => (await pg1Value(query)) === true, {
          timeoutMs: 5_000,
        }).catch(() => undefined)
        return (await pg1Value(query)) === true
      },
      slow,
    ).catch(async (error: Error) => {
      const seen = await pg1Value('SELECT row_to_json(a) FROM pg_stat_archiver a')
      const ready = await hosts.exec(
        'pg1',
        'cat ~/.replctl/shop/archive_error; ls ~/15/shop/pg_wal/archive_status; tail -n 20 ~/15/shop/log/*; :',
        { user: 'postgres' },
      )
      throw new Error(`${error.message}: ${JSON.stringify(seen)}\n${ready.stdout}`)
    })
  const pg1Value = (query: string) => cluster.server('pg1').sqlValue(query)

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
    // The connection that stands has to be given up first.
    const status = await awaitFailing(/finished WAL file.* wait.*cannot be reached/s)
    expect(problemsOf(status)).toContainEqual(['host-unreachable', 'archive host'])
    expect(status.json.result.archive).toMatchObject({ ok: false, reachable: false })
    expect((await cluster.replctl(['archive', 'status', '--json'])).exitCode).toBe(4)
    await hosts.powerOn('backup1')
    await awaitCondition(
      'the archive catches up by itself',
      async () =>
        (await cluster.replctl(['verify', '--json', '--timeout', '20s'])).exitCode === 0 || undefined,
      { timeoutMs: 150_000 },
    )
  })

  it('keeps its WAL while the disk of the archive is full, and catches up when there is room', async () => {
    await hosts.fillDisk('backup1', archiveDisk)
    const seen = await awaitFailing()
    expect(problemsOf(seen)).toContainEqual(['disk-full', 'archive host'])
    const waiting = Number(
      await pg1Value("SELECT count(*)::int FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"),
    )
    expect(waiting).toBeGreaterThan(0)
    await hosts.freeDisk('backup1', archiveDisk)
    await awaitAllArchived()
    await cluster.succeed(['archive', 'check'])
    await awaitCondition('all is well', async () => (await cluster.replctl(['status'])).exitCode === 0, slow)
  })

  it('keeps its WAL when the key of the archive host has changed, and goes on once that key is accepted', async () => {
    await hosts.rotateHostKey('backup1')
    await hosts.stopSshd('backup1', { sessions: true })
    await hosts.startSshd('backup1')
    const seen = await awaitFailing(/IDENTIFICATION HAS CHANGED|Host key verification failed/)
    expect(problemsOf(seen)).toContainEqual(['host-key-changed', 'archive host'])
    const keys = await hosts.exec('backup1', 'cat /etc/ssh/ssh_host_*_key.pub')
    const known = await hosts.exec('pg1', 'cat ~/.replctl/shop/archive_known_hosts', { user: 'postgres' })
    expect(known.stdout).not.toContain(keys.stdout.split(' ')[1])
    const address = hosts.addressOf('backup1')
    const lines = readFileSync(hosts.knownHostsFile, 'utf8').split('\n')
    writeFileSync(
      hosts.knownHostsFile,
      [
        ...lines.filter((line) => line !== '' && !line.startsWith(`${address} `)),
        ...keys.stdout
          .trim()
          .split('\n')
          .map((key) => `${address} ${key.split(' ').slice(0, 2).join(' ')}`),
        '',
      ].join('\n'),
    )
    await cluster.succeed(['init', 'primary', 'pg1'])
    await cluster.succeed(['add-standby', 'pg2'])
    await awaitAllArchived()
    await awaitCondition('all is well', async () => (await cluster.replctl(['status'])).exitCode === 0, slow)
  })

  it('lets a standby whose slot has lost its WAL catch up from the archive by itself, as soon as it can be asked', async () => {
    const [pg1, pg2] = [cluster.server('pg1'), cluster.server('pg2')]
    const needed = await segmentBegun(pg1)
    await pg2.awaitCatchup(pg1)
    await pg2.stop()
    await pg1.sql('CREATE TABLE meanwhile AS SELECT n FROM generate_series(1, 1000) n')
    await awaitCondition(
      'the slot is lost',
      async () => {
        await switchSegment()
        await pg1.sql('CHECKPOINT')
        const status = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'shop_pg2'"
        return (await pg1.sqlValue(status)) === 'lost'
      },
      slow,
    )
    await awaitAllArchived()
    expect(await pg1.sqlValue(`SELECT count(*)::int FROM pg_ls_waldir() WHERE name = '${needed}'`)).toBe(0)
    await hosts.stopSshd('backup1', { sessions: true })
    await pg2.start()
    // Unreachable is not missing: it waits, and neither gives up nor ends its recovery.
    await awaitCondition(
      'it asks in vain',
      async () => {
        const seen = await cluster.replctl(['status', '--json'])
        const node = seen.json.result.nodes.find((one: { name: string }) => one.name === 'pg2')
        return seen.exitCode === 9 && node.role === 'standby' && node.state !== 'streaming'
      },
      slow,
    )
    expect(await pg2.isInRecovery()).toBe(true)
    await hosts.startSshd('backup1')
    await awaitCondition(
      'it streams again',
      async () => (await cluster.replctl(['status', '--json'])).exitCode === 0,
      slow,
    )
    expect(await pg2.sqlValue('SELECT count(*)::int FROM meanwhile')).toBe(1000)
    const slot = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'shop_pg2'"
    expect(await pg1.sqlValue(slot)).toBe('reserved')
  })

  it('tells a conflict by its name, leaves the archived file alone, and goes on once it is removed (P-29)', async () => {
    const pg1 = cluster.server('pg1')
    const next = await segmentBegun(pg1)
    const other = `${archiveDir}/$(ls ${archiveDir})/wal/${next}`
    await hosts.exec('backup1', `head -c 16777216 /dev/urandom > ${other}`, { user: 'postgres' })
    const before = await hosts.exec('backup1', `sha256sum < ${other}`, { user: 'postgres' })
    await pg1.sql('SELECT pg_switch_wal()')
    await awaitCondition(
      'the conflict is in status',
      async () => {
        const status = await cluster.replctl(['status', '--json'])
        return problemsOf(status).some(([code]) => code === 'archive-conflict') && status.exitCode === 9
      },
      { timeoutMs: 120_000 },
    )
    const checked = await cluster.replctl(['archive', 'check', '--json'])
    expect(checked.exitCode).toBe(9)
    expect(checked.json.problems).toContainEqual(
      expect.objectContaining({ code: 'archive-damaged', message: expect.stringContaining(next) }),
    )
    const after = await hosts.exec('backup1', `sha256sum < ${other}`, { user: 'postgres' })
    expect(after.stdout).toBe(before.stdout)
    await hosts.exec('backup1', `rm ${other}`, { user: 'postgres' })
    await awaitCondition(
      'the archive catches up by itself',
      async () =>
        (await pg1.sqlValue(`SELECT last_archived_wal >= '${next}' FROM pg_stat_archiver`)) === true,
      { timeoutMs: 120_000 },
    )
    await awaitCondition('all is well', async () => (await cluster.replctl(['status'])).exitCode === 0, {
      timeoutMs: 60_000,
    })
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
    expect(numbers.length).toBeGreaterThan(0)
    expect(numbers).toEqual(numbers.map((_, index) => numbers[0]! + index))
    await cluster.succeed(['switchover', 'pg1'])
  })

  it('archives from the new primary after a failover, what the old one still owed included', async () => {
    const owed = await oweSegments('pg1', 'pg2', 2)
    const names = async () => (await segments()).map((name) => name.slice(0, 24))
    for (const name of owed) expect(await names()).not.toContain(name)
    await cluster.server('pg1').kill9()
    const promoted = await cluster.succeed(['promote'])
    expect(problemsOf(promoted).map(([code]) => code)).not.toContain('archive-gap')
    expect(await names()).toEqual(expect.arrayContaining([...owed]))
    const again = await cluster.succeed(['promote', 'pg2'])
    expect(again.json.changed).toBe(false)
    await awaitCondition(
      'the new timeline is in the archive',
      async () => {
        await cluster.server('pg2').sql('SELECT pg_switch_wal()')
        return (await segments()).some((name) => name.startsWith('00000002')) || undefined
      },
      { timeoutMs: 60_000 },
    )
  })

  it('is whole across the promotion (P-32), and shows its lag, its size and the room that is left', async () => {
    const checked = await cluster.succeed(['archive', 'check', '--deep'])
    const { timelines, restorable_from: from, unpacked } = checked.json.result
    expect(timelines.length).toBeGreaterThan(1)
    expect(from).toBe(timelines[0].first)
    expect(unpacked).toBeGreaterThan(0)
    const { result } = (await cluster.succeed(['archive', 'status'])).json
    expect(result).toMatchObject({ ok: true, mode: 'push', dir: archiveDir, lag_segments: 0 })
    expect(result.size_bytes).toBeGreaterThan(0)
    expect(result.free_bytes).toBeGreaterThan(0)
  })

  it('says what is missing', async () => {
    const wal = `${archiveDir}/$(ls ${archiveDir})/wal`
    const [first] = await segments()
    const inOrder = (await segments()).toSorted()
    const gone = inOrder.find((name) => name > first!) ?? ''
    await hosts.exec('backup1', `mv ${wal}/${gone} ~/`, { user: 'postgres' })
    const checked = await cluster.replctl(['archive', 'check', '--json'])
    expect(checked.exitCode).toBe(9)
    expect(problemsOf(checked)).toEqual([['archive-gap', 'archive host']])
    expect(checked.json.problems[0].message).toContain(gone.slice(0, 24))
    await hosts.exec('backup1', `mv ~/${gone} ${wal}/`, { user: 'postgres' })
    await hosts.exec('backup1', `mv ${archiveDir} ${archiveDir}.away`, { user: 'postgres' })
    const emptied = await cluster.replctl(['archive', 'check', '--json'])
    expect([emptied.exitCode, problemsOf(emptied)]).toEqual([9, [['archive-failing', 'archive host']]])
    await hosts.exec('backup1', `mv ${archiveDir}.away ${archiveDir}`, { user: 'postgres' })
  })

  it('is pruned up to an LSN, and never of what a backup needs', async () => {
    const wal = `${archiveDir}/$(ls ${archiveDir})/wal`
    const backup = `${archiveDir}/$(ls ${archiveDir})/backup/20260101T000000Z`
    await hosts.exec(
      'backup1',
      `mkdir -p ${backup}; echo '  "startLsn": "0/3000028",' > ${backup}/backup.json`,
      {
        user: 'postgres',
      },
    )
    const refused = await cluster.replctl(['archive', 'prune', '--keep-from', '0/4000000', '--json'])
    expect(refused.exitCode).toBe(3)
    expect(problemsOf(refused)[0]?.[0]).toBe('backup-needs-wal')
    const all = await segments()
    const planned = await cluster.succeed(['archive', 'prune', '--dry-run'])
    expect(await segments()).toEqual(all)
    const pruned = await cluster.succeed(['archive', 'prune'])
    expect(pruned.json.result).toMatchObject({ keep_from: '0/3000028', files: planned.json.result.files })
    expect(planned.json.changed).toBe(false)
    const left = await segments()
    expect(left.length).toBeGreaterThan(0)
    expect(left.every((name) => name.slice(8) >= '0000000000000003')).toBe(true)
    await hosts.exec('backup1', `rm -r ${backup}; ls ${wal}`, { user: 'postgres' })
    await cluster.succeed(['archive', 'check'])
  })

  it('names the segment that is lost when the new primary could not keep all that was owed', async () => {
    await cluster.succeed(['rejoin', 'pg1'], { timeoutMs: 200_000 })
    const owed = await oweSegments('pg2', 'pg1', 8)
    // It lets go of them before it leads: a restartpoint, for which it has to have replayed a checkpoint.
    await cluster.server('pg2').sql('CHECKPOINT')
    await cluster.server('pg1').awaitCatchup(cluster.server('pg2'))
    await cluster.server('pg1').sql('CHECKPOINT')
    await cluster.server('pg2').kill9()
    const promoted = await cluster.succeed(['promote'])
    const [gap] = promoted.json.problems.filter((one: { code: string }) => one.code === 'archive-gap')
    expect(owed).toContain(/[0-9A-F]{24}/.exec(gap.detail)?.[0])
    const checked = await cluster.replctl(['archive', 'check', '--json'])
    expect(checked.exitCode).toBe(9)
    expect(problemsOf(checked)).toContainEqual(['archive-gap', 'archive host'])
  })

  it('fills such a gap from the old primary when that comes back, before it is rewound', async () => {
    await cluster.succeed(['rejoin', 'pg2'], { timeoutMs: 200_000 })
    await cluster.succeed(['archive', 'check', '--deep'])
  })

  describe('with another archive directory, on a later timeline', () => {
    const second = `${archiveDisk}/second`
    const onArchive = async (script: string) =>
      (await hosts.exec('backup1', script, { user: 'postgres' })).stdout.trim()
    const histories = () => onArchive(`ls ${second}/*/wal | grep history || :`)

    beforeAll(async () => {
      if (Number((await cluster.replctl(['status', '--json'])).json.result.timeline) === 1) {
        await cluster.succeed(['switchover', 'pg2'])
        await cluster.succeed(['switchover', 'pg1'])
      }
      // What kept segments back before.
      await cluster.server('pg1').sql('ALTER SYSTEM RESET archive_command')
      await cluster.server('pg1').sql('SELECT pg_reload_conf()')
      await awaitAllArchived()
    })

    it('has the history file of its timeline, and its WAL goes nowhere else', async () => {
      const before = await segments()
      await onArchive(`rm -rf ${archiveDir}/*/backup`)
      await cluster.writeInventory(inventoryWith(second))
      const changed = await cluster.succeed(['init', 'primary', 'pg1'])
      expect(changed.json.problems).toEqual([])
      await cluster.succeed(['add-standby', 'pg2'])
      expect(await histories()).toMatch(/^0000000[3-9A-F][.]history$/)
      const segment = await switchSegment()
      await awaitCondition(
        'it is in the new archive',
        async () => (await onArchive(`ls ${second}/*/wal`)).includes(segment),
        slow,
      )
      expect(await segments()).toEqual(before)
      await cluster.succeed(['archive', 'check'])
      expect((await cluster.succeed(['init', 'primary', 'pg1'])).json.changed).toBe(false)
      await onArchive(`rm -rf ${archiveDir}`)
    })

    it('a backup counts only with the history file of its timeline: it is brought there, and missed once it is gone', async () => {
      await onArchive(`rm ${second}/*/wal/*.history`)
      const taken = await cluster.succeed(['backup'], slow)
      expect(taken.json.result.verified).toBe(true)
      const [history] = (await histories()).split('\n')
      expect(history).toBe(`${String(taken.json.result.timeline).padStart(8, '0')}.history`)
      const plan = [
        'restore',
        'pg1',
        '--data-dir',
        '/var/lib/postgresql/aside',
        '--port',
        '5501',
        '--dry-run',
      ]
      await cluster.succeed(plan)
      await onArchive(`mv ${second}/*/wal/${history} ~/`)
      const verified = await cluster.replctl(['backup', 'verify', '--json'])
      expect(verified.exitCode).toBe(9)
      expect(verified.json.problems).toContainEqual(
        expect.objectContaining({ code: 'backup-damaged', message: expect.stringContaining(history ?? '') }),
      )
      expect((await cluster.succeed(['init', 'primary', 'pg1'])).json.changed).toBe(true)
      await cluster.succeed(['backup', 'verify'])
      await cluster.succeed(plan)
    })

    it('is never made anew on the bare mount point of a disk that is not mounted', async () => {
      await onArchive(`mv ${second} ${second}.away`)
      for (const command of [
        ['init', 'primary', 'pg1'],
        ['add-standby', 'pg2'],
      ]) {
        const seen = await cluster.succeed(command)
        expect(seen.json.problems).toContainEqual(
          expect.objectContaining({ code: 'archive-failing', message: expect.stringContaining('is gone') }),
        )
      }
      expect(await onArchive(`ls ${archiveDisk}`)).not.toMatch(/^second$/m)
      // Who was never equipped has nowhere to archive to.
      await cluster.succeed(['remove-standby', 'pg2', '--purge'])
      const refused = await cluster.replctl(['add-standby', 'pg2', '--json'])
      expect([refused.exitCode, problemsOf(refused)]).toEqual([3, [['archive-failing', 'archive host']]])
      await onArchive(`mv ${second}.away ${second}`)
      await cluster.succeed(['add-standby', 'pg2'], slow)
    })
  })
})

const problemsOf = (result: ReplctlResult): (readonly [string, string])[] =>
  result.json.problems.map((one: { code: string; node: string }) => [one.code, one.node] as const)

describeOnHosts('an archive that is written into the inventory of a running cluster', () => {
  let hosts: TestHosts
  let cluster: TestCluster

  beforeAll(async () => {
    hosts = await TestHosts.create({ hosts: ['pg1', 'pg2', 'pg3', 'backup1'].map((name) => ({ name })) })
    await hosts.exec('backup1', `install -d -o postgres ${archiveDisk}`)
    cluster = await TestCluster.create(hosts, { nodes: ['pg1', 'pg2', 'pg3'], inventory: inventoryWith() })
    await cluster.succeed(['init', 'primary', 'pg1'], { timeoutMs: 280_000 })
    await cluster.succeed(['add-standby', 'pg2', 'pg3'], { timeoutMs: 280_000 })
  })
  afterAll(() => hosts?.destroy())

  const inventoryWith = (archive?: object) => ({
    cluster: 'shop',
    ssh: { connect_timeout: '10s' },
    ...(archive && {
      archive: { host: hosts.addressOf('backup1'), user: 'postgres', dir: archiveDir, ...archive },
    }),
  })
  const onArchiving = ({ json }: ReplctlResult) =>
    json.problems
      .filter((one: { code: string }) => one.code === 'archive-failing')
      .map((one: { severity: string; node: string; message: string }) => [
        one.severity,
        one.node,
        one.message,
      ])
  const status = () => cluster.replctl(['status', '--json'])
  /** Segments that the archive has not got. */
  const waiting: string[] = []
  const finishSegment = async (node: string) => {
    const server = cluster.server(node)
    await server.sql('CREATE TABLE IF NOT EXISTS finished (n int)')
    await server.sql('INSERT INTO finished VALUES (1)')
    return String(await server.sqlValue('SELECT pg_walfile_name(pg_switch_wal())'))
  }

  it('is told to be without effect until the servers have been restarted', async () => {
    await cluster.writeInventory(inventoryWith({}))
    const lacks = ['error', 'pg1', 'pg1 does not archive its WAL']
    const begun = await cluster.succeed(['init', 'primary', 'pg1'], slow)
    expect(onArchiving(begun)).toEqual([['warning', ...lacks.slice(1)]])
    await finishSegment('pg1')
    const seen = await status()
    expect(seen.exitCode).toBe(9)
    expect(onArchiving(seen)).toEqual([
      ['warning', 'pg2', 'pg2 would not archive its WAL if it led'],
      ['warning', 'pg3', 'pg3 would not archive its WAL if it led'],
      lacks,
    ])
    expect(seen.json.result.archive.ok).toBe(false)
    expect((await cluster.replctl(['archive', 'status', '--json'])).exitCode).toBe(9)
    expect((await cluster.succeed(['init', 'primary', 'pg1'])).json.changed).toBe(false)
  })

  it('takes no standby along into a failover that has not got its scripts yet', async () => {
    const pg3 = cluster.server('pg3')
    const pid = () => pg3.sqlValue('SELECT pg_postmaster_start_time()::text')
    const before = await pid()
    await cluster.server('pg1').kill9()
    const promoted = await cluster.succeed(['promote', 'pg2'], slow)
    expect(onArchiving(promoted)).toContainEqual(['warning', 'pg2', 'pg2 does not archive its WAL'])
    await cluster.server('pg2').awaitStreaming('shop_pg3')
    await cluster.server('pg2').sql('CREATE TABLE afterwards AS SELECT 1 AS n')
    await pg3.awaitSql('SELECT n FROM afterwards')
    expect(await pid()).toBe(before)
    // It asked its archive, and was told that there is nothing.
    const log = await hosts.exec('pg3', 'cat /var/log/postgresql/* ~/.replctl/shop/*.log; :', {
      user: 'postgres',
    })
    expect(log.stdout).toContain('archive-fetch is missing, or may not be run: see replctl status')
  })

  it('archives once it is set up and the server was restarted; with its script gone status says so', async () => {
    await cluster.succeed(['init', 'primary', 'pg2'], slow)
    await cluster.server('pg2').restart()
    await cluster.succeed(['add-standby', 'pg3'], slow)
    const segment = await finishSegment('pg2')
    const isArchived = `SELECT last_archived_wal >= '${segment}' FROM pg_stat_archiver`
    await awaitCondition('it is archived', () => cluster.server('pg2').sqlValue(isArchived), slow)
    expect(onArchiving(await status())).toEqual([
      ['warning', 'pg3', 'pg3 would not archive its WAL if it led'],
    ])
    await hosts.exec('pg2', 'mv ~/.replctl/shop/archive-push ~/', { user: 'postgres' })
    waiting.push(await finishSegment('pg2'))
    const failed = 'SELECT failed_count > 0 FROM pg_stat_archiver'
    await awaitCondition('it fails', () => cluster.server('pg2').sqlValue(failed), slow)
    expect(onArchiving(await status())).toContainEqual(['error', 'pg2', 'pg2 does not archive its WAL'])
  })

  it('is streamed to from now on, and gets what waited', async () => {
    waiting.push(await finishSegment('pg2'))
    const archived = async () =>
      (await hosts.exec('backup1', `ls ${archiveDir}/*/wal`, { user: 'postgres' })).stdout
    for (const name of waiting) expect(await archived()).not.toContain(name)
    await cluster.writeInventory(inventoryWith({ mode: 'stream' }))
    const changed = await cluster.succeed(['init', 'primary', 'pg2'], slow)
    expect(onArchiving(changed)).toContainEqual(['warning', 'pg2', expect.stringContaining('pile')])
    for (const name of waiting) expect(await archived()).toContain(name)
    await cluster.succeed(['archive', 'check'])
    // Until the restart each further one waits as well; it is streamed all the same.
    const next = await finishSegment('pg2')
    const told = onArchiving(await status())
    expect(told).toContainEqual(['error', 'pg2', 'WAL piles up on pg2'])
    await cluster.succeed(['init', 'primary', 'pg2'], slow)
    expect(await archived()).toContain(next)
    await cluster.succeed(['archive', 'check'])
  })

  it('keeps every segment for nobody once it is taken out again, and status says so until the restart', async () => {
    await cluster.writeInventory(inventoryWith())
    await cluster.succeed(['init', 'primary', 'pg2'], slow)
    await finishSegment('pg2')
    const seen = await status()
    expect(seen.exitCode).toBe(9)
    expect(onArchiving(seen)).toEqual([['error', 'pg2', 'WAL piles up on pg2']])
    await cluster.server('pg2').restart()
    expect(onArchiving(await status())).toEqual([])
  })
})
