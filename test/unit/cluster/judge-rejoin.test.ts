import { describe, expect, test } from 'vitest'
import type { NodeFacts, RejoinMark } from '../../../src/cluster/facts.ts'
import type { Divergence } from '../../../src/cluster/judge-divergence.ts'
import {
  judgeRejoin,
  judgeRejoinPrimary,
  methodTold,
  type RejoinFacts,
} from '../../../src/cluster/judge-rejoin.ts'
import { nodeName } from '../../../src/cluster/names.ts'
import { ReplctlError } from '../../../src/errors.ts'
import {
  control,
  emptyNode,
  fenceMark,
  foreign,
  lsn,
  observed,
  recordOf,
  runningNode,
  setting,
  standbyNode,
  stoppedNode,
  timeline,
  unreachableNode,
} from '../some-cluster.ts'

describe('who leads', () => {
  const old = runningNode('pg1', { timeline: timeline(2) })
  const record = { record: recordOf('pg2', ['pg1', 'pg2']) }
  const newer = runningNode('pg2', { timeline: timeline(3) }, record)
  const judge = (survey: readonly NodeFacts[]) =>
    judgeRejoinPrimary(observed(survey).topology, nodeName('pg1'))

  test('the one node that accepts writes', () => {
    expect(judge([stoppedNode('pg1', '0/4000000'), newer])).toBe('pg2')
  })
  test('a second writer comes back where the record and a higher timeline say that the other took over', () => {
    expect(judge([old, newer])).toBe('pg2')
  })
  test.each<[string, readonly NodeFacts[], string]>([
    [
      'the record says otherwise',
      [old, runningNode('pg2', { timeline: timeline(3) }, { record: recordOf('pg1', []) })],
      'two-writers',
    ],
    ['there is no record', [old, runningNode('pg2', { timeline: timeline(3) })], 'two-writers'],
    [
      'the other one is on an earlier timeline',
      [old, runningNode('pg2', { timeline: timeline(1) }, record)],
      'two-writers',
    ],
    [
      'two others accept writes',
      [stoppedNode('pg1', '0/4000000'), newer, runningNode('pg3', {})],
      'two-writers',
    ],
    ['it is the only writer', [old, standbyNode('pg2', '0/4000000')], 'primary-alive'],
    [
      'nobody accepts writes',
      [stoppedNode('pg1', '0/4000000'), standbyNode('pg2', '0/4000000')],
      'no-primary',
    ],
    [
      'the one that led cannot be reached',
      [stoppedNode('pg1', '0/4', record), unreachableNode('pg2')],
      'host-unreachable',
    ],
    ['there is nothing on it', [emptyNode('pg1'), newer], 'node-not-built'],
    [
      'it belongs to another cluster',
      [
        emptyNode('pg1', { dataDirectoryState: 'instance', control: control({ systemIdentifier: foreign }) }),
        newer,
      ],
      'foreign-cluster',
    ],
  ])('refused where %s', (_, survey, code) => {
    expect(() => judge(survey)).toThrow(expect.objectContaining({ code }))
  })
})

describe('the ladder', () => {
  const settings = { full_page_writes: setting('on') }
  const primary = runningNode('pg2', { settings })
  const node = emptyNode('pg1', {
    dataDirectoryState: 'instance',
    dataMajor: 15,
    control: control({
      ...{ dataChecksums: true, walLogHints: false, minRecoveryEndTimeline: null },
      timeline: timeline(2),
    }),
  })
  const none: Divergence = { is: 'none', forkLsn: lsn('0/4000000'), because: 'x' }
  const diverged: Divergence = {
    ...{ is: 'diverged', timeline: timeline(2), forkLsn: lsn('0/4000000'), ownBytes: 100 },
    ...{ isTwinTimeline: false, because: 'it wrote on' },
  }
  const mark: RejoinMark = {
    ...{
      method: 'rewind',
      source: 'pg2',
      timeline: 3,
      phase: 'rewinding',
      bootId: 'b1',
      forkLsn: '0/4000000',
    },
    ...{ aside: null, walDirectory: null, isRedundant: true, at: '2026-03-01T12:00:00Z' },
  }
  const facts = (changes: Partial<RejoinFacts>): RejoinFacts => ({
    ...{ node, primary, divergence: diverged, walKeptFrom: lsn('0/3000000'), needsWalFrom: lsn('0/3F00000') },
    ...{
      hasArchive: false,
      missingSegment: null,
      lacksCheckpointFrom: null,
      hasRewindProgram: true,
      bootId: 'b1',
    },
    ...changes,
  })
  const judge = (changes: Partial<RejoinFacts>, isReclone = false) =>
    judgeRejoin(facts(changes), { isReclone })
  const begun = (changes: Partial<RejoinMark> = {}) => ({
    node: { ...node, rejoin: { ...mark, ...changes } },
  })
  const withoutChecksums = {
    ...node,
    control: control({ dataChecksums: false, walLogHints: false, timeline: timeline(2) }),
  }
  const ended = {
    node: {
      ...node,
      dataDirectoryInode: '7',
      rejoin: { ...mark, method: 'reclone', phase: 'recloning', aside: '/data.replctl-before-x' } as const,
      mark: {
        ...{ cluster: 'shop', node: 'pg1', dataDirectory: '/data', systemIdentifier: '' },
        ...{ inode: '7', phase: 'done' as const },
      },
    },
  }
  const sameNumber = { ...node, control: control({ timeline: timeline(3) }) }

  test.each<[string, Partial<RejoinFacts>, string, boolean]>([
    ['not diverged: it follows', { divergence: none }, 'follow', false],
    [
      'its WAL is gone from the primary: cloned anew',
      { divergence: none, walKeptFrom: lsn('0/4000000') },
      'reclone',
      false,
    ],
    [
      'gone there, but there is an archive: it follows',
      { divergence: none, walKeptFrom: lsn('0/4000000'), hasArchive: true },
      'follow',
      false,
    ],
    [
      'gone from the archive, too: cloned anew',
      {
        ...{ divergence: none, walKeptFrom: lsn('0/4000000'), hasArchive: true },
        missingSegment: '000000020000000000000003',
      },
      'reclone',
      false,
    ],
    ['diverged: rewound', {}, 'rewind', true],
    ['neither checksums nor hints: cloned anew', { node: withoutChecksums }, 'reclone', true],
    [
      'full_page_writes off on the source: cloned anew',
      { primary: runningNode('pg2', { settings: { full_page_writes: setting('off') } }) },
      'reclone',
      true,
    ],
    [
      'no checkpoint before the fork in its own WAL: cloned anew',
      { lacksCheckpointFrom: lsn('0/3000000') },
      'reclone',
      true,
    ],
    [
      'not where the archive may have that WAL',
      { lacksCheckpointFrom: lsn('0/3000000'), hasArchive: true },
      'rewind',
      true,
    ],
    ['no pg_rewind: cloned anew', { hasRewindProgram: false }, 'reclone', true],
    [
      'its own timeline has the number of the primary’s: pg_rewind would do nothing',
      { node: sameNumber },
      'reclone',
      true,
    ],
    ['a twin timeline: cloned anew', { divergence: { ...diverged, isTwinTimeline: true } }, 'reclone', true],
    ['the WAL after the fork is gone: cloned anew', { walKeptFrom: lsn('0/4000028') }, 'reclone', true],
    [
      'not where the archive may have it',
      { walKeptFrom: lsn('0/4000028'), hasArchive: true },
      'rewind',
      true,
    ],
    [
      'but where it says that it has not',
      { walKeptFrom: lsn('0/4000028'), hasArchive: true, missingSegment: '000000030000000000000004' },
      'reclone',
      true,
    ],
    ['nothing whole is there: cloned anew', { divergence: null }, 'reclone', false],
    ['a rewind goes on', begun(), 'rewind', false],
    [
      'a rewind that ended goes on, whoever leads now',
      begun({ phase: 'rewound', timeline: 2 }),
      'rewind',
      false,
    ],
    ['not from another source', begun({ source: 'pg3' }), 'reclone', false],
    ['not from another timeline', begun({ timeline: 2 }), 'reclone', false],
    ['not after a reboot of the host', { ...begun(), bootId: 'b2' }, 'reclone', false],
    ['a clone goes on', begun({ method: 'reclone', phase: 'recloning' }), 'reclone', false],
    ['not a clone that somebody has ended: what diverged since is saved', ended, 'rewind', true],
    [
      'not a rewind of a directory that another one took the place of',
      { node: { ...node, dataDirectoryInode: '8', rejoin: { ...mark, inode: '7' } } },
      'rewind',
      true,
    ],
  ])('%s', (_, changes, method, isToBeSalvaged) => {
    expect(judge(changes)).toMatchObject({ method, isToBeSalvaged })
  })

  describe('a rewind that was interrupted behind what it discarded', () => {
    const whole = {
      node: { ...node, dataDirectoryInode: '7', rejoin: { ...mark, inode: '7', phase: 'whole' } },
    }
    const interrupted = whole as Partial<RejoinFacts>

    test('follows, and is told as the rewind that it was', () => {
      const decision = judge({ ...interrupted, divergence: none })
      expect(decision).toMatchObject({
        method: 'follow',
        isContinued: false,
        untold: { forkLsn: '0/4000000' },
      })
      expect(methodTold(decision)).toBe('rewind')
    })
    test('is told with the clone where the WAL that it needs is gone meanwhile', () => {
      const decision = judge({ ...interrupted, divergence: none, walKeptFrom: lsn('0/4000000') })
      expect(decision).toMatchObject({ method: 'reclone', untold: { forkLsn: '0/4000000' } })
      expect(methodTold(decision)).toBe('reclone')
    })
    test('led since: what is its own now is saved anew', () => {
      expect(judge(interrupted)).toMatchObject({ method: 'rewind', isToBeSalvaged: true, untold: null })
    })
    test('goes on to be told while it goes on', () => {
      expect(judge(begun({ phase: 'rewound' })).untold).toMatchObject({ forkLsn: '0/4000000' })
    })
  })

  test('every rung has its reason, with the setting that is missing', () => {
    expect(judge({ node: withoutChecksums }).reasons).toEqual([
      'Cannot follow: it wrote on.',
      'Cannot be rewound: neither data checksums nor wal_log_hints are on.',
    ])
  })
  test('so has WAL that neither the primary nor the archive has', () => {
    const missingSegment = '000000020000000000000003'
    const gone = { divergence: none, walKeptFrom: lsn('0/4000000'), hasArchive: true, missingSegment }
    expect(judge(gone).reasons).toEqual([
      'Not diverged: x.',
      'Cannot follow: the WAL from 0/3F00000 on is gone (pg2 has it from 0/4000000 on), and the archive does not have 000000020000000000000003.',
    ])
  })
  test('a clone that nobody asked for says what pg_rewind said', () => {
    const decision = judgeRejoin(facts({}), { isReclone: true, refusal: 'It said: no.' })
    expect(decision).toMatchObject({ method: 'reclone' })
    expect(decision.reasons.at(-1)).toBe('Cannot be rewound, as it was tried: It said: no.')
  })
  test('a clone that was built is gone back behind where that is asked for', () => {
    expect(judgeRejoin(facts(ended), { isReclone: false, isTakenBack: true })).toMatchObject({
      ...{ method: 'reclone', isContinued: true },
    })
  })
  test('the operator may want a clone where less would do', () => {
    expect(judge({ divergence: none }, true)).toMatchObject({ method: 'reclone', isToBeSalvaged: false })
    expect(judge({}, true)).toMatchObject({ method: 'reclone', isToBeSalvaged: true })
  })
})

test('where nobody leads it is told what to do: what stopped part-way comes first, and one that is fenced is not to be started', () => {
  const hint = (old: Partial<NodeFacts>) => {
    const record = recordOf('pg1', ['pg1', 'pg2'])
    const survey = [
      stoppedNode('pg1', '0/4000000', { record, ...old }),
      standbyNode('pg2', '0/4000000', {}, { record }),
    ]
    try {
      judgeRejoinPrimary(observed(survey).topology, nodeName('pg2'))
    } catch (thrown) {
      return thrown instanceof ReplctlError ? thrown.hint : undefined
    }
    return undefined
  }
  expect(hint({})).toMatch(/^Start pg1 if it is the primary/)
  expect(hint({ fence: fenceMark('pg2') })).toBe('Have another node lead: replctl promote')
  expect(hint({ fence: fenceMark('pg2'), journal: '{}' })).toMatch(
    /^An operation stopped part-way: "replctl resume"/,
  )
})
