import { afterAll, beforeAll, expect, it } from 'vitest'
import { awaitCondition } from '../kit/await-condition.ts'
import { describeOnPostgres17, installPostgres17, postgres17BinDir } from '../kit/postgres-17.ts'
import { PostgresServer } from '../kit/postgres-server.ts'
import { TestCluster } from '../kit/test-cluster.ts'
import { TestHosts } from '../kit/test-hosts.ts'

const archiveDir = '/var/lib/postgresql/archive'

interface Listed {
  readonly id: string
  readonly kind: string
  readonly parent: string | null
  readonly bytes: number
  readonly verified: boolean
  readonly reason: string | null
}

await describeOnPostgres17('incremental backups of PostgreSQL 17', () => {
  let hosts: TestHosts
  let shop: TestCluster
  let other: TestCluster
  let folder: string
  let foreign: string

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [
        { name: 'pg1' },
        { name: 'pg2', login: 'admin' },
        { name: 'pg3' },
        { name: 'backup1', login: 'root' },
      ],
    })
    await Promise.all(hosts.names.map((host) => installPostgres17(hosts, host)))
    const inventory = {
      archive: { host: hosts.addressOf('backup1'), user: 'postgres', dir: archiveDir, ssh: { user: 'root' } },
      postgres: { version: 17, parameters: { summarize_wal: 'on' } },
      ssh: { connect_timeout: '15s' },
    }
    shop = await TestCluster.create(hosts, { nodes: ['pg1', 'pg2'], inventory })
    other = await TestCluster.create(hosts, { cluster: 'other', nodes: ['pg3'], inventory })
    await shell('pg1', 'install -d -o postgres -m 700 /data/fast', 'root')
    await shell('pg2', 'install -d -o postgres -m 700 /data/fast', 'root')
    await shop.succeed(['init', 'primary'], patience)
    await other.succeed(['init', 'primary'], patience)
    await run("CREATE TABLESPACE fast LOCATION '/data/fast'")
    await run(
      'CREATE TABLE big AS SELECT n, repeat(md5(n::text), 20) AS text FROM generate_series(1, 30000) AS n',
    )
    await run('CREATE TABLE t TABLESPACE fast AS SELECT generate_series(1, 1000) AS n')
    await shop.succeed(['add-standby', 'pg2'], patience)
    folder = await folderOf('pg1')
    foreign = await folderOf('pg3')
  })
  afterAll(() => hosts?.destroy())

  const patience = { timeoutMs: 600_000 }
  const server = (host: string) => new PostgresServer(hosts, host, { binDir: postgres17BinDir })
  const run = (statement: string) => server('pg1').sql(statement)
  const grow = () => run('INSERT INTO t SELECT generate_series(1, 1000)')
  const shell = async (host: string, script: string, user = 'postgres') =>
    (await hosts.exec(host, script, { user })).stdout.trim()
  const folderOf = async (host: string) =>
    `${archiveDir}/${await server(host).sqlValue('SELECT system_identifier::text FROM pg_control_system()')}`
  const list = async (): Promise<Listed[]> =>
    (await shop.succeed(['backup', 'list'], patience)).json.result.backups
  const codes = (json: { problems: { code: string }[] }) => json.problems.map(({ code }) => code)

  it('P-36: one that builds on nothing, or without WAL summaries, is refused before anything is begun', async () => {
    const first = await shop.replctl(['backup', '--incremental', '--json'], patience)
    expect([first.exitCode, ...codes(first.json)]).toEqual([3, 'incremental-unavailable'])
    await shop.succeed(['backup', '--label', 'full'], patience)
    for (const host of ['pg1', 'pg2']) {
      await server(host).sql("ALTER SYSTEM SET summarize_wal = 'off'")
      await server(host).reload()
    }
    const off = await shop.replctl(['backup', '--incremental', '--json'], patience)
    expect([off.exitCode, ...codes(off.json)]).toEqual([3, 'incremental-unavailable'])
    for (const host of ['pg1', 'pg2']) {
      await server(host).sql('ALTER SYSTEM RESET summarize_wal')
      await server(host).reload()
    }
    expect((await list()).length).toBe(1)
  })

  it('P-36: a full one with two that build on it, from the standby and from the primary, is restored right', async () => {
    // The time without summaries is a gap: only a new full backup can be built on.
    await shop.succeed(['backup', '--label', 'full'], patience)
    await grow()
    const first = await shop.succeed(['backup', '--incremental', '--label', 'first'], patience)
    await grow()
    const second = await shop.succeed(
      ['backup', '--incremental', '--from', 'pg1', '--label', 'second'],
      patience,
    )
    const [, full, ...rest] = await list()
    expect(rest).toMatchObject([
      { id: first.json.result.id, kind: 'incremental', parent: full?.id, verified: true },
      { id: second.json.result.id, kind: 'incremental', parent: first.json.result.id, verified: true },
    ])
    expect(rest.every(({ bytes }) => bytes < (full?.bytes ?? 0) / 2)).toBe(true)
    expect((await shop.succeed(['backup', 'verify'], patience)).json.problems).toEqual([])
    await shell('pg2', 'mkdir -m 700 /data/wal /data/chain && ln -s /data/wal /data/chain/pg_wal', 'root')
    await shell('pg2', 'chown -hR postgres: /data/wal /data/chain', 'root')
    const args = ['restore', 'pg2', '--data-dir', '/data/chain', '--port', '5500', '--to-immediate']
    const done = await shop.succeed(args, patience)
    expect(done.json.result).toMatchObject({ backup: second.json.result.id, port: 5500 })
    const restored = new PostgresServer(hosts, 'pg2', {
      dataDir: '/data/chain',
      port: 5500,
      binDir: postgres17BinDir,
    })
    expect(await restored.sqlValue('SELECT count(*) FROM t')).toBe(3000)
    expect(await restored.sqlValue('SELECT sum(length(text)) FROM big')).toBe(30_000 * 640)
    expect(await shell('pg2', 'readlink /data/chain/pg_wal; ls ~/.replctl/shop/restore-*')).not.toContain(
      'chain\n',
    )
    expect(await shell('pg2', 'readlink /data/chain/pg_wal')).toBe('/data/wal')
    await restored.stop('immediate')
    expect((await shop.succeed(['restore', '--drill'], patience)).json.result).toMatchObject({ findings: [] })
  })

  it('P-36: a chain with a link that is missing, swapped, foreign or edited is refused before anything is written', async () => {
    await other.succeed(['backup'], patience)
    const [stranger] = (await other.succeed(['backup', 'list'], patience)).json.result.backups
    const [, full, first, second] = await list()
    const [a, b, c] = [full?.id ?? '', first?.id ?? '', second?.id ?? '']
    await shell('backup1', `rm -rf /tmp/copy && cp -a ${folder}/backup /tmp/copy`, 'root')
    const damages: readonly (readonly [string, string, string])[] = [
      ['the middle one is missing', `rm -rf ${b}`, b],
      ['the full one is missing', `rm -rf ${a}`, a],
      ['two are swapped', `mv ${b} x && mv ${c} ${b} && mv x ${c}`, b],
      ['one is of another cluster', `rm -rf ${b} && cp -a ${foreign}/backup/${stranger.id} ${b}`, b],
      ['a manifest is of another one', `cp ${a}/backup_manifest ${b}/`, 'backup_manifest'],
      // As long as before: only its content tells.
      [
        'a manifest was edited',
        `sed -i 's/"Offset"/"offset"/;s/"Size"/"size"/' ${b}/backup_manifest`,
        'backup_manifest',
      ],
    ]
    for (const [what, script, named] of damages) {
      await shell('backup1', `cd ${folder}/backup && ${script}`)
      const refused = await shop.replctl(
        ['restore', 'pg2', '--data-dir', '/data/no', '--backup', c, '--json'],
        patience,
      )
      expect([what, refused.exitCode, ...codes(refused.json)]).toEqual([what, 3, 'no-backup'])
      expect(JSON.stringify(refused.json.problems), what).toContain(named)
      expect((await hosts.exec('pg2', ['test', '-e', '/data/no'], { check: false })).exitCode, what).toBe(1)
      await shell('backup1', `rm -rf ${folder}/backup && cp -a /tmp/copy ${folder}/backup`, 'root')
    }
    expect((await shop.succeed(['backup', 'verify'], patience)).json.problems).toEqual([])
  })

  it('one whose parent was damaged while it was taken is not called good', async () => {
    const before = await list()
    const parent = `${folder}/backup/${before.at(-1)?.id}`
    const taking = shop.replctl(['backup', '--incremental', '--json'], patience)
    await awaitCondition(
      'it is begun',
      async () =>
        (await hosts.exec('backup1', `ls ${folder}/backup/.incoming-*/request.json`, { check: false }))
          .exitCode === 0 || undefined,
      { timeoutMs: 120_000, everyMs: 20 },
    )
    await shell('backup1', `echo x > ${parent}/core`)
    const taken = await taking
    expect([taken.exitCode, ...codes(taken.json)]).toEqual([9, 'backup-damaged'])
    await shell('backup1', `rm ${parent}/core`)
    const [added] = (await list()).slice(before.length)
    await shell('backup1', `rm -r ${folder}/backup/${added?.id}`)
  })

  it('P-36: retention keeps what a kept one builds on, and removes a chain from its end', async () => {
    const [oldest, full, first, second] = await list()
    const kept = await shop.succeed(['backup', 'expire', '--keep-full', '1'], patience)
    expect(kept.json.result).toMatchObject({
      removed: [oldest?.id],
      kept: [full?.id, first?.id, second?.id],
    })
    await shop.succeed(['backup'], patience)
    const [next] = (await list()).slice(-1)
    const young = await shop.succeed(
      ['backup', 'expire', '--keep-full', '1', '--keep-days', '1', '--dry-run'],
      patience,
    )
    expect(young.json.result.removed).toEqual([])
    const done = await shop.succeed(['backup', 'expire', '--keep-full', '1'], patience)
    expect(done.json.result).toMatchObject({ removed: [second?.id, first?.id, full?.id], kept: [next?.id] })
    expect((await list()).map(({ id }) => id)).toEqual([next?.id])
  })
})
