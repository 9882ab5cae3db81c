import { afterAll, beforeAll, expect, it } from 'vitest'
import { awaitCondition } from '../kit/await-condition.ts'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import type { StartedReplctl } from '../kit/replctl.ts'
import { TestCluster } from '../kit/test-cluster.ts'
import { TestHosts } from '../kit/test-hosts.ts'
import { killAfter } from './kill-after.ts'

const stateDir = '/var/lib/postgresql/.replctl/shop'
const dataDir = '/var/lib/postgresql/15/shop'

describeOnHosts('an operation that was killed', () => {
  let hosts: TestHosts
  let cluster: TestCluster

  beforeAll(async () => {
    hosts = await TestHosts.create({ hosts: [{ name: 'pg1' }, { name: 'pg2', login: 'admin' }] })
    cluster = await TestCluster.create(hosts)
  })
  afterAll(() => hosts?.destroy())

  it('init primary gets to the end after a kill in any of its steps, by the same command or by resume', async () => {
    const steps = await appliedSteps(cluster, ['init', 'primary'])
    expect(steps).toBeGreaterThan(6)
    let kills = 0
    for (let k = 1; k <= steps; k += 1) {
      await forget(cluster, 'pg1')
      const isMoment = k % 2 === 0 ? begun(cluster, k) : done(k)
      const wasKilled = await killAt(cluster, ['init', 'primary'], isMoment)
      if (wasKilled) kills += 1
      await cluster.succeed(wasKilled && k % 2 === 0 ? ['resume'] : ['init', 'primary'])
      await expectPrimary(cluster, `killed at step ${k}`)
    }
    // Only in the last steps may it be quicker than the kill.
    expect(kills).toBeGreaterThan(steps / 2)
    expect((await cluster.succeed(['init', 'primary'])).json.changed).toBe(false)
  })

  it('init primary that was killed and aborted leaves nothing, but what is built is never deleted', async () => {
    for (const k of [1, 5]) {
      await forget(cluster, 'pg1')
      expect(await killAt(cluster, ['init', 'primary'], done(k))).toBe(true)
      await cluster.succeed(['abort'])
      expect(await leftovers(cluster, 'pg1'), `aborted after step ${k}`).toEqual([])
    }
    const nothing = await cluster.replctl(['resume', '--json'])
    expect([nothing.exitCode, nothing.json.problems[0].code]).toEqual([3, 'nothing-to-resume'])
    await killAfter(cluster, ['init', 'primary'], /mark the node as built/)
    const refused = await cluster.replctl(['abort', '--json'])
    expect([refused.exitCode, refused.json.problems[0].code]).toEqual([3, 'cannot-abort'])
    await cluster.succeed(['resume'])
    await expectPrimary(cluster, 'after the abort that was refused')
  })

  it('add-standby gets to the end after a kill in any of its steps, by the same command or by resume', async () => {
    await cluster.server('pg1').sql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS n')
    const steps = await appliedSteps(cluster, ['add-standby', 'pg2'])
    expect(steps).toBeGreaterThan(6)
    let kills = 0
    for (let k = 1; k <= steps; k += 1) {
      await forgetStandby(cluster)
      const isMoment = k % 2 === 0 ? begun(cluster, k) : done(k)
      const wasKilled = await killAt(cluster, ['add-standby', 'pg2'], isMoment)
      if (wasKilled) kills += 1
      await cluster.succeed(wasKilled && k % 2 === 0 ? ['resume'] : ['add-standby', 'pg2'])
      await expectStandby(cluster, `killed at step ${k}`)
    }
    expect(kills).toBeGreaterThan(steps / 2)
    expect((await cluster.succeed(['add-standby', 'pg2'])).json.changed).toBe(false)
  })

  it('add-standby that was killed and aborted leaves no slot, no clone and no password', async () => {
    // Early enough that steps are left when the signal arrives, also on a quick machine.
    for (const k of [2, 4, 6]) {
      await forgetStandby(cluster)
      expect(await killAt(cluster, ['add-standby', 'pg2'], done(k))).toBe(true)
      expect((await cluster.succeed(['abort'])).json.changed).toBe(true)
      expect(await leftovers(cluster, 'pg2'), `aborted after step ${k}`).toEqual([])
      expect(await slots(cluster)).toBe('')
    }
  })

  it('resume that is refused forgets nothing: abort still takes all of it back', async () => {
    await forgetStandby(cluster)
    expect(await killAt(cluster, ['add-standby', 'pg2'], done(4))).toBe(true)
    await cluster.hosts.exec('pg2', ['mv', '/usr/lib/postgresql/15/bin/psql', '/root/psql'])
    const refused = await cluster.replctl(['resume', '--json'])
    await cluster.hosts.exec('pg2', ['mv', '/root/psql', '/usr/lib/postgresql/15/bin/psql'])
    expect([refused.exitCode, refused.json.problems[0].code]).toEqual([6, 'binaries-missing'])
    await cluster.succeed(['abort'])
    expect(await leftovers(cluster, 'pg2')).toEqual([])
    expect(await slots(cluster)).toBe('')
  })
})

const done = (k: number) => (started: StartedReplctl) => doneSteps(started) >= k
const begun = (cluster: TestCluster, k: number) => async () => (await begunSteps(cluster, 'pg1')) >= k

/** Takes the standby away behind replctl's back. */
async function forgetStandby(cluster: TestCluster): Promise<void> {
  await forget(cluster, 'pg2')
  await cluster.hosts.exec('pg1', ['rm', '-f', `${stateDir}/journal`])
  await cluster.server('pg1').awaitSql('SELECT count(*) = 0 FROM pg_replication_slots WHERE active')
  await cluster.server('pg1').sql('SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots')
}

/** Runs a command to its end and gives the number of steps that it applied. */
async function appliedSteps(cluster: TestCluster, args: readonly string[]): Promise<number> {
  const { json } = await cluster.succeed(args)
  return json.result.steps.filter((step: { state: string }) => step.state === 'applied').length
}

/** Kills replctl as soon as the condition holds; false where it had ended by itself before. */
async function killAt(
  cluster: TestCluster,
  args: readonly string[],
  isMoment: (started: StartedReplctl) => boolean | Promise<boolean>,
): Promise<boolean> {
  const started = cluster.startReplctl(args)
  let hasEnded = false
  const ended = started.finished.then((end) => {
    hasEnded = true
    return end
  })
  await awaitCondition('the moment to kill', async () => hasEnded || (await isMoment(started)), {
    timeoutMs: 60_000,
    everyMs: 10,
  })
  started.kill()
  const { exitCode, signal } = await ended
  if (exitCode !== null && exitCode !== 0) throw new Error(`it failed by itself: ${started.stderr()}`)
  return signal === 'SIGKILL'
}

const doneSteps = (started: StartedReplctl): number => started.stderr().match(/^✓/gm)?.length ?? 0

/** Steps that the journal on a node says were begun. */
async function begunSteps(cluster: TestCluster, host: string): Promise<number> {
  const { stdout } = await cluster.hosts.exec(host, ['cat', `${stateDir}/journal`], { check: false })
  return stdout === '' ? 0 : JSON.parse(stdout).begun.length
}

/** Makes a host one that never had PostgreSQL running. */
async function forget(cluster: TestCluster, host: string): Promise<void> {
  await cluster.server(host).kill9()
  await cluster.hosts.exec(host, ['rm', '-rf', dataDir, stateDir])
}

/** What of an operation still lies on a host. */
async function leftovers(cluster: TestCluster, host: string): Promise<string[]> {
  const names = ['node.json', 'cluster.json', 'pgpass', 'journal', 'holder', 'job-base-backup', 'tablespaces']
  const script =
    'data=$1; shift; ls -A -- "$data" 2>/dev/null; for file; do [ -e "$file" ] && echo "$file"; done; :'
  const files = names.map((name) => `${stateDir}/${name}`)
  const { stdout } = await cluster.hosts.exec(host, ['sh', '-c', script, 'sh', dataDir, ...files])
  const running = await cluster.hosts.pids(host, 'postgres -D|pg_basebackup')
  return [...stdout.split('\n').filter(Boolean), ...running.map((pid) => `process ${pid}`)]
}

const slots = (cluster: TestCluster) =>
  cluster.server('pg1').sqlValue("SELECT coalesce(string_agg(slot_name, ','), '') FROM pg_replication_slots")

async function expectPrimary(cluster: TestCluster, when: string): Promise<void> {
  const pg1 = cluster.server('pg1')
  expect(await pg1.isInRecovery(), when).toBe(false)
  expect(await pg1.sqlValue('SHOW data_checksums'), when).toBe('on')
  expect(await pg1.sqlValue("SELECT rolreplication FROM pg_roles WHERE rolname = 'replicator'"), when).toBe(
    true,
  )
  expect(await begunSteps(cluster, 'pg1'), when).toBe(0)
}

async function expectStandby(cluster: TestCluster, when: string): Promise<void> {
  await cluster.server('pg1').awaitStreaming('shop_pg2')
  expect(await cluster.server('pg2').sqlValue('SELECT count(*) FROM t'), when).toBe(1000)
  expect(await cluster.server('pg1').sql('SELECT slot_name, active FROM pg_replication_slots'), when).toEqual(
    [{ slot_name: 'shop_pg2', active: true }],
  )
  expect(await begunSteps(cluster, 'pg1'), when).toBe(0)
  const { stdout } = await cluster.hosts.exec('pg2', ['ls', stateDir])
  expect(stdout.split('\n'), when).not.toContain('job-base-backup')
}
