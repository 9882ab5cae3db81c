import { describe, expect, test } from 'vitest'
import { diagnoseSynchronous } from '../../../src/cluster/diagnose-synchronous.ts'
import type { NodeFacts, ReplicationConnection } from '../../../src/cluster/facts.ts'
import type { ArchiveSettings, Inventory, ReplicationSettings } from '../../../src/cluster/inventory.ts'
import { judgePromotion } from '../../../src/cluster/judge-promotion.ts'
import { nodeName } from '../../../src/cluster/names.ts'
import { synchronousNamesFor } from '../../../src/cluster/node-configuration.ts'
import {
  archiveSlot,
  confirmingArchive,
  confirmingStandbys,
  meantRoles,
  ownSlots,
  wantedSlots,
} from '../../../src/cluster/roles.ts'
import { observeTopology } from '../../../src/cluster/topology.ts'
import {
  inventoryOf,
  lsn,
  receivesFrom,
  recordOf,
  runningNode,
  slot,
  standbyNode,
  unreachableNode,
} from '../some-cluster.ts'

const [pg1, pg2, pg3] = ['pg1', 'pg2', 'pg3'].map(nodeName) as [
  ReturnType<typeof nodeName>,
  ReturnType<typeof nodeName>,
  ReturnType<typeof nodeName>,
]

function cluster(
  replication: Partial<ReplicationSettings> = { mode: 'sync' },
  archive: Partial<ArchiveSettings> = {},
  nodes: Parameters<typeof inventoryOf>[1] = {},
): Inventory {
  const inventory = inventoryOf(['pg1', 'pg2', 'pg3'], nodes, replication)
  const block: ArchiveSettings = {
    ...{ node: undefined, host: 'backup1', address: 'backup1', user: 'postgres', port: 22, dir: '/a' },
    ...{
      mode: 'stream',
      synchronous: true,
      compression: 'auto',
      maxBackupAgeMs: null,
      ssh: inventory.nodes[0]!.ssh,
    },
  }
  return { ...inventory, archive: { ...block, ...archive } }
}

describe('an archive that confirms commits', () => {
  test('is the last of the partners in sync and quorum mode, and none in async mode or without archive.synchronous', () => {
    const names = (inventory: Inventory) => synchronousNamesFor(inventory, pg1, [pg2, pg3])
    expect(names(cluster())).toBe('FIRST 1 ("shop_pg2", "shop_pg3", "shop_archive")')
    expect(names(cluster({ mode: 'quorum', syncStandbys: 3 }))).toBe(
      'ANY 3 ("shop_pg2", "shop_pg3", "shop_archive")',
    )
    expect(names(cluster({ mode: 'async' }))).toBe('')
    expect(names(cluster({ mode: 'sync' }, { synchronous: false }))).toBe('FIRST 1 ("shop_pg2", "shop_pg3")')
    expect(names(cluster({ mode: 'sync' }, { mode: 'push' }))).toBe('FIRST 1 ("shop_pg2", "shop_pg3")')
    expect(synchronousNamesFor(cluster(), pg1, [])).toBe('FIRST 1 ("shop_archive")')
  })

  test('takes the place of a standby that could not take over', () => {
    const isDelayed = { pg3: { delayMs: 3_600_000 } }
    const roles = meantRoles(cluster({}, {}, isDelayed), { primary: pg1, running: [pg2, pg3] })
    const two = { mode: 'sync', syncStandbys: 2 } as const
    expect(confirmingStandbys(cluster(two, {}, isDelayed), roles)).toEqual(['pg2'])
    expect(confirmingStandbys(cluster(two, { synchronous: false }, isDelayed), roles)).toEqual(['pg2', 'pg3'])
  })

  test('has a slot on the primary alone, whatever the slots of standbys', () => {
    const inventory = cluster({ slots: false })
    const roles = meantRoles(inventory, { primary: pg2, running: [pg1, pg3] })
    expect(wantedSlots(inventory, roles, pg2)).toEqual(['shop_archive'])
    expect(wantedSlots(inventory, roles, pg1)).toEqual([])
    expect(archiveSlot(cluster({}, { mode: 'push' }))).toBeNull()
    expect(
      ownSlots(
        inventory,
        runningNode('pg1', { slots: [slot('shop_archive', '0/3000000'), slot('other', '0/3000000')] })
          .instance,
      ),
    ).toEqual(['shop_archive'])
    expect(confirmingArchive(inventory)).toBeNull()
  })
})

describe('a promotion', () => {
  const all = ['pg1', 'pg2', 'pg3']
  const from = (name: string): NodeFacts => ({
    ...standbyNode(name, '0/5000148', fromPg1),
    record: recordOf('pg1', all),
  })
  const fromPg1 = receivesFrom('10.0.0.11')
  const archivedEnd = (
    inventory: Inventory,
    survey: readonly NodeFacts[],
    { allowDataLoss = false }: { readonly allowDataLoss?: boolean } = {},
  ) =>
    judgePromotion(inventory, observeTopology(inventory, survey), {
      ...{ node: pg2, allowDataLoss, allowSplitBrain: false },
    }).archivedEnd
  const both = [unreachableNode('pg1'), from('pg2'), from('pg3')]

  test('needs the archive where that alone may hold a confirmed commit', () => {
    expect(archivedEnd(cluster(), both)).toBe('needed')
    // Two of three confirm: one of the standbys is among them.
    expect(archivedEnd(cluster({ mode: 'quorum', syncStandbys: 2 }), both)).toBe('wanted')
    expect(archivedEnd(cluster({ mode: 'async' }), both)).toBe('wanted')
    expect(archivedEnd(cluster({ mode: 'sync' }, { synchronous: false }), both)).toBe('wanted')
    expect(archivedEnd(cluster(), both, { allowDataLoss: true })).toBe('wanted')
  })

  test('counts it among those who confirm when a standby is away', () => {
    const pg3IsAway = [unreachableNode('pg1'), from('pg2'), unreachableNode('pg3')]
    expect(() => archivedEnd(cluster(), pg3IsAway)).toThrow(/pg3 may hold confirmed commits/)
    // Two of pg2, pg3 and the archive: the archive has what pg3 and the archive confirmed.
    expect(archivedEnd(cluster({ mode: 'quorum', syncStandbys: 2 }), pg3IsAway)).toBe('needed')
    expect(archivedEnd(cluster({ mode: 'quorum', syncStandbys: 3 }), pg3IsAway)).toBe('wanted')
  })
})

describe('writes that are blocked', () => {
  const connection = (name: string, changes: Partial<ReplicationConnection> = {}): ReplicationConnection => ({
    ...{ applicationName: name, clientAddress: '10.0.0.12', state: 'streaming', syncState: 'sync' },
    ...{ sentLsn: lsn('0/5000148'), flushLsn: lsn('0/5000148'), replayLsn: null },
    ...changes,
  })
  const problem = (replication: readonly ReplicationConnection[], waitingForSyncSeconds: number | null) => {
    const inventory = cluster()
    const value = 'FIRST 1 ("shop_pg2", "shop_pg3", "shop_archive")'
    const primary = runningNode('pg1', {
      ...{ currentLsn: lsn('0/5000148'), replication, waitingForSync: 1, waitingForSyncSeconds },
      settings: { synchronous_standby_names: { value, source: 'configuration file', sourceFile: null } },
    } as never)
    const survey = [primary, unreachableNode('pg2'), unreachableNode('pg3')]
    return diagnoseSynchronous(inventory, observeTopology(inventory, survey))
  }

  test('are not, while the archive confirms', () => {
    expect(problem([connection('shop_archive')], null)).toBeNull()
  })

  test('name the archive among those to bring back, also while a dead connection of it still stands', () => {
    for (const replication of [[], [connection('shop_archive', { flushLsn: lsn('0/5000000') })]]) {
      const found = problem(replication, 20)
      expect(found?.code).toBe('writes-blocked')
      expect(found?.hint).toContain('Bring pg2, pg3, the archive on backup1 back')
      expect(found?.hint).toContain('archive.synchronous: false')
    }
  })
})
