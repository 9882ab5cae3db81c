import { describe, expect, test } from 'vitest'
import { type Divergence, judgeDivergence, type OwnWal } from '../../../src/cluster/judge-divergence.ts'
import { parseTimelineHistory } from '../../../src/postgres/timeline-history.ts'
import { control, lsn, timeline } from '../some-cluster.ts'

/** The primary is on timeline 3: it left 1 at 0/3000000 and 2 at 0/4000000. */
const primary = parseTimelineHistory('1\t0/3000000\tpromoted\n2\t0/4000000\tpromoted\n', 3)
const on = (id: number, text = '') => parseTimelineHistory(text, id)
const onTwo = on(2, '1\t0/3000000\tpromoted\n')
const onThree = on(3, '1\t0/3000000\tpromoted\n2\t0/4000000\tpromoted\n')

const own = (changes: Partial<OwnWal>): OwnWal => ({
  history: onTwo,
  control: control({
    timeline: timeline(2),
    checkpointLsn: lsn('0/3F00000'),
    minRecoveryEndLsn: null,
    minRecoveryEndTimeline: null,
  }),
  isWriter: false,
  receivedLsn: null,
  lastRecord: 'none',
  endLsn: null,
  isSameBranch: true,
  mayHaveLed: true,
  ...changes,
})
const crashed = control({
  state: 'in production',
  timeline: timeline(2),
  checkpointLsn: lsn('0/3F00000'),
  minRecoveryEndLsn: null,
  minRecoveryEndTimeline: null,
})
const judge = (changes: Partial<OwnWal>): Divergence => judgeDivergence(own(changes), primary)

describe('a member that holds nothing of its own follows', () => {
  test.each<[string, Partial<OwnWal>]>([
    ['a primary that was shut down before the fork', {}],
    ['a primary that crashed, whose last record is before the fork', { control: crashed }],
    ['a standby that received up to the fork', { receivedLsn: lsn('0/4000000'), mayHaveLed: false }],
    ['one on the same branch of the same timeline', { history: onThree }],
    [
      'a standby of this timeline whose beginning is gone',
      { history: onThree, isSameBranch: null, mayHaveLed: false },
    ],
    ['a clean shutdown whose WAL cannot be read', { lastRecord: 'unknown' }],
  ])('%s', (_, changes) => {
    expect(judge(changes)).toMatchObject({ is: 'none' })
  })
})

describe('a member that holds WAL of its own has diverged, and the fork is known', () => {
  const twoAt4 = { is: 'diverged', timeline: 2, forkLsn: '0/4000000', isTwinTimeline: false }
  test.each<[string, Partial<OwnWal>, object]>([
    [
      'a crashed primary with a record after the fork, however early its checkpoint',
      { control: crashed, lastRecord: lsn('0/4000100'), endLsn: lsn('0/4000140') },
      { ...twoAt4, ownBytes: 0x140 },
    ],
    [
      'a shutdown checkpoint that begins at the fork itself lies after it',
      { control: control({ timeline: timeline(2), checkpointLsn: lsn('0/4000000') }) },
      twoAt4,
    ],
    ['a standby that received past it', { receivedLsn: lsn('0/4000028') }, { ...twoAt4, ownBytes: 0x28 }],
    [
      'a stopped standby that replayed past it',
      {
        control: control({
          state: 'shut down in recovery',
          timeline: timeline(2),
          checkpointLsn: lsn('0/3F00000'),
          minRecoveryEndLsn: lsn('0/4000030'),
          minRecoveryEndTimeline: timeline(2),
        }),
      },
      twoAt4,
    ],
    ['one that accepts writes now', { isWriter: true }, twoAt4],
    ['a crash whose WAL cannot be read', { control: crashed, lastRecord: 'unknown' }, twoAt4],
    [
      'a branch of its own: it was promoted elsewhere',
      { history: on(2, '1\t0/2F00000\tpromoted\n') },
      { is: 'diverged', timeline: 1, forkLsn: '0/2F00000', isTwinTimeline: false },
    ],
    [
      'a later timeline that the primary never had',
      { history: on(4, '1\t0/3000000\tp\n2\t0/4000000\tp\n3\t0/5000000\tp\n') },
      { is: 'diverged', timeline: 3, forkLsn: '0/5000000' },
    ],
    [
      'the same number on another branch',
      { history: onThree, isSameBranch: false },
      { is: 'diverged', timeline: 2, forkLsn: '0/4000000', isTwinTimeline: true },
    ],
    [
      'a former primary on the same number, of which nobody can say which branch it is',
      { history: onThree, isSameBranch: null },
      { is: 'diverged', isTwinTimeline: true },
    ],
    [
      'an ancestor’s number on another branch',
      { isSameBranch: false },
      { is: 'diverged', timeline: 1, forkLsn: '0/3000000', isTwinTimeline: true },
    ],
  ])('%s', (_, changes, expected) => {
    expect(judge(changes)).toMatchObject(expected)
  })
})
