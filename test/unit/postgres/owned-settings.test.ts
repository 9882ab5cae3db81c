import { describe, expect, test } from 'vitest'
import { type OwnedSettingsInput, ownedSettings, reservedParameters } from '../../../src/postgres/settings.ts'

const input: OwnedSettingsInput = {
  major: 15,
  cluster: 'shop',
  nodeCount: 3,
  port: 5432,
  synchronousStandbyNames: '',
  maxSlotWalKeepSize: '10GB',
  parameters: {},
}
const owned = (changes: Partial<OwnedSettingsInput> = {}) =>
  Object.fromEntries(ownedSettings({ ...input, ...changes }))
const withParameters = (parameters: Record<string, string>) => owned({ parameters })

test('what every node gets', () => {
  expect(owned()).toEqual({
    cluster_name: 'shop',
    hot_standby: 'on',
    listen_addresses: '*',
    max_replication_slots: '32',
    max_slot_wal_keep_size: '10GB',
    max_wal_senders: '32',
    password_encryption: 'scram-sha-256',
    port: '5432',
    synchronous_standby_names: '',
    wal_keep_size: '256MB',
    wal_level: 'replica',
    wal_log_hints: 'on',
  })
})

test('PostgreSQL 12 and older keep WAL by segments, and cannot limit a slot', () => {
  expect(owned({ major: 12 })).toMatchObject({ wal_keep_segments: '16' })
  expect(owned({ major: 12, walSegmentSizeBytes: 64 * 2 ** 20 })).toMatchObject({ wal_keep_segments: '4' })
  expect(owned({ major: 12 })).not.toHaveProperty('wal_keep_size')
  expect(owned({ major: 12 })).not.toHaveProperty('max_slot_wal_keep_size')
})

test('large clusters get more senders and slots', () => {
  expect(owned({ nodeCount: 13 })).toMatchObject({ max_wal_senders: '34', max_replication_slots: '34' })
})

describe('walsenders of PostgreSQL 11, which are among the connections', () => {
  const senders = (max: string | undefined, changes: Partial<OwnedSettingsInput> = {}) =>
    owned({ major: 11, connectionLimits: { max_connections: max }, ...changes }).max_wal_senders

  test('are as many as ever where there is room', () => {
    for (const max of [undefined, '100', '40']) expect(senders(max)).toBe('32')
    expect(senders('30', { major: 12 })).toBe('32')
  })

  test('are fewer where the instance takes few connections, so that it starts and clients get in', () => {
    expect(senders('30')).toBe('22')
    expect(senders('100', { parameters: { max_connections: '30' } })).toBe('22')
    const limits = { max_connections: '30', superuser_reserved_connections: '10' }
    expect(senders('30', { connectionLimits: limits })).toBe('15')
    expect(senders('12')).toBe('8')
  })

  test.each([
    ['11', {}],
    ['100', { max_connections: '11' }],
    ['40', { max_wal_senders: '37' }],
    ['100', { max_connections: '40', max_wal_senders: '36', superuser_reserved_connections: '4' }],
  ])('are refused where the server would not start: max_connections %s, %o', (max, parameters) => {
    expect(() => senders(max, { parameters })).toThrow(
      expect.objectContaining({ code: 'settings-too-low', hint: expect.stringContaining('max_connections') }),
    )
    expect(senders(max, { parameters, major: 12 })).toBeDefined()
  })

  test('as wished where they just fit', () => {
    expect(senders('40', { parameters: { max_wal_senders: '36' } })).toBe('36')
  })
})

test('archiving is set up only where there is an archive', () => {
  expect(owned({ archiveCommand: '/x/push %p' })).toMatchObject({
    archive_mode: 'on',
    archive_command: '/x/push %p',
    archive_library: '',
  })
  expect(owned({ major: 14, archiveCommand: '/x/push %p' })).not.toHaveProperty('archive_library')
  expect(owned()).not.toHaveProperty('archive_mode')
})

describe('the operator', () => {
  test.each([
    [{ shared_buffers: '256MB' }, { shared_buffers: '256MB' }],
    [{ Work_Mem: '8MB' }, { work_mem: '8MB' }],
    [{ 'pg_stat_statements.max': '1000' }, { 'pg_stat_statements.max': '1000' }],
    [{ listen_addresses: '10.0.0.11' }, { listen_addresses: '10.0.0.11' }],
    [{ wal_keep_size: '0' }, { wal_keep_size: '0' }],
    [{ password_encryption: 'md5' }, { password_encryption: 'md5' }],
    [{ wal_level: 'Logical' }, { wal_level: 'logical' }],
    [{ max_wal_senders: '50' }, { max_wal_senders: '50' }],
    [{ max_replication_slots: '2' }, { max_replication_slots: '2' }],
    [
      { archive_mode: 'on', archive_command: 'true' },
      { archive_mode: 'on', archive_command: 'true' },
    ],
    [{ hot_standby_feedback: 'on' }, { hot_standby_feedback: 'on' }],
  ])('decides %j', (parameters, expected) => {
    expect(withParameters(parameters)).toMatchObject(expected)
  })

  test.each([
    [{ wal_level: 'minimal' }, { wal_level: 'replica' }],
    [{ wal_log_hints: 'off' }, { wal_log_hints: 'on' }],
    [{ hot_standby: 'off' }, { hot_standby: 'on' }],
  ])('cannot lower what safety rests on: %j', (parameters, expected) => {
    expect(withParameters(parameters)).toMatchObject(expected)
  })

  test("replaces neither the archive's command nor its mode, but may archive from standbys too", () => {
    const archiveCommand = '/x/push %p'
    expect(
      owned({ archiveCommand, parameters: { archive_mode: 'off', archive_command: 'true' } }),
    ).toMatchObject({
      archive_mode: 'on',
      archive_command: archiveCommand,
    })
    expect(owned({ archiveCommand, parameters: { archive_mode: 'always' } })).toMatchObject({
      archive_mode: 'always',
    })
  })

  test.each([...reservedParameters])('is told what to use instead of %s', (name, hint) => {
    expect(() => withParameters({ [name.toUpperCase()]: 'x' })).toThrow(
      expect.objectContaining({ code: 'inventory-invalid', hint }),
    )
  })

  test.each(['', 'a b', "x = 'y'\nfsync", '1st', 'a.b.c', 'a-b'])(
    'cannot smuggle in anything by the name %j',
    (name) => {
      expect(() => withParameters({ [name]: 'x' })).toThrow(
        expect.objectContaining({ code: 'inventory-invalid' }),
      )
    },
  )
})
