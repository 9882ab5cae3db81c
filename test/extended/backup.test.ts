import { afterAll, beforeAll, expect, it } from 'vitest'
import { awaitCondition } from '../kit/await-condition.ts'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { TestCluster } from '../kit/test-cluster.ts'
import { TestHosts } from '../kit/test-hosts.ts'

/** A file system of its own, so that it can be filled. */
const archiveDir = '/srv/archive'
const stateDir = '/var/lib/postgresql/.replctl/shop'

interface Listed {
  readonly id: string
  readonly verified: boolean
  readonly reason: string | null
  readonly timeline: number
}

describeOnHosts('base backups on an archive host', () => {
  let hosts: TestHosts
  let cluster: TestCluster
  let folder: string
  const inventory = () => ({
    archive: { host: hosts.addressOf('backup1'), user: 'postgres', dir: archiveDir, ssh: { user: 'root' } },
    ssh: { connect_timeout: '15s' },
  })

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [
        { name: 'pg1' },
        { name: 'pg2', login: 'admin' },
        { name: 'backup1', login: 'root', smallDisk: { path: archiveDir, sizeMb: 700 } },
      ],
    })
    cluster = await TestCluster.create(hosts, { nodes: ['pg1', 'pg2'], inventory: inventory() })
    for (const host of ['pg1', 'pg2']) await shell(host, 'install -d -o postgres -m 700 /data/fast', 'root')
    await setUp(['init', 'primary'])
    await run('pg1', "CREATE TABLESPACE fast LOCATION '/data/fast'")
    await run('pg1', 'CREATE TABLE t TABLESPACE fast AS SELECT generate_series(1, 1000) AS n')
    await setUp(['add-standby', 'pg2'])
    const identifier = await cluster
      .server('pg1')
      .sqlValue('SELECT system_identifier::text FROM pg_control_system()')
    folder = `${archiveDir}/${identifier}`
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
  const run = (node: string, statement: string) => cluster.server(node).sql(statement)
  const shell = async (host: string, script: string, user = 'postgres') =>
    (await hosts.exec(host, script, { user })).stdout.trim()
  const list = async (): Promise<Listed[]> => (await succeed(['backup', 'list'])).json.result.backups
  const leftovers = () =>
    shell('backup1', `ls -A ${folder}/backup | grep '^[.]'; ls ${stateDir} | grep '^job-'; :`)
  const codes = (json: { problems: { code: string }[] }) => json.problems.map(({ code }) => code)

  it('a backup is taken from the standby, verified, and listed with what the contract names', async () => {
    const before = await replctl(['backup', '--dry-run', '--json'])
    expect(before.json).toMatchObject({ ok: true, changed: false })
    const taken = await succeed(['backup', '--label', 'the first'])
    expect(taken.json.result.steps.map((step: { title: string }) => step.title)).toEqual(
      before.json.result.steps.map((step: { title: string }) => step.title),
    )
    const { id, start_lsn, stop_lsn, timeline, bytes, verified, source } = taken.json.result
    expect(id).toMatch(/^\d{8}T\d{6}Z$/)
    expect([start_lsn, stop_lsn].every((lsn) => /^[0-9A-F]+\/[0-9A-F]+$/.test(lsn))).toBe(true)
    expect({ timeline, verified, source }).toEqual({ timeline: 1, verified: true, source: 'pg2' })
    const stored = Number(
      await shell('backup1', `cd ${folder}/backup/${id} && cat *.tar* backup_manifest | wc -c`),
    )
    expect(bytes).toBe(stored)
    expect(await list()).toMatchObject([{ id, verified: true, reason: null, label: 'the first' }])
    expect(await leftovers()).toBe('')
    const modes = await shell(
      'backup1',
      `stat -c %a ${stateDir}/pgpass ${folder}/backup/${id} ${folder}/backup/${id}/*`,
    )
    expect(new Set(modes.split('\n'))).toEqual(new Set(['600', '700']))
  })

  it('a backup that was killed is gone on with by the same command, and taken back by abort', async () => {
    const begun = await list()
    for (const moment of ['request.json', 'taken']) {
      const started = cluster.startReplctl(['backup', '--from', 'pg1'])
      const isThere = `ls ${folder}/backup/.incoming-*/${moment}`
      let hasEnded = false
      const ended = started.finished.then(() => {
        hasEnded = true
      })
      await awaitCondition(
        `${moment} is there`,
        async () => hasEnded || (await hosts.exec('backup1', isThere, { check: false })).exitCode === 0,
        { timeoutMs: 120_000, everyMs: 20 },
      )
      started.kill()
      await ended
      expect((await list()).length, moment).toBe(begun.length)
      if (moment === 'request.json') {
        const kept = await shell('backup1', `ls -A ${folder}/backup | sed -n 's/^.incoming-//p'`)
        const taken = await succeed(['backup', '--from', 'pg1'])
        expect(taken.json.result.id).toBe(kept)
        begun.push(...(await list()).slice(-1))
      } else {
        await succeed(['abort'])
      }
      expect(await leftovers(), moment).toBe('')
      expect((await list()).map(({ id }) => id)).toEqual(begun.map(({ id }) => id))
    }
  })

  it('P-34: every damage is found and named, and a damaged backup is no longer called good', async () => {
    const [{ id }] = (await list()) as [Listed]
    const at = `${folder}/backup/${id}`
    const space = await shell('backup1', `cd ${at} && ls [0-9]*.tar*`)
    const base = await shell('backup1', `cd ${at} && ls base.tar*`)
    await shell('backup1', `rm -rf /tmp/copy && cp -a ${folder} /tmp/copy`, 'root')
    const wal = await shell('backup1', `cd ${folder}/wal && ls [0-9A-F]* | grep -v history | sed -n 2p`)
    const damages: readonly (readonly [string, string, string])[] = [
      ['an extra file', `echo x > ${at}/core`, 'core'],
      ['an extra folder', `mkdir ${at}/extra`, 'extra'],
      ['a missing file', `rm ${at}/${base}`, base],
      ['a missing tablespace', `rm ${at}/${space}`, space],
      ['an appended byte', `printf x >> ${at}/${space}`, space],
      ['a truncation', `truncate -s -1 ${at}/${base}`, base],
      [
        'a replacement of the same size',
        `printf x | dd of=${at}/${base} bs=1 seek=5000 conv=notrunc status=none`,
        base,
      ],
      ['a file that cannot be read', `chmod 000 ${at}/${base}`, base],
      ['an empty file', `: > ${at}/${base}`, base],
      ['an edited manifest', `sed -i s/base/bose/ ${at}/backup_manifest`, 'backup_manifest'],
      ['edited metadata', `sed -i 's/"timeline": 1/"timeline": 2/' ${at}/backup.json`, 'backup.json'],
      ['a link in the place of a file', `mv ${at}/${base} /tmp/b && ln -s /tmp/b ${at}/${base}`, base],
      ['a WAL segment that is missing', `rm ${folder}/wal/*`, 'missing in the archive'],
      [
        'a WAL segment that is zeroed',
        `for f in ${folder}/wal/*; do head -c 65536 /dev/zero > $f; done`,
        wal.slice(0, 24),
      ],
      [
        'WAL segments that end too early',
        `for f in ${folder}/wal/*.zst; do truncate -s -20 $f; done`,
        'unpacked to its end',
      ],
      [
        'WAL segments that are there twice, and differ',
        `cd ${folder}/wal; for f in *.zst; do zstd -dqk $f; printf differs | dd of=\${f%.zst} bs=1 seek=9000 conv=notrunc status=none; done`,
        'differs',
      ],
    ]
    for (const [what, script, named] of damages) {
      await shell('backup1', script)
      const verified = await replctl(['backup', 'verify', id, '--json'])
      expect([what, verified.exitCode]).toEqual([what, 9])
      expect(codes(verified.json), what).toContain('backup-damaged')
      expect(JSON.stringify(verified.json.problems), what).toContain(named)
      expect(verified.json.result.backups, what).toMatchObject([{ id, verified: false }])
      await shell('backup1', `rm -rf ${folder}/backup ${folder}/wal && cp -a /tmp/copy/. ${folder}`, 'root')
    }
    // What was found stays known without reading again.
    await shell('backup1', `printf x | dd of=${at}/${base} bs=1 seek=5000 conv=notrunc status=none`)
    await replctl(['backup', 'verify', id, '--json'])
    const [damaged, sound] = await list()
    expect(damaged).toMatchObject({ id, verified: false, reason: expect.stringContaining(base) })
    expect(sound).toMatchObject({ verified: true, reason: null })
    const refused = await replctl(['restore', 'pg2', '--data-dir', '/data/no', '--backup', id, '--json'])
    expect([refused.exitCode, ...codes(refused.json)]).toEqual([3, 'no-backup'])
    await shell('backup1', `rm -rf ${folder}/backup ${folder}/wal && cp -a /tmp/copy/. ${folder}`, 'root')
    const healthy = await replctl(['backup', 'verify', '--json'])
    expect([healthy.exitCode, healthy.json.problems]).toEqual([0, []])
  })

  it('P-38: a backup that cannot be taken fails loudly with its cause, and is never listed', async () => {
    const before = await list()
    await shell('backup1', 'mv /usr/lib/postgresql/15/bin/pg_basebackup /root/', 'root')
    const old = await replctl(['backup', '--json'])
    await shell('backup1', 'mv /root/pg_basebackup /usr/lib/postgresql/15/bin/', 'root')
    expect([old.exitCode, ...codes(old.json)]).toEqual([3, 'binaries-missing'])
    const password = await shell(
      'pg1',
      `psql -Atc "SELECT rolpassword FROM pg_authid WHERE rolname = 'replicator'"`,
    )
    await run('pg1', "ALTER ROLE replicator PASSWORD 'another'")
    const rejected = await replctl(['backup', '--from', 'pg1', '--json'])
    await run('pg1', `ALTER ROLE replicator PASSWORD '${password}'`)
    expect([rejected.exitCode, codes(rejected.json)[0]]).toEqual([5, 'replication-login-failed'])
    await hosts.fillDisk('backup1', archiveDir)
    const full = await replctl(['backup', '--json'])
    await hosts.freeDisk('backup1', archiveDir)
    expect([full.exitCode, codes(full.json)[0]]).toEqual([3, 'disk-full'])
    await hosts.rotateHostKey('backup1')
    const changed = await replctl(['backup', '--json'])
    expect([changed.exitCode, ...codes(changed.json)]).toEqual([4, 'host-key-changed'])
    const watched = { ...inventory(), archive: { ...inventory().archive, max_backup_age: '1s' } }
    await cluster.writeInventory(watched)
    const unknown = await replctl(['status', '--json'])
    expect([unknown.exitCode, ...codes(unknown.json)]).toContain('host-key-changed')
    await hosts.writeKnownHosts()
    const late = await replctl(['status', '--json'])
    expect([late.exitCode, ...codes(late.json)]).toContain('backup-too-old')
    expect(late.exitCode).toBe(9)
    expect(late.json.result.archive).toMatchObject({
      ...{ backups: before.length, last_backup: before.at(-1)?.id, max_backup_age_seconds: 1 },
      ...{ last_backup_seconds: expect.any(Number), last_archived_seconds: expect.any(Number) },
    })
    expect(late.json.result.archive.last_backup_seconds).toBeGreaterThan(1)
    await cluster.writeInventory(inventory())
    await shell('pg1', `rm -f ${stateDir}/archive_known_hosts`)
    await setUp(['init', 'primary'])
    await setUp(['add-standby', 'pg2'])
    expect((await list()).map(({ id }) => id)).toEqual(before.map(({ id }) => id))
    expect(await leftovers()).toBe('')
  })

  it('P-37: retention removes exactly what it said, keeps what is needed, and prunes WAL before it alone', async () => {
    await cluster.server('pg1').kill9()
    await succeed(['promote', 'pg2'])
    await succeed(['backup'])
    const [first, second, third] = await list()
    expect([first?.timeline, second?.timeline, third?.timeline]).toEqual([1, 1, 2])
    // One that runs, and one that somebody copied there half: neither counts, neither is removed.
    const running = '.incoming-20991231T000000Z'
    const request = `cp -a ${folder}/backup/${first?.id}/backup.json ${folder}/backup/${running}/request.json`
    await shell('backup1', `mkdir -p ${folder}/backup/${running}/new && ${request}`)
    await shell(
      'backup1',
      `mkdir ${folder}/backup/20991230T000000Z && : > ${folder}/backup/20991230T000000Z/base.tar`,
    )
    const files = () => shell('backup1', `cd ${folder} && find . -type f | sort`)
    const before = await files()
    expect((await list()).find(({ id }) => id === '20991230T000000Z')).toMatchObject({ verified: false })
    const plan = await succeed(['backup', 'expire', '--keep-full', '2', '--dry-run'])
    expect(plan.json.result.removed).toEqual([first?.id])
    expect(await files()).toBe(before)
    const done = await succeed(['backup', 'expire', '--keep-full', '2'])
    expect(done.json.result).toMatchObject({
      removed: [first?.id],
      kept: [second?.id, third?.id, '20991230T000000Z'],
      wal: plan.json.result.wal,
    })
    expect(await shell('backup1', `ls -A ${folder}/backup/${running}`)).toBe('new\nrequest.json')
    await shell('backup1', `rm -rf ${folder}/backup/${running} ${folder}/backup/2099*`)
    expect((await list()).map(({ id }) => id)).toEqual([second?.id, third?.id])
    const left = (await files()).split('\n').filter((name) => name.startsWith('./wal/'))
    const gone = before.split('\n').filter((name) => name.startsWith('./wal/') && !left.includes(name))
    expect(gone.length).toBeGreaterThan(0)
    expect(gone.every((name) => name.slice(14, 30) < done.json.result.wal.before.slice(8))).toBe(true)
    expect(left).toContain('./wal/00000002.history')
    expect((await replctl(['backup', 'verify', '--json'])).exitCode).toBe(0)
    // The last good one stays, whatever the rules say; a second run has nothing to do.
    await succeed(['backup', 'expire', '--keep-days', '0'])
    expect((await list()).map(({ id }) => id)).toContain(third?.id)
    expect((await succeed(['backup', 'expire', '--keep-days', '0'])).json.changed).toBe(false)
    const nothing = await replctl(['backup', 'expire', '--json'])
    expect(nothing.exitCode).toBe(2)
  })
})
