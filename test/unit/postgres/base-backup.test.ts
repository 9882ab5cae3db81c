import { describe, expect, test } from 'vitest'
import {
  baseBackupArgs,
  commonCompression,
  parseBaseBackupProgress,
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
  expect(commonCompression('far', pg15, pg18)).toBe('zstd')
  expect(commonCompression('near', pg15, pg18)).toBe('lz4')
  expect(commonCompression('far', pg15.replace("'--with-zstd'", ''), pg18)).toBe('lz4')
  expect(commonCompression('near', pg15.replace("'--with-lz4'", ''), pg18)).toBe('zstd')
  expect(commonCompression('near', pg15, pg13)).toBe('none')
  expect(commonCompression('near')).toBe('none')
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
