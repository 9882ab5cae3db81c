import { afterAll, beforeAll, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { TestCluster, TestHosts } from '../kit/index.ts'

describeOnHosts('P-52: eight standbys, one of them black-holed', () => {
  const names = Array.from({ length: 9 }, (_, index) => `pg${index + 1}`)
  let hosts: TestHosts
  let cluster: TestCluster

  beforeAll(async () => {
    hosts = await TestHosts.create({ hosts: names.map((name) => ({ name })) })
    const parameters = { shared_buffers: '16MB', max_wal_senders: 20, max_replication_slots: 20 }
    cluster = await TestCluster.create(hosts, { inventory: { postgres: { parameters } } })
    await cluster.init()
    await cluster.addStandbys()
  })
  afterAll(() => hosts?.destroy())

  it('status tells of the other eight within its time, and of that one that it cannot be reached', async () => {
    await hosts.cutLink('pg5')
    const startedAt = performance.now()
    const { exitCode, json } = await cluster.replctl(['status', '--json'])
    expect(performance.now() - startedAt).toBeLessThan(10_000)
    expect(exitCode).toBe(9)
    expect(json.problems).toContainEqual(expect.objectContaining({ code: 'host-unreachable', node: 'pg5' }))
    const rows = json.result.nodes.map((node: { name: string; reachable: boolean; role: string }) => [
      node.name,
      node.reachable,
      node.role,
    ])
    expect(rows).toEqual(
      names.map((name) => [
        name,
        name !== 'pg5',
        name === 'pg1' ? 'primary' : name === 'pg5' ? 'unknown' : 'standby',
      ]),
    )
    await hosts.restoreLink('pg5')
  })
})
