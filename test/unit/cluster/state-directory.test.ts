import { expect, test } from 'vitest'
import { defaultStateDir, movedWithout, stateDirectoryOf } from '../../../src/cluster/state-directory.ts'
import { inventoryOf } from '../some-cluster.ts'

const { nodes } = inventoryOf(['pg1', 'pg2', 'pg3'])
const [pg1, pg2, pg3] = [nodes[0]!, nodes[1]!, nodes[2]!]

test('a home of its own is called by the cluster alone', () => {
  expect(defaultStateDir('shop', pg1, [])).toBe('.replctl/shop')
  expect(defaultStateDir('shop', pg2, [pg1, pg3])).toBe('.replctl/shop')
})

test('of nodes that share a home the first keeps the short name', () => {
  const onPg1 = { ...pg2, host: pg1.host }
  expect(defaultStateDir('shop', onPg1, [pg1])).toBe('.replctl/shop.pg2')
  expect(defaultStateDir('shop', { ...onPg1, host: pg1.host.toUpperCase() }, [pg1])).toBe('.replctl/shop.pg2')
  const spelled = { ...onPg1, ssh: { ...pg2.ssh, port: 22 } }
  expect(defaultStateDir('shop', spelled, [{ ...pg1, ssh: { ...pg1.ssh, port: undefined } }])).toBe(
    '.replctl/shop.pg2',
  )
  const local = { ...pg1, host: 'local' }
  expect(defaultStateDir('shop', { ...pg2, host: 'local' }, [local])).toBe('.replctl/shop.pg2')
})

test('another OS user, or another port of sshd, is another home', () => {
  const otherUser = { ...pg2, host: pg1.host, postgres: { ...pg2.postgres, osUser: 'pgtwo' } }
  expect(defaultStateDir('shop', otherUser, [pg1])).toBe('.replctl/shop')
  const otherPort = { ...pg2, host: pg1.host, ssh: { ...pg2.ssh, port: 2222 } }
  expect(defaultStateDir('shop', otherPort, [pg1])).toBe('.replctl/shop')
})

test('it lies below the home unless it is absolute', () => {
  expect(stateDirectoryOf('/var/lib/postgresql', pg1)).toBe('/var/lib/postgresql/.replctl/shop')
  expect(stateDirectoryOf('/var/lib/postgresql', { stateDir: '/srv/state' })).toBe('/srv/state')
})

test('whose state directory would be another one when a neighbour leaves the inventory is known', () => {
  const [first, second, third] = [pg1, { ...pg2, host: pg1.host }, { ...pg3, host: pg1.host }]
  const nodes = [
    { ...first, stateDir: '.replctl/shop' },
    { ...second, stateDir: '.replctl/shop.pg2' },
    { ...third, stateDir: '.replctl/shop.pg3' },
  ]
  const moved = (removed: typeof pg1, all = nodes) =>
    movedWithout('shop', all, removed.name).map((node) => node.name)
  // pg2 would be the first; pg3 still comes after it.
  expect(moved(pg1)).toEqual(['pg2'])
  expect(moved(pg2)).toEqual([])
  const named = nodes.map((node) => (node.name === 'pg2' ? { ...node, stateDir: '/srv/state' } : node))
  expect(moved(pg1, named)).toEqual([])
})
