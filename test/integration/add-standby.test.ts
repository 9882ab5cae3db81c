import { chmod, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { awaitCondition } from '../kit/await-condition.ts'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { fingerprint } from '../kit/fingerprint.ts'
import { expectPlanToBeRun } from '../kit/plan-and-run.ts'
import { TestCluster } from '../kit/test-cluster.ts'
import { TestHosts } from '../kit/test-hosts.ts'

const dataDir = '/var/lib/postgresql/15/shop'

describeOnHosts('add-standby', () => {
  let hosts: TestHosts
  let cluster: TestCluster

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [
        { name: 'pg1' },
        { name: 'pg2', login: 'admin' },
        { name: 'pg3', login: 'root' },
        { name: 'pg4', smallDisk: { path: '/data', sizeMb: 200 } },
      ],
    })
    cluster = await TestCluster.create(hosts)
    await writeInventory()
    await cluster.init()
    await cluster.server('pg1').sql('CREATE TABLE t1 (n int); INSERT INTO t1 VALUES (1), (2)')
  })
  afterAll(() => hosts?.destroy())

  const writeInventory = (part: object = {}) =>
    cluster.writeInventory({
      nodes: { pg3: { upstream: 'pg2', delay: '1s' }, pg4: { data_dir: '/data/pg' } },
      ...part,
    })

  it('P-04: a data directory from another initdb is refused and left as it is, and no slot is made', async () => {
    const foreign = cluster.server('pg2')
    await foreign.init()
    await foreign.start()
    await foreign.sql('CREATE TABLE precious AS SELECT 1 AS n')
    await foreign.stop()
    const [before, primary] = [await treeOf(hosts, 'pg2'), await fingerprint(cluster.server('pg1'))]
    for (const flags of [[], ['--reclone']]) {
      const refused = await cluster.replctl(['add-standby', 'pg2', ...flags, '--json'])
      expect([refused.exitCode, refused.json.problems[0].code]).toEqual([3, 'foreign-data-directory'])
      for (const node of ['pg1', 'pg2']) {
        const identifier = (await cluster.server(node).controlData()).get('Database system identifier')!
        expect(refused.json.problems[0].message + refused.json.problems[0].detail).toContain(identifier)
      }
    }
    expect(await treeOf(hosts, 'pg2')).toBe(before)
    expect(await fingerprint(cluster.server('pg1'))).toEqual(primary)
    await hosts.exec('pg2', ['rm', '-r', dataDir])
  })

  it('a folder with files that are not PostgreSQL’s is refused and left as it is', async () => {
    await hosts.exec('pg2', `mkdir -p ${dataDir} && echo keep >${dataDir}/notes`, { user: 'postgres' })
    for (const flags of [[], ['--reclone']]) {
      const refused = await cluster.replctl(['add-standby', 'pg2', ...flags, '--json'])
      expect([refused.exitCode, refused.json.problems[0].code]).toEqual([3, 'foreign-data-directory'])
    }
    expect(await hosts.readFile('pg2', `${dataDir}/notes`)).toBe('keep\n')
    await hosts.exec('pg2', ['rm', '-r', dataDir])
  })

  it('P-03: two standbys at once, logged in as an administrator and as root; the plan is the run', async () => {
    const before = await fingerprint(cluster.server('pg1'))
    const plan = await cluster.succeed(['add-standby', 'pg2', 'pg3', '--dry-run'])
    expect(plan.json.changed).toBe(false)
    expect(await fingerprint(cluster.server('pg1'))).toEqual(before)
    const run = await cluster.addStandbys(['pg2', 'pg3'])
    expectPlanToBeRun(plan, run)
    for (const node of ['pg2', 'pg3']) {
      const standby = cluster.server(node)
      await awaitCondition(
        `rows on ${node}`,
        async () => (await standby.sqlValue('SELECT count(*) FROM t1')) === 2,
      )
      await expect(standby.sql('INSERT INTO t1 VALUES (3)')).rejects.toThrow(/read-only transaction/)
    }
    expect(
      await cluster
        .server('pg1')
        .sqlValue(
          "SELECT string_agg(slot_name || ':' || active, ' ' ORDER BY slot_name) FROM pg_replication_slots",
        ),
    ).toMatch(/shop_pg2:true/)
    const verified = await cluster.replctl(['verify', 'pg2', 'pg3', '--json'])
    expect([verified.exitCode, verified.json.result.nodes.map((node: { ok: boolean }) => node.ok)]).toEqual([
      0,
      [true, true],
    ])
  })

  it('a standby that shall follow another one that is built in the same command follows it', async () => {
    await cluster.server('pg2').awaitStreaming('shop_pg3')
    expect(
      await cluster
        .server('pg3')
        .sqlValue("SELECT setting FROM pg_settings WHERE name = 'recovery_min_apply_delay'"),
    ).toBe('1000')
    const verified = await cluster.replctl(['verify', 'pg3', '--json'])
    expect([verified.exitCode, verified.json.problems]).toEqual([0, []])
  })

  it('add-standby again changes nothing, also where no walsender is left', async () => {
    const before = await Promise.all(['pg1', 'pg2', 'pg3'].map((node) => fingerprint(cluster.server(node))))
    const again = await cluster.addStandbys(['pg2', 'pg3'])
    expect(again.json.changed).toBe(false)
    expect(again.json.result.steps.map((step: { state: string }) => step.state)).not.toContain('applied')
    expect(await Promise.all(['pg1', 'pg2', 'pg3'].map((node) => fingerprint(cluster.server(node))))).toEqual(
      before,
    )
  })

  it('P-06: too few slots or walsenders is refused by name and number, before anything is done', async () => {
    const pg1 = cluster.server('pg1')
    for (const setting of ['max_wal_senders', 'max_replication_slots']) {
      await cluster.writeInventory({
        postgres: { parameters: { [setting]: 1 } },
        nodes: { pg3: { upstream: 'pg2', delay: '1s' }, pg4: { data_dir: '/data/pg' } },
      })
      await cluster.init()
      await pg1.restart()
      await pg1.awaitStreaming('shop_pg2')
      const before = await fingerprint(pg1)
      const refused = await cluster.replctl(['add-standby', 'pg4', '--json'])
      expect([refused.exitCode, refused.json.problems[0].code]).toEqual([3, 'settings-too-low'])
      const { message, detail } = refused.json.problems[0]
      expect(`${message} ${detail}`).toMatch(
        new RegExp(`${setting} is 1; 1 are in use, [12] more are needed`),
      )
      expect(await fingerprint(pg1)).toEqual(before)
      const again = await cluster.replctl(['add-standby', 'pg2', '--json'])
      // What was rendered on pg2 waits for its next restart: that is told.
      const told = again.json.problems.map((one: Record<string, unknown>) => [
        one.severity,
        one.code,
        one.node,
      ])
      expect([again.exitCode, told]).toEqual([0, [['warning', 'restart-needed', 'pg2']]])
    }
    await writeInventory()
    await cluster.init()
    await pg1.restart()
    await pg1.awaitStreaming('shop_pg2')
  })

  it('P-05: the clone does not wait for a spread checkpoint, and tells what it waits for', async () => {
    const pg1 = cluster.server('pg1')
    await pg1.sql(
      "ALTER SYSTEM SET checkpoint_timeout = '1h'; ALTER SYSTEM SET checkpoint_completion_target = 0.9",
    )
    await pg1.reload()
    await pg1.sql("CREATE TABLE dirty AS SELECT n, repeat('x', 500) AS x FROM generate_series(1, 40000) n")
    await hosts.limitLink('pg4', '100mbit')
    const run = await cluster.replctl(['add-standby', 'pg4', '--from', 'pg1'])
    await hosts.limitLink('pg4', undefined)
    expect(run.exitCode, run.stderr).toBe(0)
    expect(run.ms).toBeLessThan(60_000)
    expect(run.stderr).toMatch(/checkpoint|streaming database files|MiB of/)
    await pg1.awaitStreaming('shop_pg4')
  })

  it('--reclone replaces a standby’s data, never a primary’s', async () => {
    const refused = await cluster.replctl(['add-standby', 'pg1', '--reclone', '--json'])
    expect([refused.exitCode, refused.json.problems[0].code]).toEqual([3, 'primary-alive'])
    const beneath = await cluster.replctl(['add-standby', 'pg2', '--reclone', '--json'])
    expect([beneath.exitCode, beneath.json.problems[0].code]).toEqual([3, 'wrong-upstream'])
    await cluster.succeed(['follow', 'pg3', '--upstream', 'pg1'])
    const inode = await inodeOf(hosts, 'pg2')
    const plan = await cluster.succeed(['add-standby', 'pg2', '--reclone', '--dry-run'])
    const run = await cluster.succeed(['add-standby', 'pg2', '--reclone'])
    expect(run.json.changed).toBe(true)
    expectPlanToBeRun(plan, run)
    expect(await inodeOf(hosts, 'pg2')).not.toBe(inode)
    await cluster.server('pg1').awaitStreaming('shop_pg2')
    const { stdout } = await hosts.exec('pg2', ['ls', '/var/lib/postgresql/15'])
    expect(stdout).not.toContain('replctl-old')
  })

  it('a reclone that fails brings the old standby back, and the rules of access as they were', async () => {
    const before = await fingerprint(cluster.server('pg2'))
    const rules = () => hosts.readFile('pg1', `${dataDir}/pg_hba.conf`)
    const rulesBefore = await rules()
    await writeInventory({ postgres: { hba: ['host app app 192.0.2.0/24 scram-sha-256'] } })
    await hosts.exec(
      'pg2',
      `printf '#!/bin/sh\\nexit 1\\n' >/tmp/fake && chmod 755 /tmp/fake &&
      mount --bind /tmp/fake /usr/lib/postgresql/15/bin/pg_basebackup`,
    )
    const failed = await cluster.replctl(['add-standby', 'pg2', '--reclone', '--json'])
    await hosts.exec('pg2', ['umount', '/usr/lib/postgresql/15/bin/pg_basebackup'])
    expect([failed.exitCode, failed.json.problems[0].code]).toEqual([5, 'base-backup-failed'])
    expect(await rules()).toBe(rulesBefore)
    const inForce = "SELECT 1 FROM pg_hba_file_rules WHERE address = '192.0.2.0'"
    expect(await cluster.server('pg1').sql(inForce)).toEqual([])
    await writeInventory()
    await cluster.server('pg1').awaitStreaming('shop_pg2')
    const after = await fingerprint(cluster.server('pg2'))
    expect({ ...after, startedAt: '' }).toEqual({ ...before, startedAt: '' })
    expect((await cluster.succeed(['add-standby', 'pg2'])).json.changed).toBe(false)
  })

  it('a new password in password_file reaches the role and every standby that runs', async () => {
    const file = join(hosts.directory, 'replicator.pw')
    await writeFile(file, 'changed-password\n', { mode: 0o600 })
    await chmod(file, 0o600)
    await writeInventory({ replication: { password_file: file } })
    await cluster.succeed(['add-standby', 'pg4'])
    await cluster
      .server('pg1')
      .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE application_name = 'shop_pg2'")
    await cluster.server('pg1').awaitStreaming('shop_pg2')
    await cluster.server('pg2').restart()
    await cluster.server('pg1').awaitStreaming('shop_pg2')
  })
})

/** Every file of a data directory with its checksum. */
async function treeOf(hosts: TestHosts, host: string): Promise<string> {
  const { stdout } = await hosts.exec(
    host,
    `cd ${dataDir} && find . -type f -exec sha256sum {} + | sort | sha256sum`,
  )
  return stdout
}

const inodeOf = async (hosts: TestHosts, host: string) =>
  (await hosts.exec(host, ['stat', '-c', '%i', dataDir])).stdout.trim()
