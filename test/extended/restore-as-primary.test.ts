import { readFile, writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { parseDocument } from 'yaml'
import { awaitCondition } from '../kit/await-condition.ts'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { restoreHosts, saveHosts } from '../kit/empty-hosts.ts'
import { PostgresServer } from '../kit/postgres-server.ts'
import { type InventoryPart, TestCluster } from '../kit/test-cluster.ts'
import { TestHosts } from '../kit/test-hosts.ts'

const dataDir = '/var/lib/postgresql/15/shop'
const archiveDir = '/var/lib/postgresql/archive'
const bin = '/usr/lib/postgresql/15/bin'

describeOnHosts('a restore that is to lead', () => {
  let hosts: TestHosts
  let cluster: TestCluster
  let inventory: InventoryPart
  const patience = { timeoutMs: 600_000 }

  beforeAll(async () => {
    hosts = await TestHosts.create({ hosts: [{ name: 'pg1' }, { name: 'pg2' }, { name: 'backup1' }] })
    inventory = {
      archive: {
        ...{ host: hosts.addressOf('backup1'), user: 'postgres', dir: archiveDir },
      },
      ssh: { connect_timeout: '10s' },
    }
    cluster = await TestCluster.create(hosts, { nodes: ['pg1', 'pg2'], inventory })
    await cluster.succeed(['init', 'primary'], patience)
    await cluster.succeed(['add-standby', 'pg2'], patience)
    // As an operator may have it: no other host has this address.
    await pg('pg1').sql(`ALTER SYSTEM SET listen_addresses = '${hosts.addressOf('pg1')}'`)
    await pg('pg1').sql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS n')
    await cluster.succeed(['backup', '--from', 'pg1'], patience)
    await pg('pg1').sql('INSERT INTO t SELECT generate_series(1, 1000)')
    const segment = await pg('pg1').sqlValue('SELECT pg_walfile_name(pg_switch_wal())')
    await pg('pg1').awaitSql(`SELECT last_archived_wal >= '${segment}' FROM pg_stat_archiver`, {
      timeoutMs: 120_000,
    })
    await saveHosts(hosts)
    await shell('backup1', `cp -a ${archiveDir} ${archiveDir}-saved`)
  })
  afterAll(() => hosts?.destroy())
  beforeEach(async () => {
    await restoreHosts(hosts)
    await shell('backup1', `rm -rf ${archiveDir} && cp -a ${archiveDir}-saved ${archiveDir}`)
    await cluster.writeInventory(inventory)
  })

  const pg = (node: string) => cluster.server(node)
  const replctl = (...args: string[]) => cluster.replctl([...args, '--json'], patience)
  const shell = async (host: string, script: string) =>
    (await hosts.exec(host, script, { user: 'postgres' })).stdout.trim()
  const succeeds = async (host: string, script: string) =>
    (await hosts.exec(host, script, { user: 'postgres', check: false })).exitCode === 0
  /** Nothing of pg2 is left. */
  const lose = async (node: string) => {
    await pg(node).kill9()
    await shell(node, `rm -rf ${dataDir}`)
  }
  /** A restore whose copy takes its time, once that has begun. */
  const begin = async () => {
    await hosts.limitLink('pg2', '8mbit')
    const started = cluster.startReplctl(['restore', 'pg2', '--allow-split-brain', '--json'])
    await awaitCondition(
      'the backup is being fetched',
      () => succeeds('pg2', `[ -f ${dataDir}/PG_VERSION ]`),
      { timeoutMs: 120_000, everyMs: 20 },
    )
    return started
  }

  it('cannot be started by anybody else before its recovery is set up', async () => {
    await hosts.powerOff('pg1')
    await lose('pg2')
    const started = await begin()
    started.kill()
    await started.finished
    await hosts.limitLink('pg2', undefined)
    // It goes on by itself, to its end.
    const isOver = '[ -f ~/.replctl/shop/job-restore/status ]'
    await awaitCondition(
      'the copy is whole',
      () => succeeds('pg2', `${isOver} && [ ! -e ${dataDir}/tablespace_map ]`),
      {
        timeoutMs: 300_000,
        everyMs: 100,
      },
    )
    const said = await hosts.exec('pg2', `${bin}/pg_ctl start -D ${dataDir} -w 2>&1`, {
      user: 'postgres',
      check: false,
    })
    expect(said.exitCode).not.toBe(0)
    expect(said.stdout).toMatch(/has (invalid permissions|group or world access)/)
    expect((await replctl('restore', 'pg2', '--allow-split-brain')).exitCode).toBe(0)
    expect(await pg('pg2').sqlValue('SELECT count(*) FROM t')).toBe(2000)
    expect(await shell('pg2', `stat -c %a ${dataDir}`)).toBe('700')
  })

  it('is refused where the inventory lacks the primary that the record names', async () => {
    await lose('pg2')
    const older = parseDocument(await readFile(cluster.inventoryFile, 'utf8'))
    older.deleteIn(['nodes', 'pg1'])
    await writeFile(cluster.inventoryFile, older.toString())
    const refused = await replctl('restore', 'pg2', '--latest')
    expect(refused.exitCode, refused.stderr).toBe(3)
    expect(refused.json.problems[0]).toMatchObject({ code: 'primary-unproven', severity: 'error' })
    expect(await succeeds('pg2', `test -e ${dataDir}`)).toBe(false)
  })

  it('is not opened beside an old primary whose host was switched on meanwhile', async () => {
    await hosts.powerOff('pg1')
    await lose('pg2')
    const started = await begin()
    await hosts.powerOn('pg1')
    await pg('pg1').start()
    await hosts.limitLink('pg2', undefined)
    const { exitCode } = await started.finished
    const { problems } = JSON.parse(started.stdout())
    expect([exitCode, problems[0].code, problems[0].node]).toEqual([5, 'primary-alive', 'pg1'])
    expect(await succeeds('pg2', `[ -e ${dataDir} ]`)).toBe(false)
    expect(await hosts.pids('pg2', 'bin/postgres')).toEqual([])
    expect(await pg('pg1').sqlValue('SELECT pg_is_in_recovery()')).toBe(false)
  })

  it('what was begun is ended by whoever builds a standby there: the old primary is back', async () => {
    await hosts.powerOff('pg1')
    await lose('pg2')
    const started = await begin()
    started.kill()
    await started.finished
    await hosts.powerOn('pg1')
    await pg('pg1').start()
    const added = await replctl('add-standby', 'pg2')
    expect([added.exitCode, added.json.problems]).toMatchObject([0, [{ severity: 'warning' }]])
    await hosts.limitLink('pg2', undefined)
    await pg('pg1').awaitStreaming('shop_pg2')
    expect(await hosts.pids('pg2', 'archive_known_hosts|tar -xpf')).toEqual([])
    expect(await succeeds('pg2', 'ls ~/.replctl/shop/restore.json')).toBe(false)
    expect((await replctl('verify')).exitCode).toBe(0)
  })

  it('is stopped and started for good where its service did not start it', async () => {
    const service = {
      start: `touch /tmp/by-service; ${bin}/pg_ctl start -D ${dataDir} -l /tmp/by-service.log -w`,
      stop: `[ ! -e /tmp/by-service ] || { rm /tmp/by-service; ${bin}/pg_ctl stop -D ${dataDir} -m fast -w; }`,
    }
    for (const node of ['pg1', 'pg2']) await lose(node)
    await cluster.writeInventory({ ...inventory, nodes: { pg2: { service } } })
    const done = await replctl('restore', 'pg2')
    expect([done.exitCode, done.json.problems]).toEqual([0, []])
    expect(await pg('pg2').sqlValue('SELECT count(*) FROM t')).toBe(2000)
    expect(await hosts.readFile('pg2', '/tmp/by-service')).toBe('')
    expect((await replctl('status')).json.result.primary).toBe('pg2')
  })

  it('beside the cluster, on a host that lacks what its settings name: it runs all the same, and that is told', async () => {
    const done = await replctl('restore', 'pg2', '--data-dir', '/data/aside', '--port', '5500')
    expect([done.exitCode, done.json.problems]).toMatchObject([
      0,
      [{ severity: 'warning', code: 'setting-overridden', node: 'pg2' }],
    ])
    const server = new PostgresServer(hosts, 'pg2', {
      ...{ dataDir: '/data/aside', port: 5500, socketDirectory: '/tmp' },
    })
    expect(await server.sqlValue('SELECT count(*) FROM t')).toBe(2000)
    expect(await server.sqlValue('SHOW archive_mode')).toBe('off')
    await server.stop('immediate')
  })
})
