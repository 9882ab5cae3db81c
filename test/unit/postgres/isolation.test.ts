import { expect, test } from 'vitest'
import { isolationSettings } from '../../../src/postgres/isolation.ts'
import type { TimelineId } from '../../../src/postgres/lsn.ts'
import { supportedMajorVersions } from '../../../src/postgres/versions.ts'
import { control } from '../some-cluster.ts'

test.each(supportedMajorVersions)(
  'PostgreSQL %i in isolation copies no slots and waits for none, whatever its files say',
  (major) => {
    const place = { major, socketDirectory: '/s', hbaFile: '/h', timeline: 1 as TimelineId, control: null }
    const settings = isolationSettings(place)
    const has = major >= 17
    expect(settings.sync_replication_slots).toBe(has ? 'off' : undefined)
    expect(settings.synchronized_standby_slots).toBe(has ? '' : undefined)
  },
)

test('it replays WAL that was written with larger settings than its files have by now', () => {
  const written = { maxConnections: 200, maxWalSenders: 32, maxPreparedTransactions: 7 }
  const place = { major: 15, socketDirectory: '/s', hbaFile: '/h', timeline: 1 as TimelineId }
  expect(isolationSettings({ ...place, control: control(written) })).toMatchObject({
    max_connections: '200',
    max_wal_senders: '32',
    max_prepared_transactions: '7',
    superuser_reserved_connections: '0',
  })
})
