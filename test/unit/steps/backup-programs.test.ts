import { describe, expect, it } from 'vitest'
import { missingPrograms, readBackupPrograms } from '../../../src/steps/backup-programs.ts'

const output = `home /var/lib/postgresql
packer gzip
packer zstd
version /usr/lib/postgresql/15/bin\tpg_basebackup (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)
program /usr/lib/postgresql/15/bin\tpg_verifybackup
version /usr/lib/postgresql/17/bin\tpg_basebackup (PostgreSQL) 17.2
program /usr/lib/postgresql/17/bin\tpg_verifybackup
program /usr/lib/postgresql/17/bin\tpg_waldump
version /usr/bin\tpg_basebackup (PostgreSQL) 17.2
`

describe('the programs of the archive host', () => {
  it('are those of the server’s own version where they are there', () => {
    expect(readBackupPrograms(output, 15)).toMatchObject({
      ...{ home: '/var/lib/postgresql', directory: '/usr/lib/postgresql/15/bin', major: 15 },
      ...{ names: ['pg_verifybackup'], packers: ['gzip', 'zstd'] },
    })
  })

  it('are newer ones for an older server', () => {
    expect(readBackupPrograms(output, 16)).toMatchObject({
      major: 17,
      names: ['pg_verifybackup', 'pg_waldump'],
    })
  })

  it('P-38: never older ones', () => {
    expect(readBackupPrograms(output, 18)).toMatchObject({ directory: null, names: [] })
    expect(readBackupPrograms(output, 18).found).toHaveLength(2)
  })

  it('from 17 on prove a backup only in the server’s own version: a newer one cannot read its pg_control', () => {
    const [of17, on18] = [readBackupPrograms(output, 17), output.replaceAll('17', '18')]
    expect(missingPrograms(of17, 17, ['pg_verifybackup'])).toEqual([])
    expect(missingPrograms(of17, 16, ['pg_verifybackup'])).toEqual([])
    expect(missingPrograms(readBackupPrograms(on18, 17), 17, ['pg_verifybackup'])).toEqual([
      'pg_verifybackup',
    ])
    expect(missingPrograms(readBackupPrograms(output, 15), 15, ['pg_combinebackup'])).toEqual([
      'pg_combinebackup',
    ])
  })
})
