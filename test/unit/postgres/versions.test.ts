import { describe, expect, test } from 'vitest'
import {
  capabilitiesOf,
  choosePromotionMethod,
  parsePostgresVersion,
  supportedMajorVersions,
} from '../../../src/postgres/versions.ts'
import { fixture } from './fixture.ts'

describe('capabilities', () => {
  test.each([
    ['recoveryConf', [11]],
    ['promoteTriggerFile', [12, 13, 14, 15]],
    ['triggerFile', [11, 12, 13, 14, 15]],
    ['standbySignalFile', [12, 13, 14, 15, 16, 17, 18]],
    ['promoteFunction', [12, 13, 14, 15, 16, 17, 18]],
    ['reloadsPrimaryConninfo', [13, 14, 15, 16, 17, 18]],
    ['walKeepSize', [13, 14, 15, 16, 17, 18]],
    ['serverCompression', [15, 16, 17, 18]],
    ['builtinLocaleProvider', [17, 18]],
  ] as const)('%s is there in %j', (name, majors) => {
    expect(supportedMajorVersions.filter((major) => capabilitiesOf(major)[name])).toEqual(majors)
  })

  test('a version newer than all known ones is taken to be like the newest', () => {
    expect(capabilitiesOf(99)).toEqual(capabilitiesOf(18))
  })
})

describe('promotion', () => {
  test.each([
    [11, 'auto', 'trigger-file'],
    [12, 'auto', 'pg_promote'],
    [18, 'auto', 'pg_promote'],
    [11, 'trigger-file', 'trigger-file'],
    [15, 'trigger-file', 'trigger-file'],
    [16, 'pg_promote', 'pg_promote'],
  ] as const)('PostgreSQL %i asked for %s is promoted by %s', (major, wanted, method) => {
    expect(choosePromotionMethod(major, wanted)).toBe(method)
  })

  test.each([
    [16, 'trigger-file', 'PostgreSQL 16 removed promote_trigger_file.'],
    [11, 'pg_promote', 'The function pg_promote() exists from PostgreSQL 12 on.'],
  ] as const)('PostgreSQL %i cannot be promoted by %s, and the reason is told', (major, wanted, detail) => {
    expect(() => choosePromotionMethod(major, wanted)).toThrow(
      expect.objectContaining({ code: 'method-not-available', detail }),
    )
  })
})

describe('version of the programs', () => {
  test.each(supportedMajorVersions)('captured from PostgreSQL %i', (major) => {
    expect(parsePostgresVersion(fixture(`pg${major}/version.txt`)).major).toBe(major)
  })

  test.each([
    ['postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)', { major: 15, minor: 18, text: '15.18' }],
    ['pg_ctl (PostgreSQL) 11.22\n', { major: 11, minor: 22, text: '11.22' }],
    ['15.18 (Debian 15.18-0+deb12u1)', { major: 15, minor: 18, text: '15.18' }],
    ['postgres (PostgreSQL) 19devel', { major: 19, minor: 0, text: '19devel' }],
    ['postgres (PostgreSQL) 18beta1 (Ubuntu 18~beta1-1)', { major: 18, minor: 0, text: '18beta1' }],
    ['postgres (PostgreSQL) 17rc1', { major: 17, minor: 0, text: '17rc1' }],
  ])('%s', (output, version) => {
    expect(parsePostgresVersion(output)).toEqual(version)
  })

  test.each(['', 'bash: postgres: command not found', 'psql 9.6.24', 'postgres (EnterpriseDB) x'])(
    '%j is refused',
    (output) => {
      expect(() => parsePostgresVersion(output)).toThrow(
        expect.objectContaining({ code: 'version-mismatch' }),
      )
    },
  )
})
