import { describe, expect, test } from 'vitest'
import { diagnose } from '../../../src/cluster/diagnose.ts'
import type { InstanceFacts, NodeFacts, ReplicationSlot } from '../../../src/cluster/facts.ts'
import type { Inventory, NodeSettings } from '../../../src/cluster/inventory.ts'
import { nodeName } from '../../../src/cluster/names.ts'
import type { Problem } from '../../../src/cluster/problem.ts'
import { observeTopology } from '../../../src/cluster/topology.ts'
import {
  closedNode,
  connection,
  control,
  emptyNode,
  fenceMark,
  foreign,
  heardNode,
  inventoryOf,
  lowStandby,
  lsn,
  observed,
  postmaster,
  receiverFrom,
  receivesFrom,
  recordOf,
  runningNode,
  setting,
  slot,
  standbyNode,
  stoppedNode,
  timeline,
  unreachableNode,
} from '../some-cluster.ts'

/** recovery_min_apply_delay as pg_settings has it, in ms. */
const delayOf = (value: string) => ({ recovery_min_apply_delay: setting(value) })

/** pg3 streams, and this is its primary_slot_name. */
function withSlot(slotName: string | null): NodeFacts {
  const { instance } = standbyNode('pg3', '0/5000148')
  return { ...pg3, instance: { ...instance!, receiver: { ...instance!.receiver!, slotName } } }
}

const built = { dataDirectoryState: 'instance' } as const
const history = '1\t0/3000000\tpromoted\n2\t0/4000000\tpromoted\n'

/** pg1 leads; pg2 and pg3 have a slot and a connection there. */
function primary(changes: Partial<InstanceFacts> = {}): NodeFacts {
  return runningNode('pg1', {
    currentLsn: lsn('0/5000148'),
    history,
    replication: [connection('pg2'), connection('pg3')],
    slots: [slot('shop_pg2', '0/5000148'), slot('shop_pg3', '0/5000148')],
    ...changes,
    settings: { wal_log_hints: setting('on'), ...changes.settings },
  })
}
const pg2 = standbyNode('pg2', '0/5000148')
const pg3 = standbyNode('pg3', '0/5000148')

function problemsOf(
  survey: readonly NodeFacts[],
  changes: Partial<Inventory> = {},
  nodes: Record<string, Partial<NodeSettings>> = {},
) {
  const inventory = {
    ...inventoryOf(
      survey.map((facts) => facts.name),
      nodes,
    ),
    ...changes,
  }
  return diagnose(inventory, observeTopology(inventory, survey))
}

const replication = (mode: 'sync' | 'quorum', syncStandbys = 1): Partial<Inventory> => ({
  replication: { ...inventoryOf([]).replication, mode, syncStandbys },
})
const noSlots: Partial<Inventory> = { replication: { ...inventoryOf([]).replication, slots: false } }
const archive = { archive: {} as NonNullable<Inventory['archive']> }

test('a cluster that is as it should be has no problems', () => {
  expect(problemsOf([primary(), pg2, pg3])).toEqual([])
  expect(
    problemsOf([
      primary({ settings: { wal_log_hints: setting('off'), data_checksums: setting('on') } }),
      pg2,
      pg3,
    ]),
  ).toEqual([])
})

type Expected = Pick<Problem, 'code' | 'severity' | 'node'> & {
  readonly message: string
  readonly hint: RegExp
}
const error = (code: Problem['code'], node: string | null, message: string, hint: RegExp): Expected => ({
  code,
  severity: 'error',
  node,
  message,
  hint,
})
const warning = (...args: Parameters<typeof error>): Expected => ({ ...error(...args), severity: 'warning' })

function expectOnly(problems: readonly Problem[], expected: Expected): void {
  expect(problems.map(({ code, severity, node, message }) => ({ code, severity, node, message }))).toEqual([
    { code: expected.code, severity: expected.severity, node: expected.node, message: expected.message },
  ])
  expect(problems[0]?.hint ?? '').toMatch(expected.hint)
}

describe('one thing that is wrong with a node is one problem, with what mends it', () => {
  const cases: readonly (readonly [string, readonly NodeFacts[], Expected])[] = [
    [
      'it cannot be reached',
      [primary(), pg2, unreachableNode('pg3')],
      error('host-unreachable', 'pg3', 'could not reach pg3', /^/),
    ],
    [
      'its data directory holds something else',
      [primary(), pg2, emptyNode('pg3', { dataDirectoryState: 'not-an-instance' })],
      error(
        'foreign-data-directory',
        'pg3',
        '/var/lib/postgresql/15/shop on pg3 holds something that is not a PostgreSQL instance',
        /never touches it/,
      ),
    ],
    [
      'it belongs to another cluster',
      [primary(), pg2, stoppedNode('pg3', '0/1', { control: control({ systemIdentifier: foreign }) })],
      error('foreign-cluster', 'pg3', 'pg3 belongs to another cluster', /correct the inventory/),
    ],
    [
      'it is not built',
      [primary(), pg2, emptyNode('pg3')],
      error('node-not-built', 'pg3', 'pg3 is not built yet', /replctl add-standby pg3/),
    ],
    [
      'its postmaster is frozen',
      [primary(), pg2, emptyNode('pg3', { ...built, postmaster: postmaster({ isFrozen: true }) })],
      error('not-answering', 'pg3', 'pg3 is not answering', /replctl promote/),
    ],
    [
      'it is fenced and was shut down',
      [
        primary(),
        pg2,
        stoppedNode('pg3', '0/1', {
          fence: fenceMark('pg1'),
          control: control({ timeline: timeline(2), checkpointLsn: lsn('0/4000000') }),
        }),
      ],
      error(
        'node-fenced',
        'pg3',
        'pg3 is fenced: it was the primary before pg1',
        /Bring it back as a standby: replctl add-standby pg3/,
      ),
    ],
    [
      'it is fenced and had crashed',
      [
        primary(),
        pg2,
        stoppedNode('pg3', '0/1', {
          fence: fenceMark('pg1'),
          control: control({ state: 'in production', timeline: timeline(2) }),
        }),
      ],
      error(
        'node-fenced',
        'pg3',
        'pg3 is fenced: it was the primary before pg1',
        /transactions that nobody else has/,
      ),
    ],
    [
      'it is a stopped standby',
      [primary(), pg2, stoppedNode('pg3', '0/1', { hasStandbySignal: true })],
      error(
        'instance-stopped',
        'pg3',
        'PostgreSQL is stopped on pg3',
        /Start it again: replctl add-standby pg3/,
      ),
    ],
    [
      'it is a stopped standby that went another way',
      [
        primary(),
        pg2,
        stoppedNode('pg3', '0/1', {
          hasStandbySignal: true,
          control: control({ timeline: timeline(2), checkpointLsn: lsn('0/4000028') }),
        }),
      ],
      error('instance-stopped', 'pg3', 'PostgreSQL is stopped on pg3', /replctl rejoin pg3/),
    ],
    [
      'it is stopped and was no standby',
      [primary(), pg2, stoppedNode('pg3', '0/1')],
      error('instance-stopped', 'pg3', 'PostgreSQL is stopped on pg3', /transactions that nobody else has/),
    ],
    [
      'its clone was begun and did not end',
      [
        primary(),
        pg2,
        stoppedNode('pg3', '0/1', {
          control: null,
          mark: { ...stoppedNode('pg3', '0/1').mark!, phase: 'cloning' },
        }),
      ],
      error('instance-stopped', 'pg3', 'the clone on pg3 is not complete', /replctl add-standby pg3/),
    ],
    [
      'it has diverged',
      [
        primary({ replication: [connection('pg2')] }),
        pg2,
        standbyNode('pg3', '0/4000028', { timeline: timeline(2), receiver: null }),
      ],
      error('node-diverged', 'pg3', 'pg3 has WAL that pg1 never had', /transactions that nobody else has/),
    ],
    [
      'it was removed and still runs',
      [{ ...primary(), record: recordOf('pg1', ['pg1', 'pg2']) }, pg2, pg3],
      error(
        'orphan-standby',
        'pg3',
        'pg3 was removed from the cluster and still runs as a standby',
        /replctl remove-standby pg3/,
      ),
    ],
    [
      'it holds a transaction back on purpose, and its walreceiver ended meanwhile',
      [
        primary({ replication: [connection('pg2')] }),
        pg2,
        standbyNode('pg3', '0/1', {
          receiveLsn: lsn('0/5000100'),
          ...receivesFrom('10.0.0.11'),
          receiver: null,
          isAwaitingDelay: true,
        }),
      ],
      warning('not-streaming', 'pg3', 'pg3 does not stream from pg1', /keeps the WAL/),
    ],
    [
      'it holds a transaction back on purpose, and its upstream has gone over to a new timeline meanwhile',
      [
        primary({ replication: [connection('pg2'), connection('pg3', 'async', { state: 'startup' })] }),
        pg2,
        standbyNode('pg3', '0/1', {
          receiveLsn: lsn('0/5000100'),
          ...receivesFrom('10.0.0.11'),
          ...receiverFrom('pg3', '10.0.0.11', { status: 'waiting' }),
          isAwaitingDelay: true,
        }),
      ],
      warning('not-streaming', 'pg3', 'pg3 does not stream from pg1', /keeps the WAL/),
    ],
    [
      'it streams under another name than its own, by an ALTER SYSTEM say',
      [
        primary({ replication: [connection('pg2'), { ...connection('pg3'), applicationName: 'shop' }] }),
        pg2,
        standbyNode('pg3', '0/5000148', {
          ...receivesFrom('10.0.0.11'),
          ...receiverFrom('pg3', '10.0.0.11'),
        }),
      ],
      error('setting-overridden', 'pg3', 'pg3 does not give pg1 its own name', /replctl add-standby pg3/),
    ],
    [
      'it holds a transaction back, and its slot keeps WAL only from a later point on',
      [
        primary({
          replication: [connection('pg2')],
          slots: [slot('shop_pg2', '0/5000148'), slot('shop_pg3', '0/20000050')],
        }),
        { ...pg2, instance: { ...pg2.instance!, slots: [slot('shop_pg3', '0/5000100')] } },
        standbyNode('pg3', '0/1', {
          receiveLsn: lsn('0/5000100'),
          ...receivesFrom('10.0.0.11'),
          receiver: null,
          isAwaitingDelay: true,
        }),
      ],
      error(
        'not-streaming',
        'pg3',
        'pg3 does not stream from pg1',
        /^Let it catch up from pg2 first: replctl follow pg3 --upstream pg2$/,
      ),
    ],
    [
      'its replay is paused',
      [primary(), pg2, standbyNode('pg3', '0/1', { isReplayPaused: true })],
      error('replay-paused', 'pg3', 'replay is paused on pg3', /pg_wal_replay_resume/),
    ],
    [
      'PostgreSQL has paused its replay for a setting that is too low: that is to be raised, and replay not to be resumed before',
      [primary(), pg2, lowStandby('pg3', '0/1')],
      error(
        'replay-paused',
        'pg3',
        'replay is paused on pg3',
        /^On pg3, raise max_connections from 100 to 200 at least and restart PostgreSQL\. Do not resume/,
      ),
    ],
    [
      'its slot is lost',
      [
        primary({
          slots: [slot('shop_pg2', '0/1'), slot('shop_pg3', '0/1', { walStatus: 'lost', isActive: false })],
        }),
        pg2,
        pg3,
      ],
      error('slot-lost', 'pg3', 'the replication slot of pg3 is lost', /replctl add-standby pg3\./),
    ],
    [
      'its slot was invalidated',
      [
        primary({
          slots: [slot('shop_pg2', '0/1'), slot('shop_pg3', '0/1', { invalidationReason: 'idle_timeout' })],
        }),
        pg2,
        pg3,
      ],
      error('slot-lost', 'pg3', 'the replication slot of pg3 is lost', /replctl add-standby pg3\./),
    ],
    [
      'its slot is about to be lost',
      [
        primary({ slots: [slot('shop_pg2', '0/1'), slot('shop_pg3', '0/1', { walStatus: 'unreserved' })] }),
        pg2,
        pg3,
      ],
      warning(
        'slot-lost',
        'pg3',
        'the replication slot of pg3 is about to be lost',
        /catch up soon.*max_slot_wal_keep_size on pg1/,
      ),
    ],
    [
      'it streams without its slot',
      [primary(), pg2, withSlot(null)],
      error('slot-missing', 'pg3', 'pg3 does not use its replication slot', /: replctl add-standby pg3$/),
    ],
    [
      'its slot is missing',
      [primary({ slots: [slot('shop_pg2', '0/1')] }), pg2, pg3],
      error(
        'slot-missing',
        'pg3',
        'pg1 has no replication slot for pg3',
        /Make it again: replctl add-standby pg3/,
      ),
    ],
    [
      'it receives from the wrong node',
      [
        primary({ replication: [connection('pg2')] }),
        standbyNode('pg2', '0/5000148', {
          replication: [connection('pg3')],
          slots: [slot('shop_pg3', '0/1')],
        }),
        pg3,
      ],
      error('wrong-upstream', 'pg3', 'pg3 does not receive from pg1', /replctl follow pg3 --upstream pg1/),
    ],
    [
      'it receives from somebody else',
      [
        primary({ replication: [connection('pg2')] }),
        pg2,
        standbyNode('pg3', '0/1', receivesFrom('192.0.2.7')),
      ],
      error('wrong-upstream', 'pg3', 'pg3 does not receive from pg1', /^/),
    ],
    [
      'it is told to receive from nobody',
      [primary({ replication: [connection('pg2')] }), pg2, standbyNode('pg3', '0/1', { receiver: null })],
      error('wrong-upstream', 'pg3', 'pg3 does not receive from pg1', /^/),
    ],
    [
      'it does not stream',
      [
        primary({ replication: [connection('pg2')] }),
        pg2,
        standbyNode('pg3', '0/5000100', { ...receivesFrom('10.0.0.11'), receiver: null }),
      ],
      error('not-streaming', 'pg3', 'pg3 does not stream from pg1', /replctl doctor pg3/),
    ],
    [
      'it believes that it streams, hears nothing, and its upstream does not know it any more',
      [
        primary({ replication: [connection('pg2')] }),
        pg2,
        standbyNode('pg3', '0/5000148', {
          ...receiverFrom('pg3', '10.0.0.11', { silenceSeconds: 12 }),
          settings: { primary_conninfo: setting('host=10.0.0.11 application_name=shop_pg3') },
        }),
      ],
      error(
        'not-streaming',
        'pg3',
        'pg3 does not stream from pg1',
        /^Look at the network between pg3 and pg1/,
      ),
    ],
    [
      'it receives from another one, and the primary still shows its former connection',
      [
        primary(),
        standbyNode('pg2', '0/5000148', {
          replication: [connection('pg3')],
          slots: [slot('shop_pg3', '0/5000148')],
        }),
        standbyNode('pg3', '0/5000148', receiverFrom('pg3', '10.0.0.12')),
      ],
      error('wrong-upstream', 'pg3', 'pg3 does not receive from pg1', /replctl follow pg3 --upstream pg1/),
    ],
    [
      'it streams an older timeline than the primary has',
      [primary(), pg2, standbyNode('pg3', '0/3000000', { timeline: timeline(2) })],
      warning('wrong-timeline', 'pg3', 'pg3 is on another timeline than the primary', /^/),
    ],
    [
      'a setting is lower than on the primary',
      [
        primary({ settings: { max_connections: setting('200') } }),
        pg2,
        standbyNode('pg3', '0/5000148', { settings: { max_connections: setting('99') } }),
      ],
      error(
        'settings-too-low',
        'pg3',
        'max_connections is lower on pg3 than on the primary',
        /Raise it on pg3/,
      ),
    ],
    [
      'it streams, and is further behind than a switchover allows',
      [
        primary({ currentLsn: lsn('0/7000148') }),
        standbyNode('pg2', '0/5000148', { replayLagSeconds: 2 }),
        standbyNode('pg3', '0/5000148', { replayLagSeconds: 12 }),
      ],
      warning('lag-too-high', 'pg3', 'pg3 is 33554432 bytes of WAL behind', /replctl status/),
    ],
    [
      'it replays late, and nobody wished that',
      [primary(), pg2, standbyNode('pg3', '0/5000148', { settings: delayOf('3600000') })],
      error('setting-overridden', 'pg3', 'pg3 replays 3600 s late, not 0 s', /: replctl add-standby pg3$/),
    ],
    [
      'an operation stopped part-way',
      [{ ...primary(), journal: '{"version":1}' }, pg2, pg3],
      warning(
        'operation-unfinished',
        'pg1',
        'an operation stopped part-way (journal on pg1)',
        /replctl resume/,
      ),
    ],
    [
      'pg_rewind would not work',
      [primary({ settings: { wal_log_hints: setting('off'), data_checksums: setting('off') } }), pg2, pg3],
      warning('rewind-unavailable', 'pg1', 'pg_rewind would not work on pg1', /wal_log_hints = on/),
    ],
  ]
  test.each(cases)('%s', (_, survey, expected) => {
    expectOnly(problemsOf(survey), expected)
  })

  test('where there are no slots, none is said to keep WAL', () => {
    const holdsBack = { ...receivesFrom('10.0.0.11'), receiver: null, isAwaitingDelay: true }
    const survey = [
      primary({ replication: [connection('pg2')], slots: [] }),
      pg2,
      standbyNode('pg3', '0/5000100', holdsBack),
    ]
    const [problem] = problemsOf(survey, noSlots)
    expect(problem).toMatchObject({ code: 'not-streaming', severity: 'warning' })
    expect(problem?.hint).not.toMatch(/its slot/)
    expect(problem?.hint).toMatch(/wal_keep_size alone/)
  })

  test('expected and actual upstream are told', () => {
    const [problem] = problemsOf([
      primary({ replication: [connection('pg2')] }),
      pg2,
      standbyNode('pg3', '0/1', receivesFrom('192.0.2.7', 5433)),
    ])
    expect(problem?.detail).toBe('Expected upstream: pg1; actual upstream: 192.0.2.7:5433.')
  })

  test('the middle node of a cascade is lost: what mends it is told; while the child still streams, as a warning', () => {
    const wish = { pg3: { upstream: nodeName('pg2') } }
    const leader = primary({ replication: [] })
    const child = (isStreaming: boolean) => {
      const node = standbyNode('pg3', '0/5000148', receivesFrom('10.0.0.12'))
      return isStreaming ? node : { ...node, instance: { ...node.instance!, receiver: null } }
    }
    const of = (survey: readonly NodeFacts[]) => {
      const { inventory, topology } = observed(survey, wish)
      return diagnose(inventory, topology).filter((problem) => problem.code === 'wrong-upstream')
    }
    const hint = expect.stringContaining('replctl follow pg3 --upstream pg1')
    const stopped = stoppedNode('pg2', '0/4000000', { hasStandbySignal: true })
    expect(of([leader, stopped, child(false)])).toMatchObject([{ severity: 'error', node: 'pg3', hint }])
    expect(of([leader, unreachableNode('pg2'), child(false)])).toMatchObject([{ severity: 'error', hint }])
    expect(of([leader, unreachableNode('pg2'), child(true)])).toMatchObject([{ severity: 'warning', hint }])
  })

  test('a slot of its own that keeps WAL for nobody is told, with what drops it; foreign ones are not judged', () => {
    const idle = (name: string) => slot(name, '0/1000000', { isActive: false })
    const holder = standbyNode('pg2', '0/5000148', {
      ...receivesFrom('10.0.0.11'),
      slots: [idle('shop_pg3'), idle('shop_pg2'), idle('shop_pg3_backup'), idle('mine')],
    })
    const problems = problemsOf([primary(), holder, pg3])
    expect(problems.map(({ code, severity, node, hint }) => [code, severity, node, hint])).toEqual([
      ['slot-left-over', 'warning', 'pg2', 'Have it dropped: replctl add-standby pg3'],
      ['slot-left-over', 'warning', 'pg2', 'Have it dropped: replctl add-standby pg2'],
    ])
    // On the primary, under its own name: "add-standby" of the primary would be refused.
    const leads = primary({
      slots: [slot('shop_pg2', '0/5000148'), slot('shop_pg3', '0/5000148'), idle('shop_pg1')],
    })
    expect(problemsOf([leads, pg2, pg3])).toMatchObject([
      { code: 'slot-left-over', node: 'pg1', hint: 'Have it dropped: replctl add-standby pg2' },
    ])
    expect(problemsOf([primary({ replication: [], slots: [idle('shop_pg1')] })])).toMatchObject([
      { code: 'slot-left-over', hint: "Drop it there: SELECT pg_drop_replication_slot('shop_pg1');" },
    ])
    // The roles were exchanged by hand: what was the primary's slot on the old one is nobody's.
    const former = standbyNode('pg1', '0/5000148', {
      ...receivesFrom('10.0.0.12'),
      slots: [idle('shop_pg2')],
    })
    const now = runningNode('pg2', {
      currentLsn: lsn('0/5000148'),
      replication: [connection('pg1')],
      slots: [slot('shop_pg1', '0/5000148')],
      settings: { wal_log_hints: setting('on') },
    })
    expect(problemsOf([former, now])).toMatchObject([
      {
        ...{ code: 'slot-left-over', node: 'pg1', hint: 'Have it dropped: replctl add-standby pg1' },
        detail: expect.stringContaining('pg2 leads'),
      },
    ])
    // One that ought to receive from the holder will come back to its slot.
    const misled = standbyNode('pg3', '0/5000148', receivesFrom('192.0.2.7', 5433))
    const leader = primary({
      slots: [slot('shop_pg2', '0/5000148'), idle('shop_pg3')],
      replication: [connection('pg2')],
    })
    expect(problemsOf([leader, pg2, misled]).map(({ code }) => code)).toEqual(['wrong-upstream'])
    // While somebody is at work slots come and go.
    expect(problemsOf([{ ...primary(), holder: '{}' }, holder, pg3])).toEqual([])
  })

  test('a delay that was wished for and is not in force is told; on 11, where the server does not show it, nothing is', () => {
    const late = { pg3: { delayMs: 3_600_000 } }
    const of = (settings: InstanceFacts['settings']) =>
      problemsOf([primary(), pg2, standbyNode('pg3', '0/5000148', { settings })], {}, late).map(
        ({ code, message }) => `${code}: ${message}`,
      )
    expect(of(delayOf('0'))).toEqual(['setting-overridden: pg3 replays 0 s late, not 3600 s'])
    expect(of(delayOf('3600000'))).toEqual([])
    expect(of({})).toEqual([])
  })

  test('why a slot is lost, and what a standby uses in place of its own, is told', () => {
    const detail = (changes: Partial<ReplicationSlot>, node = pg3) => {
      const slots = [slot('shop_pg2', '0/1'), slot('shop_pg3', '0/1', changes)]
      return problemsOf([primary({ slots }), pg2, node])[0]?.detail
    }
    expect(detail({ walStatus: 'lost', invalidationReason: 'wal_removed' })).toMatch(
      /is gone from the upstream/,
    )
    expect(detail({ walStatus: 'lost', invalidationReason: 'idle_timeout' })).toMatch(
      /received through it for too/,
    )
    expect(detail({}, withSlot('other'))).toMatch(/^It receives from pg1 through slot "other"/)
    expect(detail({}, withSlot(null))).toMatch(/^It receives from pg1 without a slot/)
    expect(problemsOf([primary(), pg2, withSlot(null)], noSlots)).toEqual([])
  })

  test('both system identifiers are told', () => {
    const stranger = stoppedNode('pg3', '0/1', { control: control({ systemIdentifier: foreign }) })
    const [problem] = problemsOf([primary(), pg2, stranger])
    expect(problem?.detail).toBe(`Its system identifier is ${foreign}, the cluster's is 7412345678901234567.`)
  })
})

describe('what is no problem', () => {
  const cases: readonly (readonly [
    string,
    readonly NodeFacts[],
    Partial<Inventory>?,
    Record<string, Partial<NodeSettings>>?,
  ])[] = [
    [
      'a cascade that was wished for',
      [
        primary({ replication: [connection('pg2')], slots: [slot('shop_pg2', '0/1')] }),
        standbyNode('pg2', '0/5000148', {
          replication: [connection('pg3')],
          slots: [slot('shop_pg3', '0/1')],
        }),
        pg3,
      ],
      {},
      { pg3: { upstream: nodeName('pg2') } },
    ],
    ['no slots where none are wanted', [primary({ slots: [] }), pg2, pg3], noSlots],
    [
      'settings that are greater than the primary’s, compared as numbers',
      [
        primary({ settings: { max_connections: setting('99') } }),
        pg2,
        standbyNode('pg3', '0/5000148', { settings: { max_connections: setting('200') } }),
      ],
    ],
    [
      'the journal of an operation that runs just now',
      [{ ...primary(), journal: '{"version":1}', holder: '{"pid":1}' }, pg2, pg3],
    ],
    [
      'a standby that is no member yet, while an operation is under way',
      [{ ...primary(), journal: '{}', holder: '{}', record: recordOf('pg1', ['pg1', 'pg2']) }, pg2, pg3],
    ],
    ['a failing archiver that is not replctl’s', [primary({ archiver: archiver(true) }), pg2, pg3]],
    [
      'a standby that catches up',
      [
        primary({ replication: [connection('pg2'), connection('pg3', 'async', { state: 'catchup' })] }),
        pg2,
        pg3,
      ],
    ],
  ]
  for (const [name, survey, inventory, nodes] of cases) {
    test(name, () => {
      expect(problemsOf(survey, inventory, nodes)).toEqual([])
    })
  }
})

function archiver(isFailing: boolean, waitsForSeconds: number | null = null): InstanceFacts['archiver'] {
  return {
    archivedCount: 1,
    failedCount: 4,
    lastArchivedWal: null,
    lastFailedWal: '000000030000000000000005',
    isFailing,
    readyCount: waitsForSeconds === null ? 0 : 2,
    oldestReady: waitsForSeconds === null ? null : '000000030000000000000005',
    oldestReadySeconds: waitsForSeconds,
    lastArchivedSeconds: null,
  }
}

describe('the cluster as a whole', () => {
  test('two writers come first, and nothing else is claimed of them', () => {
    const problems = problemsOf([primary(), runningNode('pg2', {}), unreachableNode('pg3')])
    expect(problems.map(({ code }) => code)).toEqual(['two-writers', 'host-unreachable'])
  })

  const noPrimary: readonly (readonly [string, readonly NodeFacts[], RegExp])[] = [
    ['nothing is built', [emptyNode('pg1'), emptyNode('pg2')], /Build the cluster: replctl init primary/],
    ['a standby is left', [unreachableNode('pg1'), pg2], /replctl promote \(the best candidate is pg2\)/],
    [
      'a standby is left beside what stopped part-way: without its name that would be gone on with',
      [unreachableNode('pg1'), { ...pg2, journal: '{}' }],
      /is lost: replctl promote pg2\. .*"replctl resume"/,
    ],
    ['nobody is left', [unreachableNode('pg1'), stoppedNode('pg2', '0/1')], /Bring a node back first/],
  ]
  test.each(noPrimary)('no primary: %s', (_, survey, hint) => {
    const [problem] = problemsOf(survey)
    expect(problem).toMatchObject({ code: 'no-primary', severity: 'error', node: null })
    expect(problem?.hint).toMatch(hint)
  })

  test('a primary that answers, and has no connection free, is not to be replaced for that', () => {
    const problems = problemsOf([closedNode('pg1', '53300'), pg2, pg3])
    expectOnly(
      problems.slice(0, 1),
      error('no-primary', null, 'the primary pg1 answers, but has no connection free', /^End some of its/),
    )
    expectOnly(
      problems.slice(1, 2),
      error('not-answering', 'pg1', 'pg1 answers, but has no connection free', /^End some of its sessions/),
    )
    expect(JSON.stringify(problems)).not.toContain('replctl promote')
  })

  test('no primary that answers, and a standby hears one: nobody is to be promoted beside it', () => {
    const leads = problemsOf([unreachableNode('pg1'), pg2, heardNode('pg3', {})])[0]
    expect(leads).toMatchObject({
      ...{ code: 'no-primary', detail: /^pg3, .* told pg2 that it is a primary on timeline 3/ },
      hint: /^Restore SSH to 10\.0\.0\.13: pg3 is the primary/,
    })
    const newer = { role: 'standby', timeline: timeline(9) } as const
    const follows = problemsOf([unreachableNode('pg1'), pg2, heardNode('pg3', newer)])[0]
    expect(follows?.hint).toMatch(/^Restore SSH to 10\.0\.0\.13, or to the node that pg3 follows/)
    for (const one of [leads, follows]) expect(one?.hint).not.toContain('replctl promote')
    const older = { role: 'standby', timeline: timeline(1) } as const
    const usual = problemsOf([unreachableNode('pg1'), pg2, heardNode('pg3', older)])[0]
    expect(usual?.hint).toMatch(/If the primary is lost: replctl promote/)
  })

  test('no primary that answers, and standbys hear from one: it is the way to it that is lost', () => {
    const hears = (name: string, silenceSeconds: number) => {
      const node = standbyNode(name, '0/5000148')
      const receiver = {
        ...node.instance!.receiver!,
        senderHost: '10.0.0.11',
        senderPort: 5432,
        silenceSeconds,
      }
      return { ...node, instance: { ...node.instance!, receiver } }
    }
    const of = (...standbys: NodeFacts[]) => problemsOf([unreachableNode('pg1'), ...standbys])[0]
    expect(of(hears('pg2', 1), hears('pg3', 4))).toMatchObject({
      ...{ code: 'no-primary', message: 'no node that answers accepts writes' },
      detail: 'pg2, pg3 still receive from pg1.',
      hint: expect.stringMatching(
        /^See to it that pg1 can be reached and answers: promote refuses .*If the primary is lost: replctl promote/,
      ),
    })
    expect(of(hears('pg2', 1), hears('pg3', 50))?.detail).toBe('pg2 still receives from pg1.')
    expect(of(hears('pg2', 50), hears('pg3', 50))?.hint).toMatch(/^If the primary is lost/)
    // One whose host answers, as a frozen one, promote stops.
    const frozen = emptyNode('pg1', { ...built, postmaster: postmaster({ isFrozen: true }) })
    expect(problemsOf([frozen, hears('pg2', 1)])[0]?.hint).toMatch(
      /^See to it that pg1 answers again. If the primary is lost: replctl promote/,
    )
  })

  test('one that leads beside the primary, and cannot be reached from here, is told of by what the others hear', () => {
    const hidden = heardNode('pg3', { role: 'primary', timeline: timeline(2) })
    expect(problemsOf([primary(), pg2, hidden])[0]).toMatchObject({
      ...{ code: 'two-writers', severity: 'error', node: 'pg3' },
      message: 'pg1 and pg3 accept writes at the same time',
      detail: expect.stringContaining('told pg2 that it is a primary on timeline 2'),
    })
    const follows = heardNode('pg3', { role: 'standby' })
    expect(problemsOf([primary(), pg2, follows]).map(({ code }) => code)).not.toContain('two-writers')
  })

  test('a primary that answers outside of its data directory: nothing is to be built or promoted beside it', () => {
    const stray = { ...emptyNode('pg1'), strayInstance: primary().instance! }
    const problems = problemsOf([stray, pg2, pg3])
    expectOnly(
      problems,
      error('primary-alive', 'pg1', 'a primary of this cluster answers on pg1', /^Set data_dir of pg1/),
    )
    expect(JSON.stringify(problems)).not.toContain('replctl promote')
    const other = {
      ...emptyNode('pg1'),
      strayInstance: { ...primary().instance!, systemIdentifier: foreign },
    }
    expect(problemsOf([other, pg2, pg3]).map(({ code }) => code)).toEqual(['no-primary', 'node-not-built'])
  })

  test('before the first init each node says how it is built', () => {
    const hints = problemsOf([emptyNode('pg1'), emptyNode('pg2')]).map(({ hint }) => hint)
    expect(hints).toContain('replctl init primary pg1')
  })

  test('a primary of another cluster is no primary of this one', () => {
    const stranger = runningNode('pg1', { systemIdentifier: foreign })
    const problems = problemsOf([
      stranger,
      standbyNode('pg2', '0/1', { receiver: null }),
      standbyNode('pg3', '0/1', { receiver: null }),
    ])
    expect(problems.map(({ code, node }) => `${code} ${node}`)).toEqual([
      'no-primary null',
      'foreign-cluster pg1',
    ])
  })

  test('a stopped primary is told apart from a lost one by what to do', () => {
    const problems = problemsOf([stoppedNode('pg1', '0/1'), pg2])
    expect(problems.find(({ code }) => code === 'instance-stopped')?.hint).toBe(
      'If it is the primary, start it; if it is lost: replctl promote',
    )
  })

  test('a failing archive_command of replctl is told with the segment', () => {
    const problems = problemsOf([primary({ archiver: archiver(true) }), pg2, pg3], archive)
    expectOnly(problems, error('archive-failing', 'pg1', 'archiving fails on pg1', /tries again/))
    expect(problems[0]?.detail).toContain('000000030000000000000005')
    expect(problemsOf([primary({ archiver: archiver(false) }), pg2, pg3], archive)).toEqual([])
  })

  test('what archive-push and the archive host said is told, and a conflict has a name of its own', () => {
    const said = (status: number, message: string) => {
      const archiveError = { status, file: '000000030000000000000005', message }
      return problemsOf([{ ...primary({ archiver: archiver(true, 30) }), archiveError }, pg2, pg3], archive)
    }
    const [full] = said(5, 'tee: No space left on device')
    expect(full).toMatchObject({ code: 'archive-failing', detail: expect.stringContaining('No space left') })
    expect(full?.detail).toContain('2 finished WAL files wait, the first since 30 s')
    const [conflict] = said(3, 'conflict: already archived with other content')
    expect(conflict).toMatchObject({ code: 'archive-conflict', severity: 'error', node: 'pg1' })
    expect(conflict?.message).toContain('000000030000000000000005')
  })

  test('archiving that hangs is told once it is late', () => {
    const late = (seconds: number) =>
      problemsOf([primary({ archiver: archiver(false, seconds) }), pg2, pg3], archive)
    expect(late(599)).toEqual([])
    const hangs = 'nothing is archived any more on pg1'
    expectOnly(late(601), error('archive-failing', 'pg1', hangs, /watch its disk/))
  })

  test('a standby that would end archiving with a failover is told of, and changes no exit code', () => {
    const push = { archive: { mode: 'push' } as NonNullable<Inventory['archive']> }
    const off = standbyNode('pg2', '0/5000148', {
      settings: { ...pg2.instance?.settings, archive_mode: setting('off') },
    })
    expectOnly(
      problemsOf([primary(), off, pg3], push),
      warning('archive-failing', 'pg2', 'pg2 would not archive its WAL if it led', /replctl add-standby pg2/),
    )
  })
})

describe('synchronous standbys', () => {
  const waiting = {
    settings: { synchronous_standby_names: setting('FIRST 1 ("shop_pg2")') },
    waitingForSync: 3,
  }
  const namesOf = (value: string) => ({ settings: { synchronous_standby_names: setting(value) } })
  const asSync = (...states: string[]) => states.map((state, index) => connection(`pg${index + 2}`, state))
  const cases: readonly (readonly [string, Partial<InstanceFacts>, Partial<Inventory>, string | null])[] = [
    [
      'one is enough, and there',
      { ...waiting, replication: asSync('sync', 'potential') },
      replication('sync'),
      null,
    ],
    [
      'any two of two are there',
      { ...waiting, ...namesOf('ANY 2 ("shop_pg2", "shop_pg3")'), replication: asSync('quorum', 'quorum') },
      replication('quorum', 2),
      null,
    ],
    [
      'the only one is away: writes wait',
      { ...waiting, replication: asSync('async', 'async') },
      replication('sync'),
      'writes blocked: 0 of 1 sync standbys',
    ],
    [
      'one of two is away: writes wait',
      { ...waiting, ...namesOf('ANY 2 ("shop_pg2", "shop_pg3")'), replication: asSync('quorum', 'async') },
      replication('quorum', 2),
      'writes blocked: 1 of 2 sync standbys',
    ],
    [
      'the set that the server waits for is smaller than the wished one: less safe, and nothing waits',
      { ...namesOf('ANY 1 ("shop_pg2")'), replication: asSync('quorum', 'async') },
      replication('quorum', 2),
      '1 of 2 sync standbys',
    ],
    [
      'none was ever added: nothing waits',
      { replication: asSync('async', 'async') },
      replication('sync'),
      '0 of 1 sync standbys',
    ],
    [
      'an instance that waits although the inventory wishes none',
      { ...waiting, replication: asSync('async', 'async') },
      {},
      'writes blocked: 0 of 1 sync standbys',
    ],
  ]
  test.each(cases)('%s', (_, changes, inventory, message) => {
    const problems = problemsOf([primary(changes), pg2, pg3], inventory)
    expect(problems.map((problem) => problem.message)).toEqual(message === null ? [] : [message])
    if (message === null) return
    const isBlocking = message.startsWith('writes blocked')
    const code = isBlocking ? 'writes-blocked' : 'durability-reduced'
    expect(problems[0]).toMatchObject({ code, severity: 'error', node: 'pg1' })
    expect(problems[0]?.hint).toContain(isBlocking ? 'replctl remove-standby' : 'replctl add-standby')
    const commits = message.startsWith('0') ? 'confirmed without a standby' : 'wait for 1 standby'
    expect(problems[0]?.detail).toContain(isBlocking ? '3 session(s) wait' : commits)
  })

  test('logical subscribers that wait for a standby which is away are told of, with what has them served', () => {
    const subscriber = slot('app', '0/5000148', { type: 'logical', isFailover: true })
    const leader = (awaited: string, ...more: ReturnType<typeof slot>[]) =>
      primary({
        replication: [connection('pg3')],
        slots: [subscriber, slot('shop_pg3', '0/5000148'), ...more],
        settings: { synchronized_standby_slots: setting(awaited) },
      })
    const away = slot('shop_pg2', '0/5000100', { isActive: false })
    const stopped = stoppedNode('pg2', '0/5000148')
    const found = (one: NodeFacts) =>
      problemsOf([one, stopped, pg3]).find(({ code }) => code === 'subscribers-blocked')
    expect(found(leader('shop_pg3', away))).toBeUndefined()
    expect(found(leader('shop_pg2, shop_pg3', away))).toMatchObject({
      severity: 'error',
      node: 'pg1',
      hint: 'Bring pg2 back (replctl add-standby pg2); or, to have them served without: replctl remove-standby pg2',
    })
    expect(found(leader('gone'))?.hint).toBe('Correct synchronized_standby_slots on pg1.')
  })

  test('whoever receives from the one that is lost goes elsewhere before that one is taken out', () => {
    const survey = [
      primary({ ...namesOf('FIRST 1 ("shop_pg2")'), replication: [] }),
      stoppedNode('pg2', '0/5000148'),
      standbyNode('pg3', '0/5000148', { receiver: null, ...receivesFrom('10.0.0.12') }),
    ]
    const problems = problemsOf(survey, replication('sync'))
    expect(problems.find(({ code }) => code === 'writes-blocked')?.hint).toBe(
      'Bring pg2 back; or, to set writes free without: replctl follow pg3 --upstream pg1, replctl remove-standby pg2',
    )
  })

  test('a standby that is late on purpose is waited for, not brought back, and the old primary may confirm instead', () => {
    const hold = { receiver: null, isAwaitingDelay: true, ...receivesFrom('10.0.0.11') }
    const survey = [
      primary({ ...namesOf('FIRST 1 ("shop_pg2")'), replication: [] }),
      standbyNode('pg2', '0/5000148', hold),
      stoppedNode('pg3', '0/1', { fence: fenceMark('pg1') }),
    ]
    const blocked = problemsOf(survey, replication('sync')).find(({ code }) => code === 'writes-blocked')
    expect(blocked?.detail).toContain(
      'pg2 holds a transaction back on purpose, and receives nothing until then.',
    )
    expect(blocked?.hint).toBe(
      'Wait until pg2 has replayed it, or let another one confirm: replctl rejoin pg3; or, to set writes free without: replctl remove-standby pg2',
    )
  })

  test('an old primary that is fenced does not confirm again by add-standby: the hint knows', () => {
    const fenced = stoppedNode('pg2', '0/1', { fence: fenceMark('pg1') })
    const find = (...others: NodeFacts[]) =>
      problemsOf([primary({ replication: [] }), ...others], replication('sync')).find(
        ({ code }) => code === 'durability-reduced',
      )?.hint
    expect(find(fenced)).toBe('Bring a standby back: replctl rejoin pg2')
    expect(find(fenced, emptyNode('pg3'))).toBe(
      'Bring a standby back: replctl rejoin pg2, or replctl add-standby pg3',
    )
    expect(find(emptyNode('pg2'), emptyNode('pg3'))).toBe('Add a standby: replctl add-standby pg2 pg3')
  })

  test('a standby whose link is cut still counts as connected: its silence tells, while sessions wait', () => {
    const unconfirmed = { sentLsn: lsn('0/5000100'), flushLsn: lsn('0/5000000') }
    const leader = (seconds: number, changes = {}) =>
      primary({
        ...waiting,
        waitingForSyncSeconds: seconds,
        replication: [connection('pg2', 'sync', { ...unconfirmed, ...changes })],
      })
    const silent = (silenceSeconds: number) => {
      const { instance } = pg2
      const receiver = { ...instance!.receiver!, silenceSeconds }
      return { ...pg2, instance: { ...instance!, receiver } }
    }
    const found = (...nodes: NodeFacts[]) =>
      problemsOf([...nodes, pg3], replication('sync'))
        .map((problem) => problem.code)
        .filter((code) => code === 'writes-blocked')
    expect(found(leader(20), silent(20))).toEqual(['writes-blocked'])
    expect(found(leader(20), silent(0.2))).toEqual([])
    expect(found(leader(0.1), silent(20))).toEqual([])
    // It receives from another one meanwhile: what the primary still shows is its former connection.
    const moved = standbyNode('pg2', '0/5000148', receiverFrom('pg2', '10.0.0.13', { silenceSeconds: 0.2 }))
    expect(found(leader(20), moved)).toEqual(['writes-blocked'])
    // It has confirmed all that it was sent: the session that waits began long ago and waits for a moment only.
    expect(found(leader(20, { flushLsn: unconfirmed.sentLsn }), silent(20))).toEqual([])
  })

  describe('commits that wait for replay (remote_apply)', () => {
    const unapplied = { flushLsn: lsn('0/5000100'), sentLsn: lsn('0/5000100'), replayLsn: lsn('0/5000000') }
    const leader = (seconds: number, changes = {}) =>
      primary({
        ...waiting,
        waitingForSyncSeconds: seconds,
        replication: [connection('pg2', 'sync', { ...unapplied, ...changes }), connection('pg3')],
      })
    const standby = (changes: Partial<InstanceFacts>) => ({
      ...pg2,
      instance: { ...pg2.instance!, ...changes },
    })
    const found = (node: NodeFacts, changes: Partial<InstanceFacts>) =>
      problemsOf([node, standby(changes), pg3], replication('sync')).filter(
        ({ code }) => code === 'writes-blocked',
      )

    test('replay is paused on the one that they wait for', () => {
      const [problem] = found(leader(20), { isReplayPaused: true })
      expect(problem).toMatchObject({
        ...{ severity: 'error', node: 'pg1', message: 'writes blocked: commits wait for replay on pg2' },
        hint: 'On pg2: SELECT pg_wal_replay_resume();',
      })
      expect(problem?.detail).toMatch(
        /^3 session\(s\) wait .* for 20 s\. pg2 has received .*replay is paused/,
      )
    })
    test('a query holds replay up there', () => {
      const [problem] = found(leader(20), { replayLagSeconds: 20 })
      expect(problem?.hint).toMatch(/^On pg2, end the query .*max_standby_streaming_delay/)
    })
    test('replay that goes on holds nobody up, nor does it while nobody waits for long', () => {
      expect(found(leader(20), { replayLagSeconds: 0.1 })).toEqual([])
      expect(found(leader(0.1), { replayLagSeconds: 20 })).toEqual([])
      expect(found(leader(20, { replayLsn: lsn('0/5000100') }), { isReplayPaused: true })).toEqual([])
    })
    test('as many as are needed replay: nobody waits for the other', () => {
      const two = { ...waiting, ...namesOf('ANY 1 ("shop_pg2", "shop_pg3")'), waitingForSyncSeconds: 20 }
      const both = [connection('pg2', 'quorum', unapplied), connection('pg3', 'quorum')]
      expect(found(primary({ ...two, replication: both }), { isReplayPaused: true })).toEqual([])
    })
  })

  describe('synchronous_commit that lets nobody wait', () => {
    const leader = (synchronousCommit: string | null) =>
      primary({ ...waiting, synchronousCommit, waitingForSync: 0, replication: asSync('sync', 'potential') })
    test.each(['off', 'local'])('%s', (value) => {
      const problems = problemsOf([leader(value), pg2, pg3], replication('sync'))
      expectOnly(
        problems,
        error(
          'durability-reduced',
          'pg1',
          `synchronous_commit is ${value} on pg1`,
          /^Set it on pg1: ALTER SYSTEM/,
        ),
      )
    })
    test('by the inventory’s own wish', () => {
      const { postgres } = inventoryOf(['pg1']).nodes[0]!
      const nodes = { pg1: { postgres: { ...postgres, parameters: { synchronous_commit: 'off' } } } }
      const problems = problemsOf([leader('off'), pg2, pg3], replication('sync'), nodes)
      expect(problems[0]?.hint).toMatch(/^Take synchronous_commit out .*replctl init primary pg1$/)
    })
    test.each(['on', 'remote_write', 'remote_apply', null])('%s is as it should be', (value) => {
      expect(problemsOf([leader(value), pg2, pg3], replication('sync'))).toEqual([])
    })
    test('in mode async nobody is to wait', () => {
      expect(problemsOf([leader('off'), pg2, pg3])).toEqual([])
    })
  })
})

test('an inventory that lacks a member which receives is told, beside a cluster that is as it should be', () => {
  const leads = { ...primary(), record: recordOf('pg1', ['pg1', 'pg2', 'pg3']) }
  expect(problemsOf([leads, pg2])).toMatchObject([
    { code: 'orphan-standby', severity: 'warning', node: 'pg1' },
  ])
  expect(problemsOf([leads, pg2, pg3])).toEqual([])
})

test('where standbys hear from somebody whom the inventory lacks, nobody is to be promoted', () => {
  const hears = (name: string) =>
    standbyNode(name, '0/3000000', { ...receivesFrom('10.9.9.9'), ...receiverFrom(name, '10.9.9.9') })
  const [problem] = problemsOf([hears('pg1'), hears('pg2')])
  expect(problem).toMatchObject({ code: 'no-primary', severity: 'error' })
  expect(problem?.detail).toMatch(/^pg1, pg2 receive from 10.9.9.9:5432 at this moment/)
  expect(problem?.hint).toMatch(/^Put that node into the inventory/)
})
