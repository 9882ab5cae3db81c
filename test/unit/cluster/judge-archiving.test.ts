import { describe, expect, test } from 'vitest'
import { archivingFault } from '../../../src/cluster/archiving-fault.ts'
import type { Archiver, NodeFacts, Setting } from '../../../src/cluster/facts.ts'
import type { Inventory } from '../../../src/cluster/inventory.ts'
import { judgeArchiving } from '../../../src/cluster/judge-archiving.ts'
import { archiveCommandLine, archiveConnectionName } from '../../../src/postgres/archive.ts'
import { connection, inventoryOf, ours, runningNode, setting, standbyNode } from '../some-cluster.ts'

const place = { address: '10.0.0.9', port: 22, user: 'postgres', dir: '/archive' }
const inventoryWith = (archive: object | undefined = { mode: 'push' }) =>
  ({
    ...inventoryOf(['pg1', 'pg2']),
    archive: archive && { host: 'backup1', ...place, ...archive },
  }) as Inventory
const inventory = inventoryWith()
const { address: host, ...rest } = place
const wanted = archiveConnectionName({ host, ...rest, systemIdentifier: ours })
const scripts = { push: wanted, fetch: wanted }
const push = '/var/lib/postgresql/.replctl/shop/archive-push'

const archiver = (changes: Partial<Archiver> = {}): Archiver => ({
  ...{ archivedCount: 10, failedCount: 0, lastArchivedWal: '000000010000000000000004', lastFailedWal: null },
  ...{ isFailing: false, readyCount: 0, oldestReady: null, oldestReadySeconds: null, lastArchivedSeconds: 5 },
  ...changes,
})
const inForce = (changes: Record<string, string> = {}): Record<string, Setting> => ({
  archive_mode: setting('on'),
  archive_command: setting(archiveCommandLine(push)),
  ...Object.fromEntries(Object.entries(changes).map(([name, value]) => [name, setting(value)])),
})
const primary = (settings = inForce(), archiving: Partial<Archiver> = {}, facts: Partial<NodeFacts> = {}) =>
  runningNode('pg1', { settings, archiver: archiver(archiving) }, { archiveScripts: scripts, ...facts })
const standby = (settings = inForce(), facts: Partial<NodeFacts> = {}) =>
  standbyNode('pg2', '0/5000148', { settings }, { archiveScripts: scripts, ...facts })
const told = (facts: NodeFacts, wish = inventory) =>
  judgeArchiving(wish, facts).map(([error, severity]) => [severity, error.message, error.detail, error.hint])

test('a primary that archives by replctl’s own script, and a standby that would, are well', () => {
  expect(told(primary())).toEqual([])
  expect(archivingFault(inventory, standby())).toBeNull()
  // As it stands on nodes that an earlier version set up.
  expect(told(primary(inForce({ archive_command: `'${push}' '%p' '%f'` })))).toEqual([])
  expect(told(primary(inForce({ archive_mode: 'always', archive_library: '' })))).toEqual([])
})

describe('that nothing goes into the archive although no attempt fails is an error', () => {
  const off: Record<string, Setting> = {
    archive_mode: { ...setting('off'), isPendingRestart: true },
    archive_command: setting('(disabled)'),
  }

  test('archive_mode waits for a restart', () => {
    const [problem] = told(primary(off))
    expect(problem?.slice(0, 3)).toEqual([
      'error',
      'pg1 does not archive its WAL',
      'archive_mode is on in its files and off in force.',
    ])
    expect(problem?.[3]).toContain('restart PostgreSQL on pg1, a primary after a switchover')
    expect(told(primary(off))).toHaveLength(1)
    expect(told(primary({ archive_mode: setting('off') }))[0]?.[3]).toContain(
      'replctl init primary pg1; then',
    )
  })

  test.each([
    ['archive_command', 'cp %p /elsewhere/%f', '"cp %p /elsewhere/%f"'],
    ['archive_library', 'basic_archive', '"basic_archive"'],
    ['archive_command', '', 'archive_command is empty'],
  ])('%s is %j', (name, value, said) => {
    const [problem] = told(primary(inForce({ [name]: value })))
    expect(problem?.[0]).toBe('error')
    expect(problem?.[2]).toContain(said)
    expect(problem?.[3]).toContain('replctl init primary pg1')
  })

  test('archive-push is missing, or sends to an archive that the inventory does not name any more', () => {
    const missing = told(primary(inForce(), {}, { archiveScripts: { ...scripts, push: null } }))
    expect(missing).toEqual([
      [
        'error',
        'pg1 does not archive its WAL',
        `${push} is missing, or may not be run.`,
        'Set it up: replctl init primary pg1',
      ],
    ])
    for (const change of [{ dir: '/b' }, { address: 'b' }, { user: 'b' }, { port: 23 }]) {
      const [moved] = told(primary(), inventoryWith({ mode: 'push', ...change }))
      expect(moved?.[0]).toBe('error')
      expect(moved?.[2]).toContain('is of another archive')
    }
  })

  test('the attempt hangs: nothing has been archived for as long as the first file waits', () => {
    const waits = (archived: number | null, waiting = 700) =>
      told(primary(inForce(), { readyCount: 3, oldestReadySeconds: waiting, lastArchivedSeconds: archived }))
    expect(waits(700)[0]?.slice(0, 2)).toEqual(['error', 'nothing is archived any more on pg1'])
    expect(waits(null)[0]?.[0]).toBe('error')
    expect(waits(20)[0]?.slice(0, 2)).toEqual(['warning', 'archiving is behind on pg1'])
    expect(waits(null, 500)).toEqual([])
  })
})

test('what would end archiving with a failover is a warning on the standby', () => {
  const off = { archive_mode: { ...setting('off'), isPendingRestart: true } }
  const fault = (facts: NodeFacts, wish = inventory) => {
    const [error, severity] = archivingFault(wish, facts) ?? []
    return [severity, error?.node, error?.message, error?.hint]
  }
  const would = ['warning', 'pg2', 'pg2 would not archive its WAL if it led']
  expect(fault(standby(off)).slice(0, 3)).toEqual(would)
  expect(fault(standby(off))[3]).toMatch(/restart PostgreSQL on pg2\.$/)
  const away = standby(inForce(), { archiveScripts: { push: null, fetch: null } })
  expect(fault(away)).toEqual([...would, 'Set it up: replctl add-standby pg2'])
  const deaf = standby(inForce(), { archiveScripts: { push: wanted, fetch: null } })
  expect(fault(deaf)[2]).toBe('pg2 cannot fetch WAL from the archive')
  // Nobody pushes where WAL is streamed to the archive.
  expect(archivingFault(inventoryWith({ mode: 'stream' }), standby(off))).toBeNull()
  expect(fault(away, inventoryWith({ mode: 'stream' }))[2]).toBe('pg2 cannot fetch WAL from the archive')
  expect(archivingFault(inventoryWith(undefined), away)).not.toBeNull()
  expect(archivingFault(inventoryOf(['pg1', 'pg2']), away)).toBeNull()
})

describe('archive_mode that is still on without a command keeps every segment', () => {
  const empty = inForce({ archive_command: '' })

  test('after the archive was taken out of the inventory', () => {
    const none = inventoryOf(['pg1', 'pg2'])
    expect(told(primary(empty), none)[0]?.slice(0, 2)).toEqual(['warning', 'WAL will pile up on pg1'])
    const [piles] = told(primary(empty, { readyCount: 3 }), none)
    expect(piles?.slice(0, 2)).toEqual(['error', 'WAL piles up on pg1'])
    expect(piles?.[3]).toContain('restart PostgreSQL on pg1')
    // An archive of the operator's own is nobody else's business.
    const own = inForce({ archive_command: 'cp %p /elsewhere/%f' })
    expect(told(primary(own, { readyCount: 3, isFailing: true }), none)).toEqual([])
    expect(told(primary({ archive_mode: setting('off') }), none)).toEqual([])
  })

  test('after a change to mode: stream; what waits is archived before the restart', () => {
    const stream = inventoryWith({ mode: 'stream' })
    const facts = runningNode('pg1', {
      settings: empty,
      archiver: archiver({ readyCount: 3 }),
      replication: [connection('archive')],
    })
    expect(told(facts, stream)).toHaveLength(1)
    expect(told(facts, stream)[0]?.[0]).toBe('error')
    expect(told(facts, stream)[0]?.[3]).toMatch(/archived by "replctl init primary pg1"; then restart/)
  })
})
