import { expect, test } from 'vitest'
import { initdbArgs } from '../../../src/postgres/initdb.ts'

const common = [
  '-D',
  '/data',
  '-U',
  'postgres',
  '-E',
  'UTF8',
  '--data-checksums',
  '--auth-local=peer',
  '--auth-host=scram-sha-256',
]

test.each([
  [11, ['--locale=C', '--lc-ctype=C.UTF-8']],
  [16, ['--locale=C', '--lc-ctype=C.UTF-8']],
  [17, ['--locale-provider=builtin', '--builtin-locale=C.UTF-8', '--locale=C']],
  [18, ['--locale-provider=builtin', '--builtin-locale=C.UTF-8', '--locale=C']],
])('PostgreSQL %i sorts by bytes on every host: %j', (major, locale) => {
  expect(initdbArgs({ major, dataDirectory: '/data' })).toEqual([...common, ...locale])
})

test('a host without C.UTF-8, another superuser, other segments', () => {
  const args = initdbArgs({
    major: 15,
    dataDirectory: '/data',
    superuser: 'admin',
    characterType: 'C',
    walSegmentSizeBytes: 64 * 1024 * 1024,
  })
  expect(args).toEqual(expect.arrayContaining(['admin', '--lc-ctype=C', '--wal-segsize=64']))
})
