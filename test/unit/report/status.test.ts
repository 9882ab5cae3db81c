import { describe, expect, test } from 'vitest'
import type { NodeFacts } from '../../../src/cluster/facts.ts'
import { nodeName } from '../../../src/cluster/names.ts'
import type { Problem } from '../../../src/cluster/problem.ts'
import { ReplctlError } from '../../../src/errors.ts'
import { createPaint } from '../../../src/report/paint.ts'
import { statusJson, statusText } from '../../../src/report/status.ts'
import {
  closedNode,
  connection,
  emptyNode,
  heardNode,
  lsn,
  observed,
  runningNode,
  slot,
  standbyNode,
  stoppedNode,
  timeline,
} from '../some-cluster.ts'

const plain = createPaint(0)
const setting = (value: string) => ({ value, source: '', sourceFile: null, isPendingRestart: false })
const fromPg1 = { receiver: null, settings: { primary_conninfo: setting('host=10.0.0.11 port=5432') } }
const unreachable = (name: string) =>
  emptyNode(name, {
    unreachable: new ReplctlError('host-unreachable', `could not reach ${name}`, { node: name }),
    binaries: null,
  })

const primary = runningNode('pg1', {
  currentLsn: lsn('0/5000148'),
  replication: [connection('pg2', 'sync')],
  slots: [slot('shop_pg2', '0/5000148'), slot('shop_pg1', '0/1000000')],
})
const cascade = [
  primary,
  standbyNode('pg2', '0/5000148', {
    replication: [connection('pg3')],
    slots: [slot('shop_pg3', '0/4000000')],
  }),
  standbyNode('pg3', '0/4000148', { replayLagSeconds: 3_590 }),
]
const wishes = { pg3: { upstream: nodeName('pg2'), delayMs: 3_600_000 } }

function text(survey: readonly NodeFacts[], problems: readonly Problem[] = [], changes = {}): string {
  const { inventory, topology } = observed(survey, changes)
  return statusText(inventory, topology, problems, plain)
}

describe('status for people', () => {
  test('a healthy cluster with a cascaded, delayed standby', () => {
    expect(text(cascade, [], wishes)).toBe(
      `shop: primary pg1, timeline 3, PostgreSQL 15.18

node       role     state      timeline  LSN        lag                              sync   slot
pg1        primary  running    3         0/5000148  -                                -      -
└─ pg2     standby  streaming  3         0/5000148  none                             sync   shop_pg2
   └─ pg3  standby  streaming  3         0/4000148  16 MiB, 59 min 50 s (delay 1 h)  async  shop_pg3 (keeps 16 MiB)

Everything is as the inventory wants it.
`,
    )
  })

  test('slots that somebody else made are told with what they keep', () => {
    const foreignOnes = [
      slot('app', '0/4000000', { type: 'logical' }),
      slot('old_backup', '0/1000000', { isActive: false, walStatus: 'extended' }),
    ]
    const leader = runningNode('pg1', { currentLsn: lsn('0/5000000'), slots: foreignOnes })
    expect(text([leader])).toContain(`
Slots that replctl did not make, and keeps:
  app on pg1 (logical, keeps 16 MiB)
  old_backup on pg1 (physical, inactive, extended, keeps 64 MiB)
`)
  })

  test('a lost primary: standbys below it with what they have received, then the nodes that belong nowhere', () => {
    const survey = [
      stoppedNode('pg4', '0/3000028'),
      stoppedNode('pg5', '0/3000028', { fence: { newPrimary: 'pg1', timeline: 3, at: '' } }),
      emptyNode('pg6'),
      unreachable('pg7'),
      standbyNode('pg2', '0/5000148', { ...fromPg1, receiveLsn: lsn('0/5000200') }),
      standbyNode('pg3', '0/4000148', { ...fromPg1, isReplayPaused: true }),
      unreachable('pg1'),
    ]
    const atPg1 = { address: '10.0.0.11' }
    const problems: Problem[] = [
      {
        code: 'no-primary',
        severity: 'error',
        node: null,
        message: 'no node accepts writes',
        hint: 'If the primary is lost: replctl promote (the best candidate is pg2)',
      },
    ]
    expect(text(survey, problems, { pg1: atPg1, pg4: { address: '10.0.0.14', host: '10.0.0.14' } })).toBe(
      `shop: NO PRIMARY SEEN: 2 of 7 nodes cannot be reached

node    role     state         timeline  LSN                             lag  sync  slot
pg1     unknown  unreachable   -         -                               -    -     -
├─ pg2  standby  disconnected  3         0/5000148 (received 0/5000200)  -    -     -
└─ pg3  standby  paused        3         0/4000148                       -    -     -
pg4     stopped  stopped       2         0/3000028                       -    -     -
pg5     fenced   stopped       2         0/3000028                       -    -     -
pg6     empty    not built     -         -                               -    -     -
pg7     unknown  unreachable   -         -                               -    -     -

error: no node accepts writes
hint: If the primary is lost: replctl promote (the best candidate is pg2)
`,
    )
  })

  test.each([
    ['nothing is built', [emptyNode('pg1'), emptyNode('pg2')], 'shop: not built yet'],
    ['all are stopped', [stoppedNode('pg1', '0/3000028')], 'shop: NO PRIMARY: no node accepts writes'],
    [
      'one lets nobody in',
      [closedNode('pg1', '53300')],
      'shop: NO PRIMARY TO ASK: pg1 answers, but has no connection free',
    ],
    [
      'one that cannot be reached leads',
      [heardNode('pg1', {}), stoppedNode('pg2', '0/3000028')],
      'shop: NO PRIMARY IN REACH: pg1 leads, as the others see it',
    ],
    [
      'two accept writes',
      [runningNode('pg1', {}), runningNode('pg2', {})],
      'shop: TWO WRITERS: pg1 and pg2 accept writes',
    ],
  ])('the first line says it when %s', (_name, survey, expected) => {
    expect(text(survey).split('\n')[0]).toBe(expected)
  })

  test('versions have a column where they differ', () => {
    const survey = [
      primary,
      emptyNode('pg2', { binaries: { directory: '', major: 15, minor: 3, version: '15.3' } }),
    ]
    expect(text(survey).split('\n').slice(0, 5)).toEqual([
      'shop: primary pg1, timeline 3',
      '',
      'node  role     state      version  timeline  LSN        lag  sync  slot',
      'pg1   primary  running    15.18    3         0/5000148  -    -     -',
      'pg2   empty    not built  15.3     -         -          -    -     shop_pg2',
    ])
  })

  test('a slot in danger says why', () => {
    const slots = [slot('shop_pg2', '0/1000148', { isActive: false, walStatus: 'unreserved' })]
    const survey = [
      runningNode('pg1', { currentLsn: lsn('0/5000148'), slots }),
      standbyNode('pg2', '0/5000148', fromPg1),
    ]
    expect(text(survey)).toContain('shop_pg2 (inactive, unreserved, keeps 64 MiB)\n')
  })

  test('an upstream that is not in the inventory is named', () => {
    const settings = { primary_conninfo: setting('host=db9.example.com port=5433') }
    expect(text([runningNode('pg1', {}), standbyNode('pg2', '0/5000148', { settings })])).toContain(
      'streaming from db9.example.com:5433',
    )
  })

  test('what does not answer is not called stopped', () => {
    const postmaster = {
      pid: 7,
      isAlive: true,
      isFrozen: true,
      port: 5432,
      socketDirectory: null,
      status: 'ready',
    }
    expect(text([stoppedNode('pg1', '0/3000028', { postmaster })])).toContain('pg1   unknown  not answering')
    expect(text([emptyNode('pg1', { dataDirectoryState: 'not-an-instance' })])).toContain('not an instance')
  })

  test('standbys that receive from each other in a circle are all shown', () => {
    const survey = [
      standbyNode('pg1', '0/3000028', { replication: [connection('pg2')] }),
      standbyNode('pg2', '0/3000028', { replication: [connection('pg1')] }),
    ]
    const names = text(survey)
      .split('\n')
      .slice(3, 5)
      .map((line) => line.slice(0, 6))
    expect(names).toEqual(['pg1   ', '└─ pg2'])
  })
})

describe('operations', () => {
  const holder = JSON.stringify({
    user: 'dba',
    host: 'control1',
    pid: 4711,
    command: 'replctl promote pg2',
    since: '2026-11-02T03:12:44.120Z',
  })
  const journal = {
    version: 1,
    command: 'add-standby',
    wish: {},
    by: 'dba@control1',
    since: '2026-11-02T03:12:44.120Z',
    isPastPointOfNoReturn: false,
    begun: [],
  }
  const unfinished: Problem = {
    code: 'operation-unfinished',
    severity: 'warning',
    node: 'pg1',
    message: 'an operation stopped part-way (journal on pg1)',
    detail: JSON.stringify(journal),
    hint: null,
  }
  const withFacts = (...facts: Partial<NodeFacts>[]) =>
    facts.map((changes, index) => emptyNode(`pg${index + 1}`, changes))
  const told = (survey: NodeFacts[], problems: Problem[] = []) =>
    text(survey, problems).split('\n').slice(1, -1)

  test('the one that holds the cluster is told once, and its journal is not called unfinished', () => {
    const lines = told(withFacts({ holder, journal: JSON.stringify(journal) }, { holder }))
    expect(lines.slice(0, 2)).toEqual([
      'In progress: "replctl promote pg2" by dba@control1, since 2026-11-02 03:12:44 UTC. It holds the lock on pg1, pg2.',
      '',
    ])
  })

  test('one that stopped part-way is told in a line, not as JSON', () => {
    const lines = told(withFacts({ journal: JSON.stringify(journal) }), [unfinished])
    expect(lines).toEqual([
      'Stopped part-way: "replctl add-standby" by dba@control1, begun 2026-11-02 03:12:44 UTC (journal on pg1). Finish it: replctl resume. Or take it back: replctl abort',
      '',
      'node  role   state      timeline  LSN  lag  sync  slot',
      'pg1   empty  not built  -         -    -    -     -',
    ])
  })

  test('of several states of one journal the one past the point of no return counts', () => {
    const later = { ...journal, isPastPointOfNoReturn: true, begun: ['pg1: promote it to primary'] }
    const [line] = told(
      withFacts(
        { journal: JSON.stringify(journal) },
        { journal: JSON.stringify(later) },
        { journal: JSON.stringify(journal) },
      ),
    )
    expect(line).toBe(
      'Stopped part-way: "replctl add-standby" by dba@control1, begun 2026-11-02 03:12:44 UTC (journal on pg1, pg3, pg2). It is past its point of no return. Finish it: replctl resume',
    )
  })

  test('what cannot be read is told all the same', () => {
    const lines = told(withFacts({ holder: 'half a li' }, { journal: '{"comm' }))
    expect(lines.slice(0, 2)).toEqual([
      'In progress: another replctl operation. It holds the lock on pg1.',
      'Stopped part-way: an operation (journal on pg2). Finish it: replctl resume. Or take it back: replctl abort',
    ])
  })
})

describe('status as JSON', () => {
  test('has the keys of the contract, in the order of the inventory', () => {
    const { inventory, topology } = observed(cascade, wishes)
    const status = statusJson(inventory, topology)
    expect(Object.keys(status)).toEqual(['primary', 'timeline', 'nodes', 'archive'])
    expect({ ...status, nodes: status.nodes.map((node) => node.name) }).toEqual({
      primary: 'pg1',
      timeline: 3,
      nodes: ['pg1', 'pg2', 'pg3'],
      archive: null,
    })
    expect(status.nodes[0]).toEqual({
      name: 'pg1',
      host: '10.0.0.11',
      reachable: true,
      role: 'primary',
      version: '15.18',
      timeline: 3,
      lsn: '0/5000148',
      upstream: null,
      slot: null,
      state: 'running',
      sync_state: null,
      lag_bytes: null,
      lag_seconds: null,
      received_lsn: null,
      slot_wal_status: null,
      retained_bytes: null,
      paused: false,
      delay_seconds: 0,
      promotable: true,
      slots: [
        {
          ...{ name: 'shop_pg2', type: 'physical', for: 'pg2', active: true, restart_lsn: '0/5000148' },
          ...{ wal_status: 'reserved', invalidation_reason: null, retained_bytes: 0 },
        },
        {
          ...{ name: 'shop_pg1', type: 'physical', for: 'pg1', active: true, restart_lsn: '0/1000000' },
          ...{ wal_status: 'reserved', invalidation_reason: null, retained_bytes: 67_109_192 },
        },
      ],
    })
    expect(status.nodes[2]).toEqual({
      name: 'pg3',
      host: '10.0.0.13',
      reachable: true,
      role: 'standby',
      version: '15.18',
      timeline: 3,
      lsn: '0/4000148',
      upstream: 'pg2',
      slot: 'shop_pg3',
      state: 'streaming',
      sync_state: 'async',
      lag_bytes: 16_777_216,
      lag_seconds: 3_590,
      received_lsn: '0/4000148',
      slot_wal_status: 'reserved',
      // The upstream keeps it: pg2 is at 0/5000148.
      retained_bytes: 16_777_544,
      paused: false,
      delay_seconds: 3_600,
      promotable: true,
      slots: [],
    })
  })

  test('a stopped node shows its checkpoint, an unreachable one nothing', () => {
    const { inventory, topology } = observed([stoppedNode('pg1', '0/3000028'), unreachable('pg2')])
    const { nodes, primary: leader, timeline: id } = statusJson(inventory, topology)
    expect([leader, id]).toEqual([null, null])
    expect(nodes[0]).toMatchObject({
      role: 'stopped',
      lsn: '0/3000028',
      timeline: timeline(2),
      version: '15.18',
    })
    expect(nodes[1]).toMatchObject({
      reachable: false,
      role: 'unknown',
      lsn: null,
      timeline: null,
      version: null,
    })
  })

  test('WAL that a slot keeps across a 4 GiB boundary is counted', () => {
    const slots = [slot('shop_pg2', '1/FFFFFF00')]
    const survey = [
      runningNode('pg1', { currentLsn: lsn('2/100'), slots, replication: [connection('pg2')] }),
      standbyNode('pg2', '2/100'),
    ]
    const { inventory, topology } = observed(survey)
    expect(statusJson(inventory, topology).nodes[1]?.retained_bytes).toBe(512)
  })
})
