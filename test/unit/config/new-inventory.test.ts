import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { newInventoryText, writeNewInventory } from '../../../src/config/new-inventory.ts'
import { failureOf, loadText, temporaryFolder } from './inventory-file.ts'

describe('a new inventory', () => {
  test('can be used as it is', async () => {
    const inventory = await loadText(newInventoryText({ cluster: 'shop', hosts: ['10.0.0.11', '10.0.0.12'] }))
    expect(inventory.cluster).toBe('shop')
    expect(inventory.nodes.map(({ name, host }) => [name, host])).toEqual([
      ['pg1', '10.0.0.11'],
      ['pg2', '10.0.0.12'],
    ])
    expect(inventory.nodes[0]?.postgres).toMatchObject({
      version: undefined,
      dataDir: '/var/lib/postgresql/15/shop',
    })
  })

  test('names the version where one is given', async () => {
    const { nodes } = await loadText(newInventoryText({ cluster: 'shop', hosts: ['a'], version: 17 }))
    expect(nodes[0]?.postgres).toMatchObject({ version: 17, dataDir: '/var/lib/postgresql/17/shop' })
  })

  test.each([
    [
      ['db1.example.com', 'db2.example.com'],
      ['db1', 'db2'],
    ],
    [
      ['db.berlin', 'db.hamburg'],
      ['pg1', 'pg2'],
    ],
    [
      ['db-1', 'db_1'],
      ['pg1', 'pg2'],
    ],
    [
      ['db1', '10.0.0.2'],
      ['pg1', 'pg2'],
    ],
    [
      ['fd00::1', 'fd00::'],
      ['pg1', 'pg2'],
    ],
    [['local'], ['pg1']],
    [
      ['null', '1e5', '0x10', 'true'],
      ['null', '1e5', '0x10', 'true'],
    ],
    [['_x'], ['pg1']],
  ])('of hosts %j has nodes %j', async (hosts, names) => {
    const { nodes } = await loadText(newInventoryText({ cluster: 'shop', hosts }))
    expect(nodes.map((node) => node.name)).toEqual(names)
    expect(nodes.map((node) => node.host)).toEqual(hosts)
  })

  test.each(['null', 'true', 'false'])('of a cluster called %s is read as that', async (cluster) => {
    expect((await loadText(newInventoryText({ cluster, hosts: ['a'] }))).cluster).toBe(cluster)
  })

  test('loads with all that is commented out too', async () => {
    const lines = newInventoryText({ cluster: 'shop', hosts: ['a', 'b'] })
      .split('\n')
      .slice(3)
    const complete = lines.map((line) => line.replace(/^(\s*)# /, '$1')).join('\n')
    const inventory = await loadText(complete, { files: { 'replicator.pw': 'secret' } })
    expect(inventory.archive?.host).toBe('backup1')
    expect(inventory.fenceCommand).toBe('./fence.sh {node}')
    expect(inventory.nodes).toHaveLength(3)
    expect(inventory.nodes[0]?.postgres.parameters).toEqual({ shared_buffers: '256MB' })
  })

  test.each([
    ['Shop', ['a'], '"Shop" is not a cluster name'],
    ['shop', [], 'no host given'],
    ['shop', ['a', 'A'], 'host A is given twice'],
    ['shop', ['root@a'], '"root@a" is not a host name or IP address'],
    ['shop', [''], '"" is not a host name or IP address'],
  ])('of %s and %j is refused', (cluster, hosts, message) => {
    expect(() => newInventoryText({ cluster, hosts })).toThrow(message)
  })
})

describe('writing it', () => {
  test('never overwrites', async () => {
    const path = join(await temporaryFolder(), 'replctl.yaml')
    await writeNewInventory(path, 'first')
    const error = await failureOf(writeNewInventory(path, 'second'))
    expect(error).toMatchObject({ code: 'inventory-exists', message: `${path} exists already`, exitCode: 3 })
    expect(await readFile(path, 'utf8')).toBe('first')
  })

  test('needs a folder', async () => {
    const path = join(await temporaryFolder(), 'missing', 'replctl.yaml')
    expect(await failureOf(writeNewInventory(path, ''))).toMatchObject({
      code: 'usage',
      detail: 'The system says ENOENT.',
    })
  })
})
