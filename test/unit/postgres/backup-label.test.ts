import { describe, expect, it } from 'vitest'
import { parseBackupLabel, parseBackupStop, parseTablespaceMap } from '../../../src/postgres/backup-label.ts'

/** As PostgreSQL 15.18 wrote it. */
const label = `START WAL LOCATION: 0/2000028 (file 000000010000000000000002)
CHECKPOINT LOCATION: 0/2000060
BACKUP METHOD: streamed
BACKUP FROM: primary
START TIME: 2026-11-26 05:49:46 UTC
LABEL: my label
START TIMELINE: 1
`

describe('what a base backup says of itself', () => {
  it('its start, from backup_label', () => {
    expect(parseBackupLabel(label)).toEqual({ startLsn: '0/2000028', timeline: 1, label: 'my label' })
    expect(() => parseBackupLabel('')).toThrow(RangeError)
  })

  it('its tablespaces, from tablespace_map', () => {
    expect(parseTablespaceMap('16384 /srv/fast disk\n16385 /srv/a\\\\b\n')).toEqual([
      { oid: '16384', location: '/srv/fast disk' },
      { oid: '16385', location: '/srv/a\\b' },
    ])
    expect(parseTablespaceMap('\n')).toEqual([])
  })

  it('its end, from what pg_basebackup printed', () => {
    const said =
      'write-ahead log start point: 0/2000028 on timeline 1\nwrite-ahead log end point: 0/2000100\n'
    expect(parseBackupStop(said)).toBe('0/2000100')
    expect(() => parseBackupStop('')).toThrow(RangeError)
  })
})
