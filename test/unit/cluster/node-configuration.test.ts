import { describe, expect, test } from 'vitest'
import type { Inventory, NodeSettings } from '../../../src/cluster/inventory.ts'
import { nodeName } from '../../../src/cluster/names.ts'
import {
  type ConfigurationWish,
  neededSettings,
  nodeConfigText,
  nodeHbaLines,
  standbyConfigText,
  synchronousNamesFor,
  upstreamConninfo,
} from '../../../src/cluster/node-configuration.ts'
import { lastValues, parseConfigFile } from '../../../src/postgres/config-file.ts'
import { parseConninfo } from '../../../src/postgres/conninfo.ts'
import { supportedMajorVersions } from '../../../src/postgres/versions.ts'
import { template } from '../postgres/fixture.ts'
import { inventoryOf } from '../some-cluster.ts'

const home = '/var/lib/postgresql'
const templates = {
  postgresqlConf: template('postgresql.conf'),
  pgHba: template('pg_hba.conf'),
  standbyConf: template('standby.conf'),
  recoveryConf: template('recovery.conf'),
}
const three = (
  changes: Record<string, Partial<NodeSettings>> = {},
  replication: Partial<Inventory['replication']> = {},
) => inventoryOf(['pg1', 'pg2', 'pg3'], changes, replication)
const all = ['pg1', 'pg2', 'pg3'].map(nodeName)

function wishOf(inventory: Inventory, changes: Partial<ConfigurationWish> = {}): ConfigurationWish {
  return { inventory, node: inventory.nodes[1]!, templates, major: 15, home, standbys: all, ...changes }
}
const valuesIn = (text: string) => lastValues(parseConfigFile(text))

describe('synchronous_standby_names, should a node lead', () => {
  const sync = (changes: Record<string, Partial<NodeSettings>>, count: number, standbys = all) =>
    synchronousNamesFor(three(changes, { mode: 'sync', syncStandbys: count }), nodeName('pg1'), standbys)

  test('names every other standby, never the node itself', () => {
    expect(sync({}, 1)).toBe('FIRST 1 ("shop_pg2", "shop_pg3")')
  })

  test('puts the larger priority first', () => {
    expect(sync({ pg3: { priority: 100 } }, 1)).toBe('FIRST 1 ("shop_pg3", "shop_pg2")')
  })

  test('leaves out who is no standby yet, and never asks for more than there are', () => {
    expect(sync({}, 2, [nodeName('pg2')])).toBe('FIRST 1 ("shop_pg2")')
    expect(sync({}, 2, [])).toBe('')
  })

  test('is empty in async mode, ANY in quorum mode', () => {
    expect(synchronousNamesFor(three(), nodeName('pg1'), all)).toBe('')
    const quorum = three({}, { mode: 'quorum', syncStandbys: 2 })
    expect(synchronousNamesFor(quorum, nodeName('pg2'), all)).toBe('ANY 2 ("shop_pg1", "shop_pg3")')
  })
})

describe('replctl.conf', () => {
  test('holds what was wished, over replctl’s defaults', () => {
    const { postgres } = three().nodes[1]!
    const inventory = three({
      pg2: { postgres: { ...postgres, port: 5433, parameters: { shared_buffers: '1GB' } } },
    })
    const values = valuesIn(nodeConfigText(wishOf(inventory)))
    expect(Object.fromEntries(values)).toMatchObject({ port: '5433', shared_buffers: '1GB' })
    expect(Object.fromEntries(neededSettings(wishOf(inventory)))).toMatchObject({ shared_buffers: '1GB' })
  })

  test('keeps a value of the instance that is as good', () => {
    const kept = new Map([['max_wal_senders', '40']])
    expect(valuesIn(nodeConfigText(wishOf(three(), { kept }))).get('max_wal_senders')).toBe('40')
  })
})

test('pg_hba.conf is the same on every node: it lets each node in at its address', () => {
  const inventory = three({ pg3: { host: 'bastion', address: '10.9.9.9' } })
  const [first, ...others] = inventory.nodes.map((node) =>
    nodeHbaLines({ inventory, node, templates, major: 15 }).join('\n'),
  )
  for (const address of ['10.0.0.11', '10.0.0.12', '10.9.9.9']) expect(first).toContain(address)
  expect(first).not.toContain('bastion')
  expect(others).toEqual([first, first])
})

describe('what makes a node a standby', () => {
  test('it connects with its own name, by the passfile: no password stands in the file', () => {
    const inventory = three({ pg1: { host: 'bastion', address: '10.9.9.9' } })
    const [pg1, pg2] = [inventory.nodes[0]!, inventory.nodes[1]!]
    expect(parseConninfo(upstreamConninfo(inventory, home, pg2, pg1))).toMatchObject({
      host: '10.9.9.9',
      port: '5432',
      user: 'replicator',
      passfile: '/var/lib/postgresql/.replctl/shop/pgpass',
      application_name: 'shop_pg2',
    })
    expect(upstreamConninfo(inventory, home, pg2, pg1)).not.toContain('password')
  })

  test.each(supportedMajorVersions)('names upstream, slot and delay in PostgreSQL %i', (major) => {
    const inventory = three({ pg2: { delayMs: 3_600_000 } })
    const wish = { ...wishOf(inventory, { major }), upstream: inventory.nodes[0]!, walLevel: null }
    const text = standbyConfigText(wish)
    const values = Object.fromEntries(valuesIn(text))
    expect(parseConninfo(values.primary_conninfo ?? '')).toMatchObject({ host: '10.0.0.11' })
    expect(values.primary_slot_name).toBe('shop_pg2')
    expect(values.recovery_min_apply_delay).toMatch(/^(3600000(ms)?|3600s?|60min|1h)$/)
    expect(values.standby_mode).toBe(major < 12 ? 'on' : undefined)
    const without = standbyConfigText({ ...wish, inventory: three({}, { slots: false }) })
    expect(Object.fromEntries(valuesIn(without)).primary_slot_name ?? '').toBe('')
  })

  test('has a standby report each second, unless the operator says how often', () => {
    const inventory = three()
    const wish = { ...wishOf(inventory), upstream: inventory.nodes[0]!, walLevel: null }
    const interval = (text: string) => Object.fromEntries(valuesIn(text)).wal_receiver_status_interval
    expect(interval(standbyConfigText(wish))).toBe('1s')
    const parameters = { Wal_Receiver_Status_Interval: '5s' }
    const node = { ...wish.node, postgres: { ...wish.node.postgres, parameters } }
    expect(interval(standbyConfigText({ ...wish, node }))).toBe(undefined)
  })

  test('a passfile’s path and a name may hold any letter', () => {
    const name = `o'b "x\\`
    const inventory = inventoryOf(['pg1', name], { [name]: { stateDir: "/srv/it's here" } })
    const upstream = inventory.nodes[0]!
    const text = standbyConfigText({ ...wishOf(inventory), upstream, walLevel: null })
    expect(parseConninfo(Object.fromEntries(valuesIn(text)).primary_conninfo ?? '')).toMatchObject({
      passfile: "/srv/it's here/pgpass",
      application_name: `shop_${name}`,
    })
  })
})
