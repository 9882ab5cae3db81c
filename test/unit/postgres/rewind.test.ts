import { expect, test } from 'vitest'
import { parseRewindProgress, rewindArgs } from '../../../src/postgres/rewind.ts'

const rewind = { dataDirectory: '/data', conninfo: 'host=a', restoresWal: true } as const
const common = ['-D', '/data', '--source-server=host=a', '--progress']

test.each([
  [11, undefined, []],
  [12, undefined, ['--no-sync']],
  [13, undefined, ['--no-sync', '--no-ensure-shutdown', '--restore-target-wal']],
  // Before 15 it cannot be told where the configuration lies, from which it reads restore_command.
  [14, '/etc/postgresql/14/main/postgresql.conf', ['--no-sync', '--no-ensure-shutdown']],
  [
    15,
    '/etc/postgresql/15/main/postgresql.conf',
    [
      ...['--no-sync', '--no-ensure-shutdown', '--restore-target-wal'],
      '--config-file=/etc/postgresql/15/main/postgresql.conf',
    ],
  ],
])('pg_rewind of %i never recovers by itself, never syncs by file', (major, configFile, extra) => {
  expect(rewindArgs({ ...rewind, major, configFile })).toEqual([...common, ...extra])
})

test('its progress is read', () => {
  expect(parseRewindProgress(' 1024/84992 kB (1%) copied')).toEqual({
    doneBytes: 1_048_576,
    totalBytes: 87_031_808,
  })
  expect(parseRewindProgress('pg_rewind: Done!')).toBeUndefined()
})
