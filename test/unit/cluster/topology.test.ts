import { describe, expect, test } from 'vitest'
import { configuredUpstream, nodeAt } from '../../../src/cluster/configured-upstream.ts'
import type { InstanceFacts, NodeFacts } from '../../../src/cluster/facts.ts'
import { nodeName } from '../../../src/cluster/names.ts'
import {
  expectedUpstream,
  factsOf,
  hasDiverged,
  receivedLsn,
  thoseThatFollow,
} from '../../../src/cluster/topology.ts'
import {
  connection,
  control,
  emptyNode,
  fenceMark,
  foreign,
  inventoryOf,
  lsn,
  observed,
  postmaster,
  receiverFrom,
  receivesFrom,
  runningNode,
  setting,
  slot,
  standbyNode,
  stoppedNode,
  timeline,
  unreachableNode,
} from '../some-cluster.ts'

const built = { dataDirectoryState: 'instance' } as const
const primary = (name: string, downstream: readonly string[] = []): NodeFacts =>
  runningNode(name, {
    currentLsn: lsn('0/5000148'),
    replication: downstream.map((one) => connection(one)),
    slots: downstream.map((one) => slot(`shop_${one}`, '0/5000000')),
    history: '1\t0/3000000\tno recovery target specified\n2\t0/4000000\tno recovery target specified\n',
  })

function lookAt(facts: NodeFacts, others: readonly NodeFacts[] = [primary('pg1')]) {
  const { topology } = observed([...others, facts])
  const node = topology.nodes.find((one) => one.facts === facts)
  if (node === undefined) throw new Error('the node is missing')
  return node
}

describe('roles and states', () => {
  const cases: readonly (readonly [string, NodeFacts, string, string])[] = [
    ['what is out of recovery is the primary', primary('pg2'), 'primary', 'running'],
    ['a standby streams', standbyNode('pg2', '0/5000148'), 'standby', 'streaming'],
    ['a host that does not answer is unknown', unreachableNode('pg2'), 'unknown', 'unknown'],
    ['no data directory is an empty node', emptyNode('pg2'), 'empty', 'stopped'],
    [
      'a folder of other files is unknown',
      emptyNode('pg2', { dataDirectoryState: 'not-an-instance' }),
      'unknown',
      'unknown',
    ],
    ['an instance that does not run is stopped', stoppedNode('pg2', '0/4000000'), 'stopped', 'stopped'],
    [
      'a stopped former primary with a fence mark is fenced',
      stoppedNode('pg2', '0/4000000', { fence: fenceMark('pg1') }),
      'fenced',
      'stopped',
    ],
    [
      'a frozen postmaster is unknown, not stopped',
      emptyNode('pg2', { ...built, postmaster: postmaster({ isFrozen: true }) }),
      'unknown',
      'unknown',
    ],
    [
      'a postmaster.pid of a dead process is a stopped instance',
      emptyNode('pg2', { ...built, postmaster: postmaster({ isAlive: false }) }),
      'stopped',
      'stopped',
    ],
    [
      'a standby whose replay is paused is paused, although it streams',
      standbyNode('pg2', '0/5000148', { isReplayPaused: true }),
      'standby',
      'paused',
    ],
    [
      'a standby without walreceiver and restore_command is disconnected',
      standbyNode('pg2', '0/5000148', { receiver: null }),
      'standby',
      'disconnected',
    ],
    [
      'a standby without walreceiver that has a restore_command reads the archive',
      standbyNode('pg2', '0/5000148', {
        receiver: null,
        settings: { restore_command: setting('cp /a/%f %p') },
      }),
      'standby',
      'archive',
    ],
    [
      'a running instance of another cluster has no role here',
      runningNode('pg2', { systemIdentifier: foreign, currentLsn: lsn('9/0') }),
      'unknown',
      'running',
    ],
  ]
  test.each(cases)('%s', (_, facts, role, state) => {
    const others = [primary('pg1'), standbyNode('pg3', '0/5000148')]
    expect(lookAt(facts, others)).toMatchObject({ role, state })
  })

  test('a standby that its upstream says is catching up is catching up', () => {
    for (const state of ['startup', 'catchup']) {
      const sender = runningNode('pg1', { replication: [connection('pg2', 'async', { state })] })
      expect(lookAt(standbyNode('pg2', '0/1000000'), [sender])).toMatchObject({ state: 'catchup' })
    }
  })
})

describe('writers', () => {
  test('one node out of recovery leads', () => {
    const { topology } = observed([standbyNode('pg1', '0/5000148'), primary('pg2'), unreachableNode('pg3')])
    expect(topology).toMatchObject({ primary: 'pg2', writers: ['pg2'] })
  })

  test('two nodes out of recovery are a split brain, and nobody is the primary', () => {
    const { topology } = observed([primary('pg1'), primary('pg2'), standbyNode('pg3', '0/5000148')])
    expect(topology).toMatchObject({ primary: null, writers: ['pg1', 'pg2'] })
  })

  test('a writer of another cluster is not counted, also where it is listed first', () => {
    const stranger = runningNode('pg1', { systemIdentifier: foreign, currentLsn: lsn('9/0') })
    const { topology } = observed([stranger, primary('pg2'), standbyNode('pg3', '0/5000148')])
    expect(topology).toMatchObject({ primary: 'pg2', writers: ['pg2'] })
    expect(topology.nodes.map((node) => node.role)).toEqual(['unknown', 'primary', 'standby'])
  })
})

describe('upstream, slot and lag', () => {
  test('the upstream is whose pg_stat_replication names the standby, whatever its settings say', () => {
    const standby = standbyNode('pg2', '0/5000100', receivesFrom('10.0.0.13'))
    const node = lookAt(standby, [primary('pg1', ['pg2']), standbyNode('pg3', '0/5000148')])
    expect(node).toMatchObject({ upstream: 'pg1', foreignUpstream: null, lagBytes: 72, lagSeconds: 0 })
    expect(node.slot?.name).toBe('shop_pg2')
  })

  test('the standby itself knows from whom it receives: a row that another sender still has is a former one', () => {
    const stale = primary('pg1', ['pg2', 'pg3'])
    const middle = standbyNode('pg2', '0/5000148', {
      replication: [connection('pg3', 'potential')],
      slots: [slot('shop_pg3', '0/4000000')],
    })
    const node = lookAt(standbyNode('pg3', '0/5000148', receiverFrom('pg3', '10.0.0.12')), [stale, middle])
    expect(node).toMatchObject({
      upstream: 'pg2',
      state: 'streaming',
      connection: { syncState: 'potential' },
    })
    expect(node.slot?.restartLsn).toBe('0/4000000')
  })

  test('its word stands where its sender cannot be asked, whoever has a row of it', () => {
    const standby = standbyNode('pg3', '0/5000148', receiverFrom('pg3', '10.0.0.12'))
    const node = lookAt(standby, [primary('pg1', ['pg3']), unreachableNode('pg2')])
    expect(node).toMatchObject({
      upstream: 'pg2',
      foreignUpstream: null,
      connection: null,
      state: 'streaming',
    })
  })

  test.each([
    ['an address that is no node', receiverFrom('pg3', '192.0.2.7')],
    ['a port that is no node', receiverFrom('pg3', '10.0.0.12', { senderPort: 6432 })],
    ['its own address', receiverFrom('pg3', '10.0.0.13')],
    ['nothing, to one who may not see it', receiverFrom('pg3', '', { status: 'unknown', senderHost: null })],
    ['that it waits', receiverFrom('pg3', '10.0.0.12', { status: 'waiting' })],
  ])('where its walreceiver says %s, the row tells', (_, word) => {
    const standby = standbyNode('pg3', '0/5000148', word)
    const others = [primary('pg1', ['pg3']), standbyNode('pg2', '0/5000148')]
    expect(lookAt(standby, others)).toMatchObject({ upstream: 'pg1', connection: { state: 'streaming' } })
  })

  test('of several rows that of the node which its settings name tells', () => {
    const middle = standbyNode('pg2', '0/5000148', { replication: [connection('pg3', 'potential')] })
    const standby = standbyNode('pg3', '0/5000148', { receiver: null, ...receivesFrom('10.0.0.12') })
    const node = lookAt(standby, [primary('pg1', ['pg3']), middle])
    expect(node).toMatchObject({ upstream: 'pg2', connection: { syncState: 'potential' } })
  })

  test('a base backup that runs under the same name is no upstream', () => {
    const sender = runningNode('pg1', { replication: [connection('pg2', 'async', { state: 'backup' })] })
    expect(lookAt(standbyNode('pg2', '0/5000148'), [sender])).toMatchObject({
      upstream: null,
      connection: null,
    })
  })

  test('without a connection it is whom the settings name', () => {
    const standby = standbyNode('pg2', '0/5000148', receivesFrom('10.0.0.11'))
    expect(lookAt(standby)).toMatchObject({ upstream: 'pg1', connection: null })
  })

  test('an address that is no node is told as it is', () => {
    const standby = standbyNode('pg2', '0/5000148', receivesFrom('192.0.2.7', 5433))
    expect(lookAt(standby)).toMatchObject({ upstream: null, foreignUpstream: '192.0.2.7:5433' })
  })

  test('the slot of a standby that receives from nobody is looked for on the primary', () => {
    const standby = standbyNode('pg2', '0/5000148', { receiver: null })
    const sender = runningNode('pg1', { slots: [slot('shop_pg2', '0/5000000', { isActive: false })] })
    expect(lookAt(standby, [sender]).slot).toMatchObject({ isActive: false })
  })

  test('a cascading standby has its lag behind the primary, and its slot on its upstream', () => {
    const middle = standbyNode('pg2', '0/5000148', {
      replication: [connection('pg3')],
      slots: [slot('shop_pg3', '0/4000000')],
    })
    const node = lookAt(standbyNode('pg3', '0/5000048', { replayLagSeconds: 7.5 }), [
      primary('pg1', ['pg2']),
      middle,
    ])
    expect(node).toMatchObject({ upstream: 'pg2', lagBytes: 256, lagSeconds: 7.5 })
    expect(node.slot?.restartLsn).toBe('0/4000000')
  })

  test('a standby that replayed more than was seen of the primary has no negative lag', () => {
    expect(lookAt(standbyNode('pg2', '0/6000000')).lagBytes).toBe(0)
  })

  test('one that is cut off is as late as its last transaction is old, unless it lacks nothing', () => {
    const cutOff = (replayed: string) =>
      standbyNode('pg2', replayed, { receiver: null, replayLagSeconds: 40 })
    expect(lookAt(cutOff('0/5000000'))).toMatchObject({ lagBytes: 328, lagSeconds: 40 })
    expect(lookAt(cutOff('0/5000148'))).toMatchObject({ lagBytes: 0, lagSeconds: 0 })
    expect(lookAt(cutOff('0/5000148'), [unreachableNode('pg1')])).toMatchObject({ lagSeconds: 40 })
  })

  const silent = (changes: Partial<InstanceFacts> = {}, silenceSeconds: number | null = 5) =>
    standbyNode('pg2', '0/5000000', {
      ...receiverFrom('pg2', '10.0.0.11', { silenceSeconds }),
      ...calledOurs,
      ...{ lastReplayedSeconds: 40, replayLagSeconds: 0 },
      ...changes,
    })
  const calledOurs = {
    settings: { primary_conninfo: setting('host=10.0.0.11 application_name=shop_pg2') },
  }

  test('one that hears nothing, and whom its sender does not know any more, is disconnected and as late as its last transaction', () => {
    const cutOff = { upstream: 'pg1', connection: null, state: 'disconnected', lagBytes: 328, lagSeconds: 40 }
    expect(lookAt(silent())).toMatchObject(cutOff)
    const archive = { ...calledOurs.settings, restore_command: setting('cp /a/%f %p') }
    expect(lookAt(silent({ settings: archive }))).toMatchObject(cutOff)
  })

  test.each([
    ['its sender has a row of it', silent(), primary('pg1', ['pg2'])],
    ['it heard something a moment ago', silent({}, 4.9), primary('pg1')],
    ['nobody may see when it heard something', silent({}, null), primary('pg1')],
    ['its sender does not answer', silent(), unreachableNode('pg1')],
    ['it is told to call itself otherwise', silent(receivesFrom('10.0.0.11')), primary('pg1')],
    ['its sender is not known', silent(receiverFrom('pg2', 'vip', { silenceSeconds: 9 })), primary('pg1')],
  ])('what its walreceiver says stands where %s', (_, standby, sender) => {
    expect(lookAt(standby, [sender])).toMatchObject({ state: 'streaming', lagSeconds: 0 })
  })

  test('without a primary no lag in bytes is known', () => {
    expect(lookAt(standbyNode('pg2', '0/5000148'), []).lagBytes).toBeNull()
  })

  test('the primary itself has neither upstream nor lag in seconds', () => {
    expect(lookAt(primary('pg2'), [])).toMatchObject({ upstream: null, lagSeconds: null })
  })

  test.each(['Pg-2.Example.COM', 'käse', 'o"brien', 'a b', '$(id)'])('a node may be called %s', (name) => {
    const sender = runningNode('pg1', {
      replication: [connection(name)],
      slots: [slot(`shop_${name}`, '0/1')],
    })
    const node = lookAt(standbyNode(name, '0/5000148'), [sender])
    expect(node).toMatchObject({ upstream: 'pg1', role: 'standby' })
    expect(node.slot?.name).toBe(`shop_${name}`)
  })
})

describe('where a standby is told to receive from', () => {
  const standby = (facts: Partial<NodeFacts>) => emptyNode('pg2', facts)
  const cases: readonly (readonly [string, NodeFacts, object | null])[] = [
    [
      'the running setting',
      standbyNode('pg2', '0/1', receivesFrom('pg1.example.com', 5433)),
      {
        host: 'pg1.example.com',
        port: 5433,
      },
    ],
    [
      'recovery.conf (11 and older)',
      standby({ recoveryConf: "standby_mode = on\nprimary_conninfo = 'host=a'\n" }),
      {
        host: 'a',
        port: 5432,
      },
    ],
    [
      'replctl.standby.conf of a stopped one',
      standby({ standbyConf: "primary_conninfo = 'hostaddr=10.0.0.1 port=5434'" }),
      {
        host: '10.0.0.1',
        port: 5434,
      },
    ],
    [
      'doubled quotes',
      standby({ standbyConf: "primary_conninfo = 'host=''a b'' port=1'" }),
      { host: 'a b', port: 1 },
    ],
    ['nothing', standby({}), null],
    ['an emptied setting', standbyNode('pg2', '0/1', { settings: { primary_conninfo: setting('') } }), null],
    ['no host in it', standby({ standbyConf: "primary_conninfo = 'user=replicator'" }), null],
  ]
  test.each(cases)('%s', (_, facts, expected) => {
    expect(configuredUpstream(facts)).toEqual(expected)
  })

  // PostgreSQL takes any text for this setting; one standby's must not keep anybody from being observed.
  test.each(['pg1', 'host=10.0.0.11 password=pa ss', "host='10.0.0.11"])('nowhere, by %j', (text) => {
    const facts = standbyNode('pg2', '0/1', { settings: { primary_conninfo: setting(text) } })
    expect(configuredUpstream(facts)).toBeNull()
    const { topology } = observed([primary('pg1'), facts])
    expect(topology).toMatchObject({ primary: 'pg1', nodes: [{}, { upstream: null, foreignUpstream: null }] })
  })

  test('an address and a port together are a node', () => {
    const inventory = inventoryOf(['pg1', 'pg2'], { pg2: { host: 'bastion', address: '10.0.0.12' } })
    expect(nodeAt(inventory, '10.0.0.12', 5432)).toBe('pg2')
    expect(nodeAt(inventory, 'bastion', 5432)).toBe('pg2')
    expect(nodeAt(inventory, '10.0.0.12', 5433)).toBeNull()
  })

  test('where several hosts are logged into by one name, that is nobody; what nodes reach is the address', () => {
    const tunnels = { host: '127.0.0.1', address: '10.0.0.11' }
    const inventory = inventoryOf(['pg1', 'pg2', 'pg3'], {
      pg1: tunnels,
      pg2: { ...tunnels, address: '10.0.0.12' },
      pg3: { host: '10.0.0.12', address: '10.0.0.13' },
    })
    expect(nodeAt(inventory, '127.0.0.1', 5432)).toBeNull()
    expect(nodeAt(inventory, '10.0.0.12', 5432)).toBe('pg2')
  })
})

describe('whom a standby should receive from', () => {
  const alive = standbyNode('pg2', '0/5000148')
  const cases = [
    ['without a wish, from the primary', {}, alive, 'pg1'],
    ['from the wished upstream while that runs', { pg3: { upstream: nodeName('pg2') } }, alive, 'pg2'],
    [
      'from the primary while the wished upstream is stopped',
      { pg3: { upstream: nodeName('pg2') } },
      stoppedNode('pg2', '0/1'),
      'pg1',
    ],
    [
      'from the primary while the wished upstream cannot be reached',
      { pg3: { upstream: nodeName('pg2') } },
      unreachableNode('pg2'),
      'pg1',
    ],
    ['from the primary if that is the wish', { pg3: { upstream: nodeName('pg1') } }, alive, 'pg1'],
    ['never from itself', { pg3: { upstream: nodeName('pg3') } }, alive, 'pg1'],
    [
      'never in a circle',
      { pg3: { upstream: nodeName('pg2') }, pg2: { upstream: nodeName('pg3') } },
      alive,
      'pg1',
    ],
    ['from the primary if the wish names no node', { pg3: { upstream: nodeName('pg9') } }, alive, 'pg1'],
  ] as const
  test.each(cases)('%s', (_, changes, second, expected) => {
    const survey = [primary('pg1'), second, standbyNode('pg3', '0/5000148')]
    const { inventory } = observed(survey, changes)
    expect(expectedUpstream(inventory, inventory.nodes[2]!, nodeName('pg1'), survey)).toBe(expected)
  })
})

describe('WAL that only a former member has', () => {
  const leader = primary('pg1')
  const onTimeline = (id: number, at: string) => standbyNode('pg2', at, { timeline: timeline(id) })
  const stoppedStandby = (checkpoint: string, replayed: string, id = 2) =>
    stoppedNode('pg2', '0/1', {
      hasStandbySignal: true,
      control: control({
        ...{ timeline: timeline(2), checkpointLsn: lsn(checkpoint) },
        ...{ minRecoveryEndLsn: lsn(replayed), minRecoveryEndTimeline: timeline(id) },
      }),
    })
  const cases: readonly (readonly [string, NodeFacts, boolean])[] = [
    ['a standby of the same timeline', onTimeline(3, '0/9000000'), false],
    ['a standby that stopped before the fork', onTimeline(2, '0/3FFFFFF'), false],
    ['a standby that stopped exactly at the fork', onTimeline(2, '0/4000000'), false],
    ['a standby that went on past the fork', onTimeline(2, '0/4000001'), true],
    ['a standby past the fork of an older ancestor', onTimeline(1, '0/3000028'), true],
    ['a standby of a newer timeline than the primary', onTimeline(4, '0/1000000'), true],
    [
      'a stopped former primary past the fork',
      stoppedNode('pg2', '0/1', {
        control: control({ timeline: timeline(2), checkpointLsn: lsn('0/4000028') }),
      }),
      true,
    ],
    [
      'a stopped former primary whose last checkpoint is before the fork',
      stoppedNode('pg2', '0/1', {
        control: control({ timeline: timeline(2), checkpointLsn: lsn('0/4000000') }),
      }),
      false,
    ],
    [
      'a stopped standby whose pages hold what came after the fork',
      stoppedStandby('0/3000000', '0/4000028'),
      true,
    ],
    ['a stopped standby that had replayed up to the fork', stoppedStandby('0/3000000', '0/4000000'), false],
    ['a stopped standby that was on a newer timeline', stoppedStandby('0/3000000', '0/1000000', 4), true],
    [
      'an instance of another cluster',
      runningNode('pg2', { systemIdentifier: foreign, timeline: timeline(9), currentLsn: lsn('9/0') }),
      false,
    ],
    ['an empty node', emptyNode('pg2'), false],
    ['a host that does not answer', unreachableNode('pg2'), false],
    ['the primary itself', leader, false],
  ]
  test.each(cases)('%s', (_, facts, expected) => {
    expect(hasDiverged(facts, leader)).toBe(expected)
  })

  test('a timeline that the primary never had is a branch of its own', () => {
    const branched = runningNode('pg1', {
      timeline: timeline(3),
      history: '1\t0/3000000\tno recovery target specified\n',
    })
    expect(hasDiverged(onTimeline(2, '0/2000000'), branched)).toBe(true)
  })

  test('two timelines of the same number that begin at different places are two branches', () => {
    const from = (history: string, id = 3) =>
      standbyNode('pg2', '0/4000000', { timeline: timeline(id), history })
    const told = 'no recovery target specified\n'
    const same = `1\t0/3000000\t${told}2\t0/4000000\t${told}`
    expect(hasDiverged(from(same), leader)).toBe(false)
    expect(hasDiverged(from(`1\t0/3000000\t${told}2\t0/3800000\t${told}`), leader)).toBe(true)
    expect(hasDiverged(from(`1\t0/3000000\t${told}`), leader)).toBe(true)
    // An ancestor's number is no proof either: its own beginning has to be the same.
    expect(hasDiverged(from(`1\t0/2000000\t${told}`, 2), leader)).toBe(true)
    expect(hasDiverged(from(`1\t0/3000000\t${told}`, 2), leader)).toBe(false)
  })

  test('without the history file nothing is claimed', () => {
    expect(hasDiverged(onTimeline(2, '0/9000000'), runningNode('pg1', { history: null }))).toBe(false)
  })

  test('a running standby that diverged has that role', () => {
    expect(lookAt(onTimeline(2, '0/4000001'), [leader]).role).toBe('diverged')
  })
})

test('what a standby holds is the greater of received and replayed', () => {
  const holds = (receive: string | null, replay: string | null) =>
    receivedLsn(
      standbyNode('pg2', '0/1', {
        receiveLsn: receive === null ? null : lsn(receive),
        replayLsn: replay === null ? null : lsn(replay),
      }),
    )
  expect(holds('0/5000000', '0/4000000')).toBe('0/5000000')
  // Since its restart it has received less than it had replayed from its own pg_wal, or the archive.
  expect(holds('0/5000000', '0/5000148')).toBe('0/5000148')
  expect(holds('F/0', '10/0')).toBe('10/0')
  expect(holds(null, '0/4000000')).toBe('0/4000000')
  expect(holds(null, null)).toBeNull()
  expect(receivedLsn(stoppedNode('pg2', '0/4000000'))).toBeNull()
})

test('a node that was not surveyed is a fault of ours', () => {
  expect(() => factsOf([], nodeName('pg9'))).toThrow(RangeError)
})

describe('those that follow somebody', () => {
  const names = ['pg2', 'pg3', 'pg4'].map(nodeName)
  test('by the word of the sender, not by their own settings', () => {
    const survey = [
      primary('pg1', ['pg2']),
      standbyNode('pg2', '0/5000148'),
      standbyNode('pg3', '0/5000148'),
      stoppedNode('pg4', '0/4000000'),
    ]
    const { topology } = observed(survey)
    expect(thoseThatFollow(topology, names)).toEqual(['pg2'])
  })

  test('one that replays late connects after that', () => {
    const late = standbyNode('pg3', '0/5000148', { isAwaitingDelay: true, receiver: null })
    const { topology } = observed([primary('pg1'), standbyNode('pg2', '0/5000148'), late])
    expect(thoseThatFollow(topology, names.slice(0, 2))).toEqual(['pg3'])
  })
})
