import { describe, expect, test } from 'vitest'
import type { InstanceFacts, NodeFacts } from '../../../src/cluster/facts.ts'
import type { NodeSettings, ReplicationSettings } from '../../../src/cluster/inventory.ts'
import { judgePromotion, type PromotionWish } from '../../../src/cluster/judge-promotion.ts'
import { gapAfterStop } from '../../../src/cluster/known-gap.ts'
import { nodeName } from '../../../src/cluster/names.ts'
import { ReplctlError } from '../../../src/errors.ts'
import {
  closedNode,
  control,
  emptyNode,
  fenceMark,
  foreign,
  heardNode,
  lsn,
  observed,
  postmaster,
  receivesFrom,
  recordOf,
  runningNode,
  standbyNode,
  stoppedNode,
  timeline,
  unreachableNode,
} from '../some-cluster.ts'

const built = { dataDirectoryState: 'instance' } as const
const all = ['pg1', 'pg2', 'pg3', 'pg4']
const ledByPg1 = { record: recordOf('pg1', all) }
const fromPg1 = receivesFrom('10.0.0.11')
const alive = (name: string) => runningNode(name, { currentLsn: lsn('0/5000148') })
/** Its data directory is gone, and something answers all the same. */
const stray = (name: string, changes: Partial<InstanceFacts> = {}, facts: Partial<NodeFacts> = {}) => {
  const { instance } = runningNode(name, changes)
  return emptyNode(name, { ...facts, ...(instance === null ? {} : { strayInstance: instance }) })
}

interface Case {
  readonly survey: readonly NodeFacts[]
  readonly node?: string
  readonly wish?: Partial<PromotionWish>
  readonly nodes?: Record<string, Partial<NodeSettings>>
  readonly replication?: Partial<ReplicationSettings>
}

function judge({ survey, node, wish, nodes, replication }: Case) {
  const { inventory, topology } = observed(survey, nodes, replication)
  return judgePromotion(inventory, topology, {
    node: node === undefined ? undefined : nodeName(node),
    allowDataLoss: false,
    allowSplitBrain: false,
    ...wish,
  })
}

function refusalOf(given: Case): ReplctlError {
  try {
    judge(given)
  } catch (thrown) {
    if (thrown instanceof ReplctlError) return thrown
    throw thrown
  }
  throw new Error('expected a refusal')
}

test('beside a primary that answers only who can lead is told to be promoted with a flag', () => {
  const hint = (...survey: NodeFacts[]) => refusalOf({ survey, node: 'pg2' }).hint
  expect(hint(alive('pg1'), standbyNode('pg2', '0/1'))).toContain('replctl promote pg2 --allow-split-brain')
  expect(hint(alive('pg1'), stoppedNode('pg2', '0/1'))).toBe(
    'Stop pg1 first if it has to go. pg2 cannot take its place: it is stopped.',
  )
})

describe('refusals, all of them before anything is changed', () => {
  const cutOff = standbyNode('pg2', '0/5000000', { receiver: null })
  const ahead = [unreachableNode('pg1'), cutOff, standbyNode('pg3', '0/5000148')]
  const cases: readonly (readonly [string, Case, string, RegExp])[] = [
    [
      'the primary answers',
      { survey: [alive('pg1'), standbyNode('pg2', '0/1')] },
      'primary-alive',
      /the primary pg1 answers/,
    ],
    [
      'the primary answers, and another node is asked for',
      { survey: [alive('pg1'), standbyNode('pg2', '0/1')], node: 'pg2' },
      'primary-alive',
      /refused to promote pg2/,
    ],
    [
      'the primary answers, and no node is named for the risk',
      { survey: [alive('pg1'), standbyNode('pg2', '0/1')], wish: { allowSplitBrain: true } },
      'primary-alive',
      /the primary pg1 answers/,
    ],
    [
      'a primary answers in its place, though its data directory was moved away',
      { survey: [stray('pg1'), standbyNode('pg2', '0/1', fromPg1)], node: 'pg2' },
      'primary-alive',
      /a primary of this cluster answers on pg1/,
    ],
    [
      'the same beside a copy of the data directory, whatever flags are given',
      {
        survey: [
          stray('pg1', {}, { ...built, control: control() }),
          standbyNode('pg2', '0/1', fromPg1, ledByPg1),
        ],
        node: 'pg2',
        wish: { allowSplitBrain: true, allowDataLoss: true },
      },
      'primary-alive',
      /a primary of this cluster answers on pg1/,
    ],
    [
      'two nodes accept writes',
      { survey: [alive('pg1'), alive('pg2')], node: 'pg2' },
      'two-writers',
      /pg1 and pg2 accept writes/,
    ],
    [
      'two nodes accept writes, whatever flags are given',
      {
        survey: [alive('pg1'), alive('pg2'), standbyNode('pg3', '0/1')],
        node: 'pg3',
        wish: { allowSplitBrain: true, allowDataLoss: true },
      },
      'two-writers',
      /pg1 and pg2/,
    ],
    [
      'no standby is left',
      { survey: [unreachableNode('pg1'), stoppedNode('pg2', '0/1')] },
      'no-candidate',
      /no node can be promoted/,
    ],
    [
      'the wished node is not reachable',
      { survey: [unreachableNode('pg1'), standbyNode('pg2', '0/1')], node: 'pg1' },
      'host-unreachable',
      /could not reach pg1/,
    ],
    [
      'the wished node is stopped',
      { survey: [unreachableNode('pg1'), stoppedNode('pg2', '0/1'), standbyNode('pg3', '0/1')], node: 'pg2' },
      'not-a-standby',
      /cannot promote pg2: it is stopped/,
    ],
    [
      'the wished node is promotable: false',
      {
        survey: [unreachableNode('pg1'), standbyNode('pg2', '0/1')],
        node: 'pg2',
        nodes: { pg2: { promotable: false } },
      },
      'not-promotable',
      /promotable: false/,
    ],
    [
      'its version cannot be promoted so: known before any fence command is run',
      {
        survey: [unreachableNode('pg1'), standbyNode('pg2', '0/1', { serverVersionNumber: 160_003 })],
        node: 'pg2',
        wish: { method: 'trigger-file' },
      },
      'method-not-available',
      /cannot promote PostgreSQL 16 by a trigger file/,
    ],
    [
      'its version has no pg_promote(), and no node was named',
      {
        survey: [unreachableNode('pg1'), standbyNode('pg2', '0/1', { serverVersionNumber: 110_022 })],
        wish: { method: 'pg_promote' },
      },
      'method-not-available',
      /cannot promote PostgreSQL 11 by pg_promote/,
    ],
    ['another standby has more WAL', { survey: ahead, node: 'pg2' }, 'standby-ahead', /pg3 has more WAL/],
    [
      'the wished node belongs to another cluster',
      {
        survey: [
          unreachableNode('pg1'),
          standbyNode('pg2', '9/0', { systemIdentifier: foreign }),
          standbyNode('pg3', '0/1', {}, ledByPg1),
        ],
        node: 'pg2',
      },
      'not-a-standby',
      /it belongs to another cluster/,
    ],
  ]
  test.each([
    ['may not lead', { promotable: false }],
    ['replays late on purpose', { delayMs: 3_600_000 }],
  ])(
    'a standby that %s has more WAL: the candidate gets it from there before it is promoted',
    (_, changes) => {
      const nodes = { pg3: changes }
      expect(judge({ survey: ahead, nodes })).toMatchObject({ candidate: 'pg2', reserves: ['pg3'] })
      const wish = { allowDataLoss: true }
      expect(judge({ survey: ahead, nodes, node: 'pg2', wish })).toMatchObject({
        candidate: 'pg2',
        reserves: [],
      })
    },
  )

  test.each(cases)('%s', (_, given, code, message) => {
    const error = refusalOf(given)
    expect(error).toMatchObject({ code, message: expect.stringMatching(message) })
    expect([3, 4]).toContain(error.exitCode)
  })

  describe('a disk that is too full for the WAL of a promotion', () => {
    const walSegmentSizeBytes = 2 ** 24
    const on = (name: string, walFreeMiB: number, freeMiB = 1000) =>
      standbyNode(
        name,
        '0/5000000',
        {},
        {
          control: control({ walSegmentSizeBytes }),
          freeBytes: freeMiB * 2 ** 20,
          walFreeBytes: walFreeMiB * 2 ** 20,
        },
      )
    const lost = unreachableNode('pg1')
    const [full, roomy] = [on('pg2', 0), on('pg3', 36)]

    test('is not chosen, and the reason has the sizes', () => {
      const { candidate, choice } = judge({ survey: [lost, full, roomy] })
      expect(candidate).toBe('pg3')
      expect(choice.verdicts.find(({ node }) => node === 'pg2')).toMatchObject({
        canLead: false,
        reason: '0 MiB are free where its pg_wal is, and 36 MiB are needed',
      })
      expect(judge({ survey: [lost, on('pg2', 35), roomy] }).candidate).toBe('pg3')
      expect(judge({ survey: [lost, on('pg2', 36, 3), roomy] }).candidate).toBe('pg3')
    })

    test('is refused by name, and where there is no other', () => {
      const named = refusalOf({ survey: [lost, full, roomy], node: 'pg2', wish: { allowDataLoss: true } })
      expect(named).toMatchObject({ code: 'disk-full', exitCode: 3, node: 'pg2' })
      expect(named.hint).toContain('replctl promote pg3')
      expect(refusalOf({ survey: [lost, full] })).toMatchObject({ code: 'disk-full', node: 'pg2' })
    })

    test('with more WAL than the others have it is not passed over in silence', () => {
      const ahead = { ...full, instance: { ...full.instance!, receiveLsn: lsn('0/9000000') } }
      const { code, hint } = refusalOf({ survey: [lost, ahead, roomy] })
      expect(code).toBe('standby-ahead')
      expect(hint).toContain('Mend that, then: replctl promote pg2')
    })
  })

  test('one that was told and went down: what helps depends on whether it may have led', () => {
    const survey = [stoppedNode('pg1', '0/1'), stoppedNode('pg2', '0/1'), standbyNode('pg3', '0/1')]
    const hint = (wish: Partial<PromotionWish>, nodes = survey) =>
      refusalOf({ survey: nodes, node: 'pg2', wish }).hint
    expect(hint({ canBeTakenBack: true })).toBe(
      'The best candidate is pg3: replctl promote pg3. To take back what was begun: replctl abort',
    )
    expect(hint({ canBeTakenBack: true }, survey.slice(0, 2))).toBe(
      'No node can be promoted now. Bring a standby back first. To take back what was begun: replctl abort',
    )
    expect(hint({ told: nodeName('pg2') })).toBe(
      'It was told to promote, and may have led: start PostgreSQL on pg2, then: replctl resume. If it is lost for good: replctl promote pg3',
    )
  })

  test('the hint after more WAL elsewhere names the better node and the flag', () => {
    const { detail, hint } = refusalOf({ survey: ahead, node: 'pg2' })
    expect(detail).toBe('pg2 has received 0/5000000. Ahead of it: pg3 by 328 bytes.')
    expect(hint).toContain('replctl promote pg3')
    expect(hint).toContain('--allow-data-loss')
  })

  test('a delayed candidate, and more WAL on one that may not lead: the hint names the wish that is in the way', () => {
    const nodes = { pg2: { delayMs: 3_600_000 }, pg3: { promotable: false } }
    const { code, hint } = refusalOf({ survey: ahead, nodes })
    expect(code).toBe('standby-ahead')
    expect(hint).toBe(
      'pg3 may not lead: take "promotable: false" away from it in /etc/replctl/replctl.yaml, then: replctl promote pg3. To give up what pg2 lacks: --allow-data-loss.',
    )
    // Another one that may lead gets from it what it lacks.
    const survey = [...ahead, standbyNode('pg4', '0/5000100')]
    expect(refusalOf({ survey, nodes, node: 'pg2' }).hint).toContain('replctl promote pg4.')
    expect(judge({ survey, nodes, node: 'pg4' }).reserves).toEqual(['pg2', 'pg3'])
  })

  test('the flag gives up what the candidate lacks, and says how much that is', () => {
    const decision = judge({ survey: ahead, node: 'pg2', wish: { allowDataLoss: true } })
    expect(decision).toMatchObject({ candidate: 'pg2', lostBytes: 328 })
  })

  test('a standby that still streams and lacks little is judged later, when its upstream is fenced', () => {
    const survey = (at: string) => [
      unreachableNode('pg1'),
      standbyNode('pg2', at),
      standbyNode('pg3', '0/5000000'),
    ]
    expect(judge({ survey: survey('0/4000000'), node: 'pg2' }).candidate).toBe('pg2')
    expect(refusalOf({ survey: survey('0/3FFFFFF'), node: 'pg2' }).code).toBe('standby-ahead')
  })

  test('two writers are told with what tells them apart', () => {
    const survey = [alive('pg1'), runningNode('pg2', { timeline: timeline(4), currentLsn: lsn('0/6000000') })]
    const { detail } = refusalOf({ survey })
    expect(detail).toContain('pg1: system identifier 7412345678901234567, timeline 3, at 0/5000148.')
    expect(detail).toContain('pg2: system identifier 7412345678901234567, timeline 4, at 0/6000000.')
  })

  describe('two writers', () => {
    const writer = (name: string, changes: Partial<InstanceFacts>, facts: Partial<NodeFacts> = {}) => ({
      ...runningNode(name, { currentLsn: lsn('0/6000000'), ...changes }),
      ...facts,
    })
    const first = (facts: Partial<NodeFacts> = {}) => writer('pg1', { timeline: timeline(1) }, facts)
    const second = (facts: Partial<NodeFacts> = {}, at = '0/3000148') =>
      writer('pg2', { timeline: timeline(2), history: `1\t${at}\tno recovery target specified\n` }, facts)

    test('are told with the place where they part, as far as it is known', () => {
      const partOf = (...survey: NodeFacts[]) =>
        refusalOf({ survey }).detail?.match(/\S+ and \S+ part .*$/)?.[0]
      expect(partOf(first(), second())).toBe('pg1 and pg2 part on timeline 1, at 0/3000148.')
      const twin = { ...second({}, '0/2000000'), name: nodeName('pg1') }
      expect(partOf(twin, second())).toBe('pg1 and pg2 part on timeline 1, at 0/2000000.')
      expect(partOf(first(), writer('pg2', { timeline: timeline(2) }))).toBeUndefined()
      expect(
        partOf(first(), writer('pg2', { timeline: timeline(2), history: 'no history at all' })),
      ).toBeUndefined()
      expect(partOf(first(), writer('pg2', { timeline: timeline(1) }))).toBeUndefined()
    })

    test('where the record and the higher timeline agree, the command that brings the other one back needs no flag', () => {
      const hint = (primary: string) => {
        const record = recordOf(primary, ['pg1', 'pg2'])
        return refusalOf({ survey: [first({ record }), second({ record })] }).hint
      }
      expect(hint('pg2')).toMatch(/^pg2 has taken over, by the record .*: replctl rejoin pg1$/)
      expect(hint('pg1')).toMatch(/^Decide which of them is right.*replctl rejoin pg1 or replctl rejoin pg2$/)
    })
  })
})

describe('a primary that answers, and lets nobody in', () => {
  const pg2 = standbyNode('pg2', '0/5000148', {}, ledByPg1)

  test.each(['53300', '28000', '3D000'])('is not replaced unasked (SQLSTATE %s)', (state) => {
    const survey = [closedNode('pg1', state), pg2]
    expect(refusalOf({ survey })).toMatchObject({ code: 'primary-alive', node: 'pg1' })
    for (const wish of [{}, { allowDataLoss: true }]) {
      expect(refusalOf({ survey, node: 'pg2', wish }).message).toBe(
        'refused to promote pg2: the primary pg1 answers',
      )
    }
    expect(refusalOf({ survey, wish: { allowSplitBrain: true } })).toMatchObject({ code: 'primary-alive' })
    expect(judge({ survey, node: 'pg2', wish: { allowSplitBrain: true } }).oldPrimaries).toEqual([
      { node: 'pg1', state: 'to-stop' },
    ])
  })

  test.each([
    ['it is shutting down', closedNode('pg1', '57P03')],
    ['its disk is broken', closedNode('pg1', '58030')],
    ['it is frozen', closedNode('pg1', '53300', { postmaster: postmaster({ isFrozen: true }) })],
    ['it says nothing', closedNode('pg1', '53300', { instanceError: new ReplctlError('not-answering', '') })],
  ])('is replaced where %s', (_, pg1) => {
    expect(judge({ survey: [pg1, pg2] }).oldPrimaries).toEqual([{ node: 'pg1', state: 'to-stop' }])
  })

  test('is no primary where pg_control says that it is a standby', () => {
    const state = 'in archive recovery'
    const pg3 = closedNode('pg3', '53300', { control: control({ state }), hasStandbySignal: true })
    expect(judge({ survey: [unreachableNode('pg1'), pg2, pg3] })).toMatchObject({ candidate: 'pg2' })
  })
})

describe('those who cannot be reached, and answer the others', () => {
  const pg2 = standbyNode('pg2', '0/5000148', {}, ledByPg1)
  const off = unreachableNode('pg1')
  const refused = (pg3: NodeFacts, wish: Partial<PromotionWish> = {}) =>
    refusalOf({ survey: [off, pg2, pg3], node: 'pg2', wish })
  const both = { allowSplitBrain: true, allowDataLoss: true }
  const own = pg2.instance?.timeline ?? 0

  test.each([own - 1, own, own + 1])(
    'a bystander that leads on timeline %i: whatever flags are given',
    (id) => {
      for (const wish of [{}, both]) {
        const refusal = refused(heardNode('pg3', { timeline: timeline(id) }), wish)
        expect(refusal).toMatchObject({ code: 'primary-alive', node: 'pg3' })
        expect(refusal.message).toMatch(/pg3 accepts writes/)
        expect(refusal.hint).toMatch(/Restore SSH to 10\.0\.0\.13/)
      }
    },
  )

  test('one that follows a newer timeline: somebody leads there', () => {
    const refusal = refused(heardNode('pg3', { role: 'standby', timeline: timeline(own + 1) }), both)
    expect(refusal).toMatchObject({ code: 'primary-alive', message: /pg3 follows a newer primary/ })
    expect(
      judge({ survey: [off, pg2, heardNode('pg3', { role: 'standby', timeline: timeline(own) })] }),
    ).toMatchObject({ candidate: 'pg2' })
  })

  test('one that does not say whether it leads: that is unknown, which a flag overrides', () => {
    const silent = heardNode('pg3', { role: 'unknown', timeline: null, said: 'sorry, too many clients' })
    expect(refused(silent)).toMatchObject({ code: 'primary-unproven', detail: /sorry, too many clients/ })
    const wish = { allowSplitBrain: true }
    expect(judge({ survey: [off, pg2, silent], node: 'pg2', wish })).toMatchObject({ candidate: 'pg2' })
  })

  test('the old primary itself is fenced, unless the candidate has not seen what it leads', () => {
    const pg3 = standbyNode('pg3', '0/5000148', {}, ledByPg1)
    const decided = judge({ survey: [heardNode('pg1', { timeline: timeline(own) }), pg2, pg3] })
    expect(decided.oldPrimaries).toEqual([{ node: 'pg1', state: 'unreachable' }])
    const newer = heardNode('pg1', { timeline: timeline(own + 2) })
    expect(refusalOf({ survey: [newer, pg2, pg3], wish: both })).toMatchObject({ code: 'primary-alive' })
  })
})

describe('the decision', () => {
  test('without a wish it is the best candidate', () => {
    const survey = [unreachableNode('pg1'), standbyNode('pg2', '0/5000000'), standbyNode('pg3', '0/5000148')]
    expect(judge({ survey })).toMatchObject({ candidate: 'pg3', isAlreadyPrimary: false })
  })

  test('the primary that is asked for leads already', () => {
    const survey = [stoppedNode('pg1', '0/1', { fence: fenceMark('pg2'), control: control() }), alive('pg2')]
    expect(judge({ survey, node: 'pg2' })).toMatchObject({
      isAlreadyPrimary: true,
      oldPrimaries: [{ node: 'pg1', state: 'stopped' }],
      lostBytes: null,
    })
  })

  test('a living primary is stopped first, at the operator’s explicit wish', () => {
    const survey = [alive('pg1'), standbyNode('pg2', '0/5000148')]
    expect(judge({ survey, node: 'pg2', wish: { allowSplitBrain: true } })).toMatchObject({
      candidate: 'pg2',
      oldPrimaries: [{ node: 'pg1', state: 'to-stop' }],
    })
  })
})

describe('who may be a primary beside the candidate', () => {
  const told = (name: string) => standbyNode(name, '0/5000148', fromPg1)
  const silent = (name: string, facts: Partial<NodeFacts>) =>
    emptyNode(name, { ...built, postmaster: postmaster(), ...facts })
  const untold = (name: string, facts: Partial<NodeFacts> = {}) => standbyNode(name, '0/5000148', {}, facts)
  const cases: readonly (readonly [string, Case, readonly string[]])[] = [
    [
      'the old primary cannot be reached',
      { survey: [unreachableNode('pg1'), told('pg2')] },
      ['pg1 unreachable'],
    ],
    [
      'by the record it is pg1: another unreachable node is a bystander',
      { survey: [unreachableNode('pg1'), untold('pg2', ledByPg1), unreachableNode('pg3')] },
      ['pg1 unreachable'],
    ],
    [
      'by the standbys’ settings it is pg1: another unreachable node is a bystander',
      { survey: [unreachableNode('pg1'), told('pg2'), unreachableNode('pg3')] },
      ['pg1 unreachable'],
    ],
    [
      'no record and no settings: every unreachable node is a suspect',
      { survey: [unreachableNode('pg1'), untold('pg2'), unreachableNode('pg3')] },
      ['pg1 unreachable', 'pg3 unreachable'],
    ],
    [
      'the record names the candidate itself: every unreachable node is a suspect',
      {
        survey: [
          unreachableNode('pg1'),
          untold('pg2', { record: recordOf('pg2', all) }),
          unreachableNode('pg3'),
        ],
      },
      ['pg1 unreachable', 'pg3 unreachable'],
    ],
    [
      'the record is older than what is running: every unreachable node is a suspect',
      {
        survey: [
          unreachableNode('pg1'),
          untold('pg2', { record: recordOf('pg1', all, { timeline: 2 }) }),
          unreachableNode('pg3'),
        ],
      },
      ['pg1 unreachable', 'pg3 unreachable'],
    ],
    [
      'beside a candidate that leads, nobody but who led',
      {
        survey: [
          unreachableNode('pg1'),
          { ...alive('pg2'), record: recordOf('pg2', all) },
          unreachableNode('pg3'),
        ],
        node: 'pg2',
      },
      [],
    ],
    [
      'the newest record counts',
      {
        survey: [
          unreachableNode('pg1'),
          untold('pg2', ledByPg1),
          unreachableNode('pg3'),
          untold('pg4', { record: recordOf('pg3', all, { generation: 2 }) }),
        ],
      },
      ['pg3 unreachable'],
    ],
    [
      'record and settings differ: both are suspects',
      {
        survey: [
          unreachableNode('pg1'),
          { ...told('pg2'), record: recordOf('pg3', all) },
          unreachableNode('pg3'),
        ],
      },
      ['pg1 unreachable', 'pg3 unreachable'],
    ],
    [
      'a cascading standby names another standby, which is no suspect',
      {
        survey: [
          unreachableNode('pg1'),
          told('pg2'),
          standbyNode('pg3', '0/5000148', receivesFrom('10.0.0.12')),
          unreachableNode('pg4'),
        ],
      },
      ['pg1 unreachable'],
    ],
    [
      'the lost middle node of a cascade, below which a standby hangs as wished, is no suspect: the record says who led',
      {
        survey: [
          unreachableNode('pg1'),
          told('pg2'),
          standbyNode('pg3', '0/5000148', receivesFrom('10.0.0.14'), ledByPg1),
          unreachableNode('pg4'),
        ],
        nodes: { pg3: { upstream: nodeName('pg4') } },
      },
      ['pg1 unreachable'],
    ],
    ...(
      [
        ['nobody wished it to hang there', {}, ledByPg1],
        ['there is no record', { upstream: nodeName('pg4') }, {}],
        [
          'the record is older than what is running',
          { upstream: nodeName('pg4') },
          { record: recordOf('pg1', all, { timeline: 2 }) },
        ],
        [
          'it is no member',
          { upstream: nodeName('pg4') },
          { record: recordOf('pg1', ['pg1', 'pg2', 'pg3']) },
        ],
        [
          'the record names one that is a standby itself',
          { upstream: nodeName('pg4') },
          { record: recordOf('pg3', all) },
        ],
        ['the record names the candidate', { upstream: nodeName('pg4') }, { record: recordOf('pg2', all) }],
      ] as const
    ).map(([why, pg3Wish, facts]): readonly [string, Case, readonly string[]] => [
      `the node that a standby hangs below is a suspect: ${why}`,
      {
        survey: [
          unreachableNode('pg1'),
          told('pg2'),
          standbyNode('pg3', '0/5000148', receivesFrom('10.0.0.14'), facts),
          unreachableNode('pg4'),
        ],
        nodes: { pg3: pg3Wish },
      },
      ['pg1 unreachable', 'pg4 unreachable'],
    ]),
    [
      'a frozen postmaster is stopped first',
      { survey: [emptyNode('pg1', { ...built, postmaster: postmaster({ isFrozen: true }) }), told('pg2')] },
      ['pg1 to-stop'],
    ],
    ...['in archive recovery', 'shut down in recovery', 'shut down'].map(
      (state): readonly [string, Case, readonly string[]] => [
        `a frozen standby ("${state}") is left alone`,
        { survey: [silent('pg1', { hasStandbySignal: true, control: control({ state }) }), told('pg2')] },
        [],
      ],
    ),
    ...['in production', 'shutting down', 'in crash recovery', null].map(
      (state): readonly [string, Case, readonly string[]] => [
        `a silent instance with a standby signal that is no standby yet (${state}) is stopped first`,
        {
          survey: [
            silent('pg1', {
              hasStandbySignal: true,
              control: state === null ? null : control({ state }),
            }),
            told('pg2'),
          ],
        },
        ['pg1 to-stop'],
      ],
    ),
    [
      'a silent standby that was told to promote is stopped first',
      {
        survey: [
          unreachableNode('pg1'),
          told('pg2'),
          silent('pg3', { hasStandbySignal: true, control: control({ state: 'in archive recovery' }) }),
        ],
        wish: { told: nodeName('pg3') },
      },
      ['pg1 unreachable', 'pg3 to-stop'],
    ],
    [
      'a standby that was told to promote and stopped would do so when it is started',
      {
        survey: [
          unreachableNode('pg1'),
          told('pg2'),
          stoppedNode('pg3', '0/1', { control: control(), hasStandbySignal: true }),
        ],
        wish: { told: nodeName('pg3') },
      },
      ['pg1 unreachable', 'pg3 stopped'],
    ],
    [
      'a stopped former primary must not come up read-write',
      { survey: [stoppedNode('pg1', '0/1', { control: control() }), told('pg2')] },
      ['pg1 stopped'],
    ],
    [
      'a stopped standby is left alone',
      {
        survey: [
          unreachableNode('pg1'),
          told('pg2'),
          stoppedNode('pg3', '0/1', { control: control(), hasStandbySignal: true }),
        ],
      },
      ['pg1 unreachable'],
    ],
    [
      'one that was fenced before stays in the plan',
      {
        survey: [
          unreachableNode('pg1'),
          told('pg2'),
          stoppedNode('pg3', '0/1', { control: control(), hasStandbySignal: true, fence: fenceMark('pg1') }),
        ],
      },
      ['pg1 unreachable', 'pg3 stopped'],
    ],
    [
      'one that led, whose data directory holds no instance, is looked for',
      { survey: [emptyNode('pg1'), standbyNode('pg2', '0/5000148', {}, ledByPg1)] },
      ['pg1 absent'],
    ],
    [
      'what another cluster runs in its place, or a standby, is no primary of this one',
      {
        survey: [
          stray('pg1', { systemIdentifier: foreign }),
          standbyNode('pg2', '0/5000148', {}, ledByPg1),
          stray('pg3', { isInRecovery: true }),
        ],
      },
      ['pg1 absent'],
    ],
    [
      'a node that was never built is no suspect',
      { survey: [unreachableNode('pg1'), told('pg2'), emptyNode('pg3')] },
      ['pg1 unreachable'],
    ],
    [
      'an instance of another cluster is neither stopped nor fenced',
      {
        survey: [
          unreachableNode('pg1'),
          standbyNode('pg2', '0/5000148', fromPg1, ledByPg1),
          runningNode('pg3', { systemIdentifier: foreign, currentLsn: lsn('9/0') }),
          stoppedNode('pg4', '0/1', { control: control({ systemIdentifier: foreign }) }),
        ],
      },
      ['pg1 unreachable'],
    ],
  ]
  test.each(cases)('%s', (_, given, expected) => {
    const { oldPrimaries } = judge({ ...given, node: 'pg2' })
    expect(oldPrimaries.map(({ node, state }) => `${node} ${state}`)).toEqual(expected)
  })
})

describe('confirmed commits that the candidate may lack', () => {
  const one = { mode: 'sync', syncStandbys: 1 } as const
  const any1 = { mode: 'quorum', syncStandbys: 1 } as const
  const any2 = { mode: 'quorum', syncStandbys: 2 } as const
  const first2 = { mode: 'sync', syncStandbys: 2 } as const
  const pg1 = unreachableNode('pg1')
  const pg2 = standbyNode('pg2', '0/5000148', fromPg1, ledByPg1)
  const pg3 = standbyNode('pg3', '0/5000148', fromPg1)
  const pg4 = standbyNode('pg4', '0/5000148', fromPg1)
  const cases: readonly (readonly [string, Case, string | null])[] = [
    [
      'async confirms nothing: the old primary and a standby may be gone',
      { survey: [pg1, pg2, unreachableNode('pg3')] },
      null,
    ],
    ['sync, only the old primary gone', { survey: [pg1, pg2, pg3], replication: one }, null],
    [
      'sync, one of two standbys gone as well',
      { survey: [pg1, pg2, unreachableNode('pg3')], replication: one },
      'pg3',
    ],
    [
      'sync, the other standby is stopped',
      { survey: [pg1, pg2, stoppedNode('pg3', '0/1')], replication: one },
      'pg3',
    ],
    ['quorum 1 of 2, one gone', { survey: [pg1, pg2, unreachableNode('pg3')], replication: any1 }, 'pg3'],
    ['quorum 1 of 2, none gone', { survey: [pg1, pg2, pg3], replication: any1 }, null],
    [
      'quorum 2 of 3, one gone: one of the other two has every commit',
      { survey: [pg1, pg2, pg3, unreachableNode('pg4')], replication: any2 },
      null,
    ],
    [
      'quorum 2 of 3, two gone',
      { survey: [pg1, pg2, unreachableNode('pg3'), unreachableNode('pg4')], replication: any2 },
      'pg3, pg4',
    ],
    [
      'sync 2 of 3, one gone: one of the other two has every commit',
      { survey: [pg1, pg2, pg3, unreachableNode('pg4')], replication: first2 },
      null,
    ],
    [
      'sync 2 of 3, two gone',
      { survey: [pg1, pg2, unreachableNode('pg3'), unreachableNode('pg4')], replication: first2 },
      'pg3, pg4',
    ],
    [
      'quorum 2 with a single standby besides: it alone had confirmed them',
      {
        survey: [pg1, standbyNode('pg2', '0/1', fromPg1, { record: recordOf('pg1', ['pg1', 'pg2']) })],
        replication: any2,
      },
      null,
    ],
    [
      'quorum 2, one direct standby gone: the one that hangs below another never confirmed anything',
      {
        survey: [
          pg1,
          pg2,
          standbyNode('pg3', '0/5000148', receivesFrom('10.0.0.12')),
          unreachableNode('pg4'),
        ],
        replication: any2,
      },
      null,
    ],
    [
      'quorum 2, the only direct standby gone: it alone confirmed',
      {
        survey: [
          pg1,
          standbyNode('pg2', '0/5000148', receivesFrom('10.0.0.14'), ledByPg1),
          standbyNode('pg3', '0/5000148', receivesFrom('10.0.0.12')),
          unreachableNode('pg4'),
        ],
        replication: any2,
      },
      'pg4',
    ],
    [
      'the record says who leads, although no standby does',
      { survey: [pg1, standbyNode('pg2', '0/5000148', {}, ledByPg1), pg3], replication: one },
      null,
    ],
    [
      'nobody says who led: the lost one may have been a standby',
      { survey: [pg1, standbyNode('pg2', '0/1'), standbyNode('pg3', '0/1')], replication: one },
      'pg1',
    ],
    [
      'a node that is no member has confirmed nothing',
      {
        survey: [
          pg1,
          standbyNode('pg2', '0/5000148', fromPg1, { record: recordOf('pg1', ['pg1', 'pg2', 'pg4']) }),
          unreachableNode('pg3'),
          pg4,
        ],
        replication: one,
      },
      null,
    ],
  ]
  test.each(cases)('%s', (_, given, names) => {
    if (names === null) {
      expect(judge({ ...given, node: 'pg2', wish: {} }).candidate).toBe('pg2')
      return
    }
    const error = refusalOf({ ...given, node: 'pg2' })
    expect(error.code).toBe('confirmed-commits-at-risk')
    expect(error.message).toBe(`refused to promote pg2: ${names} may hold confirmed commits that it lacks`)
    expect(judge({ ...given, node: 'pg2', wish: { allowDataLoss: true } }).candidate).toBe('pg2')
  })
})

describe('a standby that is not on the newest history', () => {
  const given = `1\t0/3000000\tno recovery target specified\n2\t0/4000000\tno recovery target specified\n`
  const follower = (name: string, at = '0/6000000') =>
    standbyNode(name, at, { history: given, receiver: null })
  // Fenced when pg2 was promoted, and started since: it stands past the fork, with a larger LSN than anybody.
  const returned = (facts: Partial<NodeFacts> = {}) =>
    standbyNode(
      'pg1',
      '0/7000000',
      { timeline: timeline(2), history: null, receiver: null },
      { fence: fenceMark('pg2', 2), ...facts },
    )
  const lost = unreachableNode('pg2')
  const survey = [returned(), lost, follower('pg3')]

  test('is never chosen, however much it has', () => {
    const { candidate, choice, lostBytes } = judge({ survey })
    expect(candidate).toBe('pg3')
    expect(choice.verdicts.find(({ node }) => node === 'pg1')).toMatchObject({
      canLead: false,
      reason: "it is on timeline 2, past the point where the cluster's history left that",
    })
    expect(lostBytes).toBeNull()
  })

  test('is in nobody’s way', () => {
    expect(judge({ survey, node: 'pg3' }).candidate).toBe('pg3')
  })

  test.each([
    ['replays late on purpose', { delayMs: 3_600_000 }],
    ['must not lead', { promotable: false }],
  ])('is no reserve either, where it %s: nobody can get anything of that history', (_, changes) => {
    const unmarked = standbyNode('pg1', '0/7000000', { timeline: timeline(2), receiver: null })
    const nodes = { pg1: changes }
    expect(judge({ survey: [unmarked, lost, follower('pg3')], nodes }).reserves).toEqual([])
    expect(judge({ survey: [follower('pg1', '0/7000000'), lost, follower('pg3')], nodes }).reserves).toEqual([
      'pg1',
    ])
  })

  test('leads only where all that came after is given up', () => {
    const refusal = refusalOf({ survey, node: 'pg1' })
    expect(refusal).toMatchObject({ code: 'confirmed-commits-at-risk', node: 'pg1' })
    expect(refusal.hint).toBe(
      'The best candidate is pg3: replctl promote pg3. To give up all that was written since: --allow-data-loss.',
    )
    expect(judge({ survey, node: 'pg1', wish: { allowDataLoss: true } }).candidate).toBe('pg1')
  })

  test('was fenced, has followed nobody since, and the others cannot be asked: it does not lead by itself either', () => {
    const alone = [returned(), lost, unreachableNode('pg3')]
    expect(refusalOf({ survey: alone }).code).toBe('no-candidate')
    expect(refusalOf({ survey: alone, node: 'pg1' }).message).toContain('was fenced for pg2 on timeline 2')
  })

  test('a mark that is left on one that has followed counts for nothing', () => {
    const followed = { ...follower('pg1', '0/6000001'), fence: fenceMark('pg2', 2) }
    expect(judge({ survey: [followed, lost, follower('pg3')] }).candidate).toBe('pg1')
  })
})

describe('an operation that had told somebody to promote', () => {
  const wish = { told: nodeName('pg2') }

  test('that cannot be reached now may be a primary', () => {
    const survey = [
      stoppedNode('pg1', '0/1'),
      unreachableNode('pg2'),
      standbyNode('pg3', '0/5000148', fromPg1),
    ]
    expect(judge({ survey, wish }).oldPrimaries).toContainEqual({ node: 'pg2', state: 'unreachable' })
  })

  test('is known by the mark of whom it fenced, until its promotion is on record', () => {
    const pg1 = (record: number) =>
      stoppedNode('pg1', '0/1', {
        fence: fenceMark('pg2', 2),
        control: control(),
        record: recordOf('pg1', all, { timeline: record }),
      })
    const rest = [unreachableNode('pg2'), standbyNode('pg3', '0/5000148', fromPg1)]
    const suspects = (record: number) => judge({ survey: [pg1(record), ...rest] }).oldPrimaries
    expect(suspects(2)).toContainEqual({ node: 'pg2', state: 'unreachable' })
    expect(suspects(3)).toEqual([{ node: 'pg1', state: 'stopped' }])
  })

  test('and is still replaying is not passed over', () => {
    const survey = [
      stoppedNode('pg1', '0/1'),
      standbyNode('pg2', '0/5000148'),
      standbyNode('pg3', '0/5000148'),
    ]
    expect(refusalOf({ survey, node: 'pg3', wish })).toMatchObject({
      code: 'operation-unfinished',
      node: 'pg2',
    })
    expect(judge({ survey, node: 'pg2', wish }).candidate).toBe('pg2')
  })
})

describe('the known gap', () => {
  test('of a primary that was stopped for the promotion is counted anew from where it ended', () => {
    const leader = (left: string) =>
      runningNode('pg2', { timeline: timeline(4), history: `3\t${left}\tpromoted\n` })
    const ended = (changes = {}) => stoppedNode('pg1', '0/1', { control: control(changes) })
    // Its shutdown checkpoint lies at 0/5000000: received whole, all but that record, and 40 bytes short of it.
    expect(gapAfterStop(ended(), leader('0/5000078'))).toBe(0)
    expect(gapAfterStop(ended(), leader('0/5000000'))).toBe(0)
    expect(gapAfterStop(ended(), leader('0/4FFFFD8'))).toBe(40)
    // It was killed, it runs again, or it was on a timeline that the new one does not come from.
    expect(gapAfterStop(ended({ state: 'in production' }), leader('0/5000078'))).toBeNull()
    expect(gapAfterStop(alive('pg1'), leader('0/5000078'))).toBeNull()
    expect(gapAfterStop(ended({ timeline: timeline(2) }), leader('0/5000078'))).toBeNull()
    expect(gapAfterStop(ended(), runningNode('pg2', {}))).toBeNull()
  })

  test('counts what a primary that is to be stopped has written', () => {
    const survey = [alive('pg1'), standbyNode('pg2', '0/5000000', { ...fromPg1, receiver: null })]
    expect(judge({ survey, node: 'pg2', wish: { allowSplitBrain: true } }).lostBytes).toBe(328)
  })

  const heard = (latestEndLsn: string) => {
    const standby = standbyNode('pg2', '0/5000000', fromPg1)
    const receiver = { ...standby.instance!.receiver!, latestEndLsn: lsn(latestEndLsn) }
    return standbyNode('pg2', '0/5000000', { ...fromPg1, receiver })
  }
  const pg2 = standbyNode('pg2', '0/5000000', { ...fromPg1, receiver: null })
  const cases: readonly (readonly [string, readonly NodeFacts[], number | null])[] = [
    ['nobody knows what the old primary had', [unreachableNode('pg1'), pg2], null],
    ['the sender’s last word', [unreachableNode('pg1'), heard('0/5000148')], 328],
    ['it has all that its sender ever told of', [unreachableNode('pg1'), heard('0/5000000')], 0],
    [
      'the shutdown checkpoint of a stopped primary',
      [stoppedNode('pg1', '0/1', { control: control({ checkpointLsn: lsn('0/5000028') }) }), pg2],
      40,
    ],
    [
      'the checkpoint of a stopped standby is not counted',
      [
        unreachableNode('pg1'),
        pg2,
        stoppedNode('pg3', '0/9000000', {
          hasStandbySignal: true,
          control: control({ checkpointLsn: lsn('0/9000000'), state: 'shut down in recovery' }),
        }),
      ],
      null,
    ],
    [
      'that of a former primary which was told to be a standby, and has not been one since, is',
      [unreachableNode('pg1'), pg2, stoppedNode('pg3', '0/9000000', { hasStandbySignal: true })],
      0x4000000,
    ],
    [
      'what another cluster has is not counted',
      [
        unreachableNode('pg1'),
        { ...heard('0/5000010'), ...ledByPg1 },
        stoppedNode('pg3', '0/1', {
          control: control({ systemIdentifier: foreign, checkpointLsn: lsn('99/0') }),
        }),
      ],
      16,
    ],
  ]
  test.each(cases)('%s', (_, survey, bytes) => {
    expect(judge({ survey, node: 'pg2' }).lostBytes).toBe(bytes)
  })
})
