import { describe, expect, it } from 'vitest'
import { restoreSize } from '../../../src/cluster/restore-room.ts'
import { someBackup } from '../some-backup.ts'

const GB = 2 ** 30
const big = { oid: '16384', location: '/srv/big' }
const full = someBackup('20261126T010000Z', {
  dataBytes: 520 * GB,
  tablespaces: [{ ...big, bytes: 500 * GB }],
})

describe('the room that a restore takes', () => {
  it('of a node: each tablespace at its own place, and only the rest where the data directory is', () => {
    expect(restoreSize([full], () => '/srv/big', '/chain')).toEqual({
      dataBytes: 20 * GB,
      tablespaces: [{ location: '/srv/big', bytes: 500 * GB }],
    })
  })

  it('beside one: all of it below its own directory', () => {
    expect(restoreSize([full], () => null, '/chain')).toEqual({ dataBytes: 520 * GB, tablespaces: [] })
  })

  it('of a backup that did not measure its tablespaces: by their share of what is packed', () => {
    const file = (name: string, bytes: number) => ({ name, bytes, sha256: 'a' })
    const older = someBackup('20261126T010000Z', {
      ...{ dataBytes: 100 * GB, tablespaces: [big] },
      files: [file('backup_manifest', 5), file('base.tar.zst', 25), file('16384.tar.zst', 75)],
    })
    expect(restoreSize([older], () => '/srv/big', '/chain')).toMatchObject({ dataBytes: 25 * GB })
  })

  it('a chain is unpacked in a place of its own, and joined where the instance is to be', () => {
    const delta = someBackup('20261126T020000Z', { kind: 'incremental', parent: full.id, dataBytes: 10 * GB })
    expect(restoreSize([full, delta], () => null, '/data/pg.chain')).toEqual({
      dataBytes: 520 * GB,
      tablespaces: [{ location: '/data/pg.chain', bytes: 530 * GB }],
    })
  })
})
