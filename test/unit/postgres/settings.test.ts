import { describe, expect, test } from 'vitest'
import { parseConfigFile } from '../../../src/postgres/config-file.ts'
import {
  changeOf,
  findSetting,
  judgeSettings,
  keepSufficient,
  overridesStandby,
  recoverySettingNames,
  settings,
  standbyParityParameters,
} from '../../../src/postgres/settings.ts'
import { supportedMajorVersions } from '../../../src/postgres/versions.ts'
import { fixture } from './fixture.ts'

/** name → context, as the server's own pg_settings has it. */
function contextsOf(major: number): Map<string, string> {
  const rows = fixture(`pg${major}/settings.tsv`).trimEnd().split('\n').slice(1)
  return new Map(rows.map((row) => row.split('\t')).map(([name, context]) => [name!, context!]))
}

describe.each(supportedMajorVersions)('the table agrees with PostgreSQL %i', (major) => {
  const contexts = contextsOf(major)

  test.each(settings)('about $name', ({ name }) => {
    const context = contexts.get(name)
    expect(findSetting(name, major) !== undefined, 'exists').toBe(context !== undefined)
    if (context !== undefined)
      expect(changeOf(name, major)).toBe(context === 'postmaster' ? 'restart' : 'reload')
  })

  test('about what standbys must match, and what makes a standby', () => {
    for (const name of standbyParityParameters) expect(contexts.get(name)).toBe('postmaster')
    for (const name of major < 12 ? [] : recoverySettingNames(major))
      expect(contexts.has(name), name).toBe(true)
  })
})

test.each([
  ["hot_standby = 'off'", ['hot_standby']],
  ['hot_standby = no', ['hot_standby']],
  ["hot_standby = 'true'", []],
  ["primary_conninfo = ''\nwork_mem = '4MB'", ['primary_conninfo']],
])('what keeps a node from being seen to follow is taken out of postgresql.auto.conf: %s', (text, names) => {
  const found = overridesStandby(parseConfigFile(text), recoverySettingNames(15))
  expect(found.map(({ name }) => name)).toEqual(names)
})

test('a setting without a row is not judged by the table', () => {
  expect(changeOf('work_mem', 15)).toBeUndefined()
})

describe('adopting an instance', () => {
  const judge = (live: Record<string, string>, needed: Record<string, string>, options = {}) =>
    judgeSettings(live, new Map(Object.entries(needed)), options)
  const names = (verdicts: readonly { name: string }[]) => verdicts.map(({ name }) => name)

  test.each([
    ['wal_level', 'logical', 'replica', true],
    ['wal_level', 'minimal', 'replica', false],
    ['wal_level', 'replica', 'logical', false],
    ['max_wal_senders', '20', '10', true],
    ['max_wal_senders', '10', '10', true],
    ['max_wal_senders', '5', '10', false],
    ['wal_keep_size', '1GB', '256MB', true],
    ['wal_keep_size', '0', '256MB', false],
    ['max_slot_wal_keep_size', '-1', '10GB', false],
    ['max_slot_wal_keep_size', '10240MB', '10GB', true],
    ['archive_mode', 'always', 'on', true],
    ['archive_mode', 'off', 'on', false],
    ['listen_addresses', '10.0.0.11,127.0.0.1', '*', true],
    ['listen_addresses', '0.0.0.0', '*', true],
    ['listen_addresses', 'localhost', '*', false],
    ['listen_addresses', '127.0.0.1, ::1', '*', false],
    ['listen_addresses', '', '*', false],
    ['password_encryption', 'md5', 'scram-sha-256', true],
    ['hot_standby', 'on', 'true', true],
    ['hot_standby', 'off', 'on', false],
    ['archive_command', 'cp %p /mnt/%f', '/x/push %p', false],
    ['shared_buffers', '128MB', '0.125GB', true],
  ])('%s = %s where %s is needed is good enough: %s', (name, live, needed, isGood) => {
    expect(names(judge({ [name]: live }, { [name]: needed }))).toEqual(isGood ? [] : [name])
    const kept = keepSufficient({ [name]: live }, new Map([[name, needed]]))
    expect(kept.get(name)).toBe(isGood ? live : needed)
  })

  test('data checksums make wal_log_hints unnecessary', () => {
    const needed = { wal_log_hints: 'on' }
    expect(judge({ wal_log_hints: 'off', data_checksums: 'on' }, needed)).toEqual([])
    expect(judge({ wal_log_hints: 'off', data_checksums: 'off' }, needed)).toEqual([
      { name: 'wal_log_hints', live: 'off', needed: 'on', change: 'restart', canWait: false },
    ])
  })

  test('the cluster name can wait for the next restart', () => {
    expect(judge({ cluster_name: '15/main' }, { cluster_name: 'shop' })).toEqual([
      { name: 'cluster_name', live: '15/main', needed: 'shop', change: 'restart', canWait: true },
    ])
  })

  test('what the operator wrote counts as written', () => {
    const live = { password_encryption: 'md5', max_wal_senders: '20' }
    const needed = { password_encryption: 'scram-sha-256', max_wal_senders: '12' }
    expect(judge(live, needed)).toEqual([])
    expect(names(judge(live, needed, { wished: ['password_encryption', 'max_wal_senders'] }))).toEqual([
      'password_encryption',
      'max_wal_senders',
    ])
  })

  test('settings without a row go by pg_settings, and to be safe by a restart', () => {
    const live = { work_mem: '4MB', shared_buffers: '128MB' }
    const needed = { work_mem: '8MB', shared_buffers: '256MB', 'pg_stat_statements.max': '1000' }
    const contexts = { work_mem: 'user', shared_buffers: 'postmaster' }
    expect(judge(live, needed, { contexts })).toMatchObject([
      { name: 'work_mem', change: 'reload' },
      { name: 'shared_buffers', change: 'restart' },
      { name: 'pg_stat_statements.max', live: undefined, change: 'restart' },
    ])
  })

  test('bare numbers count in the unit of the setting', () => {
    const options = { units: { shared_buffers: '8kB', work_mem: 'kB' } }
    expect(
      judge(
        { shared_buffers: '128MB', work_mem: '4MB' },
        { shared_buffers: '16384', work_mem: '4096' },
        options,
      ),
    ).toEqual([])
  })
})
