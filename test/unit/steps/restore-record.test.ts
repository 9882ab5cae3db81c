import { expect, test } from 'vitest'
import { parseRecoveryTarget } from '../../../src/postgres/recovery-target.ts'
import { isAskedFor, type RestoreRecord } from '../../../src/steps/restore-record.ts'

const record: RestoreRecord = {
  ...{ backup: '20261126T010000Z', timeline: 2, target: 'latest', port: 5432, phase: 'recovered' },
  ...{ reachedLsn: '0/5000000', reachedTime: null, newTimeline: 3 },
}
const isAsked = (part: { backup?: string; timeline?: number; toLsn?: string }) =>
  isAskedFor(record, {
    target: parseRecoveryTarget(part.toLsn === undefined ? {} : { toLsn: part.toLsn }),
    backup: part.backup,
    timeline: part.timeline,
  })

test('a restore that was begun is gone on with by the same command, and what that leaves open stays chosen', () => {
  expect(isAsked({})).toBe(true)
  expect(isAsked({ backup: record.backup })).toBe(true)
  expect(isAsked({ timeline: 2 })).toBe(true)
})

test('another target, backup or timeline is another restore', () => {
  expect(isAsked({ toLsn: '0/5000000' })).toBe(false)
  expect(isAsked({ backup: '20261126T020000Z' })).toBe(false)
  expect(isAsked({ timeline: 1 })).toBe(false)
  expect(isAsked({ backup: record.backup, timeline: 1 })).toBe(false)
})
