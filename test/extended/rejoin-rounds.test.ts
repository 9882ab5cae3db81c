import { afterAll, beforeAll, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { TestCluster, TestHosts } from '../kit/index.ts'
import { openToControlHost, WriterWatch, writersNow } from '../kit/observe.ts'

describeOnHosts('rejoin, again and again', () => {
  let hosts: TestHosts
  let cluster: TestCluster
  let last = 0

  beforeAll(async () => {
    hosts = await TestHosts.create({ hosts: [{ name: 'pg1' }, { name: 'pg2' }, { name: 'pg3' }] })
    cluster = await TestCluster.create(hosts, {
      inventory: { ...openToControlHost, ssh: { connect_timeout: '10s' } },
    })
    await cluster.init()
    await cluster.addStandbys()
    await cluster.server('pg1').sql('CREATE TABLE ledger (id bigint PRIMARY KEY)')
  })
  afterAll(() => hosts?.destroy())

  const names = ['pg1', 'pg2', 'pg3']
  const server = (name: string) => cluster.server(name)
  const others = (name: string) => names.filter((one) => one !== name)
  /** A confirmed row that every standby has. */
  async function write(primary: string): Promise<void> {
    last += 1
    await server(primary).sql(`INSERT INTO ledger VALUES (${last})`)
    for (const name of others(primary)) {
      if (await server(name).isRunning()) await server(name).awaitCatchup(server(primary))
    }
  }
  async function expectGoodCluster(primary: string): Promise<void> {
    expect(await writersNow(hosts)).toEqual([primary])
    for (const name of others(primary)) await server(name).awaitCatchup(server(primary))
    expect((await cluster.replctl(['verify', '--json'])).json.problems).toEqual([])
    for (const name of names) {
      const slots = await server(name).sqlValue(
        "SELECT coalesce(string_agg(slot_name, ',' ORDER BY slot_name), '') FROM pg_replication_slots",
      )
      const wanted =
        name === primary
          ? others(primary)
              .map((one) => `shop_${one}`)
              .join(',')
          : ''
      expect(`${name}: ${slots}`).toBe(`${name}: ${wanted}`)
      expect(await server(name).sqlValue('SELECT count(*) FROM ledger')).toBe(last)
    }
  }

  it('P-50: two primaries in a row are killed and come back in either order, until every node has led', async () => {
    const watch = new WriterWatch(hosts)
    const rounds = [
      { primary: 'pg1', next: 'pg2', third: 'pg3', back: ['pg2', 'pg1'] },
      { primary: 'pg3', next: 'pg1', third: 'pg2', back: ['pg3', 'pg1'] },
      { primary: 'pg2', next: 'pg3', third: 'pg1', back: ['pg3', 'pg2'] },
    ]
    for (const { primary, next, third, back } of rounds) {
      await write(primary)
      await server(primary).kill9()
      await cluster.succeed(['promote', next])
      await write(next)
      await server(next).kill9()
      await cluster.succeed(['promote', third])
      await write(third)
      for (const name of back) {
        await cluster.succeed(['rejoin', name])
        await write(third)
      }
      await expectGoodCluster(third)
    }
    expect(await watch.stop()).toEqual([])
    // The timelines form one line: each history begins with the one before.
    const histories = await Promise.all(
      [5, 6, 7].map((id) => server('pg1').sqlValue(`SELECT pg_read_file('pg_wal/0000000${id}.history')`)),
    )
    expect(String(histories[1]).startsWith(String(histories[0]).trimEnd())).toBe(true)
    expect(String(histories[2]).startsWith(String(histories[1]).trimEnd())).toBe(true)
  })

  it('P-07: tablespaces made while the node was away are there after a rewind, and a missing folder is named first', async () => {
    // pg1 leads now.
    for (const name of names) {
      await hosts.exec(name, 'mkdir -p /data/a; [ "$(uname -n)" = pg1 ] || mkdir -p /data/b', {
        user: 'postgres',
      })
    }
    await server('pg1').sql("CREATE TABLESPACE a LOCATION '/data/a'")
    await server('pg1').sql('CREATE TABLE in_a TABLESPACE a AS SELECT generate_series(1, 1000) AS id')
    await write('pg1')
    await hosts.cutLink('pg1')
    await cluster.succeed(['promote', 'pg2', '--allow-split-brain'])
    await server('pg1').sql('DELETE FROM in_a WHERE id > 10')
    await server('pg2').sql("CREATE TABLESPACE b LOCATION '/data/b'")
    await server('pg2').sql('CREATE TABLE in_b TABLESPACE b AS SELECT generate_series(1, 500) AS id')
    await hosts.restoreLink('pg1')
    const refused = await cluster.replctl(['rejoin', 'pg1', '--json'])
    expect(refused.exitCode, refused.stderr).toBe(3)
    expect(refused.json.problems[0]).toMatchObject({ code: 'tablespace-unmapped', node: 'pg1' })
    await hosts.exec('pg1', 'mkdir -p /data/b', { user: 'postgres' })
    const done = await cluster.succeed(['rejoin', 'pg1'])
    expect(done.json.result.method).toBe('rewind')
    await expectGoodCluster('pg2')
    expect(await server('pg1').sqlValue('SELECT count(*) FROM in_a')).toBe(1000)
    expect(await server('pg1').sqlValue('SELECT count(*) FROM in_b')).toBe(500)
    // Cloned anew, what its tablespaces held is moved aside with it.
    const cloned = await cluster.succeed(['rejoin', 'pg1', '--reclone'])
    expect(cloned.json.result.method).toBe('reclone')
    await expectGoodCluster('pg2')
    expect(await server('pg1').sqlValue('SELECT count(*) FROM in_a')).toBe(1000)
    expect((await hosts.exec('pg1', 'ls /data')).stdout).toBe('a\nb\n')
  })
})
