import { expect, test } from 'vitest'
import { isolationSettings } from '../../../src/postgres/isolation.ts'
import type { TimelineId } from '../../../src/postgres/lsn.ts'
import { supportedMajorVersions } from '../../../src/postgres/versions.ts'

test.each(supportedMajorVersions)(
  'PostgreSQL %i in isolation copies no slots and waits for none, whatever its files say',
  (major) => {
    const place = { major, socketDirectory: '/s', hbaFile: '/h', timeline: 1 as TimelineId }
    const settings = isolationSettings(place)
    const has = major >= 17
    expect(settings.sync_replication_slots).toBe(has ? 'off' : undefined)
    expect(settings.synchronized_standby_slots).toBe(has ? '' : undefined)
  },
)
