import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { restoreHosts, saveHosts } from '../kit/empty-hosts.ts'
import { type InventoryPart, type ReplctlResult, TestCluster, TestHosts } from '../kit/index.ts'
import { fingerprints } from '../kit/observe.ts'
import { expectPlanToBeRun } from '../kit/plan-and-run.ts'
import { told } from '../kit/told.ts'

describeOnHosts('follow, and cascades', () => {
  let hosts: TestHosts
  let cluster: TestCluster
  // Under load a login takes its time; nothing here is about that.
  const patient: InventoryPart = { ssh: { connect_timeout: '20s' } }
  const cascade: InventoryPart = { ...patient, nodes: { pg3: { upstream: 'pg2' } } }

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [
        { name: 'pg1' },
        { name: 'pg2', login: 'admin' },
        { name: 'pg3', login: 'root' },
        { name: 'pg4' },
      ],
    })
    cluster = await TestCluster.create(hosts, { nodes: ['pg1', 'pg2', 'pg3'], inventory: patient })
    await cluster.init()
    await cluster.addStandbys()
    await cluster.server('pg1').sql('CREATE TABLE ledger (id bigint)')
    await saveHosts(hosts)
  })
  afterAll(() => hosts?.destroy())
  beforeEach(async () => {
    await restoreHosts(hosts)
    await cluster.writeInventory(patient)
    await cluster
      .server('pg1')
      .awaitSql("SELECT count(*) = 2 FROM pg_stat_replication WHERE state = 'streaming'")
  })

  const follow = (node: string, upstream: string, ...more: string[]) =>
    cluster.replctl(['follow', node, '--upstream', upstream, ...more, '--json'])
  const status = () => cluster.replctl(['status', '--json'])
  const slots = (node: string): Promise<string[]> =>
    cluster
      .server(node)
      .sqlValue(
        'SELECT coalesce(array_agg(slot_name::text ORDER BY slot_name), $${}$$) FROM pg_replication_slots',
      )
  const senders = (node: string): Promise<string[]> =>
    cluster
      .server(node)
      .sqlValue('SELECT coalesce(array_agg(application_name ORDER BY 1), $${}$$) FROM pg_stat_replication')
  const startedAt = (node: string) => cluster.server(node).sqlValue('SELECT pg_postmaster_start_time()::text')
  const hintFor = ({ json }: ReplctlResult, node: string, code: string): string =>
    json.problems.find((one: { node: string; code: string }) => one.node === node && one.code === code)?.hint

  it('P-23: a standby is pointed at another one without a restart, its slot moves with it, and status shows the tree', async () => {
    const before = await startedAt('pg3')
    const planned = await follow('pg3', 'pg2', '--dry-run')
    told(planned).toMatchObject({ exit: 0, changed: false })
    expect((await senders('pg1')).toSorted()).toEqual(['shop_pg2', 'shop_pg3'])
    const done = await follow('pg3', 'pg2')
    told(done).toMatchObject({ exit: 0, changed: true, found: ['pg3 wrong-upstream'] })
    expect(done.json.result).toMatchObject({ node: 'pg3', upstream: 'pg2', former_upstream: 'pg1' })
    expectPlanToBeRun(planned, done)
    expect(await startedAt('pg3')).toBe(before)
    expect([await senders('pg1'), await senders('pg2')]).toEqual([['shop_pg2'], ['shop_pg3']])
    expect([await slots('pg1'), await slots('pg2')]).toEqual([['shop_pg2'], ['shop_pg3']])
    await cluster.server('pg1').sql('INSERT INTO ledger VALUES (1)')
    await cluster.server('pg3').awaitSql('SELECT count(*) = 1 FROM ledger')
    // The inventory wishes otherwise, and status goes on to say so, until it is changed.
    const wrong = await status()
    told(wrong).toMatchObject({ exit: 9, found: ['pg3 wrong-upstream'] })
    expect(hintFor(wrong, 'pg3', 'wrong-upstream')).toContain('replctl follow pg3 --upstream pg1')
    await cluster.writeInventory(cascade)
    told(await status()).toMatchObject({ exit: 0, found: [] })
    const text = (await cluster.replctl(['status'])).stdout
    expect(text).toMatch(/pg1 .*\n.*└─ pg2 .*\n.* {3}└─ pg3 /)
    told(await follow('pg3', 'pg2')).toMatchObject({ exit: 0, changed: false, found: [] })
    told(await cluster.replctl(['verify', '--json'])).toMatchObject({ exit: 0, found: [] })
  })

  it('P-23: clones come from the standby that they will follow, also while the primary is down', async () => {
    const wider = await TestCluster.create(hosts, {
      inventory: { ...patient, nodes: { pg3: { upstream: 'pg2' }, pg4: { upstream: 'pg2' } } },
    })
    const [pg1, pg2, pg4] = ['pg1', 'pg2', 'pg4'].map((name) => cluster.server(name))
    await hosts.exec('pg2', ['touch', `${pg2!.dataDir}/label`], { user: 'postgres' })
    const add = (...args: string[]) => wider.replctl(['add-standby', ...args, '--json'])
    told(await add('pg3', '--reclone')).toMatchObject({ exit: 0, found: [] })
    await hosts.exec('pg3', ['test', '-f', `${pg2!.dataDir}/label`])
    expect([await senders('pg1'), await senders('pg2')]).toEqual([['shop_pg2'], ['shop_pg3']])
    await pg1!.stop()
    told(await add('pg4')).toMatchObject({ exit: 0, changed: true, found: ['null no-primary'] })
    await hosts.exec('pg4', ['test', '-f', `${pg2!.dataDir}/label`])
    expect(await slots('pg2')).toEqual(['shop_pg3', 'shop_pg4'])
    await pg1!.start()
    await pg2!.awaitSql("SELECT count(*) = 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'")
    await pg1!.sql('INSERT INTO ledger VALUES (1)')
    await pg4!.awaitSql('SELECT count(*) = 1 FROM ledger')
    told(await wider.replctl(['status', '--json'])).toMatchObject({ exit: 0, found: [] })
  })

  it('the middle node of a cascade is lost: status names the command that mends it, and nothing is lost', async () => {
    await cluster.writeInventory(cascade)
    told(await follow('pg3', 'pg2')).toMatchObject({ exit: 0, found: [] })
    await cluster.server('pg2').kill9()
    await cluster
      .server('pg1')
      .sql('INSERT INTO ledger SELECT generate_series(1, 1000); SELECT pg_switch_wal()')
    await cluster.server('pg3').awaitSql('SELECT count(*) = 0 FROM pg_stat_wal_receiver')
    const lost = await status()
    told(lost).toMatchObject({ exit: 9, found: ['pg2 instance-stopped', 'pg3 wrong-upstream'] })
    expect(hintFor(lost, 'pg3', 'wrong-upstream')).toContain('replctl follow pg3 --upstream pg1')
    told(await follow('pg3', 'pg1')).toMatchObject({ exit: 0, changed: true })
    await cluster.server('pg3').awaitSql('SELECT count(*) = 1000 FROM ledger')
    told(await status()).toMatchObject({ exit: 9, found: ['pg2 instance-stopped'] })
    expect(await slots('pg1')).toEqual(['shop_pg2', 'shop_pg3'])
    // The middle node is back: the wish holds again, its left-over slot goes with the way back.
    told(await cluster.replctl(['add-standby', 'pg2', '--json'])).toMatchObject({ exit: 0 })
    expect(hintFor(await status(), 'pg3', 'wrong-upstream')).toContain('replctl follow pg3 --upstream pg2')
    told(await follow('pg3', 'pg2')).toMatchObject({ exit: 0, changed: true, found: [] })
    told(await status()).toMatchObject({ exit: 0, found: [] })
    expect([await slots('pg1'), await slots('pg2'), await slots('pg3')]).toEqual([
      ['shop_pg2'],
      ['shop_pg3'],
      [],
    ])
  })

  it('a standby that others receive from is not cloned anew beneath them: the refusal names the way round, and that works', async () => {
    await cluster.writeInventory(cascade)
    told(await follow('pg3', 'pg2')).toMatchObject({ exit: 0, found: [] })
    const before = await fingerprints(hosts)
    const commands = [
      ['add-standby', 'pg2', '--reclone'],
      ['rejoin', 'pg2', '--reclone'],
    ]
    for (const command of commands) {
      const refused = await cluster.replctl([...command, '--json'])
      told(refused).toMatchObject({ exit: 3, changed: false, found: ['pg2 wrong-upstream'] })
      expect(refused.json.problems[0].message).toContain('pg3 receives from pg2')
      expect(refused.json.problems[0].hint).toBe(
        `First: replctl follow pg3 --upstream pg1, then replctl ${command.join(' ')}; and back when it streams: replctl follow pg3 --upstream pg2`,
      )
    }
    expect(await fingerprints(hosts)).toEqual(before)
    expect(await senders('pg2')).toEqual(['shop_pg3'])
    for (const command of commands) {
      const began = await startedAt('pg2')
      told(await follow('pg3', 'pg1')).toMatchObject({ exit: 0, changed: true })
      const done = await cluster.replctl([...command, '--json'])
      told(done).toMatchObject({ exit: 0, changed: true, found: [] })
      told(await follow('pg3', 'pg2')).toMatchObject({ exit: 0, changed: true, found: [] })
      expect(await startedAt('pg2')).not.toBe(began)
    }
    await cluster.server('pg1').sql('INSERT INTO ledger VALUES (1)')
    await cluster.server('pg3').awaitSql('SELECT count(*) = 1 FROM ledger')
    told(await status()).toMatchObject({ exit: 0, found: [] })
    expect([await slots('pg1'), await slots('pg2')]).toEqual([['shop_pg2'], ['shop_pg3']])
  })

  it('the middle node of a cascade is lost and cloned anew: who received from it gets a slot, and is told of where it does not come back', async () => {
    const [pg1, pg2, pg3] = ['pg1', 'pg2', 'pg3'].map((name) => cluster.server(name))
    await cluster.writeInventory(cascade)
    told(await follow('pg3', 'pg2')).toMatchObject({ exit: 0, found: [] })
    const losses: [string, string[]][] = [
      [`rm -rf ${pg2!.dataDir}`, ['add-standby', 'pg2', '--reclone']],
      [`rm -rf ${pg2!.dataDir}`, ['add-standby', 'pg2']],
      [':', ['rejoin', 'pg2', '--reclone']],
    ]
    for (const [loss, command] of losses) {
      await pg1!.sql('INSERT INTO ledger VALUES (1)')
      await pg3!.awaitCatchup(pg1!)
      await pg2!.kill9()
      await hosts.exec('pg2', loss)
      await pg3!.awaitSql('SELECT count(*) = 0 FROM pg_stat_wal_receiver')
      await pg1!.sql('INSERT INTO ledger VALUES (2)')
      const done = await cluster.replctl([...command, '--json'])
      told(done).toMatchObject({ exit: 0, changed: true, found: ['pg3 not-streaming'] })
      expect(done.json.problems[0]).toMatchObject({
        severity: 'warning',
        hint: expect.stringContaining('replctl follow pg3 --upstream pg1'),
      })
      // It lacks the segment in which it was cut off: the slot keeps what it would need after that.
      expect([await senders('pg2'), await slots('pg2')]).toEqual([[], ['shop_pg3']])
      told(await follow('pg3', 'pg1')).toMatchObject({ exit: 0, changed: true })
      await pg3!.awaitCatchup(pg1!)
      expect(await slots('pg2')).toEqual([])
      told(await follow('pg3', 'pg2')).toMatchObject({ exit: 0, changed: true, found: [] })
      told(await status()).toMatchObject({ exit: 0, found: [] })
    }
    expect(await pg3!.sqlValue('SELECT count(*) FROM ledger')).toBe(6)
  })

  it('the host of the middle node of a cascade is off: who received from it goes over to the primary', async () => {
    await cluster.writeInventory(cascade)
    told(await follow('pg3', 'pg2')).toMatchObject({ exit: 0, found: [] })
    await hosts.powerOff('pg2')
    await cluster.server('pg1').sql('INSERT INTO ledger VALUES (1)')
    const done = await follow('pg3', 'pg1')
    told(done).toMatchObject({ exit: 0, changed: true })
    expect(done.json.problems).toContainEqual(
      expect.objectContaining({ code: 'host-unreachable', node: 'pg2' }),
    )
    await cluster.server('pg3').awaitSql('SELECT count(*) = 1 FROM ledger')
    expect(await senders('pg1')).toContain('shop_pg3')
  })

  it('the middle node of a cascade is off, and then the primary is lost: the middle one never led, and is in nobody’s way', async () => {
    await cluster.writeInventory(cascade)
    told(await follow('pg3', 'pg2')).toMatchObject({ exit: 0, found: [] })
    await cluster.server('pg1').sql('INSERT INTO ledger VALUES (1)')
    await cluster.server('pg3').awaitSql('SELECT count(*) = 1 FROM ledger')
    await hosts.powerOff('pg2')
    await cluster.server('pg1').kill9()
    const done = await cluster.replctl(['promote', '--json'])
    told(done).toMatchObject({ exit: 0, changed: true, found: ['pg2 host-unreachable'] })
    expect(done.json.result).toMatchObject({ old_primary: 'pg1', new_primary: 'pg3', fenced: true })
    expect(await cluster.server('pg3').sqlValue('SELECT count(*) FROM ledger')).toBe(1)
    // WAL is kept for it: it follows when it is back.
    expect(await slots('pg3')).toEqual(['shop_pg2'])
  })

  it('refusals name their reason and change nothing', async () => {
    told(await follow('pg3', 'pg2')).toMatchObject({ exit: 0 })
    const before = await fingerprints(hosts)
    told(await follow('pg2', 'pg3')).toMatchObject({ exit: 3, changed: false, found: ['pg2 wrong-upstream'] })
    told(await follow('pg1', 'pg2')).toMatchObject({ exit: 3, changed: false, found: ['pg1 primary-alive'] })
    told(await follow('pg2', 'pg2')).toMatchObject({ exit: 2, changed: false })
    told(await follow('pg2', 'pg9')).toMatchObject({ exit: 2, changed: false })
    expect((await cluster.replctl(['follow', 'pg2', '--json'])).exitCode).toBe(2)
    expect(await fingerprints(hosts)).toEqual(before)
    // A login that fails is found before anything is changed.
    const pg2 = cluster.server('pg2')
    const { stdout: hba } = await hosts.exec('pg2', ['cat', `${pg2.dataDir}/pg_hba.conf`])
    await hosts.exec('pg2', ['sed', '-i', '1i host replication all all reject', `${pg2.dataDir}/pg_hba.conf`])
    await pg2.sql('SELECT pg_reload_conf(); SELECT pg_terminate_backend(pid) FROM pg_stat_replication')
    await cluster.server('pg3').awaitSql('SELECT count(*) = 0 FROM pg_stat_wal_receiver')
    told(await follow('pg3', 'pg2')).toMatchObject({ exit: 3, changed: false })
    expect(hba).toContain('replctl')
    await hosts.powerOff('pg2')
    told(await follow('pg3', 'pg2')).toMatchObject({ exit: 4, changed: false })
    told(await follow('pg3', 'pg1')).toMatchObject({ exit: 0, changed: true })
  })

  it('one whose former upstream is unknown, and that does not come, keeps nobody from anything', async () => {
    const pg3 = cluster.server('pg3')
    await pg3.sql("ALTER SYSTEM SET primary_conninfo = ''; SELECT pg_reload_conf()")
    await pg3.awaitSql('SELECT count(*) = 0 FROM pg_stat_wal_receiver')
    const [startup] = await hosts.pids('pg3', 'postgres:.*startup')
    await hosts.kill('pg3', startup!, 'SIGSTOP')
    told(await follow('pg3', 'pg2', '--timeout', '3s')).toMatchObject({ exit: 7, changed: true })
    await hosts.kill('pg3', startup!, 'SIGCONT')
    told(await follow('pg3', 'pg1')).toMatchObject({ exit: 0, changed: true })
    expect([await senders('pg1'), await senders('pg2')]).toEqual([['shop_pg2', 'shop_pg3'], []])
    expect([await slots('pg1'), await slots('pg2')]).toEqual([['shop_pg2', 'shop_pg3'], []])
    told(await status()).toMatchObject({ exit: 0, found: [] })
  })

  it('WAL that the new upstream no longer has is found out before anything is changed', async () => {
    const [pg1, pg3] = [cluster.server('pg1'), cluster.server('pg3')]
    await pg3.sql("ALTER SYSTEM SET primary_conninfo = ''; SELECT pg_reload_conf()")
    await pg3.awaitSql('SELECT count(*) = 0 FROM pg_stat_wal_receiver')
    await pg1.sql(
      "SELECT pg_drop_replication_slot('shop_pg3'); ALTER SYSTEM SET wal_keep_size = 0; SELECT pg_reload_conf()",
    )
    for (let n = 0; n < 3; n += 1) await pg1.sql('INSERT INTO ledger VALUES (7); SELECT pg_switch_wal()')
    await cluster.server('pg2').awaitCatchup(pg1)
    await pg1.sql('CHECKPOINT')
    const refused = await follow('pg3', 'pg1')
    told(refused).toMatchObject({ exit: 3, changed: false, found: ['pg3 wal-removed'] })
    expect(refused.json.problems[0].hint).toContain('replctl add-standby pg3 --reclone')
    expect(await slots('pg1')).toEqual(['shop_pg2'])
  })

  it('one that holds a transaction back on purpose changes over while its former upstream goes on', async () => {
    await cluster.writeInventory({ ...patient, nodes: { pg3: { delay: '1h' } } })
    told(await cluster.replctl(['add-standby', 'pg3', '--json'])).toMatchObject({ exit: 0, changed: true })
    await cluster.server('pg1').sql('INSERT INTO ledger VALUES (1)')
    await cluster
      .server('pg3')
      .awaitSql("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'RecoveryApplyDelay'")
    expect(await senders('pg1')).toContain('shop_pg3')
    told(await follow('pg3', 'pg2')).toMatchObject({ exit: 0, changed: true, found: ['pg3 wrong-upstream'] })
    expect([await slots('pg1'), await slots('pg2')]).toEqual([['shop_pg2'], ['shop_pg3']])
    expect(await senders('pg1')).toEqual(['shop_pg2'])
    told(await follow('pg3', 'pg2')).toMatchObject({ exit: 0, changed: false })
    // Once it has replayed what it held back, it receives from there.
    await cluster.writeInventory(cascade)
    told(await cluster.replctl(['add-standby', 'pg3', '--json'])).toMatchObject({ exit: 0, changed: true })
    await cluster.server('pg3').awaitSql('SELECT count(*) = 1 FROM ledger')
    expect(await senders('pg2')).toEqual(['shop_pg3'])
    told(await status()).toMatchObject({ exit: 0, found: [] })
  })

  /** Writes five segments, and has both remove what no slot of theirs keeps. */
  const moveOn = async (primary: string, standby: string) => {
    const [leads, follows] = [cluster.server(primary), cluster.server(standby)]
    for (let n = 0; n < 5; n += 1) await leads.sql('INSERT INTO ledger VALUES (2); SELECT pg_switch_wal()')
    await leads.sql('CHECKPOINT')
    await follows.awaitCatchup(leads)
    await follows.sql('CHECKPOINT')
  }
  const keepNoMore = async (...names: string[]) => {
    for (const name of names)
      await cluster.server(name).sql('ALTER SYSTEM SET wal_keep_size = 0; SELECT pg_reload_conf()')
  }

  it('its upstream goes over to a new timeline while it holds a transaction back: nobody waits for as long as its delay is', async () => {
    const late: InventoryPart = { ...patient, nodes: { pg3: { upstream: 'pg2', delay: '1h' } } }
    await cluster.writeInventory(late)
    told(await follow('pg3', 'pg2')).toMatchObject({ exit: 0, changed: true })
    await cluster.server('pg1').sql('INSERT INTO ledger VALUES (1)')
    await cluster
      .server('pg3')
      .awaitSql("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'RecoveryApplyDelay'")
    told(await cluster.replctl(['switchover', 'pg2', '--json'])).toMatchObject({ exit: 0, found: [] })
    await cluster.server('pg3').awaitSql("SELECT status = 'waiting' FROM pg_stat_wal_receiver")
    const seen = await status()
    told(seen).toMatchObject({ exit: 0, found: ['pg3 not-streaming'] })
    expect(hintFor(seen, 'pg3', 'not-streaming')).toMatch(/^Nothing is to be done/)
    const verified = await cluster.replctl(['verify', '--json'])
    expect(verified.ms).toBeLessThan(30_000)
    // Without its delay it goes on by itself.
    const back: InventoryPart = { ...patient, nodes: { pg3: { upstream: 'pg2' } } }
    await cluster.writeInventory(back)
    const tooLate = await cluster.replctl(['switchover', 'pg3', '--json'])
    told(tooLate).toMatchObject({ exit: 3, changed: false, found: ['pg3 not-promotable'] })
    expect(hintFor(tooLate, 'pg3', 'not-promotable')).toContain('replctl add-standby pg3')
    told(await cluster.replctl(['add-standby', 'pg3', '--json'])).toMatchObject({ exit: 0, changed: true })
    await cluster.server('pg3').awaitSql('SELECT count(*) = 1 FROM ledger')
    told(await status()).toMatchObject({ exit: 0, found: [] })
  })

  it('a bystander whose replay is paused is not waited for, and comes once that goes on', async () => {
    await cluster.server('pg3').sql('SELECT pg_wal_replay_pause()')
    const done = await cluster.replctl(['switchover', 'pg2', '--json'])
    told(done).toMatchObject({ exit: 0, changed: true, found: ['pg3 replay-paused'] })
    expect(hintFor(done, 'pg3', 'replay-paused')).toContain('pg_wal_replay_resume')
    expect(done.json.result.repointed).toEqual(['pg1'])
    expect(done.ms).toBeLessThan(40_000)
    expect(await slots('pg2')).toEqual(['shop_pg1', 'shop_pg3'])
    await cluster.server('pg3').sql('SELECT pg_wal_replay_resume()')
    await cluster.server('pg2').awaitStreaming('shop_pg3')
    told(await status()).toMatchObject({ exit: 0, found: [] })
  })

  it('a delayed standby whose WAL the new primary does not have: the slot that keeps it stays, and the way is told that works', async () => {
    await cluster.writeInventory({ ...patient, nodes: { pg3: { delay: '1h' } } })
    await keepNoMore('pg1', 'pg2')
    told(await cluster.replctl(['add-standby', 'pg3', '--json'])).toMatchObject({ exit: 0, changed: true })
    await cluster.server('pg1').sql('INSERT INTO ledger VALUES (1)')
    await cluster
      .server('pg3')
      .awaitSql("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'RecoveryApplyDelay'")
    told(await cluster.replctl(['switchover', 'pg2', '--json'])).toMatchObject({ exit: 0, found: [] })
    expect([await slots('pg1'), await slots('pg2')]).toEqual([[], ['shop_pg1', 'shop_pg3']])
    await moveOn('pg2', 'pg1')
    const planned = await cluster.replctl(['switchover', 'pg1', '--dry-run', '--json'])
    told(planned).toMatchObject({ exit: 0, found: ['pg3 wal-removed'] })
    const done = await cluster.replctl(['switchover', 'pg1', '--json'])
    told(done).toMatchObject({ exit: 0, changed: true, found: ['pg3 wal-removed'] })
    for (const one of [planned, done])
      expect(hintFor(one, 'pg3', 'wal-removed')).toContain('replctl follow pg3 --upstream pg2')
    expect([await slots('pg1'), await slots('pg2')]).toEqual([['shop_pg2', 'shop_pg3'], ['shop_pg3']])
    const unkept = await status()
    told(unkept).toMatchObject({ exit: 9, found: ['pg3 not-streaming'] })
    expect(hintFor(unkept, 'pg3', 'not-streaming')).toContain('replctl follow pg3 --upstream pg2')
    told(await follow('pg3', 'pg2')).toMatchObject({ exit: 0, changed: true, found: ['pg3 wrong-upstream'] })
    expect([await slots('pg1'), await slots('pg2')]).toEqual([['shop_pg2'], ['shop_pg3']])
    // Back too early: its place does not keep what it needs, and nothing is changed.
    const early = await follow('pg3', 'pg1')
    told(early).toMatchObject({ exit: 3, changed: false, found: ['pg3 wal-removed'] })
    expect(early.json.problems[0].hint).toContain('run this again when it has caught up')
    await cluster.writeInventory(patient)
    const caughtUp = await cluster.replctl(['add-standby', 'pg3', '--from', 'pg2', '--json'])
    told(caughtUp).toMatchObject({
      ...{ exit: 0, changed: true, found: ['pg3 wrong-upstream', 'pg1 setting-overridden'] },
    })
    await cluster.server('pg3').awaitSql('SELECT count(*) = 6 FROM ledger')
    told(await follow('pg3', 'pg1')).toMatchObject({ exit: 0, changed: true, found: [] })
    expect([await slots('pg1'), await slots('pg2')]).toEqual([['shop_pg2', 'shop_pg3'], []])
    told(await status()).toMatchObject({ exit: 0, found: [] })
  })

  it('a standby that is away during a switchover, and whose WAL the new primary does not have, catches up from the old one', async () => {
    await keepNoMore('pg1', 'pg2')
    await cluster.server('pg3').stop()
    await moveOn('pg1', 'pg2')
    const done = await cluster.replctl(['switchover', 'pg2', '--json'])
    told(done).toMatchObject({ exit: 0, changed: true, found: ['pg3 instance-stopped', 'pg3 wal-removed'] })
    expect(hintFor(done, 'pg3', 'wal-removed')).toContain('replctl add-standby pg3 --from pg1')
    expect([await slots('pg1'), await slots('pg2')]).toEqual([['shop_pg3'], ['shop_pg1', 'shop_pg3']])
    const refused = await cluster.replctl(['add-standby', 'pg3', '--json'])
    told(refused).toMatchObject({ exit: 3, changed: false, found: ['pg3 wal-removed'] })
    expect(hintFor(refused, 'pg3', 'wal-removed')).toContain('replctl add-standby pg3 --from pg1')
    told(await cluster.replctl(['add-standby', 'pg3', '--from', 'pg1', '--json'])).toMatchObject({
      ...{ exit: 0, changed: true, found: ['pg3 wrong-upstream', 'pg2 setting-overridden'] },
    })
    await cluster.server('pg3').awaitSql('SELECT count(*) = 5 FROM ledger')
    told(await follow('pg3', 'pg2')).toMatchObject({ exit: 0, changed: true, found: [] })
    expect([await slots('pg1'), await slots('pg2')]).toEqual([[], ['shop_pg1', 'shop_pg3']])
    told(await status()).toMatchObject({ exit: 0, found: [] })
  })

  it('a standby that is away when the primary is lost is told of, before and after, and catches up once the old one is back', async () => {
    await keepNoMore('pg1', 'pg2')
    await cluster.server('pg3').stop()
    await moveOn('pg1', 'pg2')
    await cluster.server('pg1').stop()
    for (const more of [['--dry-run'], []]) {
      const promoted = await cluster.replctl(['promote', 'pg2', ...more, '--json'])
      told(promoted).toMatchObject({ exit: 0, found: ['pg3 wal-removed'] })
      expect(hintFor(promoted, 'pg3', 'wal-removed')).toMatch(/^pg1 may still keep it: bring that back first/)
    }
    told(await cluster.replctl(['rejoin', 'pg1', '--json'])).toMatchObject({ exit: 0, changed: true })
    expect([await slots('pg1'), await slots('pg2')]).toEqual([['shop_pg3'], ['shop_pg1', 'shop_pg3']])
    const refused = await cluster.replctl(['add-standby', 'pg3', '--json'])
    told(refused).toMatchObject({ exit: 3, found: ['pg3 wal-removed'] })
    expect(hintFor(refused, 'pg3', 'wal-removed')).toContain('replctl add-standby pg3 --from pg1')
  })

  it('the slot of a standby that is removed while its upstream is away goes with the return of that one', async () => {
    await cluster.writeInventory(cascade)
    told(await follow('pg3', 'pg2')).toMatchObject({ exit: 0, found: [] })
    await cluster.server('pg2').stop()
    told(await follow('pg3', 'pg1')).toMatchObject({ exit: 0, changed: true })
    told(await cluster.replctl(['remove-standby', 'pg3', '--json'])).toMatchObject({
      ...{ exit: 0, changed: true, found: ['pg2 slot-left-over'] },
    })
    // As the answer says, it is taken out of the inventory, too.
    const smaller = await TestCluster.create(hosts, { nodes: ['pg1', 'pg2'], inventory: patient })
    await cluster.server('pg2').start()
    const left = await smaller.replctl(['status', '--json'])
    told(left).toMatchObject({ exit: 0, found: ['pg2 slot-left-over'] })
    expect(hintFor(left, 'pg2', 'slot-left-over')).toBe('Have it dropped: replctl add-standby pg2')
    expect((await smaller.replctl(['status'])).stdout).not.toContain('did not make')
    told(await smaller.replctl(['add-standby', 'pg2', '--json'])).toMatchObject({ exit: 0, changed: true })
    expect([await slots('pg1'), await slots('pg2')]).toEqual([['shop_pg2'], []])
    told(await smaller.replctl(['status', '--json'])).toMatchObject({ exit: 0, found: [] })
  })

  it('a standby that PostgreSQL has paused for a setting that is too low is restarted with enough, or it is told what is missing', async () => {
    const [pg1, pg2, pg3] = ['pg1', 'pg2', 'pg3'].map((name) => cluster.server(name))
    const most = Number(await pg1!.sqlValue("SELECT current_setting('max_connections')::int"))
    await pg2!.sql(`ALTER SYSTEM SET max_connections = ${most}`)
    await pg1!.sql(`ALTER SYSTEM SET max_connections = ${most + 50}`)
    await pg1!.stop()
    await pg1!.start()
    for (const server of [pg2, pg3]) await server!.awaitSql('SELECT pg_is_wal_replay_paused()')
    const rejoin = (...more: string[]) => cluster.replctl(['rejoin', 'pg3', ...more, '--json'])
    const stepOf = ({ json }: ReplctlResult) =>
      json.result.steps.find(({ title }: { title: string }) => title.startsWith('restart it where'))?.state
    expect(stepOf(await rejoin('--dry-run'))).toBe('planned')
    const done = await rejoin()
    told(done).toMatchObject({ exit: 0, changed: true, found: [] })
    expect(stepOf(done)).toBe('applied')
    expect(await pg3!.sqlValue("SELECT current_setting('max_connections')::int")).toBe(most + 50)
    expect(await pg3!.sqlValue('SELECT pg_is_wal_replay_paused()')).toBe(false)
    // Something of its own overrides what is rendered: a restart would not help, and would end it.
    const before = await startedAt('pg2')
    const still = await cluster.replctl(['add-standby', 'pg2', '--json'])
    told(still).toMatchObject({ exit: 0, found: ['pg2 setting-overridden', 'pg2 replay-paused'] })
    expect(hintFor(still, 'pg2', 'replay-paused')).toContain(
      `raise max_connections from ${most} to ${most + 50}`,
    )
    expect(await startedAt('pg2')).toBe(before)
  })
})
