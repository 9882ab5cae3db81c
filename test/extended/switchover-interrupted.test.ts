import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { restoreHosts, saveHosts } from '../kit/empty-hosts.ts'
import {
  awaitCondition,
  type ReplctlResult,
  type StartedReplctl,
  TestCluster,
  TestHosts,
} from '../kit/index.ts'
import { openToControlHost, traceOf, WriterWatch, writersNow } from '../kit/observe.ts'
import { killAfter } from './kill-after.ts'

const dataDir = '/var/lib/postgresql/15/shop'

describeOnHosts('switchover, interrupted', () => {
  const inventory = { ...openToControlHost, ssh: { connect_timeout: '10s' } }
  let hosts: TestHosts
  let cluster: TestCluster

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [{ name: 'pg1' }, { name: 'pg2' }, { name: 'pg3', login: 'root' }],
    })
    cluster = await TestCluster.create(hosts, { inventory })
    await cluster.init()
    await cluster.addStandbys()
    await cluster.server('pg1').sql('CREATE TABLE ledger (id bigint)')
    await saveHosts(hosts)
  })
  afterAll(() => hosts?.destroy())
  beforeEach(async () => {
    await restoreHosts(hosts)
    for (const name of ['pg2', 'pg3']) await cluster.server('pg1').awaitStreaming(`shop_${name}`)
  })

  const tell = ({ exitCode, json }: ReplctlResult) => ({
    exit: exitCode,
    changed: json?.changed,
    errors: json?.problems.flatMap((one: { code: string; severity: string }) =>
      one.severity === 'error' ? [one.code] : [],
    ),
  })
  /** As `expect`, with replctl's own words where it fails. */
  const told = (result: ReplctlResult) =>
    expect(tell(result), `${JSON.stringify(result.json?.problems)}\n${result.stderr}`)
  const ended = async (started: StartedReplctl): Promise<ReplctlResult> => {
    const { exitCode } = await started.finished
    const [stdout, stderr] = [started.stdout(), started.stderr()]
    return { exitCode, stdout, stderr, json: JSON.parse(stdout || 'null') } as ReplctlResult
  }

  /** One writer, everybody behind it, nothing left over. */
  async function expectGoodCluster(primary: string): Promise<void> {
    expect(await writersNow(hosts)).toEqual([primary])
    const standbys = ['pg1', 'pg2', 'pg3'].filter((name) => name !== primary)
    for (const name of standbys) await cluster.server(primary).awaitStreaming(`shop_${name}`)
    const slots =
      "SELECT coalesce(string_agg(slot_name, ',' ORDER BY slot_name), '') FROM pg_replication_slots"
    expect(await cluster.server(primary).sqlValue(slots)).toBe(standbys.map((name) => `shop_${name}`).join())
    for (const name of standbys) expect(await cluster.server(name).sqlValue(slots)).toBe('')
    told(await cluster.replctl(['status', '--json'])).toMatchObject({ exit: 0, errors: [] })
    const left = await hosts.exec(primary, `ls ${dataDir} ~postgres/.replctl/shop`, { user: 'postgres' })
    expect(left.stdout).not.toMatch(/standby\.signal|fenced\.json|journal/)
  }

  /** Calls replctl from a control host that knows nothing of what was begun. */
  async function elsewhere(...args: string[]): Promise<ReplctlResult> {
    const home = join(hosts.directory, 'elsewhere')
    await mkdir(home, { recursive: true })
    return await cluster.replctl([...args, '--json'], { cwd: home, env: { HOME: home } })
  }

  /** Starts a switchover to pg2 whose stop of pg1 goes no further: a session of it is frozen, and cannot be ended. */
  async function holdInStop(
    ...args: string[]
  ): Promise<{ started: StartedReplctl; release: () => Promise<void> }> {
    const session = 'sleep 600 | psql -XAtq -v ON_ERROR_STOP=1 >/dev/null 2>&1 &'
    await hosts.exec('pg1', `PGAPPNAME=frozen; export PGAPPNAME; ${session}`, { user: 'postgres' })
    const found = "SELECT pid FROM pg_stat_activity WHERE application_name = 'frozen' AND state = 'idle'"
    await cluster.server('pg1').awaitSql(`SELECT count(*) = 1 FROM (${found}) session`)
    // Their numbers on the host are those that the server sees.
    const frozen = Number(await cluster.server('pg1').sqlValue(found))
    await hosts.kill('pg1', frozen, 'SIGSTOP')
    const started = cluster.startReplctl(['switchover', 'pg2', '--json', ...args])
    const signal = ['test', '-e', `${dataDir}/standby.signal`]
    await awaitCondition(
      'pg1 is told to stop',
      async () => (await hosts.exec('pg1', signal, { check: false })).exitCode === 0,
    )
    return { started, release: () => hosts.kill('pg1', frozen, 'SIGCONT') }
  }

  /** As {@link holdInStop}; then pg1 shuts down and pg2 does not get to replay the end of it. */
  async function holdAfterStop(
    ...args: string[]
  ): Promise<{ started: StartedReplctl; release: () => Promise<void> }> {
    const { started, release } = await holdInStop(...args)
    const [startup] = await hosts.pids('pg2', 'postgres:.*startup')
    await hosts.kill('pg2', startup!, 'SIGSTOP')
    await release()
    await awaitCondition(
      'pg1 is shut down',
      async () => (await cluster.server('pg1').controlData()).get('Database cluster state') === 'shut down',
    )
    return { started, release: () => hosts.kill('pg2', startup!, 'SIGCONT') }
  }

  it.each<[RegExp, string[]]>([
    [/prepare it to hand over/, ['switchover', 'pg2']],
    [/have the replication slot "shop_pg3"/, ['resume']],
    [/stop the primary/, ['resume']],
    [/promote it to primary/, ['resume']],
    [/start PostgreSQL/, ['switchover', 'pg2']],
    [/pg3 {2}record who leads/, ['resume']],
  ])('killed after the step %s, "%s" gets to the end, from any control host', async (step, again) => {
    const watch = new WriterWatch(hosts)
    await killAfter(cluster, ['switchover', 'pg2'], step)
    told(await elsewhere(...again)).toMatchObject({ exit: 0 })
    expect(await watch.stop()).toEqual([])
    await expectGoodCluster('pg2')
    expect(await cluster.server('pg2').sqlValue('SELECT timeline_id FROM pg_control_checkpoint()')).toBe(2)
  })

  it('killed behind the promotion, with a standby that the old primary is to keep, resume finishes', async () => {
    await cluster.writeInventory({ ...inventory, nodes: { pg3: { upstream: 'pg1' } } })
    try {
      await killAfter(cluster, ['switchover', 'pg2'], /promote it to primary/)
      told(await elsewhere('resume')).toMatchObject({ exit: 0, errors: [] })
      expect(await writersNow(hosts)).toEqual(['pg2'])
      await cluster.server('pg2').awaitStreaming('shop_pg1')
      await cluster.server('pg1').awaitStreaming('shop_pg3')
      told(await cluster.replctl(['status', '--json'])).toMatchObject({ exit: 0, errors: [] })
    } finally {
      await cluster.writeInventory(inventory)
    }
  })

  it('the host of the candidate loses its power before the promotion: the old primary serves, and nothing is left to finish', async () => {
    const { started } = await holdAfterStop()
    await hosts.powerOff('pg2')
    told(await ended(started)).toMatchObject({ exit: 5 })
    expect(await writersNow(hosts)).toEqual(['pg1'])
    const left = await hosts.exec('pg1', `ls ${dataDir} ~postgres/.replctl/shop`, { user: 'postgres' })
    expect(left.stdout).not.toMatch(/standby\.signal|fenced\.json|journal/)
    const codes = (await cluster.replctl(['status', '--json'])).json.problems.map(
      ({ code }: { code: string }) => code,
    )
    expect(codes).not.toContain('operation-unfinished')
  })

  it('killed while everything is being prepared, abort leaves no trace', async () => {
    const before = await Promise.all(['pg1', 'pg2', 'pg3'].map((name) => traceOf(hosts, name)))
    await killAfter(cluster, ['switchover', 'pg2'], /have the replication slot "shop_pg3"/)
    told(await elsewhere('abort')).toMatchObject({ exit: 0 })
    expect(await Promise.all(['pg1', 'pg2', 'pg3'].map((name) => traceOf(hosts, name)))).toEqual(before)
    await expectGoodCluster('pg1')
  })

  it('killed in the middle of the stop, it can be taken back, or finished', async () => {
    const watch = new WriterWatch(hosts)
    const first = await holdInStop()
    first.started.kill()
    expect((await first.started.finished).signal).toBe('SIGKILL')
    await first.release()
    told(await elsewhere('abort')).toMatchObject({ exit: 0 })
    await expectGoodCluster('pg1')

    const second = await holdAfterStop()
    second.started.kill()
    expect((await second.started.finished).signal).toBe('SIGKILL')
    await second.release()
    expect(await writersNow(hosts)).toEqual([])
    // Nobody else begins anything, and nothing is mistaken for a lost primary.
    told(await elsewhere('switchover', 'pg3')).toMatchObject({ exit: 3, errors: ['no-primary'] })
    told(await elsewhere('abort')).toMatchObject({ exit: 0 })
    await expectGoodCluster('pg1')

    const third = await holdAfterStop()
    third.started.kill()
    expect((await third.started.finished).signal).toBe('SIGKILL')
    await third.release()
    told(await elsewhere('switchover', 'pg2')).toMatchObject({ exit: 0, changed: true })
    expect(await watch.stop()).toEqual([])
    await expectGoodCluster('pg2')
  })

  it('a stop that does not end in time, is interrupted, or becomes a crash puts the old primary back', async () => {
    const watch = new WriterWatch(hosts)
    const slow = await holdInStop('--timeout', '2s')
    told(await ended(slow.started)).toMatchObject({ exit: 5, changed: false, errors: ['stop-failed'] })
    await expectGoodCluster('pg1')

    const interrupted = await holdInStop()
    interrupted.started.kill('SIGTERM')
    told(await ended(interrupted.started)).toMatchObject({ exit: 143, changed: false })
    await expectGoodCluster('pg1')

    const crashed = await holdInStop()
    await cluster.server('pg1').kill9()
    told(await ended(crashed.started)).toMatchObject({ exit: 5, changed: false, errors: ['stop-failed'] })
    expect(await watch.stop()).toEqual([])
    await expectGoodCluster('pg1')
  })

  it('a candidate that stalls, dies or loses its power before it is promoted costs nothing: the old primary is back', async () => {
    const stalled = await holdAfterStop('--timeout', '2s')
    told(await ended(stalled.started)).toMatchObject({ exit: 5, changed: false, errors: ['not-streaming'] })
    await stalled.release()
    await expectGoodCluster('pg1')

    const dead = await holdAfterStop()
    await cluster.server('pg2').kill9()
    told(await ended(dead.started)).toMatchObject({ exit: 5, changed: false })
    expect(await writersNow(hosts)).toEqual(['pg1'])
    await cluster.server('pg2').start()
    told(await cluster.replctl(['switchover', 'pg2', '--json'])).toMatchObject({ exit: 0 })
    await expectGoodCluster('pg2')
  })

  it('WAL that ceases to flow while everything is prepared stops it before anybody loses a primary', async () => {
    const startedAt = () => cluster.server('pg1').sqlValue('SELECT pg_postmaster_start_time()::text')
    const before = await startedAt()
    const started = cluster.startReplctl(['switchover', 'pg2', '--json'])
    await awaitCondition('it is prepared', async () =>
      (await hosts.exec('pg1', 'ls ~postgres/.replctl/shop', { user: 'postgres' })).stdout.includes('fenced'),
    )
    const receivers = await hosts.pids('pg2', 'postgres:.*walreceiver')
    for (const pid of receivers) await hosts.kill('pg2', pid, 'SIGSTOP')
    told(await ended(started)).toMatchObject({ exit: 5, changed: false, errors: ['lag-too-high'] })
    for (const pid of receivers) await hosts.kill('pg2', pid, 'SIGCONT')
    expect(await startedAt()).toBe(before)
    await expectGoodCluster('pg1')
  })

  it('what outlives the postmaster of a candidate that was just told to promote is ended before the old primary is back', async () => {
    const pg2 = cluster.server('pg2')
    // It asks its archive before, too, once its sender is gone: only one that was told to promote is held.
    const log = `${dataDir}.log`
    await hosts.exec('pg2', ['truncate', '-s', '0', log])
    await pg2.sql(
      `ALTER SYSTEM SET restore_command = 'if grep -q received.promote.request ${log}; then : > /tmp/told; sleep 10; fi; false'`,
    )
    await pg2.sql('SELECT pg_reload_conf()')
    const started = cluster.startReplctl(['switchover', 'pg2', '--json'])
    await awaitCondition(
      'it ends its recovery',
      async () => (await hosts.exec('pg2', 'test -e /tmp/told', { check: false })).exitCode === 0,
    )
    // Frozen, it neither goes on nor notices that its postmaster is gone.
    const [startup] = await hosts.pids('pg2', 'postgres:.*startup')
    await hosts.kill('pg2', startup!, 'SIGSTOP')
    await hosts.exec('pg2', `kill -KILL $(head -n 1 ${dataDir}/postmaster.pid)`)
    told(await ended(started)).toMatchObject({ exit: 5, changed: false })
    expect(await hosts.pids('pg2', 'postgres:')).toEqual([])
    expect(await writersNow(hosts)).toEqual(['pg1'])
  })

  it('the candidate is lost while nobody leads: abort and resume say what to do, and that gets the old primary back', async () => {
    const { started } = await holdAfterStop()
    started.kill()
    expect((await started.finished).signal).toBe('SIGKILL')
    await hosts.powerOff('pg2')
    for (const command of ['abort', 'resume']) {
      const refused = await elsewhere(command)
      told(refused).toMatchObject({ exit: 4, changed: false })
      expect(refused.json.problems[0].hint).toContain(
        'replctl promote pg1 --allow-data-loss --allow-split-brain',
      )
    }
    const found = (await cluster.replctl(['status', '--json'])).json.problems
    expect(found.map(({ code }: { code: string }) => code)).toContain('operation-unfinished')
    await cluster.server('pg1').start()
    const args = ['promote', 'pg1', '--allow-data-loss', '--allow-split-brain']
    told(await elsewhere(...args)).toMatchObject({ exit: 0, changed: true, errors: [] })
    expect(await writersNow(hosts)).toEqual(['pg1'])
    await cluster.server('pg1').awaitStreaming('shop_pg3')
    const after = (await cluster.replctl(['status', '--json'])).json.problems
    expect(after.map(({ code, node }: Record<string, string>) => `${node} ${code}`)).toEqual([
      'pg2 host-unreachable',
    ])
  })

  it('beside a third one that was promoted by hand, it says what to do, and that makes a cluster again', async () => {
    const { started, release } = await holdAfterStop()
    started.kill()
    expect((await started.finished).signal).toBe('SIGKILL')
    await release()
    await cluster.server('pg3').sql('SELECT pg_promote()')
    for (const command of ['abort', 'resume']) {
      const refused = await elsewhere(command)
      told(refused).toMatchObject({ exit: 3, changed: false, errors: ['operation-unfinished'] })
      expect(refused.json.problems[0].hint).toContain('replctl promote pg3')
    }
    told(await elsewhere('promote', 'pg3')).toMatchObject({ exit: 0, errors: [] })
    told(await elsewhere('rejoin', 'pg1')).toMatchObject({ exit: 0, errors: [] })
    await expectGoodCluster('pg3')
  })

  it('another standby that somebody promotes meanwhile leads alone: before the stop, and after it', async () => {
    // The switchover waits for a checkpoint.
    const [checkpointer] = await hosts.pids('pg1', 'postgres:.*checkpointer')
    await hosts.kill('pg1', checkpointer!, 'SIGSTOP')
    const early = cluster.startReplctl(['switchover', 'pg2', '--json'])
    await cluster
      .server('pg1')
      .awaitSql("SELECT count(*) = 1 FROM pg_stat_activity WHERE query ~* '^checkpoint' AND state = 'active'")
    await cluster.server('pg3').sql('SELECT pg_promote()')
    await hosts.kill('pg1', checkpointer!, 'SIGCONT')
    told(await ended(early)).toMatchObject({ exit: 5, errors: ['two-writers'] })
    expect((await writersNow(hosts)).toSorted()).toEqual(['pg1', 'pg3'])

    await restoreHosts(hosts)
    for (const name of ['pg2', 'pg3']) await cluster.server('pg1').awaitStreaming(`shop_${name}`)
    const { started, release } = await holdAfterStop()
    await cluster.server('pg3').sql('SELECT pg_promote()')
    await release()
    const late = await ended(started)
    told(late).toMatchObject({ exit: 6 })
    expect(late.json.problems).toContainEqual(
      expect.objectContaining({
        code: 'primary-alive',
        node: 'pg3',
        hint: expect.stringContaining('replctl promote pg3'),
      }),
    )
    expect(await writersNow(hosts)).toEqual(['pg3'])
    told(await elsewhere('promote', 'pg3')).toMatchObject({ exit: 0, errors: [] })
    told(await elsewhere('rejoin', 'pg1')).toMatchObject({ exit: 0, errors: [] })
    await expectGoodCluster('pg3')
  })

  it('cut off from the old primary right after it was told to stop, nothing is guessed: exit 6, and resume finishes', async () => {
    const watch = new WriterWatch(hosts)
    const held = await holdInStop()
    await hosts.cutLink('pg1', 'control', { port: 22 })
    await held.release()
    const lost = await ended(held.started)
    told(lost).toMatchObject({ exit: 6 })
    expect(await writersNow(hosts)).toEqual([])
    told(await elsewhere('resume')).toMatchObject({ exit: 4 })
    await hosts.restoreLink('pg1')
    told(await elsewhere('resume', '--timeout', '90s')).toMatchObject({ exit: 0 })
    expect(await watch.stop()).toEqual([])
    await expectGoodCluster('pg2')
  })
})
