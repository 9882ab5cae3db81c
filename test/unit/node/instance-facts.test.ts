import { expect, test } from 'vitest'
import { readInstanceFacts, readInstanceTogether } from '../../../src/node/instance-facts.ts'
import type { SqlSession } from '../../../src/node/sql-session.ts'

/** A session that answers the one statement with this document. */
function sessionWith(changes: object): SqlSession {
  const raw = {
    version: 150018,
    system_identifier: '7412345678901234567',
    in_recovery: false,
    timeline: 3,
    current_lsn: '0/5000148',
    receive_lsn: null,
    replay_lsn: null,
    replay_lag: null,
    replay_age: null,
    paused: false,
    receiver: null,
    replication: [],
    slots: [],
    settings: {},
    archiver: null,
    tablespaces: [],
    history: null,
    prepared: 0,
    waiting_for_sync: 0,
    ...changes,
  }
  const json = async <T>() => JSON.parse(JSON.stringify(raw)) as T
  return {
    isOpen: true,
    value: async () => null,
    json,
    execute: async () => undefined,
    close: async () => undefined,
  }
}
const read = (changes: object) => readInstanceFacts(sessionWith(changes))

test('a primary', async () => {
  const facts = await read({
    replication: [
      {
        application_name: 'shop_pg2',
        client_addr: '10.0.0.12',
        state: 'streaming',
        sync_state: 'quorum',
        sent_lsn: '0/5000148',
        flush_lsn: '0/5000100',
        replay_lsn: '0/50000f0',
        a_column_of_a_later_version: 1,
      },
      // What a role without pg_monitor sees of others' connections.
      { application_name: null, client_addr: null, state: null, sync_state: null },
    ],
    slots: [
      {
        slot_name: 'shop_pg2',
        slot_type: 'physical',
        active: true,
        temporary: false,
        restart_lsn: '0/5000000',
        wal_status: 'reserved',
      },
      {
        slot_name: 'etl',
        slot_type: 'logical',
        active: false,
        temporary: false,
        restart_lsn: null,
        wal_status: 'lost',
        invalidation_reason: 'wal_removed',
      },
      // Before PostgreSQL 13 there is no wal_status.
      { slot_name: 'old', slot_type: 'physical', active: false, temporary: true, restart_lsn: null },
    ],
    settings: { port: ['5433', 'configuration file', '/data/replctl.conf', true] },
    tablespaces: [['fast', '/ssd/fast']],
    history: '1\t0/3000000\tpromoted\n',
    waiting_for_sync: 2,
  })
  expect(facts).toMatchObject({
    isInRecovery: false,
    timeline: 3,
    currentLsn: '0/5000148',
    receiver: null,
    waitingForSync: 2,
  })
  expect(facts.replication).toEqual([
    {
      applicationName: 'shop_pg2',
      clientAddress: '10.0.0.12',
      state: 'streaming',
      syncState: 'quorum',
      sentLsn: '0/5000148',
      flushLsn: '0/5000100',
      replayLsn: '0/50000F0',
    },
    {
      applicationName: '',
      clientAddress: null,
      state: 'unknown',
      syncState: 'async',
      sentLsn: null,
      flushLsn: null,
      replayLsn: null,
    },
  ])
  expect(
    facts.slots.map((slot) => [
      slot.name,
      slot.type,
      slot.isActive,
      slot.isTemporary,
      slot.walStatus,
      slot.invalidationReason,
    ]),
  ).toEqual([
    ['shop_pg2', 'physical', true, false, 'reserved', null],
    ['etl', 'logical', false, false, 'lost', 'wal_removed'],
    ['old', 'physical', false, true, null, null],
  ])
  expect(facts.settings.port).toEqual({
    value: '5433',
    source: 'configuration file',
    sourceFile: '/data/replctl.conf',
    isPendingRestart: true,
  })
  expect(facts.tablespaces).toEqual([{ name: 'fast', location: '/ssd/fast' }])
})

test('a standby that streams', async () => {
  const facts = await read({
    in_recovery: true,
    current_lsn: null,
    receive_lsn: '1/0',
    replay_lsn: '0/FFFFFF00',
    replay_lag: 1.25,
    replay_age: -0.5,
    paused: true,
    receiver: {
      status: 'streaming',
      sender_host: '10.0.0.11',
      sender_port: 5432,
      slot_name: 'shop_pg2',
      received_tli: 3,
      latest_end_lsn: '1/28',
      silence: 0.5,
    },
  })
  expect(facts).toMatchObject({
    receiveLsn: '1/0',
    replayLsn: '0/FFFFFF00',
    replayLagSeconds: 1.25,
    lastReplayedSeconds: 0,
    isReplayPaused: true,
  })
  expect(facts.receiver).toEqual({
    status: 'streaming',
    senderHost: '10.0.0.11',
    senderPort: 5432,
    slotName: 'shop_pg2',
    receivedTimeline: 3,
    latestEndLsn: '1/28',
    silenceSeconds: 0.5,
  })
})

test('a walreceiver that has only begun says little', async () => {
  const { receiver } = await read({ in_recovery: true, receiver: { status: 'waiting', silence: null } })
  expect(receiver).toMatchObject({
    status: 'waiting',
    senderHost: null,
    latestEndLsn: null,
    silenceSeconds: null,
  })
})

test('archiving fails while its last attempt failed', async () => {
  const at = (archived: string | null, failed: string | null) =>
    read({
      archiver: {
        archived_count: 3,
        failed_count: 1,
        last_archived_wal: 'a',
        last_failed_wal: 'b',
        last_archived_time: archived,
        last_failed_time: failed,
      },
    }).then((facts) => facts.archiver?.isFailing)
  expect(await at('2026-03-01T12:00:00.5+00:00', null)).toBe(false)
  expect(await at(null, '2026-03-01T12:00:00+00:00')).toBe(true)
  expect(await at('2026-03-01T12:00:00+00:00', '2026-03-01T12:00:01+00:00')).toBe(true)
  expect(await at('2026-03-01T12:00:01+00:00', '2026-03-01T12:00:00+00:00')).toBe(false)
  expect(await at('2026-03-01T14:00:00+02:00', '2026-03-01T11:59:59+00:00')).toBe(false)
  expect(await at(null, null)).toBe(false)
})

test('those who look at one instance side by side share what is read after they came', async () => {
  const waiting: ((lsn: string) => void)[] = []
  const session = sessionWith({})
  const document = (await session.json('')) as object
  const sql: SqlSession = {
    ...session,
    json: <T>() =>
      new Promise<T>((resolve, reject) =>
        waiting.push((lsn) =>
          lsn === '' ? reject(new Error('gone')) : resolve({ ...document, current_lsn: lsn } as T),
        ),
      ),
  }
  const turn = () => new Promise((resolve) => setImmediate(resolve))
  const answer = async (lsn: string) => {
    waiting.shift()?.(lsn)
    await turn()
  }
  const first = readInstanceTogether(sql)
  const [second, third] = [readInstanceTogether(sql), readInstanceTogether(sql)]
  await turn()
  expect(waiting).toHaveLength(1)
  await answer('0/1')
  expect(waiting).toHaveLength(1)
  const fourth = readInstanceTogether(sql)
  await answer('0/2')
  const failing = expect(fourth).rejects.toThrow('gone')
  await answer('')
  await failing
  const fifth = readInstanceTogether(sql)
  await answer('0/5')
  const lsns = (await Promise.all([first, second, third, fifth])).map((facts) => facts.currentLsn)
  expect(lsns).toEqual(['0/1', '0/2', '0/2', '0/5'])
})
