import { afterAll, beforeAll, expect, it } from 'vitest'
import { awaitCondition } from '../kit/await-condition.ts'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { type ReplctlResult, TestCluster, TestHosts } from '../kit/index.ts'
import { openToControlHost, traceOf, WriterWatch, writersNow } from '../kit/observe.ts'

const disk = '/var/lib/postgresql/15'

describeOnHosts('promote, and a candidate that cannot make it', () => {
  let hosts: TestHosts
  let cluster: TestCluster

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [{ name: 'pg1' }, { name: 'pg2', smallDisk: { path: disk, sizeMb: 300 } }, { name: 'pg3' }],
    })
    cluster = await TestCluster.create(hosts, {
      inventory: { ...openToControlHost, nodes: { pg2: { priority: 10 } } },
    })
    await cluster.init()
    await cluster.addStandbys()
    await cluster.server('pg1').sql('CREATE TABLE ledger (id bigint)')
  })
  afterAll(() => hosts?.destroy())

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
  const replctl = (...args: string[]) => cluster.replctl([...args, '--json'])
  const streams = (name: string) =>
    cluster.server(name).awaitSql("SELECT count(*) = 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'")

  it('one whose disk is full is not chosen, and refused by name: the old primary stays unfenced, and pg3 leads', async () => {
    for (const name of ['pg2', 'pg3']) {
      await streams(name)
      await cluster.server(name).awaitCatchup(cluster.server('pg1'))
    }
    await hosts.fillDisk('pg2', disk)
    await cluster.server('pg1').stop()
    const before = await Promise.all(['pg1', 'pg2', 'pg3'].map((name) => traceOf(hosts, name)))
    const chosen = await replctl('promote', '--dry-run')
    told(chosen).toMatchObject({ exit: 0 })
    expect(chosen.json.result.new_primary).toBe('pg3')
    expect(chosen.json.result.candidates).toContainEqual(
      expect.objectContaining({
        node: 'pg2',
        can_lead: false,
        reason: expect.stringMatching(/^0 MiB are free where its pg_wal is, and \d+ MiB are needed$/),
      }),
    )
    const refused = await replctl('promote', 'pg2')
    told(refused).toMatchObject({ exit: 3, changed: false, errors: ['disk-full'] })
    expect(refused.json.problems[0].hint).toContain('replctl promote pg3')
    expect(await Promise.all(['pg1', 'pg2', 'pg3'].map((name) => traceOf(hosts, name)))).toEqual(before)
    // With two nodes there is no other one, and nothing was begun that would be in the way.
    await hosts.powerOff('pg3')
    told(await replctl('promote', '--allow-data-loss')).toMatchObject({ exit: 3, errors: ['disk-full'] })
    await hosts.powerOn('pg3')
    await hosts.freeDisk('pg2', disk)
    await cluster.server('pg1').start()
    await cluster
      .server('pg3')
      .start()
      .catch(() => undefined)
    for (const name of ['pg2', 'pg3']) await streams(name)
  })

  it('one that went down after it was told, and never led: abort gives the old primary its post back', async () => {
    const watch = new WriterWatch(hosts)
    const [startup] = await hosts.pids('pg2', 'postgres: .*startup')
    await hosts.kill('pg2', startup!, 'SIGSTOP')
    const started = cluster.startReplctl(['promote', 'pg2', '--allow-split-brain', '--json'])
    const journal = '/var/lib/postgresql/.replctl/shop/journal'
    await awaitCondition(
      'it is told',
      async () => {
        const read = await hosts.exec('pg2', ['cat', journal], { check: false })
        return read.stdout.includes('"isPastPointOfNoReturn":true')
      },
      { timeoutMs: 60_000 },
    )
    started.kill()
    await started.finished
    expect(await writersNow(hosts)).toEqual([])
    await cluster.server('pg2').kill9()
    const onward = await replctl('resume')
    told(onward).toMatchObject({ exit: 3, changed: false, errors: ['not-a-standby'] })
    expect(onward.json.problems[0].hint).toBe(
      'The best candidate is pg3: replctl promote pg3. To take back what was begun: replctl abort',
    )
    told(await replctl('abort', '--dry-run')).toMatchObject({ exit: 0, errors: [] })
    expect(await writersNow(hosts)).toEqual([])
    const aborted = await replctl('abort')
    told(aborted).toMatchObject({ exit: 0, errors: [] })
    expect(aborted.json.problems).toEqual([])
    expect(await writersNow(hosts)).toEqual(['pg1'])
    await streams('pg3')
    expect(await watch.stop()).toEqual([])
    told(await replctl('add-standby', 'pg2')).toMatchObject({ exit: 0 })
    told(await replctl('status')).toMatchObject({ exit: 0, errors: [] })
  })

  it('one that crashes over its promotion: all is taken back, the primary leads again, or another one is chosen', async () => {
    const watch = new WriterWatch(hosts)
    // The first segment of its own timeline cannot get its name.
    const block = `cd ${disk}/shop/pg_wal; for n in 3 4 5 6 7 8 9 A B C D E F 10 11 12 13; do
  install -d -o postgres $(printf '0000000200000000000000%2s' $n | tr ' ' 0); done`
    await hosts.exec('pg2', ['sh', '-c', block])
    const back = await replctl('promote', 'pg2', '--allow-split-brain')
    told(back).toMatchObject({ exit: 5, changed: false, errors: ['not-answering'] })
    expect(await writersNow(hosts)).toEqual(['pg1'])
    await streams('pg3')
    told(await replctl('add-standby', 'pg2')).toMatchObject({ exit: 0 })
    await cluster.server('pg1').kill9()
    const failed = await replctl('promote')
    told(failed).toMatchObject({ exit: 5, changed: false, errors: ['not-answering'] })
    expect(failed.json.problems[0].message).toBe('PostgreSQL on pg2 went down when it was promoted')
    expect(await writersNow(hosts)).toEqual([])
    told(await replctl('promote')).toMatchObject({ exit: 0, changed: true })
    expect(await writersNow(hosts)).toEqual(['pg3'])
    expect(await watch.stop()).toEqual([])
  })
})
