import { afterAll, beforeAll, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { PostgresServer } from '../kit/postgres-server.ts'
import { TestCluster } from '../kit/test-cluster.ts'
import { TestHosts } from '../kit/test-hosts.ts'

const archiveDir = '/var/lib/postgresql/archive'
const dataDir = '/var/lib/postgresql/15/shop'

/** One life of a cluster with backups; every kind of target, damage and interruption is tried in test/extended. */
describeOnHosts('backups and restores, from the first backup to a disaster', () => {
  let hosts: TestHosts
  let cluster: TestCluster
  let folder: string

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [{ name: 'pg1' }, { name: 'pg2', login: 'admin' }, { name: 'backup1', login: 'root' }],
    })
    const host = hosts.addressOf('backup1')
    const archive = { host, user: 'postgres', dir: archiveDir, ssh: { user: 'root' }, max_backup_age: '25h' }
    const inventory = { archive, ssh: { connect_timeout: '15s' } }
    cluster = await TestCluster.create(hosts, { nodes: ['pg1', 'pg2'], inventory })
    await cluster.init()
    await cluster.addStandbys()
    const pg1 = cluster.server('pg1')
    await pg1.sql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS n')
    folder = `${archiveDir}/${await pg1.sqlValue('SELECT system_identifier::text FROM pg_control_system()')}`
  })
  afterAll(() => hosts?.destroy())

  const patience = { timeoutMs: 600_000 }
  const succeed = (args: readonly string[]) => cluster.succeed(args, patience)
  const replctl = (args: readonly string[]) => cluster.replctl([...args, '--json'], patience)
  const shell = async (name: string, script: string, user = 'postgres') =>
    (await hosts.exec(name, script, { user })).stdout.trim()
  const codes = (json: { problems: { code: string; severity: string }[] }) =>
    json.problems.filter(({ severity }) => severity === 'error').map(({ code }) => code)
  /** Has everything until now in the archive. */
  async function archived(node: string): Promise<void> {
    const segment = await cluster.server(node).sqlValue('SELECT pg_walfile_name(pg_switch_wal())')
    await cluster
      .server(node)
      .awaitSql(`SELECT last_archived_wal >= '${segment}' FROM pg_stat_archiver`, { timeoutMs: 120_000 })
  }

  it('P-38: a backup is taken from the standby, verified and listed; without one that is young enough status is 9', async () => {
    const late = await replctl(['status'])
    expect([late.exitCode, codes(late.json)]).toEqual([9, ['backup-too-old']])
    const taken = await succeed(['backup', '--label', 'the first'])
    const { id, start_lsn, stop_lsn, timeline, bytes, verified, source } = taken.json.result
    expect(id).toMatch(/^\d{8}T\d{6}Z$/)
    expect([start_lsn, stop_lsn].every((lsn) => /^[0-9A-F]+\/[0-9A-F]+$/.test(lsn))).toBe(true)
    expect({ timeline, verified, source }).toEqual({ timeline: 1, verified: true, source: 'pg2' })
    const files = await shell('backup1', `cd ${folder}/backup/${id} && cat *.tar* backup_manifest | wc -c`)
    expect(bytes).toBe(Number(files))
    expect((await succeed(['backup', 'list'])).json.result.backups).toMatchObject([
      { id, verified: true, reason: null, label: 'the first' },
    ])
    const { archive } = (await succeed(['status'])).json.result
    expect(archive).toMatchObject({ ok: true, backups: 1, last_backup: id, max_backup_age_seconds: 90_000 })
    expect(archive.last_backup_seconds).toBeLessThan(900)
    expect(archive.last_archived_seconds).toBeLessThan(900)
  })

  it('P-34: damage is found and named, and then the backup is neither restored nor counted', async () => {
    const at = `${folder}/backup/$(ls ${folder}/backup)`
    await shell('backup1', `rm -rf /tmp/copy && cp -a ${folder} /tmp/copy`, 'root')
    await shell(
      'backup1',
      `f=$(ls ${at}/base.tar*) && printf x | dd of=$f bs=1 seek=5000 conv=notrunc status=none`,
    )
    const verified = await replctl(['backup', 'verify'])
    expect([verified.exitCode, codes(verified.json)]).toEqual([9, ['backup-damaged']])
    expect(verified.json.problems[0].message).toContain('base.tar')
    const refused = await replctl(['restore', 'pg2', '--data-dir', '/data/no'])
    expect([refused.exitCode, codes(refused.json)]).toEqual([3, ['no-backup']])
    expect(codes((await replctl(['status'])).json)).toEqual(['backup-too-old'])
    await shell('backup1', `rm -rf ${folder} && cp -a /tmp/copy ${folder}`, 'root')
    expect((await succeed(['backup', 'verify'])).json.problems).toEqual([])
  })

  it('P-33: a restore beside the cluster ends at its target, archives nowhere and never overwrites', async () => {
    const pg1 = cluster.server('pg1')
    await pg1.sql('INSERT INTO t SELECT generate_series(1, 1000)')
    await pg1.sql("SELECT pg_create_restore_point('before the migration')")
    await pg1.sql('DROP TABLE t')
    await archived('pg1')
    const args = ['restore', 'pg2', '--data-dir', '/data/aside', '--port', '5500']
    const done = await succeed([...args, '--to-name', 'before the migration'])
    expect(done.json.result).toMatchObject({ node: 'pg2', data_dir: '/data/aside', port: 5500, timeline: 2 })
    const restored = new PostgresServer(hosts, 'pg2', { dataDir: '/data/aside', port: 5500 })
    expect(await restored.sqlValue('SELECT count(*) FROM t')).toBe(2000)
    expect(await restored.sqlValue("SELECT current_setting('archive_mode')")).toBe('off')
    const again = await replctl(['restore', 'pg2', '--data-dir', '/data/aside'])
    expect([again.exitCode, codes(again.json)]).toEqual([3, ['data-directory-in-use']])
    await restored.stop('immediate')
    const status = await succeed(['status'])
    expect(status.json.result).toMatchObject({ primary: 'pg1', timeline: 1 })
  })

  it('disaster recovery: the cluster comes back from the archive, and retention keeps what the new line needs', async () => {
    await cluster.server('pg1').kill9()
    await cluster.server('pg2').kill9()
    const kept = await replctl(['restore', 'pg1', '--to-name', 'before the migration'])
    expect([kept.exitCode, codes(kept.json)]).toEqual([3, ['foreign-data-directory']])
    // P-54: a link pg_wal stays one.
    await shell('pg1', 'install -d -o postgres -m 700 /data/wal', 'root')
    await shell('pg1', `rm -rf ${dataDir} && mkdir -m 700 ${dataDir} && ln -s /data/wal ${dataDir}/pg_wal`)
    const done = await succeed(['restore', 'pg1', '--to-name', 'before the migration'])
    expect(done.json.result).toMatchObject({ node: 'pg1', data_dir: dataDir, port: 5432, timeline: 2 })
    const pg1 = cluster.server('pg1')
    expect(await pg1.sqlValue('SELECT count(*) FROM t')).toBe(2000)
    expect(await shell('pg1', `readlink ${dataDir}/pg_wal`)).toBe('/data/wal')
    expect((await replctl(['status'])).json.result).toMatchObject({ primary: 'pg1', timeline: 2 })
    // It has what was given up: that is saved before it is cloned anew.
    await succeed(['rejoin', 'pg2'])
    const second = await succeed(['backup'])
    const wal = () => shell('backup1', `ls ${folder}/wal`)
    const before = await wal()
    const plan = await succeed(['backup', 'expire', '--keep-full', '1', '--dry-run'])
    expect(await wal()).toBe(before)
    const expired = await succeed(['backup', 'expire', '--keep-full', '1'])
    expect(expired.json.result).toMatchObject({ kept: [second.json.result.id], wal: plan.json.result.wal })
    expect(await wal()).toContain('00000002.history')
    expect((await succeed(['backup', 'verify'])).json.problems).toEqual([])
  })
})
