import { afterAll, beforeAll, expect, it } from 'vitest'
import { awaitCondition } from '../kit/await-condition.ts'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import type { StartedReplctl } from '../kit/replctl.ts'
import { TestCluster } from '../kit/test-cluster.ts'
import { TestHosts } from '../kit/test-hosts.ts'

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

  it('init primary: killed after each of its steps, the same command gets to the end', async () => {
    const steps = await appliedSteps(cluster, ['init', 'primary'])
    expect(steps).toBeGreaterThan(6)
    for (let k = 1; k <= steps; k += 1) {
      await forget(cluster, 'pg1')
      await killAt(cluster, ['init', 'primary'], (started) => doneSteps(started) >= k)
      await cluster.succeed(['init', 'primary'])
      await expectPrimary(cluster, `killed after step ${k}`)
    }
  })

  it('init primary: killed in the middle of each of its steps, resume gets to the end', async () => {
    await forget(cluster, 'pg1')
    const steps = await appliedSteps(cluster, ['init', 'primary'])
    for (let k = 1; k < steps; k += 1) {
      await forget(cluster, 'pg1')
      await killAt(cluster, ['init', 'primary'], async () => (await begunSteps(cluster, 'pg1')) >= k)
      await cluster.succeed(['resume'])
      await expectPrimary(cluster, `killed in step ${k}`)
    }
  })

  it('init primary: killed and aborted, nothing is left of it, and it can be done again', async () => {
    for (const k of [1, 2, 4, 6]) {
      await forget(cluster, 'pg1')
      await killAt(cluster, ['init', 'primary'], (started) => doneSteps(started) >= k)
      await cluster.succeed(['abort'])
      expect(await leftovers(cluster, 'pg1'), `aborted after step ${k}`).toEqual([])
      const again = await cluster.replctl(['resume', '--json'])
      expect([again.exitCode, again.json.problems[0].code]).toEqual([3, 'nothing-to-resume'])
    }
    await cluster.init()
  })

  it('add-standby: killed after each of its steps, the same command gets to the end', async () => {
    await cluster.server('pg1').sql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS n')
    const steps = await appliedSteps(cluster, ['add-standby', 'pg2'])
    expect(steps).toBeGreaterThan(6)
    for (let k = 1; k <= steps; k += 1) {
      await cluster.succeed(['remove-standby', 'pg2', '--purge'])
      await forget(cluster, 'pg2')
      await killAt(cluster, ['add-standby', 'pg2'], (started) => doneSteps(started) >= k)
      await cluster.succeed(['add-standby', 'pg2'])
      await expectStandby(cluster, `killed after step ${k}`)
    }
  })

  it('add-standby: killed in the middle of each of its steps, resume gets to the end', async () => {
    for (let k = 1; ; k += 1) {
      await cluster.succeed(['remove-standby', 'pg2', '--purge'])
      await forget(cluster, 'pg2')
      const wasKilled = await killAt(
        cluster,
        ['add-standby', 'pg2'],
        async () => (await begunSteps(cluster, 'pg1')) >= k,
      )
      if (!wasKilled) break
      await cluster.succeed(['resume'])
      await expectStandby(cluster, `killed in step ${k}`)
      if (k > 20) throw new Error('more steps than expected')
    }
  })

  it('add-standby: killed and aborted, the primary is as before and the standby host is empty', async () => {
    for (const k of [1, 2, 4, 6, 8, 10]) {
      await cluster.succeed(['remove-standby', 'pg2', '--purge'])
      await forget(cluster, 'pg2')
      const wasKilled = await killAt(cluster, ['add-standby', 'pg2'], (started) => doneSteps(started) >= k)
      if (!wasKilled) break
      const aborted = await cluster.succeed(['abort'])
      expect(aborted.json.changed).toBe(true)
      expect(await leftovers(cluster, 'pg2'), `aborted after step ${k}`).toEqual([])
      expect(await slots(cluster)).toBe('')
    }
    await cluster.succeed(['add-standby', 'pg2'])
    await expectStandby(cluster, 'after all aborts')
  })
})

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
    everyMs: 2,
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
  const names = ['node.json', 'cluster.json', 'pgpass', 'journal', 'holder', 'job-base-backup', 'postgresql.conf.new']
  const script = 'data=$1; shift; ls -A -- "$data" 2>/dev/null; for file; do [ -e "$file" ] && echo "$file"; done; :'
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
  expect(await pg1.sqlValue("SELECT rolreplication FROM pg_roles WHERE rolname = 'replicator'"), when).toBe(true)
  expect(await begunSteps(cluster, 'pg1'), when).toBe(0)
  const again = await cluster.succeed(['init', 'primary'])
  expect(again.json.changed, when).toBe(false)
}

async function expectStandby(cluster: TestCluster, when: string): Promise<void> {
  await cluster.server('pg1').awaitStreaming('pg2')
  expect(await cluster.server('pg2').sqlValue('SELECT count(*) FROM t'), when).toBe(1000)
  expect(
    await cluster.server('pg1').sql('SELECT slot_name, active FROM pg_replication_slots'),
    when,
  ).toEqual([{ slot_name: 'replctl_shop_pg2', active: true }])
  expect(await begunSteps(cluster, 'pg1'), when).toBe(0)
  const { stdout } = await cluster.hosts.exec('pg2', ['ls', stateDir])
  expect(stdout.split('\n'), when).not.toContain('job-base-backup')
  const again = await cluster.succeed(['add-standby', 'pg2'])
  expect(again.json.changed, when).toBe(false)
}
