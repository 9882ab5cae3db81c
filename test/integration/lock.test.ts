import { execFileSync } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { restoreHosts, saveHosts } from '../kit/empty-hosts.ts'
import {
  awaitCondition,
  type ReplctlResult,
  type StartedReplctl,
  TestCluster,
  TestHosts,
} from '../kit/index.ts'
import { fingerprints, openToControlHost, WriterWatch, writersNow } from '../kit/observe.ts'

describeOnHosts('P-51: one operation at a time', () => {
  let hosts: TestHosts
  let cluster: TestCluster
  const nodes = ['pg1', 'pg2', 'pg3']

  beforeAll(async () => {
    // A control host of its own that can lose its power; its replctl is this one.
    hosts = await TestHosts.create({ hosts: [...nodes, 'ops'].map((name) => ({ name })) })
    cluster = await TestCluster.create(hosts, { inventory: openToControlHost, nodes })
    await cluster.init()
    await cluster.addStandbys(['pg2'])
    await cluster
      .server('pg1')
      .sql('CREATE TABLE filler AS SELECT repeat(md5(i::text), 30) AS t FROM generate_series(1, 30000) i')
    await saveHosts(hosts)
  })
  afterAll(() => hosts?.destroy())
  const started: StartedReplctl[] = []
  afterEach(() => {
    for (const one of started.splice(0)) one.kill('SIGKILL')
  })
  beforeEach(async () => {
    await hosts.limitLink('pg3', undefined)
    await restoreHosts(hosts)
    await cluster
      .server('pg2')
      .awaitSql("SELECT count(*) = 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'")
  })

  const tell = ({ exitCode, json }: ReplctlResult) => ({
    exit: exitCode,
    changed: json?.changed,
    found: json?.problems.map((one: { node: string; code: string }) => one.code),
  })
  /** As `expect`, with replctl's own words where it fails. */
  const told = (result: ReplctlResult) =>
    expect(tell(result), `${JSON.stringify(result.json?.problems)}\n${result.stderr}`)
  const promote = (...args: string[]) => cluster.replctl(['promote', 'pg2', ...args, '--json'])
  /** Nodes whose lock somebody holds: the kernel is asked. */
  const heldOn = async () => {
    const lock = '/var/lib/postgresql/.replctl/shop/lock'
    const script = `[ ! -e ${lock} ] || flock -n -E 99 ${lock} true`
    const held = await Promise.all(
      nodes.map(async (node) => {
        const { exitCode, stderr } = await hosts.exec(node, script, { user: 'postgres', check: false })
        if (exitCode !== 0 && exitCode !== 99) throw new Error(`${node}: ${stderr}`)
        return exitCode === 99 ? [node] : []
      }),
    )
    return held.flat()
  }
  const awaitFree = (timeoutMs: number) =>
    awaitCondition('the lock is free', async () => (await heldOn()).length === 0, { timeoutMs })
  /** Seen by the server: a pg_basebackup process on pg3 may be one that only tells its version. */
  const isCloning = async () =>
    (await cluster
      .server('pg1')
      .sqlValue("SELECT count(*) > 0 FROM pg_stat_replication WHERE state = 'backup'")) === true

  /** A slow add-standby: its base backup trickles. */
  async function startSlowClone() {
    await hosts.limitLink('pg3', '4mbit')
    const slow = cluster.startReplctl(['add-standby', 'pg3'])
    started.push(slow)
    await awaitCondition('the base backup runs', isCloning, { timeoutMs: 60_000 })
    expect(await heldOn()).toEqual(nodes)
    return slow
  }

  it('a second command is told who holds the cluster, and changes nothing; looking works; a killed holder frees it at once', async () => {
    const slow = await startSlowClone()
    const before = await fingerprints(hosts, ['pg1', 'pg2'])
    const second = await promote('--allow-split-brain')
    told(second).toMatchObject({ exit: 8, changed: false, found: ['locked'] })
    const [problem] = second.json.problems
    expect(`${problem.message} ${problem.detail}`).toMatch(
      new RegExp(
        `\\w+@\\S+ \\(pid ${slow.child.pid}\\).*"replctl add-standby pg3" since \\d{4}-\\d\\d-\\d\\dT`,
      ),
    )
    expect(await fingerprints(hosts, ['pg1', 'pg2'])).toEqual(before)
    const status = await cluster.replctl(['status', '--json'])
    expect(status.json.result).toMatchObject({ primary: 'pg1' })
    expect(await cluster.replctl(['verify', 'pg2', '--json']).then(tell)).toMatchObject({ exit: 0 })
    told(await promote('--dry-run', '--allow-split-brain')).toMatchObject({ exit: 0 })

    slow.kill('SIGKILL')
    await slow.finished
    const killedAt = performance.now()
    await hosts.limitLink('pg3', undefined)
    told(await cluster.replctl(['add-standby', 'pg3', '--json'])).toMatchObject({ exit: 0 })
    expect(performance.now() - killedAt).toBeLessThan(60_000)
    told(await cluster.replctl(['verify', '--json'])).toMatchObject({ exit: 0, found: [] })
  })

  it('two promotions that start at the same instant: one wins, the other leaves, and there is one writer', async () => {
    await cluster.server('pg1').kill9()
    const watch = new WriterWatch(hosts, nodes)
    const both = await Promise.all([promote(), promote(), cluster.replctl(['promote', '--json'])])
    const exits = both.map((one) => one.exitCode).toSorted()
    expect(exits).toContain(0)
    for (const one of both) {
      if (one.json?.changed === false && one.exitCode === 0) continue // It waited, and found it done.
      if (one.exitCode !== 0) expect([3, 8], one.stdout).toContain(one.exitCode)
    }
    expect(both.filter((one) => one.json?.changed === true)).toHaveLength(1)
    expect(await watch.stop()).toEqual([])
    expect(await writersNow(hosts, nodes)).toEqual(['pg2'])
    await awaitFree(10_000)
  })

  it('a holder that is only stopped loses the cluster within 60 s, and does no more harm when it goes on', async () => {
    const slow = await startSlowClone()
    slow.kill('SIGSTOP')
    await awaitFree(60_000)
    told(await promote('--allow-split-brain')).toMatchObject({ exit: 0, changed: true })
    slow.kill('SIGCONT')
    expect((await slow.finished).exitCode).not.toBe(0)
    expect(await writersNow(hosts, nodes)).toEqual(['pg2'])
  })

  it('when the machine of the holder loses its power, the lock dies within 60 s', async () => {
    // Folders such as /root and /tmp are the host's own: what it shall run is brought there.
    const root = fileURLToPath(new URL('../..', import.meta.url))
    const parts = ['bin', 'dist', 'templates', 'package.json']
    const input = execFileSync('tar', ['cf', '-', '-C', root, ...parts], { maxBuffer: 100_000_000 })
    await hosts.exec('ops', 'mkdir -p /srv/replctl && tar xf - -C /srv/replctl', { input })
    await hosts.writeFile('ops', '/srv/node', await readFile(process.execPath), { mode: 0o755 })
    const text = (await readFile(cluster.inventoryFile, 'utf8')).replaceAll(hosts.directory, '/srv')
    await hosts.writeFile('ops', '/srv/replctl.yaml', text)
    await hosts.writeFile('ops', '/srv/known_hosts', await readFile(hosts.knownHostsFile, 'utf8'))
    await hosts.writeFile('ops', '/srv/id_ed25519', await readFile(hosts.identityFile, 'utf8'), {
      mode: 0o600,
    })
    await hosts.limitLink('pg3', '4mbit')
    const argv = [
      '/srv/node',
      '/srv/replctl/bin/replctl',
      'add-standby',
      'pg3',
      '--config',
      '/srv/replctl.yaml',
    ]
    const env = { PATH: '/usr/bin:/bin', HOME: '/srv' }
    const running = hosts.exec('ops', argv, { env, check: false }).catch((error: Error) => error)
    try {
      await awaitCondition('the base backup runs', isCloning, { timeoutMs: 60_000 })
    } catch (error) {
      throw new Error(JSON.stringify(await running), { cause: error })
    }
    await hosts.powerOff('ops')
    const offAt = performance.now()
    const waited = await promote('--allow-split-brain', '--timeout', '90s')
    told(waited).toMatchObject({ exit: 0, changed: true })
    expect(performance.now() - offAt).toBeLessThan(75_000)
    await running
    expect(await writersNow(hosts, nodes)).toEqual(['pg2'])
  })
})
