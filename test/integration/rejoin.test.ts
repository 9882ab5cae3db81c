import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { divergingCluster } from '../kit/diverging-cluster.ts'
import { awaitCondition } from '../kit/index.ts'
import { Client, fingerprint, WriterWatch, writersNow } from '../kit/observe.ts'
import { expectPlanToBeRun } from '../kit/plan-and-run.ts'

describeOnHosts('rejoin', () => {
  const scene = divergingCluster()
  const { state, run, value, ids, told, streams, divergePg1, expectGoodCluster } = scene
  const data = () => scene.cluster.server('pg1').dataDir
  const rejoin = (node: string, ...args: string[]) =>
    scene.cluster.replctl(['rejoin', node, ...args, '--json'])

  it('P-19, P-22: a diverged former primary is rewound, keeps its own files, and what only it had is saved', async () => {
    await scene.hosts.exec(
      'pg1',
      `cd ${data()}; echo certificate >server.crt; echo key >server.key; chmod 600 server.key
mkdir own; echo mine >own/file; sed -i "1i work_mem = '7MB'" postgresql.conf; echo 'host own own 192.0.2.1/32 reject' >>pg_hba.conf
mv pg_ident.conf ../ident && ln -s ../ident pg_ident.conf
# With it a standby takes no query, and would never be seen to follow.
echo "hot_standby = 'off'" >>postgresql.auto.conf`,
      { user: 'postgres' },
    )
    const own = () =>
      scene.hosts.exec(
        'pg1',
        `cd ${data()}; stat -c '%a %n' server.*; readlink pg_ident.conf; sha256sum server.* own/file postgresql.conf pg_hba.conf`,
      )
    const before = (await own()).stdout
    await divergePg1()
    await scene.cluster.server('pg1').stop()
    await scene.hosts.exec('pg2', `echo theirs >${data()}/server.key; echo theirs >${data()}/only-there`)
    await scene.hosts.restoreLink('pg1')
    const files = await fingerprint(scene.hosts, 'pg1')
    const planned = await rejoin('pg1', '--dry-run')
    told(planned).toMatchObject({ exit: 0, changed: false, method: 'rewind' })
    expect(await fingerprint(scene.hosts, 'pg1')).toBe(files)
    const done = await rejoin('pg1')
    told(done).toMatchObject({ exit: 0, changed: true, method: 'rewind', codes: [] })
    expectPlanToBeRun(planned, done)
    // Before it was rewound, it was said what would go.
    expect(done.stderr.slice(0, done.stderr.indexOf('pg_rewind from'))).toMatch(
      /\d+ bytes of its own WAL after the fork at [0-9A-F/]+ of timeline 1 will be discarded/,
    )
    const { fork_lsn, salvage } = done.json.result
    expect(await value('pg2', `SELECT pg_read_file('pg_wal/00000002.history') LIKE '%${fork_lsn}%'`)).toBe(
      true,
    )
    expect(salvage).toMatchObject({ complete: true })
    const rows = await scene.hosts.readFile('pg1', `${salvage.dir}/rows.jsonl`)
    expect(rows.trim().split('\n').length).toBe(salvage.rows)
    expect(rows).toContain('"new":{"id":1}')
    await expectGoodCluster()
    expect(await ids('pg1')).toBe('{2}')
    expect(await value('pg1', 'SELECT count(*) FROM big')).toBe(1000)
    expect(await value('pg1', 'SELECT count(*) FROM gone')).toBe(100)
    expect((await own()).stdout).toBe(before)
    expect((await scene.hosts.exec('pg1', `ls ${data()}`)).stdout).not.toContain('only-there')
    expect(await value('pg1', 'SHOW work_mem')).toBe('7MB')
    expect(await value('pg1', 'SHOW hot_standby')).toBe('on')
    told(await rejoin('pg1')).toMatchObject({ exit: 0, changed: false, method: 'none', codes: [] })
  })

  it('P-20: one that was killed under load is recovered and rewound without ever accepting a client that could write', async () => {
    const client = new Client(scene.hosts, 'pg1')
    await awaitCondition('the client writes', () => client.confirmed.length > 20)
    const writesOn = async () => {
      const seen = client.confirmed.length
      await awaitCondition('the client writes on', () => client.confirmed.length > seen + 20)
    }
    // pg2 goes on receiving for a while, so that it is ahead of pg3.
    await scene.hosts.cutLink('pg1', 'pg3')
    await writesOn()
    await scene.hosts.cutLink('pg1', 'pg2')
    await writesOn()
    await scene.cluster.server('pg1').kill9()
    const confirmed = await client.stop()
    await scene.cluster.succeed(['promote', 'pg2'])
    await scene.hosts.restoreLink('pg1')
    const watch = new WriterWatch(scene.hosts, ['pg1', 'pg2'])
    const done = await rejoin('pg1')
    told(done).toMatchObject({ exit: 0, changed: true, method: 'rewind', codes: [] })
    expect(await watch.stop()).toEqual([])
    await expectGoodCluster()
    // Every confirmed row is on the new primary, or was written out.
    const saved = await scene.hosts.readFile('pg1', `${done.json.result.salvage.dir}/rows.jsonl`)
    const there = String(await ids('pg2'))
      .replace(/[{}]/g, '')
      .split(',')
      .map(Number)
    const lost = confirmed.filter((id) => !there.includes(id) && !saved.includes(`"new":{"id":${id}}`))
    expect(lost).toEqual([])
  })

  it('a former primary that was shut down in order follows, without a rewind', async () => {
    await scene.cluster.server('pg1').stop()
    await scene.cluster.succeed(['promote', 'pg2'])
    await run('pg2', 'INSERT INTO ledger VALUES (2)')
    told(await rejoin('pg2')).toMatchObject({ exit: 3, codes: ['primary-alive'] })
    const planned = await rejoin('pg1', '--dry-run')
    const done = await rejoin('pg1')
    expectPlanToBeRun(planned, done)
    told(done).toMatchObject({ exit: 0, changed: true, method: 'follow', codes: [] })
    expect(done.json.result.salvage).toBeNull()
    await expectGoodCluster()
    expect(await ids('pg1')).toBe('{2}')
  })

  it('P-26: physical slots that others made on the node are made again after a rewind, and after a clone', async () => {
    await run('pg1', "SELECT pg_create_physical_replication_slot('barman', true)")
    await run('pg1', "SELECT pg_create_physical_replication_slot('later')")
    const theirs = () =>
      value(
        'pg1',
        `SELECT coalesce(string_agg(slot_name || ' ' || (restart_lsn IS NOT NULL), ', ' ORDER BY slot_name), '')
           FROM pg_replication_slots`,
      )
    await divergePg1()
    await scene.cluster.server('pg1').stop()
    await scene.hosts.restoreLink('pg1')
    const codes = ['foreign-slot', 'foreign-slot']
    const planned = await rejoin('pg1', '--dry-run')
    told(planned).toMatchObject({ exit: 0, changed: false, method: 'rewind', codes })
    const done = await rejoin('pg1')
    told(done).toMatchObject({ exit: 0, changed: true, method: 'rewind', codes })
    expect(await theirs()).toBe('barman true, later false')
    told(await rejoin('pg1')).toMatchObject({ exit: 0, changed: false, method: 'none', codes: [] })
    told(await rejoin('pg1', '--reclone')).toMatchObject({ exit: 0, changed: true, method: 'reclone', codes })
    expect(await theirs()).toBe('barman true, later false')
    await scene.hosts.exec('pg1', ['test', '!', '-e', `${state}/slots.json`])
  })

  it('one that still accepts writes is stopped and fenced, because record and timeline say that another took over', async () => {
    await divergePg1()
    await scene.hosts.restoreLink('pg1')
    expect(await writersNow(scene.hosts)).toEqual(['pg1', 'pg2'])
    const before = await fingerprint(scene.hosts, 'pg2')
    told(await rejoin('pg2')).toMatchObject({ exit: 3, changed: false, codes: ['two-writers'] })
    expect(await fingerprint(scene.hosts, 'pg2')).toBe(before)
    const planned = await rejoin('pg1', '--dry-run')
    const done = await rejoin('pg1')
    told(done).toMatchObject({ exit: 0, changed: true, method: 'rewind' })
    expectPlanToBeRun(planned, done)
    await expectGoodCluster()
    expect(await ids('pg1')).toBe('{2}')
  })

  it('P-21: where pg_rewind would not work verify says so early, and the member is cloned anew with its own files', async () => {
    await run('pg2', "ALTER SYSTEM SET full_page_writes = 'off'")
    await run('pg1', "ALTER SYSTEM SET full_page_writes = 'off'")
    for (const name of ['pg1', 'pg2']) await scene.cluster.server(name).reload()
    await scene.cluster.server('pg1').awaitSql("SELECT current_setting('full_page_writes') = 'off'")
    told(await scene.cluster.replctl(['verify', '--json'])).toMatchObject({
      exit: 0,
      codes: ['rewind-unavailable'],
    })
    await scene.hosts.exec('pg1', `mkdir /data/wal && cd ${data()} && echo key >server.key`, {
      user: 'postgres',
    })
    await divergePg1()
    await scene.cluster.server('pg1').stop()
    await scene.hosts.exec(
      'pg1',
      `mv ${data()}/pg_wal /data/wal/shop && ln -s /data/wal/shop ${data()}/pg_wal`,
      {
        user: 'postgres',
      },
    )
    await scene.hosts.restoreLink('pg1')
    const planned = await rejoin('pg1', '--dry-run')
    const done = await rejoin('pg1')
    told(done).toMatchObject({ exit: 0, changed: true, method: 'reclone', codes: [] })
    expectPlanToBeRun(planned, done)
    expect(done.json.result.reasons.join(' ')).toContain('full_page_writes is off on pg2')
    expect(done.json.result.salvage.rows).toBeGreaterThan(0)
    expect(await ids('pg1')).toBe('{2}')
    const there = await scene.hosts.exec(
      'pg1',
      `cat ${data()}/server.key; readlink ${data()}/pg_wal; ls -d ${data()}*before* /data/wal/*`,
      {
        check: false,
      },
    )
    // Saved completely, so the old directory is gone; pg_wal still lies where it did.
    expect(there.stdout).toBe('key\n/data/wal/shop\n/data/wal/shop\n')
    await scene.hosts.exec('pg1', 'rm -rf /data/wal')
  })

  it('P-28: a standby whose slot is lost is cloned anew, and has a valid one again', async () => {
    await run('pg1', "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'; ALTER SYSTEM SET wal_keep_size = '0'")
    await run('pg1', "ALTER SYSTEM SET max_wal_size = '32MB'; ALTER SYSTEM SET min_wal_size = '32MB'")
    await scene.cluster.server('pg1').reload()
    await scene.cluster.server('pg2').stop()
    for (let round = 0; round < 4; round += 1)
      await run('pg1', 'CHECKPOINT; SELECT pg_switch_wal(); INSERT INTO big SELECT 1')
    await run('pg1', 'CHECKPOINT')
    await scene.cluster
      .server('pg1')
      .awaitSql("SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = 'shop_pg2'")
    // The clone takes more WAL than that to copy the instance.
    await run('pg1', "ALTER SYSTEM SET max_slot_wal_keep_size = '1GB'")
    await scene.cluster.server('pg1').reload()
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

  it('one whose own WAL no longer reaches back to a checkpoint before the fork is planned, and done, as a clone', async () => {
    const grow = 'INSERT INTO big SELECT 1; SELECT pg_switch_wal()'
    await run('pg1', "ALTER SYSTEM SET wal_keep_size = '48MB'; ALTER SYSTEM SET checkpoint_timeout = '1h'")
    await scene.cluster.server('pg1').reload()
    await run('pg1', 'CHECKPOINT')
    for (let round = 0; round < 4; round += 1) await run('pg1', grow)
    await run('pg1', 'INSERT INTO big SELECT 1')
    // It tells who was open at the fork: without it not all could be saved, and nothing would be discarded.
    await awaitCondition('the background writer has logged which transactions are open', async () => {
      const file = await value('pg1', 'SELECT pg_walfile_name(pg_current_wal_lsn())')
      const look = `/usr/lib/postgresql/*/bin/pg_waldump ${data()}/pg_wal/${file} 2>/dev/null | grep RUNNING_XACTS`
      return (await scene.hosts.exec('pg1', look, { check: false })).exitCode === 0
    })
    for (const name of ['pg2', 'pg3'])
      await scene.cluster.server(name).awaitCatchup(scene.cluster.server('pg1'))
    await divergePg1()
    await run('pg1', grow)
    // It keeps what those who left lack, and some before that, but not as much as to the checkpoint before.
    await run('pg1', 'CHECKPOINT')
    await scene.cluster.server('pg1').stop()
    await scene.hosts.restoreLink('pg1')
    const planned = await rejoin('pg1', '--dry-run')
    told(planned).toMatchObject({ exit: 0, changed: false, method: 'reclone' })
    const why = /no longer has the WAL from the last checkpoint before the fork/
    expect(planned.json.result.reasons.join(' ')).toMatch(why)
    const done = await rejoin('pg1')
    told(done).toMatchObject({ exit: 0, changed: true, method: 'reclone', codes: [] })
    expect(done.json.result.reasons).toEqual(planned.json.result.reasons)
    expect(done.json.result.salvage.rows).toBeGreaterThan(0)
    await expectGoodCluster()
  })

  it.each([
    ['after the fence', /fence the old primary/],
    ['after the salvage', /save what only pg1 has/],
  ] as const)('killed %s, it gets to the end from another control host', async (_, step) => {
    await divergePg1()
    await scene.cluster.server('pg1').kill9()
    await scene.hosts.restoreLink('pg1')
    const started = scene.cluster.startReplctl(['rejoin', 'pg1'])
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
    expect((await started.finished).signal, started.stderr()).toBe('SIGKILL')
    expect(hasEnded(step), started.stderr()).toBe(true)
    expect(await writersNow(scene.hosts)).toEqual(['pg2'])
    const elsewhere = join(scene.hosts.directory, `elsewhere-${Math.random().toString(36).slice(2)}`)
    await mkdir(elsewhere, { recursive: true })
    const ended = await scene.cluster.replctl(['rejoin', 'pg1', '--json'], {
      cwd: elsewhere,
      env: { HOME: elsewhere },
    })
    told(ended).toMatchObject({ exit: 0 })
    await expectGoodCluster()
    expect(await ids('pg1')).toBe('{2}')
    const saved = await scene.hosts.exec('pg1', `cat ${state}/salvage/*/rows.jsonl`)
    expect(saved.stdout).toContain('"new":{"id":1}')
  })
})
