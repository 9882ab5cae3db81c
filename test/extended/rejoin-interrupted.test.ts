import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { divergingCluster } from '../kit/diverging-cluster.ts'
import { awaitCondition, type ReplctlResult } from '../kit/index.ts'
import { writersNow } from '../kit/observe.ts'
import { killAfter } from './kill-after.ts'

describeOnHosts('rejoin, killed in the middle of a rewind', () => {
  const scene = divergingCluster()
  const { state, ids, told, divergePg1, expectGoodCluster } = scene
  const data = () => scene.cluster.server('pg1').dataDir

  it.each([
    ['after pg_rewind was tried', /try pg_rewind/],
    ['in the middle of pg_rewind', null],
    ['after pg_rewind', /rewind it with pg_rewind/],
    ['after the own files were put back', /put the node's own files back/],
    ['while it does not stream yet', /start PostgreSQL/],
    ['right before its end', /remove the old data directory/],
  ] as const)('killed %s, it gets to the end from another control host', async (_, step) => {
    await killRejoin(step)
    expect(await writersNow(scene.hosts)).toEqual(['pg2'])
    const elsewhere = join(scene.hosts.directory, `elsewhere-${Math.random().toString(36).slice(2)}`)
    await mkdir(elsewhere, { recursive: true })
    const ended = await scene.cluster.replctl(['rejoin', 'pg1', '--json'], {
      cwd: elsewhere,
      env: { HOME: elsewhere },
    })
    told(ended).toMatchObject({ exit: 0, changed: true, method: 'rewind' })
    await expectTold(ended)
    await expectGoodCluster()
    expect(await ids('pg1')).toBe('{2}')
    told(await scene.cluster.replctl(['rejoin', 'pg1', '--json'])).toMatchObject({ exit: 0, method: 'none' })
  })

  it('a clone that was killed behind its point of no return tells what it discarded when it is gone on with', async () => {
    await divergePg1()
    await scene.cluster.server('pg1').kill9()
    await scene.hosts.restoreLink('pg1')
    await killAfter(scene.cluster, ['rejoin', 'pg1', '--reclone'], /remove the old data directory/)
    const ended = await scene.cluster.replctl(['resume', '--json'])
    told(ended).toMatchObject({ exit: 0, changed: true, method: 'reclone' })
    await expectTold(ended)
    await expectGoodCluster()
  })

  it('a rewind that was killed, and whose server somebody starts, is told by the rejoin that ends it', async () => {
    await killRejoin(/put the node's own files back/)
    const status = await scene.cluster.replctl(['status', '--json'])
    expect(JSON.stringify(status.json.problems)).toContain('replctl rejoin pg1')
    await scene.cluster.server('pg1').start()
    await scene.streams('pg1')
    const ended = await scene.cluster.replctl(['rejoin', 'pg1', '--json'])
    told(ended).toMatchObject({ exit: 0, changed: true, method: 'rewind' })
    await expectTold(ended)
    await expectGoodCluster()
  })

  it('what a killed rewind left is replaced by a new copy, with the configuration that the node had', async () => {
    const line = "application_name = 'written by hand'"
    await scene.hosts.exec('pg1', `echo "${line}" >> ${data()}/postgresql.conf`)
    await killRejoin(/rewind it with pg_rewind/)
    const half = await scene.hosts.exec('pg1', `cat ${data()}/postgresql.conf`)
    expect(half.stdout).not.toContain(line)
    const ended = await scene.cluster.replctl(['rejoin', 'pg1', '--reclone', '--json'])
    told(ended).toMatchObject({ exit: 0, changed: true, method: 'reclone' })
    await expectGoodCluster()
    expect(await ids('pg1')).toBe('{2}')
    const now = await scene.hosts.exec('pg1', `cat ${data()}/postgresql.conf`)
    expect(now.stdout).toContain(line)
    const saved = await scene.hosts.exec('pg1', `cat ${state}/salvage/*/rows.jsonl`)
    expect(saved.stdout).toContain('"new":{"id":1}')
  })

  it('with the primary lost for good, abort puts the old directory of a clone that was begun back', async () => {
    await divergePg1()
    await scene.cluster.server('pg1').kill9()
    await scene.hosts.restoreLink('pg1')
    const started = scene.cluster.startReplctl(['rejoin', 'pg1', '--reclone'])
    await awaitCondition('the clone is begun', async () => {
      const script = `ls -d ${data()}.replctl-before-* && ls ${data()}/backup_label`
      return (await scene.hosts.exec('pg1', script, { check: false })).exitCode === 0
    })
    started.kill()
    expect((await started.finished).signal).toBe('SIGKILL')
    await scene.hosts.powerOff('pg2')
    const aborted = await scene.cluster.replctl(['abort', '--json'])
    // What is left to be taken back is on the host that is lost.
    expect([aborted.exitCode, aborted.json.problems[0].node]).toEqual([6, 'pg2'])
    const found = await scene.hosts.exec(
      'pg1',
      `ls -d ${data()}.replctl-before-*; cat ${data()}/PG_VERSION`,
      {
        check: false,
      },
    )
    expect(found.stdout).toBe('15\n')
  })

  it('a clone that a killed rejoin began and add-standby ended: nothing of that rejoin is left, and what diverges later is saved', async () => {
    const { hosts, cluster } = scene
    await divergePg1()
    await cluster.server('pg1').kill9()
    await hosts.restoreLink('pg1')
    await hosts.limitLink('pg1', '4mbit')
    const started = cluster.startReplctl(['rejoin', 'pg1', '--reclone'])
    const copies = async () =>
      (await isThere(`${data()}.replctl-before-*`)) && (await isThere(`${data()}/base`))
    await awaitCondition('files of the new copy arrive', copies, { timeoutMs: 120_000 })
    started.kill()
    expect((await started.finished).signal).toBe('SIGKILL')
    await hosts.limitLink('pg1', undefined)
    const status = await cluster.replctl(['status', '--json'])
    expect(JSON.stringify(status.json.problems)).toContain('replctl rejoin pg1')
    told(await cluster.replctl(['add-standby', 'pg1', '--json'])).toMatchObject({ exit: 0, changed: true })
    await expectGoodCluster()
    expect(await isThere(`${data()}.replctl-*`)).toBe(false)

    // It leads again, and once more what only it has is nowhere else.
    await cluster.succeed(['switchover', 'pg1'])
    await hosts.cutLink('pg1')
    await cluster.succeed(['promote', 'pg2', '--allow-split-brain'])
    await scene.run('pg1', 'INSERT INTO ledger VALUES (3)')
    await cluster.server('pg1').kill9()
    await hosts.restoreLink('pg1')
    told(await cluster.replctl(['rejoin', 'pg1', '--json'])).toMatchObject({ exit: 0, method: 'rewind' })
    await expectGoodCluster()
    const saved = await hosts.exec('pg1', `cat ${state}/salvage/*/rows.jsonl`)
    expect(saved.stdout).toContain('"new":{"id":3}')
  })

  it('a clone that streamed when replctl was killed is gone on with, and not made once more', async () => {
    const startedAt = () => scene.value('pg2', 'SELECT pg_postmaster_start_time()::text')
    for (const step of [/mark the node as built/, /remove the old data directory/]) {
      await killAfter(scene.cluster, ['rejoin', 'pg2', '--reclone'], step)
      const began = await startedAt()
      told(await scene.cluster.replctl(['resume', '--json'])).toMatchObject({ exit: 0, method: 'reclone' })
      expect(await startedAt()).toBe(began)
      expect(await isThere(`${data()}.replctl-*`, 'pg2')).toBe(false)
    }
    await expectGoodCluster('pg1')
  })

  /** What only pg1 had lies on its disk, and its result says where, and how much it was. */
  async function expectTold({ json }: ReplctlResult): Promise<void> {
    const { salvage, fork_lsn, discarded_bytes } = json.result
    expect(salvage).toMatchObject({ complete: true })
    expect(salvage.rows).toBeGreaterThan(0)
    expect(fork_lsn).toMatch(/^[0-9A-F]+\/[0-9A-F]+$/)
    expect(discarded_bytes).toBeGreaterThan(0)
    const saved = await scene.hosts.exec('pg1', `cat ${salvage.dir}/rows.jsonl`)
    expect(saved.stdout).toContain('"new":{"id":1}')
  }

  const isThere = async (path: string, node = 'pg1') =>
    (await scene.hosts.exec(node, `ls -d ${path}`, { check: false })).exitCode === 0

  /** pg1 goes its own way, and replctl is killed while it brings it back: after a step, or (null) while pg_rewind writes. */
  async function killRejoin(step: RegExp | null): Promise<void> {
    await divergePg1()
    await scene.cluster.server('pg1').kill9()
    await scene.hosts.restoreLink('pg1')
    if (step === null) await killRewind()
    else await killAfter(scene.cluster, ['rejoin', 'pg1'], step)
  }

  /** Kills replctl, and pg_rewind in the middle of its work: what that leaves cannot be started, by nobody. */
  async function killRewind(): Promise<void> {
    const started = scene.cluster.startReplctl(['rejoin', 'pg1'])
    // Not the one that only tries: mode 701 keeps the server from starting. Frozen, it cannot end, nor can replctl.
    const atWork = 'bin/pg_rewind -D .*--no-ensure-shutdown$'
    const freeze =
      'until [ "$(stat -c %a "$1")" = 701 ] && pkill -STOP -f "$2"; do sleep 0.01; done 2>/dev/null'
    await scene.hosts.exec('pg1', ['sh', '-c', freeze, 'sh', data(), atWork])
    started.kill()
    expect((await started.finished).signal).toBe('SIGKILL')
    await scene.hosts.exec('pg1', ['pkill', '-KILL', '-f', atWork])
    await expect(scene.cluster.server('pg1').start()).rejects.toThrow()
  }
})
