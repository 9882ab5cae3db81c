import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { awaitCondition, TestCluster, TestHosts } from '../kit/index.ts'
import { openToControlHost, WriterWatch, writersNow } from '../kit/observe.ts'

const dataDir = '/var/lib/postgresql/15/shop'
const configDir = '/etc/postgresql/15/shop'
const state = '/var/lib/postgresql/.replctl/shop'
const logFile = '/var/log/postgresql/postgresql-15-shop.log'
const guarded = `${state}/guarded-postgres`
const ownOptions = `# pg_ctl waits as long as it takes, says the DBA\npg_ctl_options = '-t 3600'\n`

describeOnHosts('P-43: the start guard on Debian’s layout', () => {
  let hosts: TestHosts
  let cluster: TestCluster
  let builtProblems: readonly unknown[]

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [{ name: 'pg1', login: 'admin' }, { name: 'pg2' }, { name: 'pg3', login: 'root' }],
    })
    for (const host of hosts.names) {
      await hosts.exec(host, 'pg_createcluster 15 shop >/dev/null')
      await hosts.writeFile(host, `${configDir}/pg_ctl.conf`, ownOptions, { owner: 'postgres' })
    }
    await hosts.exec('pg1', 'service postgresql start')
    for (const host of ['pg2', 'pg3']) await hosts.exec(host, `find ${dataDir} -mindepth 1 -delete`)
    cluster = await TestCluster.create(hosts, {
      inventory: { ...openToControlHost, fence: { command: 'exit 0' } },
    })
    const adopted = await cluster.succeed(['init', 'primary', 'pg1', '--adopt', '--yes'])
    const added = await cluster.addStandbys()
    builtProblems = [...adopted.json.problems, ...added.json.problems]
    await cluster.server('pg1').sql('CREATE TABLE ledger (id bigint)')
    const save =
      'pg_ctlcluster 15 shop stop && cp -a /var/lib/postgresql /data/lib && cp -a /etc/postgresql /data/etc'
    for (const host of hosts.names) await hosts.exec(host, save)
  })
  afterAll(() => hosts?.destroy())

  /** All hosts on, with what was built on them and empty logs; nothing runs. */
  beforeEach(async () => {
    const restore = `
for entry in /proc/[0-9]*; do
  case $(cat "$entry/comm") in postgres*|pg_*|start-guard|guarded*|psql) kill -KILL "\${entry#/proc/}" ;; esac
done 2>/dev/null
rm -rf /var/run/postgresql/.s.PGSQL.* /dev/shm/PostgreSQL.*
find /var/lib/postgresql /etc/postgresql -mindepth 1 -delete
truncate -c -s 0 ${logFile}
cp -a /data/lib/. /var/lib/postgresql; cp -a /data/etc/. /etc/postgresql`
    await Promise.all(
      hosts.names.map(async (host) => {
        await hosts.powerOn(host)
        await hosts.restoreLink(host)
        await hosts.startSshd(host)
        await hosts.exec(host, restore)
      }),
    )
  })

  /** As the host's init does at boot. Its answer is only that of the last instance. */
  const startService = (host: string) =>
    hosts.exec(host, 'service postgresql start', { check: false, timeoutMs: 120_000 })
  /** Without the service, which takes its time, and without the guard. */
  const startByHand = (host: string) => {
    const start = `/usr/lib/postgresql/15/bin/pg_ctl start -s -w -D ${dataDir} -l ${dataDir}.log -o '-c config_file=${configDir}/postgresql.conf'`
    return hosts.exec(host, `${start} </dev/null >/dev/null 2>&1`, { user: 'postgres' })
  }
  const startAll = async () => {
    await Promise.all(hosts.names.map(startByHand))
    for (const standby of ['pg2', 'pg3']) await cluster.server('pg1').awaitStreaming(`shop_${standby}`)
  }
  const boot = async (host: string) => {
    await hosts.powerOn(host)
    return await startService(host)
  }
  const log = (host: string) => hosts.readFile(host, logFile)
  const codesOf = (json: { problems: { code: string; node?: string }[] }, node: string) =>
    json.problems.flatMap((one) => (one.node === node ? [one.code] : []))

  it('the service runs it, the operator’s options stay, and doctor has it ask for real', async () => {
    expect(builtProblems).toEqual([])
    for (const host of hosts.names) {
      const text = await hosts.readFile(host, `${configDir}/pg_ctl.conf`)
      expect(text.startsWith(ownOptions)).toBe(true)
      expect(text).toContain(`\npg_ctl_options = '-t 3600 -p ${guarded}'\n`)
      const { stdout } = await hosts.exec(
        host,
        `stat -c '%a %U' ${configDir}/pg_ctl.conf ${guarded} ${state}`,
      )
      expect(stdout).toBe('644 postgres\n700 postgres\n700 postgres\n')
    }
    await startAll()
    const doctor = await cluster.replctl(['doctor', '--json'])
    const checks = doctor.json.result.checks.filter((one: { check: string }) => one.check === 'start-guard')
    expect(checks).toHaveLength(3)
    for (const check of checks) expect(check).toMatchObject({ ok: true })
    expect(JSON.stringify(checks[0])).toContain(
      'pg2 is a standby on timeline 1, pg3 is a standby on timeline 1',
    )
    expect(JSON.stringify(checks[1])).toContain('pg1 is a primary on timeline 1')
    // The hosts were put back from a copy: that the folders are others now is marked once.
    await cluster.succeed(['add-standby', 'pg2', 'pg3'])
    for (const words of [
      ['init', 'primary', 'pg1'],
      ['add-standby', 'pg2', 'pg3'],
    ]) {
      const { json } = await cluster.replctl([...words, '--json'])
      const applied = json.result.steps.filter((one: { state: string }) => one.state === 'applied')
      expect({ words, changed: json.changed, applied }).toEqual({ words, changed: false, applied: [] })
    }
  })

  it('a healthy primary comes back by a restart and by a reboot', async () => {
    await startAll()
    await hosts.exec('pg1', 'pg_ctlcluster 15 shop restart')
    expect(await writersNow(hosts)).toEqual(['pg1'])
    await hosts.powerOff('pg1')
    await boot('pg1')
    expect(await writersNow(hosts)).toEqual(['pg1'])
    await cluster.server('pg1').awaitStreaming('shop_pg2')
    expect((await hosts.exec('pg1', 'pg_lsclusters -h')).stdout).toMatch(/^15\s+shop\s+5432\s+online/)
  })

  it('a primary whose host was off while another node took over is fenced at its boot, and status has the way back', async () => {
    await startAll()
    await cluster.server('pg1').sql('INSERT INTO ledger VALUES (1)')
    await hosts.powerOff('pg1')
    const promoted = await cluster.replctl(['promote', 'pg2', '--json'])
    expect(promoted.exitCode, promoted.stdout).toBe(0)
    // Nothing is to be said of a start guard that is known to be there.
    expect(promoted.json.problems.map((one: { code: string }) => one.code)).toEqual(['host-unreachable'])
    const watch = new WriterWatch(hosts)
    await boot('pg1')
    expect(await writersNow(hosts)).toEqual(['pg2'])
    expect(await cluster.server('pg1').isRunning()).toBe(false)
    expect(await log('pg1')).toMatch(
      /pg1 must not start as a primary: pg2 is a primary on timeline 2 of cluster shop/,
    )
    expect(await log('pg1')).toContain('replctl rejoin pg1')
    expect(JSON.parse(await hosts.readFile('pg1', `${state}/fenced.json`))).toMatchObject({
      newPrimary: 'pg2',
      timeline: 1,
      wasRunning: false,
    })
    const status = await cluster.replctl(['status', '--json'])
    expect(status.exitCode).toBe(9)
    expect(status.json.result.nodes[0]).toMatchObject({ name: 'pg1', role: 'fenced', state: 'stopped' })
    expect(codesOf(status.json, 'pg1')).toEqual(['node-fenced'])
    // By hand and by its service it is a standby from now on, whoever starts it.
    await startByHand('pg1')
    expect(await cluster.server('pg1').isInRecovery()).toBe(true)
    await cluster.server('pg1').stop()
    await hosts.exec('pg1', 'pg_ctlcluster 15 shop start', { check: false })
    expect(await cluster.server('pg1').isInRecovery()).toBe(true)
    await hosts.exec('pg1', 'pg_ctlcluster 15 shop stop')
    const back = await cluster.replctl(['rejoin', 'pg1', '--json'])
    expect(back.exitCode, back.stdout).toBe(0)
    await cluster.server('pg2').awaitStreaming('shop_pg1')
    expect((await hosts.exec('pg1', ['ls', state])).stdout).not.toContain('fenced.json')
    // Healthy again, its service starts it without asking anybody.
    await hosts.exec('pg1', 'pg_ctlcluster 15 shop restart')
    await cluster.server('pg2').awaitStreaming('shop_pg1')
    expect(await watch.stop()).toEqual([])
    expect(await writersNow(hosts)).toEqual(['pg2'])
    expect(await hosts.readFile('pg1', `${configDir}/pg_ctl.conf`)).toContain(guarded)
  })

  it('also where only a standby of the new primary answers', async () => {
    await startAll()
    await hosts.powerOff('pg1')
    expect((await cluster.replctl(['promote', 'pg2', '--json'])).exitCode).toBe(0)
    await hosts.powerOff('pg2')
    await boot('pg1')
    expect(await writersNow(hosts, ['pg1', 'pg3'])).toEqual([])
    expect(await log('pg1')).toContain('pg3 is a standby on timeline 2')
    expect(await hosts.exec('pg1', ['test', '-f', `${dataDir}/standby.signal`])).toMatchObject({
      exitCode: 0,
    })
    // The new primary comes back by its own service: the standby that follows it bears it out.
    await boot('pg2')
    expect(await writersNow(hosts)).toEqual(['pg2'])
  })

  it('after a power cut of the whole site the primary waits for the first of the others, and leads again', async () => {
    await startAll()
    await Promise.all(hosts.names.map((host) => hosts.powerOff(host)))
    await hosts.powerOn('pg1')
    const starting = startService('pg1')
    await awaitCondition('the guard waits', async () => (await log('pg1')).includes('waits up to'), {
      timeoutMs: 30_000,
    })
    expect(await writersNow(hosts, ['pg1'])).toEqual([])
    await boot('pg3')
    await boot('pg2')
    await starting
    await awaitCondition('pg1 leads', async () => (await writersNow(hosts)).join() === 'pg1', {
      timeoutMs: 60_000,
    })
    await cluster.server('pg1').awaitStreaming('shop_pg2')
  })

  it('cut off from all others it refuses to lead, until the operator says that none has taken over', async () => {
    await startAll()
    await hosts.powerOff('pg1')
    await hosts.cutLink('pg1')
    await hosts.powerOn('pg1')
    await hosts.exec('pg1', `sed -i 's/ limit=[0-9]*/ limit=2/' ${state}/start-guard`)
    const refused = await startService('pg1')
    expect(refused.stdout + refused.stderr).toContain('too few of the other nodes answer')
    expect(await writersNow(hosts, ['pg1'])).toEqual([])
    expect((await hosts.exec('pg1', ['ls', dataDir])).stdout).not.toContain('standby.signal')
    await hosts.exec('pg1', [`${state}/start-guard`, '--allow-once'], { user: 'postgres' })
    await startService('pg1')
    expect(await writersNow(hosts, ['pg1'])).toEqual(['pg1'])
    // It was good for one start.
    await hosts.exec('pg1', 'pg_ctlcluster 15 shop stop')
    await startService('pg1')
    expect(await writersNow(hosts, ['pg1'])).toEqual([])
  })

  it('another that accepts writes is named, and permission to start does not override it', async () => {
    await startAll()
    await hosts.exec('pg1', 'pg_ctlcluster 15 shop stop')
    await cluster.server('pg3').promote()
    await hosts.exec('pg1', [`${state}/start-guard`, '--allow-once'], { user: 'postgres' })
    await startService('pg1')
    expect(await writersNow(hosts)).toEqual(['pg3'])
    expect(await log('pg1')).toContain('pg3 is a primary on timeline 2')
  })

  it('remove-standby takes the guard out of the service and leaves the operator’s options as they were', async () => {
    await startAll()
    expect((await cluster.replctl(['remove-standby', 'pg3', '--json'])).exitCode).toBe(0)
    expect(await hosts.readFile('pg3', `${configDir}/pg_ctl.conf`)).toBe(ownOptions)
    expect((await hosts.exec('pg3', ['ls', state])).stdout).not.toMatch(/guard/)
    expect(await hosts.readFile('pg1', `${state}/start-guard`)).not.toContain(hosts.addressOf('pg3'))
    expect(await hosts.readFile('pg2', `${state}/start-guard`)).not.toContain(hosts.addressOf('pg3'))
    expect((await cluster.replctl(['add-standby', 'pg3', '--json'])).exitCode).toBe(0)
    expect(await hosts.readFile('pg3', `${configDir}/pg_ctl.conf`)).toContain(guarded)
    expect(await hosts.readFile('pg1', `${state}/start-guard`)).toContain(hosts.addressOf('pg3'))
  })
})

describeOnHosts('the start guard where no packaged service, or a systemd unit, starts the server', () => {
  let hosts: TestHosts
  let cluster: TestCluster
  const dropIn = '/etc/systemd/system/postgresql-15.service.d/replctl-shop.conf'
  const unit = `[Service]\nType=notify\nUser=postgres\nEnvironment=PGDATA=${dataDir}/\nExecStart=/usr/lib/postgresql/15/bin/postgres -D $PGDATA\n`
  /** What systemd does with such a unit: ExecStartPre, then ExecStart. */
  const startUnit = (host: string) =>
    hosts.exec(
      host,
      `sh ${state}/start-guard && exec /usr/lib/postgresql/15/bin/pg_ctl start -s -w -D ${dataDir} -l ${dataDir}.log </dev/null >/dev/null 2>&1`,
      { user: 'postgres', check: false },
    )

  beforeAll(async () => {
    hosts = await TestHosts.create({ hosts: [{ name: 'pg1', login: 'admin' }, { name: 'pg2' }] })
    await hosts.writeFile('pg1', '/etc/systemd/system/postgresql-15.service', unit)
    cluster = await TestCluster.create(hosts, {
      inventory: { ...openToControlHost, fence: { command: 'exit 0' } },
    })
    await cluster.init()
    await cluster.addStandbys()
  })
  afterAll(() => hosts?.destroy())

  it('a unit that names the data directory gets a drop-in; where nothing starts the server, doctor says so', async () => {
    expect(await hosts.readFile('pg1', dropIn)).toContain(`ExecStartPre=/bin/sh "${state}/start-guard"\n`)
    expect((await hosts.exec('pg1', ['stat', '-c', '%a %U', dropIn])).stdout).toBe('644 root\n')
    expect((await cluster.replctl(['add-standby', 'pg2', '--json'])).json).toMatchObject({ changed: false })
    const doctor = await cluster.replctl(['doctor', '--json'])
    const found = doctor.json.problems.filter((one: { code: string }) => one.code === 'start-guard-missing')
    expect(found.map((one: { node: string }) => one.node)).toEqual(['pg2'])
    expect(doctor.exitCode).toBe(0)
  })

  it('promote says that nothing guards the old primary, or nothing where something does', async () => {
    await hosts.powerOff('pg1')
    const promoted = await cluster.replctl(['promote', 'pg2', '--json'])
    expect(promoted.exitCode, promoted.stdout).toBe(0)
    expect(promoted.json.problems.map((one: { code: string }) => one.code)).toEqual(['host-unreachable'])
    await hosts.powerOn('pg1')
    const refused = await startUnit('pg1')
    expect(refused.exitCode).toBe(1)
    expect(refused.stderr).toContain('pg2 is a primary on timeline 2')
    expect(await writersNow(hosts)).toEqual(['pg2'])
    expect((await cluster.replctl(['rejoin', 'pg1', '--json'])).exitCode).toBe(0)
    await hosts.powerOff('pg2')
    const back = await cluster.replctl(['promote', 'pg1', '--json'])
    expect(back.exitCode, back.stdout).toBe(0)
    expect(back.json.problems.map((one: { code: string }) => one.code).toSorted()).toEqual([
      'host-unreachable',
      'start-guard-missing',
    ])
    // An operator's own script that uses pg_ctl -p is as safe as a service.
    await hosts.powerOn('pg2')
    const byHand = `/usr/lib/postgresql/15/bin/pg_ctl start -w -D ${dataDir} -l ${dataDir}.log -p ${guarded}`
    const own = await hosts.exec('pg2', byHand, { user: 'postgres', check: false })
    expect(own.exitCode).toBe(1)
    expect(await writersNow(hosts)).toEqual(['pg1'])
    expect(JSON.parse(await hosts.readFile('pg2', `${state}/fenced.json`))).toMatchObject({
      newPrimary: 'pg1',
    })
  })
})
