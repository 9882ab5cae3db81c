import { describe, expect, it } from 'vitest'
import {
  describeTarget,
  isReasonOf,
  parseRecoveryTarget,
  recoveryTargetSettings,
} from '../../../src/postgres/recovery-target.ts'

describe('the target of a recovery', () => {
  it('is the latest unless one is given', () => {
    expect(parseRecoveryTarget({})).toEqual({ kind: 'latest' })
    expect(parseRecoveryTarget({ latest: true })).toEqual({ kind: 'latest' })
    expect(recoveryTargetSettings({ kind: 'latest' })).toEqual([])
  })

  it.each([
    ['2026-11-26 06:15:00+01:00', '2026-11-26T05:15:00.000Z', '2026-11-26 06:15:00+01:00'],
    ['2026-11-26T05:15:00Z', '2026-11-26T05:15:00.000Z', '2026-11-26 05:15:00+00:00'],
    ['2026-11-26 05:15 UTC', '2026-11-26T05:15:00.000Z', '2026-11-26 05:15:00+00:00'],
    ['2026-11-26 05:15:00.123456-0330', '2026-11-26T08:45:00.123Z', '2026-11-26 05:15:00.123456-03:30'],
    ['2026-11-26 05:15:00.5+00', '2026-11-26T05:15:00.500Z', '2026-11-26 05:15:00.5+00:00'],
  ])('reads the time %s', (text, iso, time) => {
    expect(parseRecoveryTarget({ toTime: text })).toEqual({ kind: 'time', time, atMs: Date.parse(iso) })
  })

  it.each([
    '2026-11-26 06:15:00',
    '2026-11-26',
    'yesterday',
    '06:15:00+01:00',
    '2026-02-30 06:15:00Z',
    '2026-11-26 25:15:00Z',
    '2026-11-26 06:15:00 Europe/Berlin',
  ])('refuses the time %s, which has no zone or does not exist', (text) => {
    expect(() => parseRecoveryTarget({ toTime: text })).toThrow(/zone|no moment/)
  })

  it('refuses two targets at once, and what is none', () => {
    expect(() => parseRecoveryTarget({ toLsn: '0/3000148', toXid: '744' })).toThrow(/only one/)
    expect(() => parseRecoveryTarget({ toLsn: '0/3000148', latest: true })).toThrow(/only one/)
    expect(() => parseRecoveryTarget({ toLsn: 'x' })).toThrow(/LSN/)
    expect(() => parseRecoveryTarget({ toXid: '-1' })).toThrow(/transaction/)
    expect(() => parseRecoveryTarget({ toName: 'a\nb' })).toThrow(/restore point/)
    expect(() => parseRecoveryTarget({ toName: '' })).toThrow(/restore point/)
  })

  it.each([
    [{ toLsn: '0/3000148' }, 'recovery_target_lsn', '0/3000148', 'after LSN 0/3000148', 'LSN 0/3000148'],
    [{ toXid: '744' }, 'recovery_target_xid', '744', 'after transaction 744', 'transaction 744'],
    // As pg_current_xact_id() gives it past 4 billion transactions, and with zeros in front.
    [{ toXid: '4294968000' }, 'recovery_target_xid', '704', 'after transaction 704', 'transaction 704'],
    [{ toXid: '0100' }, 'recovery_target_xid', '100', 'before transaction 100', 'transaction 100'],
    [
      { toName: 'before drop' },
      'recovery_target_name',
      'before drop',
      'at restore point "before drop"',
      'restore point "before drop"',
    ],
    [{ toImmediate: true }, 'recovery_target', 'immediate', 'reached consistency', 'immediate'],
    [
      { toTime: '2026-11-26 06:15:00Z' },
      'recovery_target_time',
      '2026-11-26 06:15:00+00:00',
      'before 2026-11-26 06:15:02.1+00',
      'time 2026-11-26 06:15:00+00:00',
    ],
  ])(
    '%j pauses there, and is told from an early end by the reason in the history file',
    (flags, name, value, reason, words) => {
      const target = parseRecoveryTarget(flags)
      expect(recoveryTargetSettings(target)).toEqual([
        [name, value],
        ['recovery_target_inclusive', 'on'],
        ['recovery_target_action', 'pause'],
      ])
      expect(isReasonOf(target, reason)).toBe(true)
      expect(isReasonOf(target, 'no recovery target specified')).toBe(false)
      expect(isReasonOf({ kind: 'latest' }, reason)).toBe(false)
      expect(describeTarget(target)).toBe(words)
    },
  )

  it.each([
    [{ toTime: '2026-11-26T05:15:00Z' }, 'before 2000-01-01 00:00:00+00'],
    [{ toTime: '2026-11-26T05:15:00Z' }, 'before 1999-12-31 16:00:00-08'],
    [{ toLsn: '0/3000148' }, 'before LSN 0/0'],
    [{ toXid: '745' }, 'before transaction 0'],
    [{ toName: 'before release' }, 'at restore point ""'],
  ])('%j was missed where a server before 13 wrote "%s"', (wish, reason) => {
    expect(isReasonOf(parseRecoveryTarget(wish), reason)).toBe(false)
  })
})
