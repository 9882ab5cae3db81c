import { afterAll, beforeAll, expect, it } from 'vitest'
import { awaitCondition } from '../kit/await-condition.ts'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { PostgresServer } from '../kit/postgres-server.ts'
import { TestCluster } from '../kit/test-cluster.ts'
import { TestHosts } from '../kit/test-hosts.ts'

const archiveDir = '/var/lib/postgresql/archive'
const dataDir = '/var/lib/postgresql/15/shop'

describeOnHosts('restore', () => {
  let hosts: TestHosts
  let cluster: TestCluster
  let folder: string
  const targets = { xid: '', time: '', lsn: '', before: '' }

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
        ssh: { connect_timeout: '15s' },
      },
    })
    for (const host of ['pg1', 'pg2']) await shell(host, 'install -d -o postgres -m 700 /data/fast', 'root')
    await setUp(['init', 'primary'])
    // As an operator may leave them: they come back in the end.
    await run("ALTER SYSTEM SET log_destination = 'csvlog'")
    await run("ALTER SYSTEM SET work_mem = '7MB'")
    await run("CREATE TABLESPACE fast LOCATION '/data/fast'")
    await run('CREATE TABLE t TABLESPACE fast AS SELECT generate_series(1, 1000) AS n')
    await setUp(['add-standby', 'pg2'])
    await shell(
      'pg2',
      `sed -i "1i recovery_end_command = 'touch /tmp/moved-the-address'\\nrecovery_target_name = 'nowhere'" ${dataDir}/postgresql.conf`,
    )
    targets.before = String(await value('SELECT now()::text'))
    await succeed(['backup'])
    const identifier = await value('SELECT system_identifier::text FROM pg_control_system()')
    folder = `${archiveDir}/${identifier}`
    const grow = 'INSERT INTO t SELECT generate_series(1, 1000)'
    targets.xid = String(await value(`WITH i AS (${grow} RETURNING 1) SELECT pg_current_xact_id()::text`))
    await run(grow)
    targets.time = String(await value('SELECT clock_timestamp()::text'))
    await run(grow)
    await run("SELECT pg_create_restore_point('before the migration')")
    await run(grow)
    targets.lsn = String(await value('SELECT pg_current_wal_insert_lsn()::text'))
    await run('INSERT INTO t SELECT generate_series(1, 500)')
    await archived()
  })
  afterAll(() => hosts?.destroy())

  /** On a busy machine a command may take its time; its end is what counts. */
  const patience = { timeoutMs: 600_000 }
  const succeed = (args: readonly string[]) => cluster.succeed(args, patience)
  const replctl = (args: readonly string[]) => cluster.replctl(args, patience)
  /** Both can be repeated: on a machine that is too busy to answer in time they are. */
  const setUp = async (args: readonly string[]) => {
    await awaitCondition(
      args.join(' '),
      async () => (await replctl([...args, '--json'])).exitCode === 0 || undefined,
      {
        timeoutMs: 280_000,
      },
    )
  }
  const run = (statement: string, node = 'pg1') => cluster.server(node).sql(statement)
  const value = (query: string, node = 'pg1') => cluster.server(node).sqlValue(query)
  const shell = async (host: string, script: string, user = 'postgres') =>
    (await hosts.exec(host, script, { user })).stdout.trim()
  const restore = (...args: string[]) => replctl(['restore', ...args, '--json'])
  const codes = (json: { problems: { code: string; severity: string }[] }) =>
    json.problems.filter(({ severity }) => severity === 'error').map(({ code }) => code)
  const isThere = async (host: string, path: string) =>
    (await hosts.exec(host, ['test', '-e', path], { check: false })).exitCode === 0
  const beside = (host: string, dir: string, port: number) =>
    new PostgresServer(hosts, host, { dataDir: dir, port })
  /** Has everything until now in the archive. */
  async function archived(node = 'pg1'): Promise<void> {
    const segment = await value('SELECT pg_walfile_name(pg_switch_wal())', node)
    await cluster
      .server(node)
      .awaitSql(`SELECT last_archived_wal >= '${segment}' FROM pg_stat_archiver`, { timeoutMs: 60_000 })
  }

  it('P-33: reaches each of five kinds of target, reads it back, and opens there', async () => {
    const wishes: readonly (readonly [string[], number])[] = [
      [['--to-immediate'], 1000],
      [['--to-xid', targets.xid], 2000],
      [['--to-time', targets.time], 3000],
      [['--to-name', 'before the migration'], 4000],
      [['--to-lsn', targets.lsn], 5000],
      [['--latest'], 5500],
    ]
    const before = await shell('backup1', `cd ${folder} && find . -type f | sort`)
    for (const [index, [target, rows]] of wishes.entries()) {
      const [dir, port] = [`/data/aside${index}`, 5500 + index]
      const done = await restore('pg2', '--data-dir', dir, '--port', String(port), ...target)
      expect([target, done.exitCode, done.json?.problems]).toEqual([target, 0, []])
      expect(done.json.result).toMatchObject({ node: 'pg2', data_dir: dir, port, timeline: 2 })
      expect(done.json.result.reached_lsn).toMatch(/^[0-9A-F]+\/[0-9A-F]+$/)
      const server = beside('pg2', dir, port)
      expect([target, await server.sqlValue('SELECT count(*) FROM t')]).toEqual([target, rows])
      // The copy's own settings of the same kind count for nothing, and its subscriptions rest.
      expect(await server.sqlValue("SELECT current_setting('max_logical_replication_workers')")).toBe('0')
      expect(await shell('pg2', 'ls /tmp')).not.toContain('moved-the-address')
      // Its own, writable, archiving nowhere, and its tablespace below its own directory.
      expect(await server.sqlValue("SELECT current_setting('archive_mode')")).toBe('off')
      expect(
        await server.sqlValue("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast'"),
      ).toContain(dir)
      await server.sql('INSERT INTO t VALUES (0)')
      await server.sql('SELECT pg_switch_wal()')
      await server.stop('fast')
      await server.start()
      expect(await server.sqlValue("SELECT current_setting('archive_mode')")).toBe('off')
      await server.stop('immediate')
      if (index > 0) await shell('pg2', `rm -rf ${dir}`)
    }
    expect(await shell('backup1', `cd ${folder} && find . -type f | sort`)).toBe(before)
    const status = await replctl(['status', '--json'])
    expect([status.exitCode, status.json.result.nodes.length]).toEqual([0, 2])
  })

  it('P-33: what cannot be reached ends with an error, and nothing is opened or left behind', async () => {
    const usage = [
      ['--to-lsn', '0/3000000', '--to-xid', '800'],
      ['--to-time', '2026-11-26 06:15:00'],
      ['--to-lsn', 'nonsense'],
    ]
    for (const target of usage) {
      const refused = await restore('pg2', '--data-dir', '/data/no', ...target)
      expect([target, refused.exitCode, ...codes(refused.json)]).toEqual([target, 2, 'target-invalid'])
    }
    const early = await restore('pg2', '--data-dir', '/data/no', '--to-time', targets.before)
    expect([early.exitCode, ...codes(early.json)]).toEqual([3, 'target-too-early'])
    expect(early.json.problems[0].message).toMatch(/oldest usable time is \d{4}-/)
    const beyond = await restore('pg2', '--data-dir', '/data/no', '--to-lsn', 'F/0')
    expect([beyond.exitCode, ...codes(beyond.json)]).toEqual([3, 'target-unreachable'])
    for (const target of [
      ['--to-name', 'no such point'],
      ['--to-time', '2100-01-01 00:00:00Z'],
    ]) {
      const failed = await restore('pg2', '--data-dir', '/data/no', ...target)
      expect([target, failed.exitCode, ...codes(failed.json)]).toEqual([target, 5, 'target-unreachable'])
    }
    expect(await isThere('pg2', '/data/no')).toBe(false)
    expect(await hosts.pids('pg2', 'postgres .*-D /data/no')).toEqual([])
    // A gap in the archive must not be taken for its end.
    for (const word of ['one', 'two']) {
      await run(`SELECT pg_logical_emit_message(true, 'test', '${word}')`)
      await archived()
    }
    const gap = await shell(
      'backup1',
      `cd ${folder}/wal && ls [0-9A-F]* | grep -v history | tail -n 2 | head -n 1`,
    )
    await shell('backup1', `mv ${folder}/wal/${gap} /tmp/`)
    const short = await restore('pg2', '--data-dir', '/data/no')
    await shell('backup1', `mv /tmp/${gap} ${folder}/wal/`)
    expect([short.exitCode, ...codes(short.json)]).toEqual([3, 'wal-missing'])
  })

  it('P-35: never writes where something is', async () => {
    const tree = (path: string) =>
      shell('pg2', `find ${path} -type f ! -name postmaster.pid -exec sha256sum {} + | sort | sha256sum`)
    await shell('pg2', 'mkdir -p /data/mine && echo precious > /data/mine/file')
    const stopped = await tree('/data/aside0')
    for (const dir of ['/data/aside0', '/data/mine', `${dataDir}/inner`]) {
      const refused = await restore('pg2', '--data-dir', dir)
      expect([dir, refused.exitCode, ...codes(refused.json)]).toEqual([dir, 3, 'foreign-data-directory'])
    }
    expect(await tree('/data/aside0')).toBe(stopped)
    expect(await shell('pg2', 'cat /data/mine/file')).toBe('precious')
    await beside('pg2', '/data/aside0', 5500).start()
    const running = await restore('pg2', '--data-dir', '/data/aside0')
    expect([running.exitCode, ...codes(running.json)]).toEqual([3, 'data-directory-in-use'])
    await beside('pg2', '/data/aside0', 5500).stop('immediate')
    const own = await restore('pg2', '--data-dir', dataDir)
    expect([own.exitCode, ...codes(own.json)]).toEqual([2, 'usage'])
    const alive = await restore('pg2')
    expect([alive.exitCode, ...codes(alive.json)]).toEqual([3, 'primary-alive'])
  })

  it('reaches what was written after max_connections was raised, which the backup knows nothing of', async () => {
    // The standby first, or its replay would stand still.
    for (const node of ['pg2', 'pg1']) {
      await run('ALTER SYSTEM SET max_connections = 300', node)
      await cluster.server(node).stop('fast')
      await cluster.server(node).start()
    }
    await run("SELECT pg_logical_emit_message(true, 'test', 'raised')")
    const raised = String(await value('SELECT pg_current_wal_insert_lsn()::text'))
    await run("SELECT pg_logical_emit_message(true, 'test', 'later')")
    await archived()
    for (const target of [['--to-lsn', raised], ['--latest']]) {
      const done = await restore('pg2', '--data-dir', '/data/raised', '--port', '5650', ...target)
      expect([target, done.exitCode, done.json?.problems]).toEqual([target, 0, []])
      const server = beside('pg2', '/data/raised', 5650)
      const isThere = `SELECT '${done.json.result.reached_lsn}'::pg_lsn >= '${raised}'::pg_lsn`
      expect(await server.sqlValue(isThere)).toBe(true)
      expect(await server.sqlValue("SELECT current_setting('shared_buffers')")).toBe('128MB')
      await server.stop('immediate')
      await shell('pg2', 'rm -rf /data/raised')
    }
  })

  it('a restore that was killed is gone on with by resume, or taken back by abort', async () => {
    for (const [moment, way] of [
      ['fetching', 'resume'],
      ['fetched', 'abort'],
    ] as const) {
      const args = ['restore', 'pg1', '--data-dir', '/data/killed', '--port', '5600']
      const started = cluster.startReplctl(args)
      let hasEnded = false
      const ended = started.finished.then(() => {
        hasEnded = true
      })
      const script = `grep -q '"phase":"${moment}"' ~/.replctl/shop/restore-*/restore.json`
      await awaitCondition(
        moment,
        async () =>
          hasEnded || (await hosts.exec('pg1', script, { user: 'postgres', check: false })).exitCode === 0,
        { timeoutMs: 120_000, everyMs: 20 },
      )
      started.kill()
      await ended
      await succeed([way])
      if (way === 'resume') {
        const server = beside('pg1', '/data/killed', 5600)
        expect(await server.sqlValue('SELECT count(*) FROM t')).toBe(5500)
        await server.stop('immediate')
        await shell('pg1', 'rm -rf /data/killed')
      }
    }
    expect(await isThere('pg1', '/data/killed')).toBe(false)
    expect(await hosts.pids('pg1', 'postgres .*/data/killed')).toEqual([])
  })

  it('a drill restores the newest backup, reads all of it, compares it with the primary and leaves nothing', async () => {
    const done = await succeed(['restore', '--drill'])
    expect(done.json.result).toMatchObject({ node: 'pg2', checked_with: 'pg_amcheck', findings: [] })
    expect(done.json.result.tables).toContainEqual({
      ...{ database: 'postgres', schema: 'public', table: 't', restored_rows: 5500, primary_rows: 5500 },
      ...{ is_changing: false, ok: true },
    })
    expect(await isThere('pg2', `${dataDir}.replctl-drill`)).toBe(false)
    expect(await hosts.pids('pg2', 'replctl-drill')).toEqual([])
    expect(
      await shell('pg2', 'ls ~/.replctl/shop | grep restore; ls -A /tmp | grep replctl; :'),
    ).not.toContain('replctl-')
    // A drill that finds that the backup cannot be restored is a problem, not a crash.
    const base = await shell('backup1', `ls ${folder}/backup/*/base.tar*`)
    await shell(
      'backup1',
      `cp ${base} /tmp/base && printf x | dd of=${base} bs=1 seek=90000 conv=notrunc status=none`,
    )
    const bad = await replctl(['restore', '--drill', 'pg2', '--json'])
    await shell('backup1', `cp /tmp/base ${base}`)
    expect([bad.exitCode, codes(bad.json)[0]]).toEqual([9, 'restore-failed'])
    expect(await isThere('pg2', `${dataDir}.replctl-drill`)).toBe(false)
  })

  it('disaster recovery: a lost primary comes back from the archive, on a new timeline, archiving again', async () => {
    await hosts.powerOff('pg1')
    await cluster.server('pg2').kill9()
    await shell(
      'pg2',
      `rm -rf ${dataDir} /data/fast/* && mkdir /data/wal && mkdir -m 700 ${dataDir} && ln -s /data/wal ${dataDir}/pg_wal`,
    )
    const unproven = await restore('pg2', '--to-name', 'before the migration')
    expect([unproven.exitCode, ...codes(unproven.json)]).toEqual([3, 'primary-unproven'])
    await hosts.powerOn('pg1')
    // P-35: what is left of the cluster is never overwritten, stopped and useless as it may be.
    const old = `cd ${dataDir} && find . -type f -exec sha256sum {} + | sort | sha256sum`
    const tree = await shell('pg1', old)
    const kept = await restore('pg1', '--to-name', 'before the migration')
    expect([kept.exitCode, ...codes(kept.json)]).toEqual([3, 'foreign-data-directory'])
    expect(await shell('pg1', old)).toBe(tree)
    await shell('pg1', `rm -rf ${dataDir} && touch /data/fast/mine`)
    const full = await restore('pg1', '--to-name', 'before the migration')
    expect([full.exitCode, ...codes(full.json)]).toEqual([3, 'tablespace-unmapped'])
    const planned = await restore('pg2', '--to-name', 'before the migration', '--dry-run')
    // The last journal that stands there while it runs, for later.
    const keepJournal = `cd ~/.replctl/shop && n=0
while [ $n -lt 6000 ] && [ ! -e /tmp/restored ]; do cp journal /tmp/journal.new 2>/dev/null && mv /tmp/journal.new /tmp/journal; n=$((n + 1)); sleep 0.1; done`
    const keeping = shell('pg2', keepJournal)
    const done = await restore('pg2', '--to-name', 'before the migration')
    await shell('pg2', 'touch /tmp/restored')
    await keeping
    expect([done.exitCode, codes(done.json)]).toEqual([0, []])
    expect(done.json.result.steps.map((step: { title: string }) => step.title)).toEqual(
      planned.json.result.steps.map((step: { title: string }) => step.title),
    )
    expect(done.json.result).toMatchObject({ node: 'pg2', data_dir: dataDir, port: 5432, timeline: 2 })
    const pg2 = cluster.server('pg2')
    expect(await pg2.sqlValue('SELECT count(*) FROM t')).toBe(4000)
    expect(await pg2.sqlValue("SELECT current_setting('archive_mode')")).toBe('on')
    const isSet = (name: string) => pg2.sqlValue(`SELECT current_setting('${name}')`)
    expect([await isSet('log_destination'), await isSet('work_mem')]).toEqual(['csvlog', '7MB'])
    expect(await isSet('max_logical_replication_workers')).toBe('4')
    expect(await shell('pg2', 'ls /tmp')).not.toContain('moved-the-address')
    // P-54: a link pg_wal stays one; the mode of the directory is the server's.
    expect(await shell('pg2', `readlink ${dataDir}/pg_wal; stat -c %a ${dataDir}`)).toBe('/data/wal\n700')
    // Its first segment too: else a later restore would follow what was abandoned.
    const ofTwo = (await shell('backup1', `ls ${folder}/wal`))
      .split('\n')
      .filter((name) => /^0{7}2/.test(name))
    expect([ofTwo.includes('00000002.history'), ofTwo.length > 1]).toEqual([true, true])
    const status = await replctl(['status', '--json'])
    expect([status.json.result.primary, status.json.result.timeline]).toEqual(['pg2', 2])
    expect((await replctl(['verify', '--json'])).json.result.archive).toMatchObject({ ok: true })
    // A run that was killed between its last step and the end of its journal: nothing is left to do but that.
    for (const host of ['pg1', 'pg2']) await shell(host, 'rm -f ~/.replctl/shop/ended')
    await shell('pg2', 'cp /tmp/journal ~/.replctl/shop/journal')
    const resumed = await replctl(['resume', '--json'])
    expect([resumed.exitCode, ...codes(resumed.json)]).toEqual([0])
    expect(resumed.json.result).toMatchObject({ node: 'pg2', timeline: 2, steps: [] })
    expect(await shell('pg2', 'test ! -e ~/.replctl/shop/journal && echo gone')).toBe('gone')
    const nothing = await replctl(['resume', '--json'])
    expect([nothing.exitCode, ...codes(nothing.json)]).toEqual([3, 'nothing-to-resume'])
    const again = await restore('pg2')
    expect([again.exitCode, ...codes(again.json)]).toEqual([3, 'primary-alive'])
    // The new line is the one that is followed from now on, and the old end is still reachable by name.
    await run('INSERT INTO t VALUES (1)', 'pg2')
    await archived('pg2')
    const latest = await restore('pg1', '--data-dir', '/data/latest', '--port', '5700')
    expect([latest.exitCode, latest.json?.problems]).toEqual([0, []])
    expect(await beside('pg1', '/data/latest', 5700).sqlValue('SELECT count(*) FROM t')).toBe(4001)
  })

  it('K9: what is restored beside a node never writes into a tablespace of that node which is younger than the backup', async () => {
    await shell('pg2', 'install -d -o postgres -m 700 /data/young', 'root')
    await run("CREATE TABLESPACE young LOCATION '/data/young'", 'pg2')
    await run('CREATE TABLE y TABLESPACE young AS SELECT generate_series(1, 1000) AS n', 'pg2')
    // Nothing of its own changes its files any more.
    await run('VACUUM (FREEZE) y', 'pg2')
    await run('CHECKPOINT', 'pg2')
    await archived('pg2')
    const files = 'find /data/young -type f -exec stat -c "%n %Y" {} + -exec sha256sum {} + | sort'
    const before = await shell('pg2', files)
    // There is no such folder on pg1.
    for (const host of ['pg2', 'pg1']) {
      const refused = await restore(host, '--data-dir', '/data/beside', '--port', '5800')
      expect([host, refused.exitCode, ...codes(refused.json)]).toEqual([host, 5, 'tablespace-unmapped'])
      expect(await isThere(host, '/data/beside/pg_tblspc')).toBe(false)
      const drilled = await replctl(['restore', '--drill', host, '--json'])
      expect([host, drilled.exitCode, ...codes(drilled.json)]).toEqual([host, 9, 'tablespace-unmapped'])
      expect(await isThere(host, `${dataDir}.replctl-drill`)).toBe(false)
    }
    expect(await shell('pg2', files)).toBe(before)
    await succeed(['backup'])
    const done = await restore('pg2', '--data-dir', '/data/beside', '--port', '5800')
    expect([done.exitCode, done.json?.problems]).toEqual([0, []])
    const restored = beside('pg2', '/data/beside', 5800)
    expect(await restored.sqlValue('SELECT count(*) FROM y')).toBe(1000)
    await shell('pg2', 'mkdir -m 700 /data/own')
    await restored.sql("CREATE TABLESPACE own LOCATION '/data/own'")
    await restored.stop('immediate')
    expect(await shell('pg2', files)).toBe(before)
  })
})
