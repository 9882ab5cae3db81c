import { existsSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { parseDocument } from 'yaml'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { restoreHosts, saveHosts } from '../kit/empty-hosts.ts'
import { awaitCondition, type ReplctlResult, TestCluster, TestHosts } from '../kit/index.ts'
import { Client, fingerprints, openToControlHost, WriterWatch, writersNow } from '../kit/observe.ts'

describeOnHosts('promote while the old primary cannot be reached, or not be seen', () => {
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
  beforeEach(async () => {
    await restoreHosts(hosts)
    await cluster.writeInventory(openToControlHost)
    for (const name of ['pg2', 'pg3']) {
      await cluster
        .server(name)
        .awaitSql("SELECT count(*) = 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'")
    }
  })

  const promote = (...args: string[]) => cluster.replctl(['promote', ...args, '--json'])
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
  /** To every process of pg1's PostgreSQL. */
  const signalAll = (signal: string) =>
    hosts.exec(
      'pg1',
      `for entry in /proc/[0-9]*; do
        [ "$(cat $entry/comm 2>/dev/null)" = postgres ] && kill -s ${signal} "\${entry#/proc/}" 2>/dev/null; done; :`,
    )
  const withFence = (command: string, more: object = {}) =>
    cluster.writeInventory({ ...openToControlHost, fence: { command }, ...more })

  it('with its host off, promote is refused without a fence command, or when that fails, and changes nothing', async () => {
    await hosts.powerOff('pg1')
    const before = await fingerprints(hosts, ['pg2', 'pg3'])
    const refused = await promote('pg2')
    told(refused).toMatchObject({ exit: 3, changed: false, errors: ['primary-unproven'] })
    // What would become of pg1 after a promotion is told of a promotion that took place.
    expect(JSON.stringify(refused.json.problems)).not.toContain('start-guard-missing')
    await withFence('echo the switch does not answer >&2; exit 1')
    const failed = await promote('pg2')
    told(failed).toMatchObject({ exit: 3, changed: false, errors: ['primary-unproven'] })
    expect(JSON.stringify(failed.json.problems)).toContain('the switch does not answer')
    await withFence('kill -9 $$')
    told(await promote('pg2')).toMatchObject({ exit: 3, changed: false, errors: ['primary-unproven'] })
    await withFence('/does/not/exist {node}')
    told(await promote('pg2')).toMatchObject({ exit: 3, changed: false, errors: ['primary-unproven'] })
    expect(await fingerprints(hosts, ['pg2', 'pg3'])).toEqual(before)
    expect(await writersNow(hosts, ['pg2', 'pg3'])).toEqual([])
  })

  it('with its host off and fenced by the command, promote goes on; the hook is told in JSON and its failure is a warning', async () => {
    const heard = join(hosts.directory, 'heard.json')
    await writeFile(join(hosts.directory, 'hook.sh'), `cat >"${heard}"; exit 3\n`)
    await withFence('echo "$REPLCTL_CLUSTER $REPLCTL_NODE $REPLCTL_HOST" {node} {host} >fenced.txt', {
      hooks: { on_event: 'sh ./hook.sh' },
    })
    await hosts.powerOff('pg1')
    const done = await promote()
    told(done).toMatchObject({ exit: 0, changed: true, errors: [] })
    expect(done.json.result).toMatchObject({ old_primary: 'pg1', timeline: 2, fenced: true })
    const address = hosts.addressOf('pg1')
    expect(await readFile(join(hosts.directory, 'fenced.txt'), 'utf8')).toBe(
      `shop pg1 ${address} pg1 ${address}\n`,
    )
    expect(JSON.parse(await readFile(heard, 'utf8'))).toMatchObject({
      event: 'promote',
      cluster: 'shop',
      ok: true,
      exit_code: 0,
    })
    const codes = done.json.problems.map((one: { code: string }) => one.code)
    expect(codes.toSorted()).toEqual(['hook-failed', 'host-unreachable', 'start-guard-missing'])
    expect(await writersNow(hosts, ['pg2', 'pg3'])).toHaveLength(1)
  })

  it('a fence command that says yes while the host is alive and only its SSH is down is not believed', async () => {
    await withFence('exit 0')
    const client = new Client(hosts, 'pg1')
    await hosts.stopSshd('pg1', { sessions: true })
    const watch = new WriterWatch(hosts)
    told(await promote('pg2')).toMatchObject({ exit: 3, changed: false, errors: ['primary-alive'] })
    told(await promote('pg2', '--allow-split-brain')).toMatchObject({ exit: 3, errors: ['primary-alive'] })
    await cluster.writeInventory(openToControlHost)
    told(await promote('pg2', '--allow-split-brain')).toMatchObject({ exit: 3, errors: ['primary-alive'] })
    // Only the control host is cut off: the standbys still receive.
    await hosts.startSshd('pg1')
    await hosts.cutLink('pg1', 'control')
    told(await promote('pg2', '--allow-split-brain')).toMatchObject({ exit: 3, errors: ['primary-alive'] })
    await hosts.restoreLink('pg1')
    expect(await watch.stop()).toEqual([])
    await client.stop()
    expect(await writersNow(hosts)).toEqual(['pg1'])
  })

  it('the sign of life is seen by another standby than the candidate, too', async () => {
    await hosts.cutLink('pg1', 'control')
    await hosts.cutLink('pg1', 'pg2')
    await withFence('exit 0')
    told(await promote('pg2', '--allow-data-loss')).toMatchObject({ exit: 3, errors: ['primary-alive'] })
    await hosts.restoreLink('pg1')
    expect(await writersNow(hosts)).toEqual(['pg1'])
  })

  it('nobody is promoted beside a primary that only its SSH cannot be reached of, although the candidate never heard of it', async () => {
    await withFence('echo {node} >>fenced-alone.txt')
    await cluster.server('pg2').stop()
    await hosts.powerOff('pg1')
    told(await promote('pg3')).toMatchObject({ exit: 0, changed: true, errors: [] })
    await hosts.stopSshd('pg3', { sessions: true })
    await cluster.server('pg2').start()
    const status = await cluster.replctl(['status', '--json'])
    const [found] = status.json.problems
    expect(found).toMatchObject({ code: 'no-primary', detail: expect.stringMatching(/pg3.* told pg2/) })
    expect(found.hint).not.toContain('replctl promote')
    const watch = new WriterWatch(hosts)
    for (const args of [[], ['pg2'], ['pg2', '--allow-split-brain', '--allow-data-loss']]) {
      told(await promote(...args)).toMatchObject({ exit: 3, changed: false, errors: ['primary-alive'] })
    }
    expect(await watch.stop()).toEqual([])
    expect(await writersNow(hosts, ['pg2', 'pg3'])).toEqual(['pg3'])
    expect(await readFile(join(hosts.directory, 'fenced-alone.txt'), 'utf8')).toBe('pg1\n')
  })

  it('a standby that is still connected to an idle primary is a sign of life, where nothing new gets through', async () => {
    await withFence('exit 0')
    await hosts.exec(
      'pg1',
      `nft -f - <<'END'
table inet closed { chain input { type filter hook input priority 0; tcp flags & (syn|ack) == syn tcp dport { 22, 5432 } drop; }; }
END`,
    )
    await hosts.stopSshd('pg1', { sessions: true })
    try {
      const watch = new WriterWatch(hosts)
      told(await promote('pg2')).toMatchObject({ exit: 3, changed: false, errors: ['primary-alive'] })
      const forced = await promote('pg2', '--allow-split-brain')
      told(forced).toMatchObject({ exit: 3, changed: false, errors: ['primary-alive'] })
      expect(await watch.stop()).toEqual([])
      expect(await writersNow(hosts)).toEqual(['pg1'])
    } finally {
      await hosts.exec('pg1', 'nft delete table inet closed')
    }
  })

  it('a primary that is frozen, and its sshd with it, is alive: nobody can tell when it goes on', async () => {
    const client = new Client(hosts, 'pg1')
    await awaitCondition('the client writes', () => client.confirmed.length > 10)
    const watch = new WriterWatch(hosts)
    const both = (signal: string) =>
      hosts.exec(
        'pg1',
        `for entry in /proc/[0-9]*; do
        case $(cat $entry/comm 2>/dev/null) in postgres|sshd) kill -s ${signal} "\${entry#/proc/}" 2>/dev/null;; esac; done; :`,
      )
    await both('STOP')
    try {
      // The port alone: those who were connected ask anew, and get no answer.
      for (const name of ['pg2', 'pg3']) {
        const server = cluster.server(name)
        const pid = await server.sqlValue('SELECT pid FROM pg_stat_wal_receiver')
        await hosts.exec(name, ['kill', String(pid)])
        await server.awaitSql("SELECT count(*) = 0 FROM pg_stat_wal_receiver WHERE status = 'streaming'")
      }
      // It was frozen over a write, which one of them may lack.
      const received = 'pg_last_wal_receive_lsn()'
      const other = await cluster.server('pg3').sqlValue(`SELECT ${received}`)
      const isAhead = await cluster.server('pg2').sqlValue(`SELECT ${received} >= '${other}'`)
      const candidate = isAhead ? 'pg2' : 'pg3'
      told(await promote(candidate)).toMatchObject({ exit: 3, changed: false, errors: ['primary-unproven'] })
      const forced = await promote(candidate, '--allow-split-brain')
      told(forced).toMatchObject({ exit: 3, changed: false, errors: ['primary-alive'] })
      await withFence('exit 0')
      told(await promote(candidate)).toMatchObject({ exit: 3, changed: false, errors: ['primary-alive'] })
    } finally {
      await both('CONT')
    }
    expect(await watch.stop()).toEqual([])
    await client.stop()
    expect(await writersNow(hosts)).toEqual(['pg1'])
  })

  describe('its host answers, and nothing can be written there', () => {
    const folder = '/var/lib/postgresql'
    beforeEach(async () => {
      await signalAll('KILL')
      await hosts.exec('pg1', `mount --bind ${folder} ${folder} && mount -o remount,ro,bind ${folder}`)
    })
    afterEach(() => hosts.exec('pg1', ['umount', '-l', folder]))
    const codes = ({ json }: ReplctlResult) => json.problems.map((one: { code: string }) => one.code)

    it('promote is refused before anything is changed, in a plan too, and names both ways out', async () => {
      const before = await fingerprints(hosts, ['pg2', 'pg3'])
      for (const args of [['--dry-run'], [], ['--allow-data-loss']]) {
        const result = await promote(...args)
        told(result).toMatchObject({ exit: 3, changed: false, errors: ['primary-unproven'] })
        expect(result.json.problems[0].hint).toMatch(/fence\.command.*--allow-split-brain/)
      }
      await withFence('exit 1')
      told(await promote()).toMatchObject({ exit: 3, changed: false, errors: ['primary-unproven'] })
      expect(await fingerprints(hosts, ['pg2', 'pg3'])).toEqual(before)
    })

    it.each([
      ['the fence command', 'echo {node} >>fenced.txt', []],
      ['the operator’s word', undefined, ['--allow-split-brain']],
    ])('%s does instead, and it is told what nothing keeps it from', async (_, command, args) => {
      if (command !== undefined) await withFence(command)
      const done = await promote('pg2', ...args)
      told(done).toMatchObject({ exit: 0, changed: true, errors: [] })
      expect(done.json.result).toMatchObject({ old_primary: 'pg1', fenced: command !== undefined })
      expect(codes(done)).toContain('start-guard-missing')
      expect(await writersNow(hosts, ['pg2', 'pg3'])).toEqual(['pg2'])
    })
  })

  it('a primary without a free connection is not replaced unasked; it is, where the operator says so', async () => {
    const sessions = 'for i in $(seq 1 110); do { sleep 600 | psql -XAtq; } >/dev/null 2>&1 & done'
    await hosts.exec('pg1', `${sessions}; :`, { user: 'postgres' })
    await awaitCondition('no connection is free', async () => {
      const asked = await hosts.exec('pg1', ['psql', '-XAtc', 'SELECT 1'], { user: 'postgres', check: false })
      return asked.stderr.includes('too many clients')
    })
    const status = await cluster.replctl(['status', '--json'])
    expect(status.json.problems[0]).toMatchObject({
      ...{ code: 'no-primary', message: 'the primary pg1 answers, but has no connection free' },
      hint: expect.not.stringContaining('replctl promote'),
    })
    const watch = new WriterWatch(hosts, ['pg2', 'pg3'])
    for (const args of [[], ['pg2'], ['--allow-split-brain']]) {
      told(await promote(...args)).toMatchObject({ exit: 3, changed: false, errors: ['primary-alive'] })
    }
    expect(await watch.stop()).toEqual([])
    told(await promote('pg2', '--allow-split-brain')).toMatchObject({ exit: 0, errors: [] })
    expect(await writersNow(hosts)).toEqual(['pg2'])
  })

  describe('runs from another directory than the inventory says: promote is refused, whatever flags are given', () => {
    const refusedAlways = async () => {
      const watch = new WriterWatch(hosts)
      told(await promote('pg2')).toMatchObject({ exit: 3, changed: false, errors: ['primary-alive'] })
      const flags = ['--allow-split-brain', '--allow-data-loss']
      told(await promote('pg2', ...flags)).toMatchObject({ exit: 3, errors: ['primary-alive'] })
      told(await promote('--dry-run')).toMatchObject({ exit: 3, errors: ['primary-alive'] })
      expect(await watch.stop()).toEqual([])
      expect(await writersNow(hosts)).toEqual(['pg1'])
    }
    const dataDir = () => cluster.server('pg1').dataDir
    /** Where nothing is known of it by SQL, its host and the others are asked. */
    const noSocket = { postgres: { parameters: { unix_socket_directories: '/tmp/elsewhere' } } }

    it('its data directory was moved while it runs', async () => {
      await hosts.exec('pg1', ['mv', dataDir(), `${dataDir()}.moved`])
      await refusedAlways()
      await cluster.writeInventory({ ...openToControlHost, nodes: { pg1: noSocket.postgres } })
      await refusedAlways()
    })

    it('data_dir names an old copy of it', async () => {
      const copy = `${dataDir()}.copy`
      await hosts.exec('pg1', ['cp', '-a', dataDir(), copy])
      await hosts.exec('pg1', ['rm', '-f', `${copy}/postmaster.pid`])
      await cluster.writeInventory({ ...openToControlHost, nodes: { pg1: { data_dir: copy } } })
      await refusedAlways()
      await cluster.writeInventory({
        ...openToControlHost,
        nodes: { pg1: { data_dir: copy, ...noSocket.postgres } },
      })
      // Found by whoever is about to fence the copy.
      const watch = new WriterWatch(hosts)
      told(await promote('pg2')).toMatchObject({ exit: 5, changed: false, errors: ['primary-alive'] })
      const flags = ['--allow-split-brain', '--allow-data-loss']
      told(await promote('pg2', ...flags)).toMatchObject({ exit: 5, errors: ['primary-alive'] })
      expect(await watch.stop()).toEqual([])
      expect(await writersNow(hosts)).toEqual(['pg1'])
      await hosts.exec('pg1', ['test', '!', '-e', `${copy}/standby.signal`])
    })

    it('once it is stopped, and its directory is gone for good, promote goes on', async () => {
      await hosts.exec('pg1', ['mv', dataDir(), `${dataDir()}.moved`])
      await signalAll('KILL')
      const done = await promote('pg2')
      told(done).toMatchObject({ exit: 0, changed: true, errors: [] })
      expect(done.json.result).toMatchObject({ old_primary: 'pg1', fenced: false, repointed: ['pg3'] })
      expect(await writersNow(hosts, ['pg2', 'pg3'])).toEqual(['pg2'])
    })
  })

  it('one that is frozen beside a stray standby signal is killed and fenced like any other', async () => {
    const client = new Client(hosts, 'pg1')
    await awaitCondition('the client writes', () => client.confirmed.length > 10)
    await hosts.exec('pg1', [
      ...['runuser', '-u', 'postgres', '--'],
      ...['touch', `${cluster.server('pg1').dataDir}/standby.signal`],
    ])
    const watch = new WriterWatch(hosts)
    await signalAll('STOP')
    const done = await promote()
    told(done).toMatchObject({ exit: 0, changed: true, errors: [] })
    expect(done.json.result).toMatchObject({ old_primary: 'pg1', fenced: true })
    const atEnd = client.confirmed.length
    expect(await cluster.server('pg1').isRunning()).toBe(false)
    expect(await watch.stop()).toEqual([])
    expect((await client.stop()).length).toBe(atEnd)
    expect(await writersNow(hosts)).toEqual([done.json.result.new_primary])
  })

  it('with --allow-split-brain and no sign of life the candidate is promoted; a bystander that is down too is a warning', async () => {
    await hosts.powerOff('pg1')
    await hosts.powerOff('pg3')
    const done = await promote('pg2', '--allow-split-brain')
    told(done).toMatchObject({ exit: 0, changed: true, errors: [] })
    const unreachable = done.json.problems.filter((one: { code: string }) => one.code === 'host-unreachable')
    expect(unreachable.map((one: { node: string }) => one.node).toSorted()).toEqual(['pg1', 'pg3'])
    expect(await writersNow(hosts, ['pg2'])).toEqual(['pg2'])
    // Its return is reported with the command that mends it.
    await hosts.powerOn('pg3')
    await hosts.exec('pg3', ['rm', '-f', `${cluster.server('pg3').dataDir}/postmaster.pid`])
    await cluster.server('pg3').start()
    const status = await cluster.replctl(['status', '--json'])
    expect(status.exitCode).toBe(9)
    const ofPg3 = status.json.problems.filter((one: { node: string }) => one.node === 'pg3')
    expect(ofPg3.map((one: { code: string }) => one.code)).toContain('wrong-upstream')
    expect(JSON.stringify(ofPg3)).toContain('replctl follow pg3 --upstream pg2')
    told(await cluster.replctl(['follow', 'pg3', '--upstream', 'pg2', '--json'])).toMatchObject({ exit: 0 })
    told(await cluster.replctl(['verify', 'pg3', '--json'])).toMatchObject({ exit: 0 })
  })

  it('it is seen alive also by a standby that has more WAL and is given up, and whatever flags are given nobody leads beside it', async () => {
    await hosts.cutLink('pg1', 'control')
    await hosts.cutLink('pg1', 'pg2')
    await cluster.server('pg1').sql('INSERT INTO ledger SELECT generate_series(1, 1000)')
    await cluster.server('pg3').awaitSql('SELECT count(*) >= 1000 FROM ledger')
    const flags = ['--allow-split-brain', '--allow-data-loss']
    told(await promote('pg2', ...flags)).toMatchObject({ exit: 3, changed: false, errors: ['primary-alive'] })
    await withFence('true')
    told(await promote('pg2', ...flags)).toMatchObject({ errors: ['primary-alive'] })
    expect(await writersNow(hosts, ['pg1', 'pg2', 'pg3'])).toEqual(['pg1'])
  })

  it('one that leads beside the primary, and that only SSH cannot reach, is told of by status and by promote', async () => {
    told(await promote('pg2', '--allow-split-brain')).toMatchObject({ exit: 0, errors: [] })
    await hosts.exec('pg1', `rm ${cluster.server('pg1').dataDir}/standby.signal`)
    await cluster.server('pg1').start() // by hand
    await cluster.server('pg1').awaitAnswer()
    await hosts.cutLink('pg1', 'control')
    const status = await cluster.replctl(['status', '--json'])
    told(status).toMatchObject({ exit: 9, errors: ['two-writers', 'host-unreachable'] })
    const again = await promote('pg2')
    told(again).toMatchObject({ exit: 0, changed: false, errors: [] })
    expect(again.json.problems).toContainEqual(
      expect.objectContaining({ code: 'two-writers', severity: 'warning', node: 'pg1' }),
    )
  })

  it('nobody leads beside a standby that somebody else promotes while the fence command runs', async () => {
    const [begun, ended] = ['begun', 'ended'].map((name) => join(hosts.directory, `fence-${name}`))
    await withFence(`touch '${begun}'; while [ ! -e '${ended}' ]; do sleep 0.1; done`)
    await hosts.powerOff('pg1')
    const promotion = promote('pg2')
    await awaitCondition('the fence command runs', async () => existsSync(begun!) || undefined)
    await cluster.server('pg3').sql('SELECT pg_promote()')
    await writeFile(ended!, '')
    const refused = await promotion
    told(refused).toMatchObject({ exit: 3, changed: false, errors: ['primary-alive'] })
    expect(refused.json.problems[0]).toMatchObject({
      node: 'pg3',
      message: expect.stringContaining('promoted meanwhile'),
    })
    expect(await writersNow(hosts, ['pg2', 'pg3'])).toEqual(['pg3'])
    told(await promote('pg3')).toMatchObject({ exit: 0, errors: [] })
    await cluster
      .server('pg3')
      .awaitSql("SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'")
  })

  /** As an older copy of the inventory, from before this node was added. */
  const forget = async (name: string) => {
    const older = parseDocument(await readFile(cluster.inventoryFile, 'utf8'))
    older.deleteIn(['nodes', name])
    await writeFile(cluster.inventoryFile, older.toString())
  }

  it('an inventory that lacks the primary promotes nobody beside it', async () => {
    await forget('pg1')
    const before = await fingerprints(hosts, ['pg1', 'pg2', 'pg3'])
    for (const flags of [[], ['pg2'], ['pg2', '--allow-split-brain', '--allow-data-loss']]) {
      told(await promote(...flags)).toMatchObject({ exit: 3, changed: false, errors: ['primary-alive'] })
    }
    const status = await cluster.replctl(['status', '--json'])
    expect(status.exitCode).toBe(9)
    expect(JSON.stringify(status.json.problems)).toContain('Put that node into the inventory')
    expect(await fingerprints(hosts, ['pg1', 'pg2', 'pg3'])).toEqual(before)
    await signalAll('STOP')
    told(await promote('pg2', '--allow-split-brain')).toMatchObject({ exit: 3, errors: ['primary-alive'] })
    await signalAll('CONT')
    await cluster.server('pg1').stop('immediate')
    told(await promote('pg2')).toMatchObject({ exit: 3, changed: false, errors: ['primary-unproven'] })
    expect(await writersNow(hosts, ['pg1', 'pg2', 'pg3'])).toEqual([])
    const done = await promote('pg2', '--allow-split-brain')
    told(done).toMatchObject({ exit: 0, changed: true, errors: [] })
    expect(done.json.result).toMatchObject({ old_primary: 'pg1', new_primary: 'pg2', fenced: false })
    expect(done.json.problems).toMatchObject([{ code: 'orphan-standby', severity: 'warning' }])
    expect(await writersNow(hosts, ['pg1', 'pg2', 'pg3'])).toEqual(['pg2'])
  })

  it('a primary that the inventory lacks is found by the start guard where no standby was told of it yet', async () => {
    await cluster.server('pg1').stop('fast')
    await cluster.server('pg3').sql('SELECT pg_promote()') // by hand
    await cluster.succeed(['promote', 'pg3'])
    await cluster
      .server('pg2')
      .awaitSql("SELECT count(*) = 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'")
    const conninfo = `host=${hosts.addressOf('pg1')} port=5432`
    await cluster.server('pg2').sql(`ALTER SYSTEM SET primary_conninfo = '${conninfo}'`)
    await cluster.server('pg2').sql('SELECT pg_reload_conf()')
    await forget('pg3')
    const refused = await promote('pg2', '--allow-split-brain', '--allow-data-loss')
    told(refused).toMatchObject({ exit: 3, changed: false, errors: ['primary-alive'] })
    expect(refused.json.problems[0].message).toContain('pg3 accepts writes, and the inventory lacks it')
    expect(await writersNow(hosts, ['pg1', 'pg2', 'pg3'])).toEqual(['pg3'])
  })

  it('a member that the inventory lacks is told of, and stays a member', async () => {
    const whole = await readFile(cluster.inventoryFile, 'utf8')
    await forget('pg3')
    for (const args of [
      ['follow', 'pg2', '--upstream', 'pg1'],
      ['rejoin', 'pg2'],
    ]) {
      const refused = await cluster.replctl([...args, '--json'])
      told(refused).toMatchObject({ exit: 3, changed: false, errors: ['orphan-standby'] })
    }
    await cluster.server('pg1').stop('immediate')
    const done = await promote('pg2')
    told(done).toMatchObject({ exit: 0, changed: true, errors: [] })
    expect(done.json.problems).toMatchObject([{ code: 'orphan-standby', severity: 'warning' }])
    expect(done.json.problems[0].message).toBe('pg3 belongs to the cluster, and the inventory lacks it')
    await writeFile(cluster.inventoryFile, whole)
    await cluster.succeed(['rejoin', 'pg3'])
    await cluster.succeed(['rejoin', 'pg1'])
    await cluster.succeed(['status'])
    await cluster
      .server('pg2')
      .awaitSql("SELECT count(*) = 2 FROM pg_stat_replication WHERE state = 'streaming'")
  })
})
