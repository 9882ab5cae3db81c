import { expect, test } from 'vitest'
import type { Inventory } from '../../../src/cluster/inventory.ts'
import { nodeName } from '../../../src/cluster/names.ts'
import { cutOff, servesOnly, waitsOnlyForStandbys } from '../../../src/steps/end-postmaster.ts'
import { inventoryOf } from '../some-cluster.ts'

// A postmaster that had to be ended: by what was left of it, what that may have cost.

const plain = inventoryOf(['pg1', 'pg2', 'pg3'])
const archiving: Inventory = { ...plain, archive: { host: 'backup1' } as unknown as Inventory['archive'] }
const told = (inventory: Inventory, ...left: string[]) => cutOff(inventory, nodeName('pg1'), left, 5_000)
const sender = 'shop: walsender replicator 10.0.0.12(51234) streaming 0/5000148'

test('walsenders to a standby that takes nothing: no word of an archive, whether there is one or not', () => {
  for (const inventory of [plain, archiving]) {
    const { code, detail, hint } = told(inventory, 'shop: checkpointer', sender)
    expect([code, hint]).toEqual([
      'stop-failed',
      'Look at the walreceiver of pg2: it does not take what it is sent.',
    ])
    expect(detail).toBe(
      `5 s after its shutdown checkpoint it still waited for: ${sender}. It was ended; nothing is lost by that.`,
    )
  }
  const stranger = told(plain, 'walsender replicator 10.0.0.1(51234) streaming 0/5000148')
  expect(stranger.hint).toBe('If it happens again, look at its log on pg1.')
})

test('an archiver at work: its last WAL may be missing, in an archive of ours or of somebody else', () => {
  const ours = told(archiving, 'shop: archiver archiving 000000010000000000000005', sender)
  expect([ours.code, ours.message]).toEqual([
    'archive-failing',
    'the last WAL of pg1 may be missing in the archive',
  ])
  expect(told(plain, 'archiver').message).toBe(
    'the last WAL of pg1 may be missing in the archive that its archive_command fills',
  )
})

test('something else, or nothing that could be seen', () => {
  expect(told(plain, 'shop: checkpointer').detail).toContain('it still waited for: shop: checkpointer.')
  expect(told(plain)).toMatchObject({
    code: 'stop-failed',
    detail: expect.stringContaining('it was still there'),
  })
})

test('only walsenders to standbys are not waited for: an archiver, and those to logical subscribers, have something to bring', () => {
  const logical = 'shop: walsender app crm 10.0.0.30(40312) START_REPLICATION'
  const logger = 'shop: logger '
  for (const left of [
    [sender],
    [sender, sender],
    [sender, logger],
    ['walsender replicator ::1(5) streaming 0/1'],
  ])
    expect(waitsOnlyForStandbys(left), left.join()).toBe(true)
  for (const left of [
    [],
    [logger],
    [logical],
    [sender, logical],
    [sender, 'shop: archiver'],
    ['shop: startup'],
    ['archiver'],
  ])
    expect(waitsOnlyForStandbys(left), left.join()).toBe(false)
})

test('nothing is said of walsenders to nodes that are known to be away', () => {
  const other = 'shop: walsender replicator 10.0.0.13(51234) streaming 0/5000148'
  const [pg2, pg3] = [nodeName('pg2'), nodeName('pg3')]
  expect(servesOnly(plain, [sender, 'shop: logger '], [pg2])).toBe(true)
  expect(servesOnly(plain, [sender, other], [pg2, pg3])).toBe(true)
  expect(servesOnly(plain, [sender, other], [pg2])).toBe(false)
  expect(servesOnly(plain, [sender], [])).toBe(false)
  expect(servesOnly(plain, [], [pg2])).toBe(false)
  expect(servesOnly(plain, [sender, 'shop: archiver'], [pg2])).toBe(false)
})
