import { describe, expect, it } from 'vitest'
import {
  backupId,
  isBackupId,
  nextBackupId,
  parseBackupCheck,
  parseBackupMetadata,
  printBackupMetadata,
  storedBytes,
} from '../../../src/postgres/backup-metadata.ts'
import { someBackup } from '../some-backup.ts'

describe('the metadata of a base backup', () => {
  it('reads back what it printed', () => {
    const metadata = someBackup('20261126T061500Z')
    expect(parseBackupMetadata(printBackupMetadata(metadata))).toEqual(metadata)
    expect(storedBytes(metadata)).toBe(1_050)
  })

  it.each([
    ['an edited value', (text: string) => text.replace('"timeline": 1', '"timeline": 2'), /checksum/],
    ['a truncated file', (text: string) => text.slice(0, 200), /not JSON/],
    ['an appended word', (text: string) => `${text}x`, /not JSON/],
    ['another format', (text: string) => text.replace('"format": 1', '"format": 9'), /format/],
    ['a number', () => '7', /no JSON object/],
  ])('refuses %s', (_what, damage, message) => {
    expect(() => parseBackupMetadata(damage(printBackupMetadata(someBackup('20261126T061500Z'))))).toThrow(
      message,
    )
  })

  it('gives a new backup a name behind those that are there, also where their clock was ahead', () => {
    const now = new Date('2026-11-26T06:15:00.123Z')
    expect(nextBackupId(now, [])).toBe('20261126T061500Z')
    expect(nextBackupId(now, ['20261126T061459Z', 'lost+found'])).toBe('20261126T061500Z')
    expect(nextBackupId(now, ['20261126T061500Z'])).toBe('20261126T061501Z')
    expect(nextBackupId(now, ['20261126T075959Z', '20261125T010000Z'])).toBe('20261126T080000Z')
  })

  it('names a backup by the moment it began, so that names sort by age', () => {
    expect(backupId(new Date('2026-11-26T06:15:00.123Z'))).toBe('20261126T061500Z')
    expect(isBackupId('20261126T061500Z')).toBe(true)
    expect(isBackupId('.incoming-20261126T061500Z')).toBe(false)
  })

  it('takes a check that cannot be read for none', () => {
    expect(parseBackupCheck('{"checkedAt":"x","damage":["a is missing"]}')?.damage).toEqual(['a is missing'])
    expect(parseBackupCheck('')).toBeNull()
    expect(parseBackupCheck('{}')).toBeNull()
  })
})
