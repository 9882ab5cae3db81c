import { describe, expect, test } from 'vitest'
import { isCleanShutdown, parseControlData } from '../../../src/postgres/control-data.ts'
import { fixture, majorsWith } from './fixture.ts'

const capture = (major: number, name: string) =>
  parseControlData(fixture(`pg${major}/controldata-${name}.txt`))

describe.each(majorsWith('controldata-promoted.txt'))('pg_controldata of PostgreSQL %i', (major) => {
  test.each([
    ['primary-running', 'in production', false],
    ['primary-shut-down', 'shut down', true],
    ['primary-killed', 'in production', false],
    ['standby-running', 'in archive recovery', false],
    ['standby-shut-down', 'shut down in recovery', true],
  ])('%s says "%s"', (name, state, isClean) => {
    expect(capture(major, name).state).toBe(state)
    expect(isCleanShutdown(state)).toBe(isClean)
  })

  test('a standby has the system identifier of its primary, as text', () => {
    const { systemIdentifier } = capture(major, 'primary-running')
    expect(systemIdentifier).toMatch(/^\d{19}$/)
    expect(capture(major, 'standby-running').systemIdentifier).toBe(systemIdentifier)
  })

  test('a standby knows how far it must replay, a primary has nothing to replay', () => {
    expect(capture(major, 'standby-running')).toMatchObject({
      minRecoveryEndLsn: expect.stringMatching(/^0\/[0-9A-F]+$/),
      minRecoveryEndTimeline: 1,
      backupStartLsn: null,
      backupEndRequired: false,
    })
    expect(capture(major, 'primary-running')).toMatchObject({
      minRecoveryEndLsn: null,
      minRecoveryEndTimeline: null,
    })
  })

  test('a promotion begins timeline 2', () => {
    expect(capture(major, 'standby-shut-down')).toMatchObject({ timeline: 1, previousTimeline: 1 })
    expect(capture(major, 'promoted').timeline).toBe(2)
  })

  test('the settings that standbys must match', () => {
    expect(capture(major, 'primary-running')).toMatchObject({
      dataChecksums: true,
      walLogHints: true,
      walSegmentSizeBytes: 16 * 1024 * 1024,
      walLevel: 'replica',
      maxConnections: 100,
      maxWorkerProcesses: 8,
      maxWalSenders: 10,
      maxPreparedTransactions: 0,
      maxLocksPerTransaction: 64,
    })
  })
})

test('every value of PostgreSQL 15 is where it belongs', () => {
  expect(capture(15, 'primary-shut-down')).toMatchInlineSnapshot(`
    {
      "backupEndRequired": false,
      "backupStartLsn": null,
      "catalogVersion": 202209061,
      "checkpointLsn": "0/40000D8",
      "dataChecksums": true,
      "maxConnections": 100,
      "maxLocksPerTransaction": 64,
      "maxPreparedTransactions": 0,
      "maxWalSenders": 10,
      "maxWorkerProcesses": 8,
      "minRecoveryEndLsn": null,
      "minRecoveryEndTimeline": null,
      "pgControlVersion": 1300,
      "previousTimeline": 1,
      "redoLsn": "0/40000D8",
      "state": "shut down",
      "systemIdentifier": "7710442107103424573",
      "timeline": 1,
      "walLevel": "replica",
      "walLogHints": true,
      "walSegmentSizeBytes": 16777216,
    }
  `)
})

test('a missing label is named', () => {
  const text = fixture('pg15/controldata-promoted.txt').replace(/^Database system identifier.*\n/m, '')
  expect(() => parseControlData(text)).toThrow(
    expect.objectContaining({
      code: 'control-data-unreadable',
      detail: expect.stringContaining('"Database system identifier"'),
    }),
  )
})

test('without max_wal_senders, as before PostgreSQL 12, it is unknown', () => {
  const text = fixture('pg13/controldata-promoted.txt').replace(/^max_wal_senders.*\n/m, '')
  expect(parseControlData(text).maxWalSenders).toBeNull()
})

test('a translated output is refused', () => {
  expect(() => parseControlData('Datenbanksystemidentifikation: 7710437102081591806\n')).toThrow(
    expect.objectContaining({ code: 'control-data-unreadable' }),
  )
})
