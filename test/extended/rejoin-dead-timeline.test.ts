import { afterAll, beforeAll, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { awaitCondition, TestCluster, TestHosts } from '../kit/index.ts'
import { openToControlHost } from '../kit/observe.ts'

describeOnHosts('rejoin of a standby that somebody had promoted beside the primary', () => {
  let hosts: TestHosts
  let cluster: TestCluster

  beforeAll(async () => {
    hosts = await TestHosts.create({ hosts: [{ name: 'pg1' }, { name: 'pg2' }, { name: 'pg3' }] })
    cluster = await TestCluster.create(hosts, { inventory: openToControlHost })
    await cluster.init()
    await cluster.addStandbys()
    await cluster.server('pg1').sql('CREATE TABLE ledger (id bigint PRIMARY KEY)')
  })
  afterAll(() => hosts?.destroy())

  const server = (name: string) => cluster.server(name)

  it('nothing of that timeline is left: the next failover chooses by what each node received', async () => {
    await server('pg1').sql('INSERT INTO ledger VALUES (1)')
    for (const name of ['pg2', 'pg3']) await server(name).awaitCatchup(server('pg1'))
    await server('pg2').promote()
    await server('pg2').sql('INSERT INTO ledger VALUES (2)')
    await server('pg2').stop()
    await cluster.succeed(['rejoin', 'pg2'])
    await server('pg2').awaitCatchup(server('pg1'))
    expect(
      await server('pg2').sqlValue("SELECT count(*) FROM pg_ls_waldir() WHERE name LIKE '00000002%'"),
    ).toBe(0)

    // Only pg3 has the last row when the primary is lost.
    await server('pg2').stop()
    await server('pg1').sql('INSERT INTO ledger VALUES (3)')
    await server('pg3').awaitCatchup(server('pg1'))
    await server('pg1').kill9()
    await server('pg2').start()
    const status = (await cluster.replctl(['status', '--json'])).json.result as {
      nodes: { name: string; timeline: number; role: string }[]
    }
    expect(status.nodes.find(({ name }) => name === 'pg2')).toMatchObject({ role: 'standby', timeline: 1 })
    await cluster.succeed(['promote'])
    expect(await server('pg3').sqlValue('SELECT pg_is_in_recovery()')).toBe(false)
    await server('pg2').awaitCatchup(server('pg3'))
    expect(await server('pg2').sqlValue("SELECT string_agg(id::text, ' ' ORDER BY id) FROM ledger")).toBe(
      '1 3',
    )
  })
})

describeOnHosts('the same, where it had archived its timeline', () => {
  const archiveDir = '/var/lib/postgresql/archive'
  let hosts: TestHosts
  let cluster: TestCluster

  beforeAll(async () => {
    hosts = await TestHosts.create({ hosts: ['pg1', 'pg2', 'backup1'].map((name) => ({ name })) })
    cluster = await TestCluster.create(hosts, {
      nodes: ['pg1', 'pg2'],
      inventory: {
        archive: { host: hosts.addressOf('backup1'), user: 'postgres', dir: archiveDir },
        ...openToControlHost,
      },
    })
    await cluster.init()
    await cluster.addStandbys()
  })
  afterAll(() => hosts?.destroy())

  const server = (name: string) => cluster.server(name)
  const archived = async (folder: string) =>
    (await hosts.exec('backup1', `ls -R ${archiveDir}/*/${folder} 2>/dev/null || :`, { user: 'postgres' }))
      .stdout

  it('that is set aside there: standbys start and stay on the timeline of the primary, and the next one may get its number', async () => {
    await server('pg1').sql('CREATE TABLE ledger (id bigint PRIMARY KEY)')
    await server('pg2').awaitCatchup(server('pg1'))
    await server('pg2').promote()
    await server('pg2').sql('INSERT INTO ledger VALUES (2)')
    await server('pg2').sql('SELECT pg_switch_wal()')
    await awaitCondition('its timeline is archived', async () =>
      /00000002[0-9A-F]{16}/.test(await archived('wal')),
    )
    await server('pg2').stop()

    const { json } = await cluster.succeed(['rejoin', 'pg2'])
    expect(json.problems).toMatchObject([{ code: 'wrong-timeline', severity: 'warning', node: 'pg2' }])
    expect(await archived('wal')).not.toMatch(/^00000002/m)
    expect(await archived('diverged')).toMatch(/00000002\.history\n00000002[0-9A-F]{16}/)
    await server('pg2').stop()
    await server('pg2').start()
    await server('pg1').sql('INSERT INTO ledger VALUES (1)')
    await server('pg2').awaitCatchup(server('pg1'))
    await cluster.succeed(['switchover', 'pg2'])
    await server('pg2').sql('SELECT pg_switch_wal()')
    await awaitCondition('the new timeline is archived', async () =>
      /00000002\.history\n00000002[0-9A-F]{16}/.test(await archived('wal')),
    )
    expect(await server('pg2').sqlValue("SELECT string_agg(id::text, ' ') FROM ledger")).toBe('1')
  })

  it('nothing that a lost primary wrote after the fork is archived later, when it leads again', async () => {
    await server('pg1').stop()
    await server('pg2').sql('INSERT INTO ledger VALUES (3)')
    await server('pg2').kill9()
    await server('pg1').start()
    await cluster.succeed(['promote', 'pg1'])
    await cluster.succeed(['rejoin', 'pg2'])
    const unmarked = `SELECT string_agg(w.name, ' ') FROM pg_ls_waldir() w WHERE w.name ~ '^00000002[0-9A-F]{16}$'
      AND NOT EXISTS (SELECT FROM pg_ls_archive_statusdir() s WHERE s.name IN (w.name || '.done', w.name || '.ready'))`
    expect(await server('pg2').sqlValue(unmarked)).toBeNull()
  })
})
