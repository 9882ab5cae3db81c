import { expect, test } from 'vitest'
import type { NodeMark, RejoinMark } from '../../../src/cluster/facts.ts'
import { rejoinToTell, rejoinUnderWay } from '../../../src/cluster/rejoin-under-way.ts'
import { comeBackHint } from '../../../src/cluster/way-back.ts'
import { control, emptyNode, fenceMark, runningNode } from '../some-cluster.ts'

const clone = { method: 'reclone', phase: 'recloning', aside: '/data.replctl-before-x' } as RejoinMark
const rewind = { method: 'rewind', phase: 'rewound', aside: null } as unknown as RejoinMark
const mark = (phase: NodeMark['phase'], inode = '7') => ({ phase, inode }) as NodeMark
const node = (rejoin: RejoinMark, built: NodeMark | null) =>
  emptyNode('pg1', { dataDirectoryState: 'instance', dataDirectoryInode: '7', rejoin, mark: built })

test.each<[string, RejoinMark, NodeMark | null, boolean]>([
  ['a clone that is being copied', clone, mark('cloning'), true],
  ['a clone that was never marked', clone, null, true],
  ['a copy that does not stream yet', clone, mark('cloned'), true],
  ['the mark is of the directory that was set aside', clone, mark('done', '6'), true],
  ['a clone that somebody has built', clone, mark('done'), false],
  ['a rewind: the directory is the one that was built once', rewind, mark('done'), true],
  ['a rewind of this very directory', { ...rewind, inode: '7' }, mark('done'), true],
  ['a rewind of a directory that is there no more', { ...rewind, inode: '6' }, mark('done'), false],
])('%s', (_, rejoin, built, isUnderWay) => {
  expect(rejoinUnderWay(node(rejoin, built)) !== null).toBe(isUnderWay)
})

test.each<[string, RejoinMark, NodeMark | null, boolean]>([
  ['a rewind that goes on', { ...rewind, inode: '7' }, mark('done'), false],
  ['a rewind whose directory is whole again', { ...rewind, phase: 'whole', inode: '7' }, mark('done'), true],
  [
    'that of a directory that is there no more',
    { ...rewind, phase: 'whole', inode: '6' },
    mark('done'),
    false,
  ],
  ['a clone that goes on', clone, mark('cloning'), false],
  ['a clone that was built', clone, mark('done'), true],
  ['a clone whose old directory goes', { ...clone, phase: 'whole', aside: null, inode: '7' }, null, true],
])('what was discarded is still to be told: %s', (_, rejoin, built, isToTell) => {
  expect(rejoinToTell(node(rejoin, built)) !== null).toBe(isToTell)
  if (isToTell) expect(rejoinUnderWay(node(rejoin, built))).toBeNull()
})

test('what brings such a node back is the rejoin, as long as it is under way', () => {
  const leads = runningNode('pg2', {})
  const fenced = (built: NodeMark | null) => ({
    ...node(clone, built),
    ...{ fence: fenceMark('pg2'), control: control() },
  })
  expect(comeBackHint(fenced(mark('cloning')), leads)).toContain('replctl rejoin pg1')
  expect(comeBackHint({ ...fenced(null), control: null }, leads)).toContain('replctl rejoin pg1')
})
