import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { restoreHosts, saveHosts } from '../kit/empty-hosts.ts'
import { awaitCondition, TestCluster, TestHosts } from '../kit/index.ts'
import { Client, openToControlHost, WriterWatch, writersNow } from '../kit/observe.ts'

describeOnHosts('P-49: a primary that is frozen is neither up nor down', () => {
  let hosts: TestHosts
  let cluster: TestCluster

  beforeAll(async () => {
    hosts = await TestHosts.create({ hosts: [{ name: 'pg1' }, { name: 'pg2' }] })
    cluster = await TestCluster.create(hosts, { inventory: openToControlHost })
    await cluster.init()
    await cluster.addStandbys()
    await cluster.server('pg1').sql('CREATE TABLE ledger (id bigint)')
    await saveHosts(hosts)
  })
  afterAll(() => hosts?.destroy())
  beforeEach(async () => {
    await restoreHosts(hosts)
    await cluster.server('pg2').awaitSql('SELECT count(*) = 1 FROM pg_stat_wal_receiver')
  })

  const signalAll = (signal: string) =>
    hosts.exec(
      'pg1',
      `for entry in /proc/[0-9]*; do
        [ "$(cat $entry/comm 2>/dev/null)" = postgres ] && kill -s ${signal} "\${entry#/proc/}" 2>/dev/null; done; :`,
    )

  it('status says so in time, promote kills it and proves it, and no write is confirmed when it thaws', async () => {
    const client = new Client(hosts, 'pg1')
    await awaitCondition('the client writes', () => client.confirmed.length > 10)
    const watch = new WriterWatch(hosts)
    await signalAll('STOP')
    const status = await cluster.replctl(['status', '--json'])
    expect(status.ms).toBeLessThan(15_000)
    expect(status.exitCode).toBe(9)
    expect(status.json.result.primary).toBe(null)
    expect(status.json.result.nodes[0]).toMatchObject({
      name: 'pg1',
      reachable: true,
      role: 'unknown',
      state: 'unknown',
    })
    expect(status.json.problems).toContainEqual(
      expect.objectContaining({ code: 'not-answering', node: 'pg1' }),
    )
    const seen = client.confirmed.length
    const done = await cluster.replctl(['promote', '--json'])
    expect({ exit: done.exitCode, problems: done.json?.problems }).toEqual({ exit: 0, problems: [] })
    const first = done.json.result.steps.find(({ state }: { state: string }) => state === 'applied')
    expect(first).toMatchObject({ node: 'pg1' })
    await signalAll('CONT')
    expect(await cluster.server('pg1').isRunning()).toBe(false)
    expect(await watch.stop()).toEqual([])
    expect((await client.stop()).length).toBe(seen)
    expect(await writersNow(hosts)).toEqual(['pg2'])
    console.log(`frozen: status ${Math.round(status.ms)} ms, promote ${Math.round(done.ms)} ms`)
  })

  it('only its postmaster is frozen, sessions live on: promote ends them all', async () => {
    const client = new Client(hosts, 'pg1')
    await awaitCondition('the client writes', () => client.confirmed.length > 10)
    const watch = new WriterWatch(hosts)
    const { stdout } = await hosts.exec('pg1', [
      'head',
      '-n',
      '1',
      `${cluster.server('pg1').dataDir}/postmaster.pid`,
    ])
    await hosts.kill('pg1', Number(stdout), 'SIGSTOP')
    const done = await cluster.replctl(['promote', '--json'])
    expect({ exit: done.exitCode, problems: done.json?.problems }).toEqual({ exit: 0, problems: [] })
    const atEnd = client.confirmed.length
    expect(await watch.stop()).toEqual([])
    expect((await client.stop()).length).toBe(atEnd)
    expect(await hosts.pids('pg1', 'postgres: ')).toEqual([])
    expect(await writersNow(hosts)).toEqual(['pg2'])
  })
})
