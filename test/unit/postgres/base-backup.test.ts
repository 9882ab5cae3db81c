import { describe, expect, it, test } from 'vitest'
import {
  baseBackupArgs,
  chooseStoredCompression,
  commonCompression,
  parseBaseBackupProgress,
  storedBackupArgs,
} from '../../../src/postgres/base-backup.ts'
import { fixture, majorsWith } from './fixture.ts'

const least = {
  clientMajor: 15,
  serverMajor: 15,
  dataDirectory: '/data',
  conninfo: 'host=pg1 user=replicator',
}

describe('arguments of pg_basebackup', () => {
  test('the least', () => {
    expect(baseBackupArgs(least)).toEqual(
      ['-D', '/data', '-Fp', '-Xs', '-P', '-v', '-R', '-w', '--checkpoint=fast'].concat([
        '-d',
        least.conninfo,
      ]),
    )
  })

  test('everything', () => {
    const tablespaces = { '/fast': '/mnt/fast', '/a=b': '/c=d' }
    expect(
      baseBackupArgs({
        ...least,
        slot: 'shop_pg2',
        compression: 'zstd',
        noSync: true,
        walDirectory: '/wal',
        tablespaces,
      }),
    ).toEqual([
      ...['-D', '/data', '-Fp', '-Xs', '-P', '-v', '-R', '-w', '--checkpoint=fast', '-S', 'shop_pg2'],
      ...['--compress=server-zstd:1', '--no-sync', '--waldir=/wal'],
      ...['--tablespace-mapping=/fast=/mnt/fast', '--tablespace-mapping=/a\\=b=/c\\=d', '-d', least.conninfo],
    ])
  })

  test.each([
    [15, 15, 'lz4', '--compress=server-lz4'],
    [18, 15, 'zstd', '--compress=server-zstd:1'],
    [15, 14, 'zstd', undefined],
    [14, 14, 'lz4', undefined],
    [15, 15, 'none', undefined],
  ] as const)('client %i, server %i, %s: %s', (clientMajor, serverMajor, compression, argument) => {
    const args = baseBackupArgs({ ...least, clientMajor, serverMajor, compression })
    expect(args.find((arg) => arg.startsWith('--compress'))).toBe(argument)
  })
})

test('compression is one that both were built with', () => {
  const [pg13, pg15, pg18] = [13, 15, 18].map((major) => fixture(`pg${major}/configure.txt`)) as [
    string,
    string,
    string,
  ]
  expect(commonCompression(pg15, pg18)).toBe('zstd')
  expect(commonCompression(pg15.replace("'--with-zstd'", ''), pg18)).toBe('lz4')
  expect(commonCompression(pg15.replace("'--with-lz4'", ''), pg18)).toBe('zstd')
  expect(commonCompression(pg15, pg13)).toBe('none')
  expect(commonCompression()).toBe('none')
})

describe('progress', () => {
  test.each(majorsWith('basebackup.txt'))('of a backup of PostgreSQL %i', (major) => {
    const lines = fixture(`pg${major}/basebackup.txt`).split(/[\r\n]/)
    const told = lines.map(parseBaseBackupProgress).filter((progress) => progress !== undefined)
    const phases = told.map(({ phase }) => phase)
    expect(phases.filter((phase, index) => phase !== phases[index - 1])).toEqual([
      'waiting-for-checkpoint',
      'copying',
      'waiting-for-wal',
      'syncing',
      'done',
    ])
    const counted = told.filter(({ doneBytes }) => doneBytes !== undefined)
    expect(counted.length).toBeGreaterThan(2)
    expect(counted.at(-1)).toMatchObject({ percent: 100 })
    expect(counted.at(-1)?.doneBytes).toBe(counted.at(-1)?.totalBytes)
  })

  test.each([
    [
      '16430/36289 kB (45%), 0/1 tablespace (...5/16385)',
      { doneBytes: 16430 * 1024, totalBytes: 36289 * 1024, percent: 45 },
    ],
    [
      ' 36300/36289 kB (101%), 1/1 tablespace',
      { doneBytes: 36300 * 1024, totalBytes: 36289 * 1024, percent: 100 },
    ],
  ])('%j', (line, expected) => {
    expect(parseBaseBackupProgress(line)).toEqual({ phase: 'copying', ...expected })
  })

  test.each(['', 'pg_basebackup: error: connection to server failed', 'WARNING:  skipping special file'])(
    '%j tells none',
    (line) => {
      expect(parseBaseBackupProgress(line)).toBeUndefined()
    },
  )
})

describe('a base backup that is kept', () => {
  const backup = { directory: '/a/new', conninfo: 'host=pg1', label: 'nightly', compression: 'zstd' } as const

  it('is packed by the server from 15 on, and by pg_basebackup itself before', () => {
    expect(storedBackupArgs({ ...backup, serverMajor: 15 })).toEqual([
      ...['-D', '/a/new', '-Ft', '-Xs', '-P', '-v', '-w', '--checkpoint=fast', '--no-sync', '-l', 'nightly'],
      ...['--compress=server-zstd:1', '-d', 'host=pg1'],
    ])
    expect(storedBackupArgs({ ...backup, serverMajor: 13, compression: 'gzip' })).toContain('--compress=1')
  })

  it('P-36: builds on the manifest of another one', () => {
    const args = storedBackupArgs({ ...backup, serverMajor: 17, incrementalFrom: '/a/backup_manifest' })
    expect(args).toContain('--incremental=/a/backup_manifest')
  })

  it.each([
    ['auto', 15, '--with-zstd --with-lz4', ['gzip', 'lz4', 'zstd'], 'zstd'],
    ['auto', 15, '--with-lz4', ['gzip', 'lz4', 'zstd'], 'lz4'],
    ['auto', 15, '--with-zstd', ['gzip'], 'gzip'],
    ['auto', 14, '--with-zstd', ['gzip', 'zstd'], 'gzip'],
    ['auto', 15, '', [], 'none'],
    ['lz4', 15, '--with-lz4', ['gzip', 'lz4'], 'lz4'],
    ['lz4', 15, '', ['gzip', 'lz4'], 'gzip'],
    ['none', 15, '--with-zstd', ['zstd'], 'none'],
  ] as const)(
    'wish %s, PostgreSQL %i with "%s", programs %j: %s',
    (wish, major, configure, programs, chosen) => {
      expect(chooseStoredCompression(wish, major, configure, programs)).toBe(chosen)
    },
  )
})
