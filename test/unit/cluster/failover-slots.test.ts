import { describe, expect, test } from 'vitest'
import type { NodeSettings } from '../../../src/cluster/inventory.ts'
import { nodeName } from '../../../src/cluster/names.ts'
import { neededSettings, nodeHbaLines, standbyConfigText } from '../../../src/cluster/node-configuration.ts'
import { loadTemplate } from '../../../src/config/load-template.ts'
import { lastValues, parseConfigFile } from '../../../src/postgres/config-file.ts'
import { parseConninfo } from '../../../src/postgres/conninfo.ts'
import { supportedMajorVersions } from '../../../src/postgres/versions.ts'
import { inventoryOf } from '../some-cluster.ts'

const [postgresqlConf, pgHba, standbyConf, recoveryConf] = await Promise.all(
  ['postgresql.conf', 'pg_hba.conf', 'standby.conf', 'recovery.conf'].map(loadTemplate),
)
const templates = {
  postgresqlConf: postgresqlConf!,
  pgHba: pgHba!,
  standbyConf: standbyConf!,
  recoveryConf: recoveryConf!,
}
const all = ['pg1', 'pg2', 'pg3'].map(nodeName)

function render(
  walLevel: string | undefined,
  major: number,
  changes: Partial<NodeSettings> = {},
  inForce: string | null = 'logical',
) {
  const { postgres } = inventoryOf(['pg1']).nodes[0]!
  const parameters: Record<string, string> = walLevel === undefined ? {} : { wal_level: walLevel }
  const logical = { postgres: { ...postgres, parameters } }
  const inventory = inventoryOf(['pg1', 'pg2', 'pg3'], {
    pg1: logical,
    pg2: { ...logical, ...changes },
    pg3: logical,
  })
  const [pg1, pg2] = [inventory.nodes[0]!, inventory.nodes[1]!]
  const common = { inventory, templates, major, home: '/var/lib/postgresql', standbys: all }
  const text = standbyConfigText({ ...common, node: pg2, upstream: pg1, walLevel: inForce })
  const values = Object.fromEntries(lastValues(parseConfigFile(text)))
  return {
    standby: values,
    conninfo: parseConninfo(values.primary_conninfo ?? ''),
    primary: Object.fromEntries(neededSettings({ ...common, node: pg1 })),
    standbyOwn: Object.fromEntries(neededSettings({ ...common, node: pg2, isStandby: true })),
    hba: nodeHbaLines({ inventory, templates, node: pg1, major }).join('\n'),
  }
}

describe('logical slots that survive a change of roles', () => {
  test.each(supportedMajorVersions)('on PostgreSQL %i', (major) => {
    const { standby, conninfo, primary, hba } = render('logical', major)
    const has = major >= 17
    expect(standby.sync_replication_slots).toBe(has ? 'on' : undefined)
    expect(standby.hot_standby_feedback).toBe(has ? 'on' : undefined)
    expect(conninfo.dbname).toBe(has ? 'postgres' : undefined)
    expect(primary.synchronized_standby_slots).toBe(has ? 'shop_pg2, shop_pg3' : undefined)
    expect(/^host\s+postgres\s+replicator\s/m.test(hba)).toBe(has)
  })

  test.each([17, 18])(
    'on PostgreSQL %i a standby names no slot that subscribers wait for: it has none, and its parallel queries would fail',
    (major) => {
      const { standbyOwn } = render('logical', major)
      expect(standbyOwn.synchronized_standby_slots).toBe('')
      expect(standbyOwn.wal_level).toBe('logical')
    },
  )

  test.each(['replica', null])(
    'a standby that runs with wal_level %s is not told to copy slots, whatever the inventory says: its postmaster would end',
    (inForce) => {
      const { standby, conninfo, primary } = render('logical', 17, {}, inForce)
      expect(standby.sync_replication_slots).toBeUndefined()
      expect(standby.hot_standby_feedback).toBeUndefined()
      expect(conninfo.dbname).toBe('postgres')
      expect(primary.synchronized_standby_slots).toBe('shop_pg2, shop_pg3')
    },
  )

  test('below wal_level logical nothing of it is rendered: the server would raise an error', () => {
    for (const walLevel of [undefined, 'replica']) {
      const { standby, conninfo, primary, hba } = render(walLevel, 17)
      expect(standby.sync_replication_slots).toBeUndefined()
      expect(conninfo.dbname).toBeUndefined()
      expect(primary.synchronized_standby_slots).toBeUndefined()
      expect(hba).not.toMatch(/^host\s+postgres\s+replicator\s/m)
    }
  })

  test.each([
    ['cascaded', { upstream: nodeName('pg3') }],
    ['delayed', { delayMs: 3_600_000 }],
    ['not promotable', { promotable: false }],
  ])('a %s standby has no copies, and no subscriber waits for it', (_, changes) => {
    const { standby, primary } = render('logical', 18, changes)
    expect(standby.sync_replication_slots).toBeUndefined()
    expect(primary.synchronized_standby_slots).toBe('shop_pg3')
  })
})
