import { describe, expect, test } from 'vitest'
import type { InstanceFacts, NodeFacts } from '../../../src/cluster/facts.ts'
import type { NodeSettings } from '../../../src/cluster/inventory.ts'
import { judgeRoom, judgeSuccessor, settingsTooLow } from '../../../src/cluster/judge-successor.ts'
import {
  connection,
  inventoryOf,
  lsn,
  receiverFrom,
  receivesFrom,
  runningNode,
  setting,
  slot,
  standbyNode,
} from '../some-cluster.ts'

const mebibyte = 1_048_576

interface Given {
  readonly primary?: Partial<InstanceFacts>
  readonly candidate?: Partial<InstanceFacts>
  readonly settings?: Partial<NodeSettings>
  readonly replayed?: string
}

function judge({ primary, candidate, settings, replayed = '0/5000000' }: Given) {
  const inventory = inventoryOf(['pg1', 'pg2', 'pg3'], { pg2: settings ?? {} })
  return judgeSuccessor({
    primary: runningNode('pg1', {
      currentLsn: lsn('0/5000000'),
      replication: [connection('pg2')],
      ...primary,
    }),
    candidate: standbyNode('pg2', replayed, candidate),
    settings: inventory.nodes[1]!,
    inventory,
  })
}

describe('a successor', () => {
  test('is fit when it streams from the primary, close behind it', () => {
    expect(judge({})).toBeNull()
    expect(judge({ replayed: '0/4100000' })).toBeNull()
    for (const sender of ['10.0.0.11', 'another-name']) {
      expect(judge({ candidate: receiverFrom('pg2', sender) })).toBeNull()
    }
  })

  test.each<[string, Given, string]>([
    ['must never lead', { settings: { promotable: false } }, 'not-promotable'],
    ['replays late on purpose', { settings: { delayMs: 60_000 } }, 'not-promotable'],
    [
      'replays late, by a setting that the inventory does not wish any more',
      { candidate: { settings: { recovery_min_apply_delay: setting('3600000') } } },
      'not-promotable',
    ],
    ['has its replay paused', { candidate: { isReplayPaused: true } }, 'replay-paused'],
    ['is further behind than allowed', { replayed: '0/3F00000' }, 'lag-too-high'],
    ['has no connection', { primary: { replication: [] }, candidate: { receiver: null } }, 'not-streaming'],
    ['receives from somebody else', { primary: { replication: [connection('pg3')] } }, 'wrong-upstream'],
    [
      'says that it receives from another one',
      { candidate: receiverFrom('pg2', '10.0.0.13') },
      'wrong-upstream',
    ],
    [
      'is not known to the primary any more',
      { primary: { replication: [] }, candidate: receiverFrom('pg2', '10.0.0.11') },
      'not-streaming',
    ],
    [
      'is only being cloned from it',
      {
        primary: { replication: [connection('pg2', 'async', { state: 'backup' })] },
        candidate: { receiver: null },
      },
      'not-streaming',
    ],
    [
      'still catches up',
      { primary: { replication: [connection('pg2', 'async', { state: 'catchup' })] } },
      'not-streaming',
    ],
    ['has a walreceiver that waits', { candidate: { receiver: null } }, 'not-streaming'],
  ])('is refused when it %s', (_what, given, code) => {
    expect(judge(given)?.code).toBe(code)
  })

  test('P-44: a lower setting is the reason, also where it has made the replay pause already', () => {
    const error = judge({
      primary: { settings: { max_connections: setting('200') } },
      candidate: { settings: { max_connections: setting('100') }, isReplayPaused: true },
    })
    expect(error?.code).toBe('settings-too-low')
    expect(error?.detail).toContain('max_connections is 100 on pg2 and 200 on pg1')
  })

  test('one that the primary knows by another name is told so, with what mends it', () => {
    const settings = { primary_conninfo: setting('host=10.0.0.11 port=5432') }
    const error = judge({
      primary: { replication: [connection('other')] },
      candidate: { settings, ...receiverFrom('pg2', '10.0.0.11') },
    })
    expect(error?.message).toBe('cannot switch over to pg2: pg1 does not know it')
    expect(error?.hint).toBe('Have it set: replctl add-standby pg2')
  })

  test('the refusal of a lag says how large it is, and the limit', () => {
    expect(judge({ replayed: '0/3000000' })?.detail).toContain(`${32 * mebibyte} bytes`)
  })

  test('one that receives from somebody else is told whom it is told to receive from', () => {
    const error = judge({ primary: { replication: [] }, candidate: receivesFrom('10.0.0.13') })
    expect(error?.detail).toContain('10.0.0.13:5432')
  })

  test('one whose former connection the primary still shows is told whom it receives from', () => {
    const error = judge({ candidate: receiverFrom('pg2', '10.0.0.13') })
    expect(error?.detail).toBe(
      'pg2 receives from pg3, by its own word; the connection of it that pg1 still shows is a former one.',
    )
  })
})

test('the old primary must not be lower than the new one either: it will be its standby', () => {
  const low = runningNode('pg1', { settings: { max_wal_senders: setting('5') } })
  const high = standbyNode('pg2', '0/5000000', { settings: { max_wal_senders: setting('10') } })
  expect(settingsTooLow(low, high)?.code).toBe('settings-too-low')
  expect(settingsTooLow(high, low)).toBeNull()
})

describe('room for those who follow', () => {
  const followers = inventoryOf(['pg1', 'pg3']).nodes
  const candidate = (senders: string, slots: string, changes: Partial<InstanceFacts> = {}): NodeFacts =>
    standbyNode('pg2', '0/5000000', {
      settings: { max_wal_senders: setting(senders), max_replication_slots: setting(slots) },
      ...changes,
    })

  test('enough, or just enough', () => {
    expect(judgeRoom(candidate('2', '2'), followers, true)).toBeNull()
  })

  test('the setting, what is used and what is needed are named', () => {
    expect(judgeRoom(candidate('0', '10'), followers, true)).toMatchObject({
      code: 'settings-too-low',
      node: 'pg2',
    })
    const taken = candidate('10', '2', { slots: [slot('theirs', '0/4000000')] })
    const error = judgeRoom(taken, followers, true)
    expect(error?.detail).toBe(
      'max_replication_slots is 2; 1 are in use, 2 more are needed for the nodes that will follow pg2.',
    )
  })

  test('what they have there already is not needed again, and without slots none is', () => {
    const both = { slots: [slot('shop_pg1', '0/4000000'), slot('shop_pg3', '0/4000000')] }
    expect(judgeRoom(candidate('10', '2', both), followers, true)).toBeNull()
    expect(judgeRoom(candidate('10', '0'), followers, false)).toBeNull()
    const cascade = { replication: [connection('pg3')] }
    expect(judgeRoom(candidate('2', '10', cascade), followers, true)).toBeNull()
  })
})
