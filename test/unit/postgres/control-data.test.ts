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

test.each([
  ['Database system identifier', 'systemIdentifier'],
  ['Latest checkpoint location', 'checkpointLsn'],
  ["Latest checkpoint's REDO location", 'redoLsn'],
  ["Latest checkpoint's TimeLineID", 'timeline'],
  ["Latest checkpoint's PrevTimeLineID", 'previousTimeline'],
  ['Minimum recovery ending location', 'minRecoveryEndLsn'],
  ["Min recovery ending loc's timeline", 'minRecoveryEndTimeline'],
  ['pg_control version number', 'pgControlVersion'],
  ['Catalog version number', 'catalogVersion'],
] as const)('"%s" is %s', (label, property) => {
  const text = fixture('pg15/controldata-standby-running.txt')
  const printed = text.split('\n').find((line) => line.startsWith(`${label}:`))
  expect(String(parseControlData(text)[property])).toBe(printed?.slice(label.length + 1).trim())
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
