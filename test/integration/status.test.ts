import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { emptyHosts, restoreHosts, saveHosts } from '../kit/empty-hosts.ts'
import { type ReplctlResult, TestCluster, TestHosts } from '../kit/index.ts'
import { fingerprints, writersNow } from '../kit/observe.ts'

const tell = ({ exitCode, json }: ReplctlResult) => ({
  exit: exitCode,
  primary: json?.result?.primary,
  found: json?.problems.map((one: { node: string; code: string }) => `${one.node} ${one.code}`),
  nodes: json?.result?.nodes?.map((one: Record<string, unknown>) => `${one.name} ${one.role} ${one.state}`),
})
/** As `expect`, with replctl's own words where it fails. */
const told = (result: ReplctlResult) =>
  expect(tell(result), `${JSON.stringify(result.json?.problems)}\n${result.stderr}`)
const lsn = expect.stringMatching(/^[0-9A-F]+\/[0-9A-F]+$/)

describeOnHosts('status', () => {
  let hosts: TestHosts
  let cluster: TestCluster

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [{ name: 'pg1' }, { name: 'pg2', login: 'admin' }, { name: 'pg3', login: 'root' }],
    })
    cluster = await TestCluster.create(hosts)
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
      // The receiver says so while the sender still catches up.
      await cluster.server('pg1').awaitStreaming(`shop_${name}`)
      await cluster.server(name).awaitCatchup(cluster.server('pg1'))
    }
  })
  const status = () => cluster.replctl(['status', '--json'])

  it('says of a healthy cluster what the contract names, key by key, and nothing on standard error', async () => {
    const { exitCode, json, stderr, stdout } = await status()
    expect({ exitCode, stderr, lines: stdout.trim().split('\n').length }).toEqual({
      exitCode: 0,
      stderr: '',
      lines: 1,
    })
    expect(json).toMatchObject({
      command: 'status',
      cluster: 'shop',
      ok: true,
      exit_code: 0,
      changed: false,
      problems: [],
    })
    expect(typeof json.elapsed_ms).toBe('number')
    expect(json.result).toMatchObject({ primary: 'pg1', timeline: 1, archive: null })
    const common = { reachable: true, version: expect.stringMatching(/^\d+\.\d+$/), timeline: 1, lsn }
    expect(json.result.nodes).toEqual([
      expect.objectContaining({
        ...{ ...common, name: 'pg1', host: hosts.addressOf('pg1'), role: 'primary', state: 'running' },
        ...{ upstream: null, slot: null, sync_state: null, lag_bytes: null, lag_seconds: null },
      }),
      ...['pg2', 'pg3'].map((name) =>
        expect.objectContaining({
          ...{ ...common, name, host: hosts.addressOf(name), role: 'standby', state: 'streaming' },
          ...{ upstream: 'pg1', slot: `shop_${name}`, sync_state: 'async' },
          ...{ lag_bytes: expect.any(Number), lag_seconds: expect.any(Number) },
        }),
      ),
    ])
    const human = await cluster.replctl(['status'])
    expect(human.exitCode).toBe(0)
    for (const word of ['pg1', 'primary', 'pg2', 'pg3', 'streaming']) expect(human.stdout).toContain(word)
  })

  it('is asked, proved and failed over whatever transactions are like by default', async () => {
    const setting = "default_transaction_isolation = 'serializable'\ndefault_transaction_read_only = on\n"
    for (const name of ['pg1', 'pg2', 'pg3']) {
      const dir = '/var/lib/postgresql/15/shop'
      await hosts.exec(name, `printf "${setting}" >> ${dir}/postgresql.auto.conf`, { user: 'postgres' })
      await hosts.exec(name, `/usr/lib/postgresql/15/bin/pg_ctl -D ${dir} reload`, { user: 'postgres' })
    }
    expect((await status()).json.problems).toEqual([])
    expect((await cluster.replctl(['verify', '--json'])).json.problems).toEqual([])
    await cluster.server('pg1').kill9()
    expect((await cluster.replctl(['promote', 'pg2', '--json'])).exitCode).toBe(0)
    expect(await writersNow(hosts)).toEqual(['pg2'])
  })

  it('has a role and a state for each situation', async () => {
    await cluster.server('pg2').sql('SELECT pg_wal_replay_pause()')
    await cluster.server('pg2').awaitSql('SELECT pg_is_wal_replay_paused()')
    await cluster.server('pg3').stop()
    told(await status()).toMatchObject({
      exit: 9,
      primary: 'pg1',
      nodes: ['pg1 primary running', 'pg2 standby paused', 'pg3 stopped stopped'],
      found: ['pg2 replay-paused', 'pg3 instance-stopped'],
    })
    await cluster.server('pg2').sql('SELECT pg_wal_replay_resume()')
    await hosts.cutLink('pg2', 'pg1')
    await cluster.server('pg1').sql("ALTER SYSTEM SET wal_sender_timeout = '1s'; SELECT pg_reload_conf()")
    await cluster.server('pg2').sql("ALTER SYSTEM SET wal_receiver_timeout = '1s'; SELECT pg_reload_conf()")
    await cluster
      .server('pg2')
      .awaitSql('SELECT count(*) = 0 FROM pg_stat_wal_receiver WHERE status = $$streaming$$')
    await cluster.server('pg1').awaitSql('SELECT count(*) = 0 FROM pg_stat_replication')
    await hosts.exec('pg3', ['find', cluster.server('pg3').dataDir, '-mindepth', '1', '-delete'])
    told(await status()).toMatchObject({
      exit: 9,
      primary: 'pg1',
      nodes: ['pg1 primary running', 'pg2 standby disconnected', 'pg3 empty stopped'],
      found: ['pg2 not-streaming', 'pg3 node-not-built'],
    })
    await cluster.server('pg1').stop()
    await hosts.powerOff('pg3')
    const lost = await status()
    told(lost).toMatchObject({
      exit: 9,
      primary: null,
      nodes: ['pg1 stopped stopped', 'pg2 standby disconnected', 'pg3 unknown unknown'],
    })
    expect(tell(lost).found).toEqual(
      expect.arrayContaining(['null no-primary', 'pg1 instance-stopped', 'pg3 host-unreachable']),
    )
    expect(JSON.stringify(lost.json.problems)).toContain('replctl promote')
  })

  it('with every host dead it answers in time, all of them unreachable', async () => {
    await Promise.all(hosts.names.map((host) => hosts.powerOff(host)))
    const dead = await status()
    told(dead).toMatchObject({ exit: 9, primary: null })
    expect(dead.json.result.nodes.map((one: { reachable: boolean }) => one.reachable)).toEqual([
      false,
      false,
      false,
    ])
    expect(dead.ms).toBeLessThan(11_000)
    // sshd answers nothing although the host is there: a different kind of silence.
    await restoreHosts(hosts)
    await Promise.all(hosts.names.map((host) => hosts.cutLink(host, 'control')))
    const silent = await status()
    told(silent).toMatchObject({ exit: 9, primary: null })
    expect(silent.ms).toBeLessThan(11_000)
  })

  it('an sshd that takes the connection and says nothing is unreachable in time, too', async () => {
    const sshd = await hosts.pids('pg3', '^sshd: .*listener')
    expect(sshd).toHaveLength(1)
    await hosts.kill('pg3', sshd[0]!, 'SIGSTOP')
    const seen = await status()
    await hosts.kill('pg3', sshd[0]!, 'SIGCONT')
    told(seen).toMatchObject({ exit: 9, primary: 'pg1', found: ['pg3 host-unreachable'] })
    expect(seen.ms).toBeLessThan(11_000)
  })

  it('two writers are listed, neither is called the primary, and no command makes it worse', async () => {
    await cluster.server('pg2').promote()
    const split = await status()
    told(split).toMatchObject({
      exit: 9,
      primary: null,
      nodes: ['pg1 primary running', 'pg2 primary running', expect.stringMatching(/^pg3 standby/)],
    })
    expect(tell(split).found).toContain('null two-writers')
    const before = await fingerprints(hosts)
    for (const words of [
      ['promote'],
      ['promote', 'pg3', '--allow-split-brain', '--allow-data-loss'],
      ['promote', 'pg2'],
      ['add-standby', 'pg3'],
      ['remove-standby', 'pg3'],
    ]) {
      const refused = await cluster.replctl([...words, '--json'])
      expect({ words, ...tell(refused) }).toMatchObject({ exit: 3, found: ['null two-writers'] })
    }
    expect(await fingerprints(hosts)).toEqual(before)
    expect(await writersNow(hosts)).toEqual(['pg1', 'pg2'])
    const human = await cluster.replctl(['status'])
    expect(human.stdout).toContain('TWO WRITERS')
  })

  it('of hosts that carry nothing yet it says how to begin', async () => {
    await emptyHosts(hosts)
    const empty = await status()
    told(empty).toMatchObject({
      exit: 9,
      primary: null,
      nodes: ['pg1 empty stopped', 'pg2 empty stopped', 'pg3 empty stopped'],
    })
    expect(JSON.stringify(empty.json.problems)).toContain('replctl init primary')
  })
})
