import { expect, test } from 'vitest'
import { endOnClocks } from '../../../src/steps/prove-archive-backup.ts'

const taken = Date.parse('2026-11-26T06:15:10.000Z')

test('a backup ended when the latest of the clocks says so: a target before that may lie within it', () => {
  const archiveMs = taken + 60_000
  // The primary is 30 s ahead of the archive host, the standby that was copied 5 s behind.
  expect(endOnClocks(taken, { archiveMs, serversMs: [archiveMs - 5_000, archiveMs + 30_000] })).toBe(
    taken + 30_000,
  )
  // Where the archive host is ahead, its own time is the later one.
  expect(endOnClocks(taken, { archiveMs, serversMs: [archiveMs - 40_000] })).toBe(taken)
  expect(endOnClocks(taken, { archiveMs, serversMs: [] })).toBe(taken)
})
