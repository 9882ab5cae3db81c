import { describe, expect, it } from 'vitest'
import {
  type BackupRequest,
  chainFrom,
  chainOf,
  historyOf,
  incomingOf,
  judgeBackups,
  missingWalOf,
  timelinesOf,
} from '../../../src/cluster/backup-catalog.ts'
import { foundBackup, segments, someBackup, someCatalog } from '../some-backup.ts'
import { timeline } from '../some-cluster.ts'

const full = someBackup('20261126T010000Z')
const first = someBackup('20261126T020000Z', { kind: 'incremental', parent: full.id })
const second = someBackup('20261126T030000Z', { kind: 'incremental', parent: first.id })

const damageOf = (catalog: Parameters<typeof judgeBackups>[0], id = full.id) =>
  judgeBackups(catalog)
    .find((one) => one.id === id)
    ?.damage.join('; ')

describe('the catalog of base backups', () => {
  it('a backup with all its files is good', () => {
    expect(judgeBackups(someCatalog([full]))).toEqual([
      { id: full.id, metadata: full, bytes: 1_050, isGood: true, damage: [] },
    ])
  })

  it.each([
    ['a missing file', new Map([['backup_manifest', 50]]), 'base.tar.zst is missing'],
    [
      'a truncated file',
      new Map([
        ['backup_manifest', 50],
        ['base.tar.zst', 10],
      ]),
      'base.tar.zst has 10 bytes, not 1000',
    ],
    [
      'a folder in the place of a file',
      new Map([
        ['backup_manifest', 50],
        ['base.tar.zst', null],
      ]),
      'base.tar.zst has no bytes, not 1000',
    ],
    [
      'an extra file',
      new Map([
        ['backup_manifest', 50],
        ['base.tar.zst', 1000],
        ['core', 3],
      ]),
      'core is not part of the backup',
    ],
  ])('P-34: %s is seen without reading, and named', (_what, files, message) => {
    expect(damageOf(someCatalog([foundBackup(full, { files })]))).toBe(message)
  })

  it('P-34: what a verification found stays known', () => {
    const check = { checkedAt: '', damage: ['base.tar.zst is damaged'] }
    expect(damageOf(someCatalog([foundBackup(full, { check })]))).toBe('base.tar.zst is damaged')
  })

  it('P-38: one without metadata is never good', () => {
    const empty = { ...foundBackup(full), metadata: null, fault: 'it is not JSON' }
    const [judged] = judgeBackups(someCatalog([empty]))
    expect([judged?.isGood, judged?.bytes]).toEqual([false, 1_950])
  })

  it('P-31, P-36: the backup of another cluster, or under another name, is not good', () => {
    const foreign = someBackup(full.id, { systemIdentifier: '7' })
    expect(damageOf(someCatalog([foreign]))).toContain('another cluster')
    expect(damageOf(someCatalog([foundBackup(full, { id: 'copy' })]), 'copy')).toContain(full.id)
  })

  it('one whose timeline no history file in the archive explains is not good: no recovery finds its way', () => {
    const second = someBackup(full.id, { timeline: timeline(2) })
    expect(damageOf(someCatalog([second]))).toBe('00000002.history is missing or damaged in the archive')
    const damaged = new Map([[2, 'nonsense']])
    expect(damageOf(someCatalog([second], { histories: damaged }))).toMatch(/^00000002.history is missing/)
    const histories = new Map([[2, '1\t0/1000148\tx\n']])
    expect(damageOf(someCatalog([second], { histories }))).toBe('')
    // A later timeline's says all of it.
    const later = new Map([[3, '1\t0/1000148\tx\n2\t0/4000148\tx\n']])
    expect(damageOf(someCatalog([second], { histories: later }))).toBe('')
  })

  it('what a crash left of a new check.json is no damage', () => {
    const files = new Map([...foundBackup(full).files, ['check.json.replctl-new.4711', 12] as const])
    expect(damageOf(someCatalog([foundBackup(full, { files })]))).toBe('')
  })

  it('P-36: a chain is whole from the full backup on', () => {
    const chain = chainOf(second.id, someCatalog([full, first, second]))
    expect(chain).toEqual({ is: 'whole', backups: [full, first, second] })
    expect(judgeBackups(someCatalog([full, first, second])).every((one) => one.isGood)).toBe(true)
  })

  it.each([
    ['its middle is missing', [full, second], `backup ${first.id}`],
    [
      'its order is swapped',
      [full, someBackup('20261126T005000Z', { kind: 'incremental', parent: full.id })],
      full.id,
    ],
    ['one names no parent', [someBackup('20261126T060000Z', { kind: 'incremental' })], 'does not say'],
  ])('P-36: a chain is broken where %s', (_what, backups, message) => {
    const last = backups.at(-1)
    expect(chainOf(last?.id ?? '', someCatalog(backups))).toMatchObject({ is: 'broken' })
    const verdict = judgeBackups(someCatalog(backups)).find((one) => one.id === last?.id)
    if (last?.parent !== null) expect(verdict?.damage.join()).toContain(message)
  })

  it('P-36: a link that lies in the place of another one is named with its place', () => {
    const stranger = someBackup('20261126T220000Z', { systemIdentifier: '7' })
    const catalog = someCatalog([full, foundBackup(stranger, { id: first.id }), second])
    expect(damageOf(catalog, second.id)).toBe(
      `in the place of backup ${first.id}, which it builds on, lies backup ${stranger.id} of another cluster`,
    )
  })

  it('P-36: damage of a full backup is damage of what builds on it', () => {
    const damaged = foundBackup(full, { files: new Map([['backup_manifest', 50]]) })
    expect(damageOf(someCatalog([damaged, first]), first.id)).toBe(
      `backup ${full.id}, which it builds on: base.tar.zst is missing`,
    )
  })

  it('knows its timelines and their lines', () => {
    const catalog = someCatalog([full], {
      segments: new Set([...segments(1, 1, 4), ...segments(2, 5, 6)]),
      histories: new Map([
        [2, '1\t0/5000148\tx\n'],
        [3, 'nonsense'],
      ]),
    })
    expect(timelinesOf(catalog)).toEqual([1, 2, 3])
    expect(historyOf(catalog, 1)).toEqual({ timeline: 1, switches: [] })
    expect(historyOf(catalog, 3)).toBeNull()
    expect(historyOf(catalog, 4)).toBeNull()
    const line = historyOf(catalog, 2)
    expect(line && chainFrom(catalog, full, line)).toMatchObject({ last: segments(2, 6, 6)[0], missing: [] })
  })
})

describe('a backup that was begun', () => {
  const request = { cluster: 'shop' } as BackupRequest
  const begun = (part = {}) => ({ id: '20261126T040000Z', request, isFresh: false, ...part })
  const next = (incoming: ReturnType<typeof begun>[], isRunning = false, backups = [full]) =>
    incomingOf([someCatalog(backups, { incoming })], 'shop', isRunning)

  it('is gone on with while it runs, or when it was left not long ago', () => {
    expect(next([begun()], true)).toBe('20261126T040000Z')
    expect(next([begun({ isFresh: true })])).toBe('20261126T040000Z')
    expect(next([begun()])).toBeNull()
    expect(next([begun({ isFresh: true, request: { ...request, cluster: 'other' } })])).toBeNull()
  })

  it('is over when it is listed, also where a crash left its folder: the next one is a new one', () => {
    expect(next([begun({ isFresh: true })], false, [someBackup('20261126T040000Z')])).toBeNull()
  })
})

describe('the WAL of a backup that a failover came upon', () => {
  // It ends in segment 2 of timeline 1, which was left within that segment.
  const [own] = segments(1, 2, 2)
  const missing = (leftAt: string, has: string[]) =>
    missingWalOf(
      someCatalog([], {
        segments: new Set([...segments(1, 1, 1), ...has]),
        histories: new Map([[2, `1\t${leftAt}\tno recovery target specified\n`]]),
      }),
      full,
    )

  it('is all there when the next timeline’s segment of that number is', () => {
    expect(missing('0/2000200', segments(2, 2, 2))).toEqual([])
    expect(missing('0/2000200', [])).toEqual([own])
  })

  it('is not where the backup ended behind the point at which the timelines parted, or in an earlier segment', () => {
    expect(missing('0/2000080', segments(2, 2, 2))).toEqual([own])
    expect(missing('0/3000200', segments(2, 3, 3))).toEqual([own])
  })
})
