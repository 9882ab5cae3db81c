import { expect, test } from 'vitest'
import { endOnClocks, parseProof } from '../../../src/steps/prove-archive-backup.ts'

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

const named = { id: '20261127T153242Z', cluster: 'shop', systemIdentifier: '7412345678901234567' }
const request = {
  ...{ cluster: 'shop', source: 'pg2', label: 'nightly', parent: null, postgresVersion: '15.18', major: 15 },
  startedAt: '2026-11-27T15:32:42.000Z',
}
/** What the proof of a backup from 0/6000178 on timeline 2 to `stop` says, with the newest history file of its WAL. */
const proof = (stop: string, history: string) => `@@label
START WAL LOCATION: 0/6000178 (file 000000020000000000000006)
START TIMELINE: 2
LABEL: nightly
@@map

@@wal
16777216 000000020000000000000006
16777216 000000020000000000000007
16777216 000000030000000000000007
@@history
${history}
@@bytes
70000
@@spaces
@@sums
${'a'.repeat(64)} 50 backup_manifest
@@log
write-ahead log start point: 0/6000178 on timeline 2
write-ahead log end point: ${stop}
@@taken
1795793586000
`
const left = '00000003.history\n1\t0/60000A0\tno reason\n\n2\t0/70000A0\tno reason\n'

test('a standby that went on to a newer timeline while it was copied gives no backup: nobody archives its end under the old one', () => {
  expect(() => parseProof(named, request, proof('0/7000228', left))).toThrowError(
    expect.objectContaining({
      code: 'base-backup-failed',
      message: 'pg2 left timeline 2 while it was copied',
    }),
  )
})

test('a backup that ends where its timeline was left, or before, is one', () => {
  const part = { timeline: 2, startLsn: '0/6000178' }
  expect(parseProof(named, request, proof('0/70000A0', left))).toMatchObject({
    ...part,
    stopLsn: '0/70000A0',
  })
  const own = '00000002.history\n1\t0/60000A0\tno reason\n'
  expect(parseProof(named, request, proof('0/7000228', own))).toMatchObject(part)
  expect(parseProof(named, request, proof('0/7000228', ''))).toMatchObject(part)
})
