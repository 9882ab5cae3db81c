import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { restoreHosts, saveHosts } from '../kit/empty-hosts.ts'
import { awaitCondition, type ReplctlResult, TestCluster, TestHosts } from '../kit/index.ts'
import { openToControlHost, writersNow } from '../kit/observe.ts'

describeOnHosts('what an operation leaves, and what it needs of the disks', () => {
  let hosts: TestHosts
  let cluster: TestCluster
  const home = '/var/lib/postgresql'
  const stateDir = `${home}/.replctl/shop`
  const dataDir = `${home}/15/shop`

  beforeAll(async () => {
    hosts = await TestHosts.create({ hosts: [{ name: 'pg1' }, { name: 'pg2' }, { name: 'pg3' }] })
    cluster = await TestCluster.create(hosts, { inventory: openToControlHost })
    await cluster.init()
    await cluster.addStandbys()
    await saveHosts(hosts)
  })
  afterAll(() => hosts?.destroy())
  beforeEach(async () => {
    await restoreHosts(hosts)
    for (const name of ['pg2', 'pg3']) {
      await cluster
        .server(name)
        .awaitSql("SELECT count(*) = 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'")
    }
  })

  const codes = ({ json }: ReplctlResult) => json?.problems.map((one: { code: string }) => one.code)
  const exists = async (host: string, path: string) =>
    (await hosts.exec(host, ['test', '-e', path], { check: false })).exitCode === 0

  /** Runs a command until it prints a line, then kills it. */
  async function killOnce(args: readonly string[], line: RegExp): Promise<void> {
    const started = cluster.startReplctl(args)
    await awaitCondition(`it prints ${line}`, () => line.test(started.stderr()), {
      timeoutMs: 120_000,
      everyMs: 5,
    })
    started.kill()
    expect((await started.finished).signal, started.stderr()).toBe('SIGKILL')
  }

  it('a node that was away while an operation was finished does not make it look unfinished when it is back', async () => {
    await cluster.server('pg1').kill9()
    await killOnce(['promote', 'pg2'], /✓ pg2 {2}promote it to primary/)
    expect(await exists('pg3', `${stateDir}/journal`)).toBe(true)
    await hosts.stopSshd('pg3', { sessions: true })
    const finished = await cluster.replctl(['resume', '--json'])
    expect([finished.exitCode, codes(finished)], finished.stderr).toEqual([
      0,
      expect.arrayContaining(['host-unreachable']),
    ])
    await hosts.startSshd('pg3')
    expect(await exists('pg3', `${stateDir}/journal`)).toBe(true)
    for (const command of ['resume', 'abort']) {
      const again = await cluster.replctl([command, '--json'])
      expect([again.exitCode, codes(again)]).toEqual([3, ['nothing-to-resume']])
    }
    expect(codes(await cluster.replctl(['status', '--json']))).not.toContain('operation-unfinished')
    // The next operation brings the node back, and its own end takes the old journal away.
    const repaired = await cluster.succeed(['promote', 'pg2'])
    expect(repaired.json.result.repointed).toContain('pg3')
    expect(await exists('pg3', `${stateDir}/journal`)).toBe(false)
  })

  it('abort --dry-run shows what abort takes back, and changes nothing', async () => {
    await cluster.succeed(['remove-standby', 'pg3', '--purge'])
    const heard = join(hosts.directory, 'heard.json')
    await writeFile(join(hosts.directory, 'hook.sh'), `cat >"${heard}"\n`)
    await cluster.writeInventory({ ...openToControlHost, hooks: { on_event: 'sh ./hook.sh' } })
    await hosts.limitLink('pg3', '4mbit')
    await killOnce(['add-standby', 'pg3'], /take a base backup from pg1/)
    await hosts.limitLink('pg3', undefined)
    const shown = await cluster.succeed(['abort', '--dry-run'])
    expect(shown.json.changed).toBe(false)
    const again = await cluster.succeed(['abort', '--dry-run'])
    expect(again.json.result.steps).toEqual(shown.json.result.steps)
    const done = await cluster.succeed(['abort'])
    await cluster.writeInventory(openToControlHost)
    // Whoever moves clients by it must not take this for a standby that was added.
    expect(JSON.parse(await readFile(heard, 'utf8'))).toMatchObject({
      ...{ event: 'abort', of: 'add-standby', cluster: 'shop', ok: true, exit_code: 0 },
    })
    const titles = (result: ReplctlResult, state: string) =>
      result.json.result.steps
        .filter((step: { state: string }) => step.state === state)
        .map((step: { n: number; node: string; title: string }) => `${step.n} ${step.node} ${step.title}`)
    expect(titles(shown, 'planned')).toHaveLength(shown.json.result.steps.length)
    expect(titles(shown, 'planned')).toEqual(titles(done, 'undone'))
    expect(titles(shown, 'planned')).toContainEqual(expect.stringContaining('take a base backup from pg1'))
  })

  const inodeOf = async (host: string) =>
    (await hosts.exec(host, ['stat', '-c', '%i', dataDir])).stdout.trim()
  const streams = (name: string) =>
    cluster.server(name).awaitSql("SELECT count(*) = 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'")
  const pgBasebackup = '/usr/lib/postgresql/15/bin/pg_basebackup'
  /** Runs a command while no base backup can be taken onto a host. */
  async function withoutBaseBackup(host: string, args: readonly string[]): Promise<ReplctlResult> {
    const fake = `printf '#!/bin/sh\\nexit 1\\n' >/tmp/fake && chmod 755 /tmp/fake && mount --bind /tmp/fake ${pgBasebackup}`
    await hosts.exec(host, fake)
    try {
      return await cluster.replctl([...args, '--json'])
    } finally {
      await hosts.exec(host, ['umount', pgBasebackup])
    }
  }

  it('of two standbys that are cloned anew one fails: the other one can be had back as it was, and is not cloned twice', async () => {
    const reclone = ['add-standby', 'pg2', 'pg3', '--reclone']
    const before = await inodeOf('pg2')
    const failed = await withoutBaseBackup('pg3', reclone)
    expect([failed.exitCode, codes(failed)], failed.stderr).toEqual([6, ['base-backup-failed']])
    await streams('pg2')
    await cluster.succeed(['abort'])
    expect(await inodeOf('pg2')).toBe(before)
    for (const name of ['pg2', 'pg3']) await streams(name)

    await withoutBaseBackup('pg3', reclone)
    const cloned = await inodeOf('pg2')
    const startedAt = await cluster.server('pg2').sqlValue('SELECT pg_postmaster_start_time()::text')
    expect(cloned).not.toBe(before)
    await cluster.succeed(['resume'])
    expect(await inodeOf('pg2')).toBe(cloned)
    expect(await cluster.server('pg2').sqlValue('SELECT pg_postmaster_start_time()::text')).toBe(startedAt)
    for (const name of ['pg2', 'pg3']) {
      await streams(name)
      expect((await hosts.exec(name, ['ls', `${home}/15`])).stdout).not.toContain('replctl-old')
    }
  })

  it('where the old data cannot be kept beside the new clone, that is said before and after: nothing was "taken back"', async () => {
    const mode = (await hosts.exec('pg3', ['stat', '-c', '%a', `${home}/15`])).stdout.trim()
    await hosts.exec('pg3', `chown root ${home}/15; chmod 755 ${home}/15`)
    try {
      const failed = await withoutBaseBackup('pg3', ['add-standby', 'pg3', '--reclone'])
      expect([failed.exitCode, codes(failed)], failed.stderr).toEqual([
        6,
        expect.arrayContaining(['base-backup-failed', 'old-data-not-kept', 'cannot-abort']),
      ])
      const aborted = await cluster.replctl(['abort', '--json'])
      expect([aborted.exitCode, codes(aborted)], aborted.stderr).toEqual([6, ['cannot-abort']])
      await cluster.succeed(['resume'])
      await streams('pg3')
    } finally {
      await hosts.exec('pg3', `chown postgres ${home}/15; chmod ${mode} ${home}/15`)
    }
  })

  it('a standby that leaves while it is being cloned is not filled any longer, and can be built or purged afterwards', async () => {
    for (const next of [
      ['add-standby', 'pg3'],
      ['remove-standby', 'pg3', '--purge'],
    ]) {
      await cluster.succeed(['remove-standby', 'pg3', '--purge'])
      await hosts.limitLink('pg3', '4mbit')
      await killOnce(['add-standby', 'pg3'], /take a base backup from pg1/)
      await awaitCondition('files arrive', () => exists('pg3', `${dataDir}/base`), { timeoutMs: 60_000 })
      await cluster.succeed(['remove-standby', 'pg3'])
      expect(await hosts.pids('pg3', 'pg_basebackup')).toEqual([])
      await hosts.limitLink('pg3', undefined)
      await cluster.succeed(next)
    }
    expect(await exists('pg3', `${dataDir}/base`)).toBe(false)
  })

  it('a full disk on the host of the old primary keeps nobody from failing over away from it', async () => {
    const fill = `set -e
mb=$(du -sm ${home} | cut -f1)
mkdir -p /mnt/full; mount -t tmpfs -o size=$((mb + 16))m,mode=755 tmpfs /mnt/full
cp -a ${home}/. /mnt/full/; chown postgres: /mnt/full
mount --bind /mnt/full ${home}
dd if=/dev/zero of=${home}/filler bs=4k 2>/dev/null || true
! sh -c 'echo x > ${home}/one-more' 2>/dev/null`
    await cluster.server('pg1').kill9()
    await hosts.exec('pg1', fill)
    try {
      const done = await cluster.replctl(['promote', 'pg2', '--json'])
      expect([done.exitCode, codes(done)], done.stdout).toEqual([0, ['disk-full']])
      expect(done.json.problems[0]).toMatchObject({ node: 'pg1', severity: 'warning' })
      expect(done.json.result).toMatchObject({ new_primary: 'pg2', fenced: true, repointed: ['pg3'] })
      expect(await exists('pg1', `${dataDir}/standby.signal`)).toBe(true)
      expect(await writersNow(hosts)).toEqual(['pg2'])
    } finally {
      await hosts.exec('pg1', `umount ${home}; umount /mnt/full`)
    }
  })
})
