import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { awaitCondition, PostgresServer, TestCluster, TestHosts } from '../kit/index.ts'

const dataDir = '/var/lib/postgresql/15/main'
const configDir = '/etc/postgresql/15/main'
/** The server says `pglz`, `warning` and `ISO, DMY`. */
const spelled = { wal_compression: 'on', log_min_messages: 'WARNING', DateStyle: 'iso, dmy' }
const ownConf = `# memory, by the DBA\nmax_connections = 137\nwork_mem = '5MB'\n`

describeOnHosts('init primary --adopt on Debian’s layout', () => {
  let hosts: TestHosts
  let cluster: TestCluster
  let pg1: PostgresServer
  const server = (host: string) => new PostgresServer(hosts, host, { dataDir })
  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [{ name: 'pg1', login: 'admin' }, { name: 'pg2' }, { name: 'pg3', login: 'root' }],
    })
    await hosts.exec('pg1', 'pg_createcluster 15 main -- --data-checksums >/dev/null')
    await hosts.writeFile('pg1', `${configDir}/conf.d/10-memory.conf`, ownConf, { owner: 'postgres' })
    await hosts.exec('pg1', 'pg_ctlcluster 15 main start')
    pg1 = server('pg1')
    await pg1.sql('CREATE TABLE precious (id int); INSERT INTO precious SELECT generate_series(1, 1000)')
    await hosts.exec(
      'pg1',
      'pg_ctlcluster 15 main stop && cp -a /var/lib/postgresql/15 /data/data && cp -a /etc/postgresql/15 /data/etc',
    )
  })
  afterAll(() => hosts?.destroy())

  beforeEach(async () => {
    await Promise.all(hosts.names.map((host) => wipe(hosts, host)))
    await hosts.exec('pg1', 'cp -a /data/data /var/lib/postgresql/15 && cp -a /data/etc /etc/postgresql/15')
    await hosts.exec('pg1', 'pg_ctlcluster 15 main start')
    cluster = await TestCluster.create(hosts, {
      inventory: {
        postgres: { data_dir: dataDir, parameters: { log_min_duration_statement: '1500ms', ...spelled } },
      },
    })
  })

  const adopt = (...flags: string[]) =>
    cluster.replctl(['init', 'primary', 'pg1', '--adopt', '--json', ...flags])
  const startTime = () => pg1.sqlValue('SELECT pg_postmaster_start_time()::text')

  it('shows the diff in a dry run and changes nothing', async () => {
    const [before, startedAt] = [await checksums(hosts, 'pg1'), await startTime()]
    const plan = await adopt('--dry-run')
    expect(plan.exitCode, plan.stdout).toBe(0)
    expect(plan.json.changed).toBe(false)
    expect(plan.json.result.restart_needed).toBe(true)
    expect(plan.json.result.settings).toContainEqual({
      name: 'listen_addresses',
      live: 'localhost',
      needed: '*',
      change: 'restart',
      can_wait: false,
    })
    expect(plan.json.result.settings.map((one: { name: string }) => one.name)).not.toContain('port')
    expect(await checksums(hosts, 'pg1')).toEqual(before)
    expect(await startTime()).toBe(startedAt)
    const shown = await cluster.replctl(['init', 'primary', '--adopt', '--dry-run'])
    expect(shown.stderr).toMatch(/listen_addresses +localhost +-> +\* +restart/)
    expect(shown.stderr).toContain("+ include_if_exists = 'replctl.conf'")
    expect(shown.stderr).toContain('# BEGIN replctl shop')
    expect(shown.stderr).toContain('has to be restarted once')
  })

  it('does not restart without a yes, and says what needs the restart', async () => {
    const [before, startedAt] = [await checksums(hosts, 'pg1'), await startTime()]
    const refused = await adopt()
    expect(refused.exitCode).toBe(3)
    expect(refused.json.problems[0].code).toBe('confirmation-needed')
    expect(refused.json.problems[0].detail).toContain('listen_addresses (localhost -> *)')
    expect(refused.json.problems[0].hint).toContain('--yes')
    expect(await checksums(hosts, 'pg1')).toEqual(before)
    expect(await startTime()).toBe(startedAt)
    expect(await pg1.sqlValue("SELECT count(*)::int FROM pg_roles WHERE rolname = 'replicator'")).toBe(0)
  })

  it('takes it over, keeps everything of the operator’s, and does nothing the second time', async () => {
    const before = await files(hosts, 'pg1')
    const adopted = await adopt('--yes')
    expect(adopted.exitCode, adopted.stdout).toBe(0)
    expect(adopted.json.changed).toBe(true)
    const after = await files(hosts, 'pg1')
    expect(withoutOurs(after['postgresql.conf'] ?? '')).toBe(before['postgresql.conf'])
    expect(withoutOurs(after['pg_hba.conf'] ?? '')).toBe(before['pg_hba.conf'])
    expect(after['conf.d/10-memory.conf']).toBe(ownConf)
    expect(await modesOf(hosts, 'pg1')).toContain('640 postgres pg_hba.conf')
    const show = (name: string) => pg1.sqlValue(`SELECT current_setting('${name}')`)
    expect(await show('listen_addresses')).toBe('*')
    expect(await show('max_connections')).toBe('137')
    expect(await show('cluster_name')).toBe('shop')
    expect(await show('log_min_duration_statement')).toBe('1500ms')
    expect(await show('wal_compression')).toBe('pglz')
    expect(await show('DateStyle')).toBe('ISO, DMY')
    expect(await pg1.sqlValue('SELECT count(*)::int FROM precious')).toBe(1000)
    expect(await pg1.sqlValue('SELECT count(*)::int FROM pg_hba_file_rules WHERE error IS NOT NULL')).toBe(0)
    expect(await pg1.sqlValue('SELECT count(*)::int FROM pg_settings WHERE pending_restart')).toBe(0)
    expect((await hosts.exec('pg1', 'pg_lsclusters -h')).stdout).toMatch(/^15\s+main\s+5432\s+online/)
    expect((await hosts.exec('pg1', 'ls /var/lib/postgresql/.replctl/shop')).stdout).not.toContain('adopt')
    const startedAt = await startTime()
    const again = await adopt()
    expect(again.exitCode, again.stdout).toBe(0)
    expect(again.json.changed).toBe(false)
    expect(again.json.result.settings).toEqual([])
    expect(await startTime()).toBe(startedAt)
    expect(await files(hosts, 'pg1')).toEqual(after)
  })

  it('an adopted primary gets standbys on hosts with and without a Debian cluster of their own, and can be replaced', async () => {
    await hosts.exec('pg2', `pg_createcluster 15 main >/dev/null && find ${dataDir} -mindepth 1 -delete`)
    expect((await adopt('--yes')).exitCode).toBe(0)
    const added = await cluster.replctl(['add-standby', 'pg2', 'pg3', '--json'])
    expect(added.exitCode, added.stdout).toBe(0)
    await pg1.awaitStreaming('shop_pg2')
    await pg1.awaitStreaming('shop_pg3')
    for (const host of ['pg2', 'pg3']) {
      expect(await server(host).sqlValue("SELECT current_setting('max_connections')")).toBe('137')
      expect(await server(host).sqlValue('SELECT count(*)::int FROM precious')).toBe(1000)
    }
    expect(await server('pg2').sqlValue("SELECT current_setting('config_file')")).toBe(
      `${configDir}/postgresql.conf`,
    )
    expect(await server('pg3').sqlValue("SELECT current_setting('config_file')")).toBe(
      `${dataDir}/postgresql.conf`,
    )
    expect(await server('pg3').sqlValue("SELECT current_setting('work_mem')")).toBe('5MB')
    expect((await cluster.replctl(['add-standby', 'pg2', 'pg3', '--json'])).json.changed).toBe(false)
    expect((await cluster.replctl(['verify', '--json'])).exitCode).toBe(0)
    const again = await adopt()
    expect(again.exitCode, again.stdout).toBe(0)
    expect(again.json.changed).toBe(false)
    // It lost no more than replctl's own mark: that is put back.
    await hosts.exec('pg1', 'rm ~postgres/.replctl/shop/node.json')
    const startedAt = await startTime()
    const back = await adopt()
    expect([back.exitCode, back.json.changed], back.stdout).toEqual([0, true])
    expect(await startTime()).toBe(startedAt)
    expect((await adopt()).json.changed).toBe(false)
    // Its standbys are members as before.
    const record = JSON.parse(await hosts.readFile('pg1', '/var/lib/postgresql/.replctl/shop/cluster.json'))
    expect(record).toMatchObject({ primary: 'pg1', members: ['pg1', 'pg2', 'pg3'] })
    await pg1.kill9()
    const promoted = await cluster.replctl(['promote', 'pg2', '--json'])
    expect(promoted.exitCode, promoted.stdout).toBe(0)
    expect(await server('pg2').isInRecovery()).toBe(false)
    await server('pg2').awaitStreaming('shop_pg3')
    expect(await server('pg2').sqlValue("SELECT current_setting('max_connections')")).toBe('137')
  })

  it('a stopped instance is started by its service', async () => {
    await hosts.exec('pg1', 'pg_ctlcluster 15 main stop -m fast')
    const adopted = await adopt()
    expect(adopted.exitCode, adopted.stdout).toBe(0)
    expect(adopted.json.result.restart_needed).toBe(false)
    expect(await pg1.sqlValue("SELECT current_setting('listen_addresses')")).toBe('*')
    expect((await hosts.exec('pg1', 'pg_lsclusters -h')).stdout).toContain('online')
  })

  it('is not restarted where nothing needs it, and what is as good stays', async () => {
    const lines = [
      "listen_addresses = '0.0.0.0'",
      'wal_level = logical',
      'max_wal_senders = 33',
      'max_replication_slots = 34',
      "cluster_name = 'mine'",
    ]
    await hosts.writeFile('pg1', `${configDir}/conf.d/20-own.conf`, `${lines.join('\n')}\n`, {
      owner: 'postgres',
    })
    await hosts.exec('pg1', 'pg_ctlcluster 15 main restart')
    const startedAt = await startTime()
    const adopted = await adopt()
    expect(adopted.exitCode, adopted.stdout).toBe(0)
    expect(await startTime()).toBe(startedAt)
    expect(await hosts.readFile('pg1', `${configDir}/replctl.conf`)).toMatch(
      /# Kept as the instance had it\nlisten_addresses = '0\.0\.0\.0'\nmax_replication_slots = '34'\nmax_wal_senders = '33'\nwal_level = 'logical'\nwal_log_hints = 'off'\n/,
    )
    expect((await adopt()).json.changed).toBe(false)
    const added = await cluster.replctl(['add-standby', 'pg3', '--json'])
    expect(added.exitCode, added.stdout).toBe(0)
    expect(await server('pg3').sqlValue("SELECT current_setting('max_wal_senders')")).toBe('33')
    // pg3 has its files in the data directory, and so got none of pg1's.
    expect(await server('pg3').sqlValue("SELECT current_setting('max_replication_slots')")).toBe('34')
    expect(await server('pg3').sqlValue("SELECT current_setting('wal_level')")).toBe('logical')
    expect(await hosts.readFile('pg1', `${configDir}/replctl.conf`)).toContain("max_wal_senders = '33'")
  })

  it('ALTER SYSTEM in the way is named with what takes it out', async () => {
    await pg1.sql("ALTER SYSTEM SET listen_addresses = 'localhost'")
    const before = await checksums(hosts, 'pg1')
    const refused = await adopt('--yes')
    expect(refused.exitCode).toBe(3)
    expect(refused.json.problems[0].code).toBe('setting-overridden')
    expect(refused.json.problems[0].hint).toContain('ALTER SYSTEM RESET listen_addresses;')
    expect(await checksums(hosts, 'pg1')).toEqual(before)
    await pg1.sql('ALTER SYSTEM RESET listen_addresses')
    expect((await adopt('--yes')).exitCode).toBe(0)
  })

  it('a standby is not adopted, running or stopped', async () => {
    await hosts.exec('pg1', ['touch', `${dataDir}/standby.signal`], { user: 'postgres' })
    await hosts.exec('pg1', 'pg_ctlcluster 15 main restart')
    for (const stop of [false, true]) {
      if (stop) await hosts.exec('pg1', 'pg_ctlcluster 15 main stop -m fast')
      const refused = await adopt('--yes')
      expect(refused.exitCode, refused.stdout).toBe(3)
      expect(refused.json.problems[0].code).toBe('not-a-primary')
    }
    await hosts.exec('pg1', ['rm', `${dataDir}/standby.signal`])
    expect((await adopt('--yes')).json.problems[0].code).toBe('not-a-primary')
  })

  it('a folder that holds no instance is left alone, and so is an empty one', async () => {
    await hosts.exec(
      'pg3',
      `mkdir -p ${dataDir} && echo mine >${dataDir}/letter && chown -R postgres: ${dataDir}`,
    )
    const foreign = await cluster.replctl(['init', 'primary', 'pg3', '--adopt', '--yes', '--json'])
    expect(foreign.exitCode).toBe(3)
    expect(foreign.json.problems[0].code).toBe('primary-alive')
    await hosts.exec('pg1', 'pg_ctlcluster 15 main stop -m fast')
    const again = await cluster.replctl(['init', 'primary', 'pg3', '--adopt', '--yes', '--json'])
    expect(again.json.problems[0].code).toBe('foreign-data-directory')
    expect(await hosts.readFile('pg3', `${dataDir}/letter`)).toBe('mine\n')
    const nothing = await cluster.replctl(['init', 'primary', 'pg2', '--adopt', '--yes', '--json'])
    expect(nothing.exitCode).toBe(3)
    expect(nothing.json.problems[0].code).toBe('node-not-built')
  })

  it('a replication role that others use keeps its password, also where standbys are added to what was not taken over', async () => {
    await pg1.sql("CREATE ROLE replicator LOGIN REPLICATION PASSWORD 'theirs'")
    const verifier = "SELECT rolpassword FROM pg_authid WHERE rolname = 'replicator'"
    const [before, password] = [await checksums(hosts, 'pg1'), await pg1.sqlValue(verifier)]
    const notYet = await cluster.replctl(['add-standby', 'pg3', '--json'])
    expect(notYet.exitCode, notYet.stdout).toBe(3)
    expect(notYet.json.problems[0].code).toBe('foreign-cluster')
    expect(notYet.json.problems[0].hint).toContain('replctl init primary pg1 --adopt')
    expect(await checksums(hosts, 'pg1')).toEqual(before)
    expect(await pg1.sqlValue(verifier)).toBe(password)
    const refused = await adopt('--yes')
    expect(refused.exitCode).toBe(3)
    expect(refused.json.problems[0].code).toBe('foreign-role')
    const known = await cluster.replctl(['init', 'primary', '--adopt', '--yes', '--json'], {
      env: { REPLCTL_REPLICATION_PASSWORD: 'theirs' },
    })
    expect(known.exitCode, known.stdout).toBe(0)
  })

  it('a failure puts the files back as they were, and the instance with them', async () => {
    await cluster.writeInventory({
      postgres: { data_dir: dataDir, parameters: { shared_buffers: 'plenty' } },
    })
    const [before, startedAt] = [await checksums(hosts, 'pg1'), await startTime()]
    const failed = await adopt('--yes')
    expect(failed.exitCode, failed.stdout).toBe(5)
    expect(await checksums(hosts, 'pg1')).toEqual(before)
    expect(await startTime()).toBe(startedAt)
    expect(await pg1.sqlValue("SELECT current_setting('cluster_name')")).toBe('15/main')
    expect((await hosts.exec('pg1', 'ls /var/lib/postgresql/.replctl/shop')).stdout).not.toContain('adopt')
    // What the server accepts when it reads its files, and then cannot start with.
    await cluster.writeInventory({
      postgres: { data_dir: dataDir, parameters: { shared_preload_libraries: 'no_such_library' } },
    })
    const unstartable = await adopt('--yes')
    expect(unstartable.exitCode, unstartable.stdout).toBe(5)
    expect(unstartable.json.problems[0].detail).toContain('no_such_library')
    expect(await checksums(hosts, 'pg1')).toEqual(before)
    expect(await pg1.sqlValue("SELECT current_setting('listen_addresses')")).toBe('localhost')
  })

  it('an instance with its configuration in the data directory; its options are not lost in a restart', async () => {
    await hosts.exec('pg1', 'pg_ctlcluster 15 main stop -m fast')
    const pg2 = server('pg2')
    await pg2.init(['max_connections = 44'], ['--data-checksums'])
    await pg2.run('pg_ctl', ['-D', dataDir, '-l', `${dataDir}.log`, '-w', '-o', '-c work_mem=7MB', 'start'])
    const adoptPg2 = () => cluster.replctl(['init', 'primary', 'pg2', '--adopt', '--yes', '--json'])
    const refused = await adoptPg2()
    expect(refused.exitCode, refused.stdout).toBe(3)
    expect(refused.json.problems[0].detail).toContain('work_mem')
    await pg2.restart()
    const adopted = await adoptPg2()
    expect(adopted.exitCode, adopted.stdout).toBe(0)
    expect(await pg2.sqlValue("SELECT current_setting('max_connections')")).toBe('44')
    const added = await cluster.replctl(['add-standby', 'pg3', '--json'])
    expect(added.exitCode, added.stdout).toBe(0)
    expect(await server('pg3').sqlValue("SELECT current_setting('max_connections')")).toBe('44')
  })

  it('killed part-way it is taken back by abort, and finished by resume', async () => {
    const before = await checksums(hosts, 'pg1')
    await killAt('allow replication from the nodes')
    expect(await checksums(hosts, 'pg1')).not.toEqual(before)
    const aborted = await cluster.replctl(['abort', '--json'])
    expect(aborted.exitCode, aborted.stdout).toBe(0)
    expect(await checksums(hosts, 'pg1')).toEqual(before)
    expect(await pg1.sqlValue("SELECT current_setting('listen_addresses')")).toBe('localhost')
    await killAt('keep the replication password')
    const resumed = await cluster.replctl(['resume', '--json'])
    expect(resumed.exitCode, resumed.stdout).toBe(0)
    expect(await pg1.sqlValue("SELECT current_setting('listen_addresses')")).toBe('*')
    expect((await adopt()).json.changed).toBe(false)
    await wipe(hosts, 'pg1')
  })

  /** Kills replctl (SIGKILL) as soon as it says that a step was applied. */
  async function killAt(title: string): Promise<void> {
    const started = cluster.startReplctl(['init', 'primary', 'pg1', '--adopt', '--yes'])
    await awaitCondition(`"${title}" is done`, () => started.stderr().includes(title), { timeoutMs: 60_000 })
    started.kill()
    await started.finished
  }

  it('at a terminal it asks, and a plain Enter is a no', async () => {
    const before = await checksums(hosts, 'pg1')
    const no = await atTerminal('\r')
    expect(no).toContain('needs a restart of PostgreSQL')
    expect(no).toContain('exit 3')
    expect(await checksums(hosts, 'pg1')).toEqual(before)
    expect(await atTerminal('y')).toContain('exit 0')
    expect(await pg1.sqlValue("SELECT current_setting('listen_addresses')")).toBe('*')
  })

  /** Runs it in a pseudo-terminal and types when it asks. */
  async function atTerminal(key: string): Promise<string> {
    const bin = fileURLToPath(new URL('../../bin/replctl', import.meta.url))
    const line = `${process.execPath} ${bin} init primary pg1 --adopt --config ${cluster.inventoryFile}; echo "exit $?"`
    const child = spawn('script', ['--quiet', '--return', '--command', line, '/dev/null'], { stdio: 'pipe' })
    let shown = ''
    child.stdout.setEncoding('utf8').on('data', (chunk) => {
      if (!shown.includes('Restart PostgreSQL') && `${shown}${chunk}`.includes('Restart PostgreSQL')) {
        setTimeout(() => child.stdin.write(key), 300)
      }
      shown += chunk
    })
    const isOver = () => child.exitCode !== null
    await awaitCondition('replctl at a terminal ends', isOver, { timeoutMs: 40_000 }).catch(
      (error: unknown) => {
        child.kill()
        throw new Error(`${error}\n${shown}`)
      },
    )
    return shown
  }

  afterEach(async () => {
    await Promise.all(hosts.names.map((host) => wipe(hosts, host)))
  })
})

/** Ends every instance of a host and removes it. */
async function wipe(hosts: TestHosts, host: string): Promise<void> {
  for (const pid of await hosts.pids(host, '/postgres -D|postgres: ')) {
    await hosts.kill(host, pid).catch(() => undefined)
  }
  await hosts.exec(
    host,
    'rm -rf /var/lib/postgresql/15 /var/lib/postgresql/.replctl /etc/postgresql/15 /run/postgresql/.s* /run/postgresql/*.pid',
  )
}

/** The operator's files by their path below the configuration folder. */
async function files(hosts: TestHosts, host: string): Promise<Record<string, string>> {
  const { stdout } = await hosts.exec(host, `cd ${configDir} && find . -type f ! -name 'replctl*' | sort`)
  const names = stdout
    .trim()
    .split('\n')
    .map((name) => name.slice(2))
  const texts = await Promise.all(names.map((name) => hosts.readFile(host, `${configDir}/${name}`)))
  return Object.fromEntries(names.map((name, index) => [name, texts[index] ?? '']))
}

/** sha256 of everything in the configuration folder, and of the state that a run would leave. */
async function checksums(hosts: TestHosts, host: string): Promise<string> {
  const { stdout } = await hosts.exec(
    host,
    `cd ${configDir} && find . -type f | sort | xargs sha256sum && stat -c '%n %a %U %Y' postgresql.conf pg_hba.conf; sha256sum ${dataDir}/postgresql.auto.conf`,
  )
  return createHash('sha256').update(stdout).digest('hex').slice(0, 8) + stdout
}

async function modesOf(hosts: TestHosts, host: string): Promise<string[]> {
  return (await hosts.exec(host, `cd ${configDir} && stat -c '%a %U %n' *.conf`)).stdout.split('\n')
}

/** The text without the line and the block that replctl adds. */
function withoutOurs(text: string): string {
  return text
    .replace(/^include_if_exists = 'replctl\.conf'.*\n/m, '')
    .replace(/^# BEGIN replctl shop\n[\s\S]*?^# END replctl shop\n/m, '')
}
