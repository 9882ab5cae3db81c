import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { parseDocument } from 'yaml'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { restoreHosts, saveHosts } from '../kit/empty-hosts.ts'
import { type ReplctlResult, TestCluster, TestHosts } from '../kit/index.ts'
import { openToControlHost, traceOf, WriterWatch, writersNow } from '../kit/observe.ts'
import { disturbAt, killAt } from '../reliability/kill-points.ts'

describeOnHosts('promote, interrupted', () => {
  let hosts: TestHosts
  let cluster: TestCluster

  beforeAll(async () => {
    hosts = await TestHosts.create({ hosts: [{ name: 'pg1' }, { name: 'pg2' }, { name: 'pg3' }] })
    cluster = await TestCluster.create(hosts, { inventory: openToControlHost })
    await cluster.init()
    await cluster.addStandbys()
    await cluster.server('pg1').sql('CREATE TABLE ledger (id bigint)')
    await saveHosts(hosts)
  })
  afterAll(() => hosts?.destroy())
  beforeEach(restore)

  async function restore(): Promise<void> {
    await restoreHosts(hosts)
    await cluster.writeInventory(openToControlHost)
    for (const name of ['pg2', 'pg3']) await streams(name)
  }
  const streams = (name: string) =>
    cluster.server(name).awaitSql("SELECT count(*) = 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'")
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

  const promote = (...args: string[]) => ['promote', 'pg2', ...args]

  async function expectOneGoodCluster(): Promise<void> {
    expect(await writersNow(hosts)).toEqual(['pg2'])
    expect(await cluster.server('pg2').sqlValue('SELECT timeline_id FROM pg_control_checkpoint()')).toBe(2)
    told(await cluster.replctl(['verify', 'pg2', 'pg3', '--json'])).toMatchObject({ exit: 0 })
    const status = await cluster.replctl(['status', '--json'])
    expect(
      status.json.problems.map((one: { code: string; node: string }) => `${one.node} ${one.code}`),
    ).toEqual(['pg1 node-fenced'])
  }

  it.each([2, 3, 4, 5, 7, 9])(
    'killed after step %i, it gets to the end by the same command or by resume from another control host',
    async (k) => {
      const watch = new WriterWatch(hosts)
      await cluster.server('pg1').kill9()
      expect((await killAt(cluster, promote(), { kind: 'step', n: k })).wasEarlier).toBe(false)
      const elsewhere = join(hosts.directory, `elsewhere-${k}`)
      await mkdir(elsewhere, { recursive: true })
      const isResume = k % 2 === 1
      const ended = await cluster.replctl([...(isResume ? ['resume'] : ['promote', 'pg2']), '--json'], {
        cwd: elsewhere,
        env: { HOME: elsewhere },
      })
      told(ended).toMatchObject({ exit: 0 })
      expect(ended.json.command).toBe(isResume ? 'resume' : 'promote')
      expect(await watch.stop()).toEqual([])
      await expectOneGoodCluster()
    },
  )

  it('killed before the promotion, it can be taken back: the old primary is in service again', async () => {
    const before = await traceOf(hosts, 'pg2')
    const killed = await killAt(cluster, promote('--allow-split-brain'), { kind: 'step', n: 2 })
    expect(killed.wasEarlier).toBe(false)
    expect(await writersNow(hosts)).toEqual([])
    // An older copy of the inventory cannot give pg1 its post back.
    const whole = await readFile(cluster.inventoryFile, 'utf8')
    const older = parseDocument(whole)
    older.deleteIn(['nodes', 'pg1'])
    await writeFile(cluster.inventoryFile, older.toString())
    const vain = await cluster.replctl(['abort', '--json'])
    told(vain).toMatchObject({ exit: 3, errors: ['cannot-abort'] })
    await writeFile(cluster.inventoryFile, whole)
    // What makes nobody lead ends no promotion that stopped part-way.
    await cluster.succeed(['follow', 'pg3', '--upstream', 'pg2'])
    const aborted = await cluster.replctl(['abort', '--json'])
    told(aborted).toMatchObject({ exit: 0 })
    expect(await writersNow(hosts)).toEqual(['pg1'])
    expect((await hosts.exec('pg1', `ls ${cluster.server('pg1').dataDir}`)).stdout).not.toContain(
      'standby.signal',
    )
    await streams('pg2')
    await cluster.succeed(['follow', 'pg3', '--upstream', 'pg1'])
    expect(await traceOf(hosts, 'pg2')).toBe(before)
    told(await cluster.replctl(['status', '--json'])).toMatchObject({ exit: 0, errors: [] })
  })

  it('what speaks against going on does not keep abort from giving the old primary its post back', async () => {
    expect((await killAt(cluster, promote('--allow-split-brain'), { kind: 'step', n: 2 })).wasEarlier).toBe(
      false,
    )
    await cluster.server('pg2').kill9()
    const onward = await cluster.replctl(['resume', '--json'])
    told(onward).toMatchObject({ exit: 3, errors: ['not-a-standby'] })
    await hosts.powerOff('pg2')
    const refused = await cluster.replctl(['abort', '--json'])
    told(refused).toMatchObject({ exit: 4 })
    expect(refused.json.problems[0].hint).toContain('replctl promote pg1 --allow-data-loss')
    await hosts.powerOn('pg2')
    told(await cluster.replctl(['abort', '--json'])).toMatchObject({ exit: 0, errors: [] })
    expect(await writersNow(hosts)).toEqual(['pg1'])
    await streams('pg3')
  })

  it('a dead old primary that was fenced is unfenced by abort, not before its host answers, and stays stopped', async () => {
    await cluster.server('pg1').kill9()
    expect((await killAt(cluster, promote(), { kind: 'step', n: 2 })).wasEarlier).toBe(false)
    expect(await writersNow(hosts)).toEqual([])
    await hosts.cutLink('pg1', 'control')
    for (const args of [['abort', '--dry-run'], ['abort'], ['abort']]) {
      const refused = await cluster.replctl([...args, '--json'])
      told(refused).toMatchObject({ exit: 6, errors: ['cannot-abort'] })
      expect(refused.json.problems[0]).toMatchObject({ node: 'pg1' })
    }
    await hosts.restoreLink('pg1')
    told(await cluster.replctl(['abort', '--json'])).toMatchObject({ exit: 0 })
    expect(await writersNow(hosts)).toEqual([])
    await cluster.server('pg1').start() // by hand
    await cluster.server('pg1').awaitAnswer()
    expect(await writersNow(hosts)).toEqual(['pg1'])
    for (const name of ['pg2', 'pg3']) await streams(name)
    told(await cluster.replctl(['status', '--json'])).toMatchObject({ exit: 0, errors: [] })
  })

  it('a wait in vain before the promotion: a primary that was stopped leads again, and the candidate follows it as before', async () => {
    await cluster.writeInventory({ ...openToControlHost, nodes: { pg3: { promotable: false } } })
    // pg3 alone has some rows, and does not let pg2 have them.
    const reject = `host replication all ${hosts.addressOf('pg2')}/32 reject`
    await hosts.exec('pg3', `sed -i '1i ${reject}' ${cluster.server('pg3').dataDir}/pg_hba.conf`)
    await cluster.server('pg3').sql('SELECT pg_reload_conf()')
    await hosts.cutLink('pg1', 'pg2')
    await cluster.server('pg1').sql('INSERT INTO ledger SELECT generate_series(1, 5000)')
    await cluster.server('pg3').awaitCatchup(cluster.server('pg1'))
    const watch = new WriterWatch(hosts)
    const failed = await cluster.replctl([...promote('--allow-split-brain', '--timeout', '5s'), '--json'])
    told(failed).toMatchObject({ exit: 5, changed: false, errors: ['timeout'] })
    expect(await writersNow(hosts)).toEqual(['pg1'])
    expect(await watch.stop()).toEqual([])
    await hosts.restoreLink('pg1')
    for (const name of ['pg2', 'pg3']) await streams(name)
    expect(await cluster.server('pg2').sqlValue('SELECT sender_host FROM pg_stat_wal_receiver')).toBe(
      hosts.addressOf('pg1'),
    )
    expect(await cluster.server('pg3').sqlValue('SELECT count(*) FROM pg_replication_slots')).toBe(0)
    told(await cluster.replctl(['status', '--json'])).toMatchObject({ exit: 0, errors: [] })
  })

  it('cut off in the middle of it, promote stops part-way in bounded time, and resume finishes', async () => {
    const watch = new WriterWatch(hosts)
    await cluster.server('pg1').kill9()
    const startedAt = performance.now()
    const cut = () => hosts.cutLink('pg2', 'control', { port: 22 })
    const stopped = await disturbAt(cluster, promote('--timeout', '10s'), { kind: 'step', n: 3 }, cut)
    expect(stopped).toMatchObject({ wasEarlier: false, exitCode: 6 })
    expect(performance.now() - startedAt).toBeLessThan(60_000)
    await hosts.restoreLink('pg2')
    told(await cluster.replctl(['resume', '--json', '--timeout', '90s'])).toMatchObject({ exit: 0 })
    expect(await watch.stop()).toEqual([])
    await expectOneGoodCluster()
  })
})
