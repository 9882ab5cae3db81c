import { expect, test } from 'vitest'
import type { NodeFacts, NodeMark } from '../../../src/cluster/facts.ts'
import {
  clusterIdentifier,
  commonRecord,
  identifierOf,
  isForeign,
  nextGeneration,
} from '../../../src/cluster/record.ts'
import {
  control,
  emptyNode,
  foreign,
  ours,
  recordOf,
  runningNode,
  standbyNode,
  unreachableNode,
} from '../some-cluster.ts'

const mark = (systemIdentifier: string): NodeMark => ({
  cluster: 'shop',
  node: 'pg2',
  dataDirectory: '/data',
  systemIdentifier,
  inode: '1',
  phase: 'done',
})

test('the newest record counts, wherever it lies', () => {
  const survey = [
    emptyNode('pg1', { record: recordOf('pg1', ['pg1'], { generation: 3 }) }),
    unreachableNode('pg2'),
    emptyNode('pg3', { record: recordOf('pg3', ['pg3'], { generation: 4 }) }),
  ]
  expect(commonRecord(survey)?.primary).toBe('pg3')
  expect(commonRecord([unreachableNode('pg1')])).toBeNull()
})

test('the record of a new cluster wins over every one that an earlier cluster left behind', () => {
  const left = emptyNode('pg2', {
    record: recordOf('pg2', ['pg1', 'pg2'], { systemIdentifier: foreign, generation: 5 }),
  })
  expect(nextGeneration([emptyNode('pg1'), left], undefined)).toBe(6)
  const own = recordOf('pg1', ['pg1'], { generation: 6 })
  const survey = [emptyNode('pg1', { record: own }), left]
  // Begun anew where the old one lay, it is another cluster; found again, it is the same.
  expect(nextGeneration(survey, undefined)).toBe(7)
  expect(nextGeneration(survey, ours)).toBe(6)
  expect(clusterIdentifier(survey)).toBe(ours)
  expect(nextGeneration([emptyNode('pg1')], undefined)).toBe(1)
})

test('the running instance says who it is, else pg_control, else our mark', () => {
  const cases: readonly (readonly [NodeFacts, string | undefined])[] = [
    [runningNode('pg1', {}, { control: control({ systemIdentifier: '2' }), mark: mark('3') }), ours],
    [emptyNode('pg1', { control: control({ systemIdentifier: '2' }), mark: mark('3') }), '2'],
    [emptyNode('pg1', { mark: mark('3') }), '3'],
    [emptyNode('pg1', { mark: mark('') }), undefined],
    [emptyNode('pg1'), undefined],
  ]
  for (const [facts, expected] of cases) expect(identifierOf(facts)).toBe(expected)
})

test('the cluster is what the record says, else what most nodes are', () => {
  const stranger = (name: string) => standbyNode(name, '0/1', { systemIdentifier: foreign })
  const recorded = emptyNode('pg4', { record: recordOf('pg1', ['pg1']) })
  expect(clusterIdentifier([stranger('pg1'), stranger('pg2'), recorded])).toBe(ours)
  expect(clusterIdentifier([stranger('pg1'), standbyNode('pg2', '0/1'), runningNode('pg3', {})])).toBe(ours)
  expect(clusterIdentifier([emptyNode('pg1'), unreachableNode('pg2')])).toBeNull()
  // Written before the data directory had an identifier.
  const early = emptyNode('pg1', { record: recordOf('pg1', ['pg1'], { systemIdentifier: '' }) })
  expect(clusterIdentifier([early, standbyNode('pg2', '0/1')])).toBe(ours)
})

test('only what is known to be another cluster is foreign', () => {
  const survey = [
    runningNode('pg1', {}),
    standbyNode('pg2', '0/1'),
    emptyNode('pg3', { control: control({ systemIdentifier: foreign }) }),
    emptyNode('pg4'),
    unreachableNode('pg5'),
  ]
  expect(survey.map((facts) => isForeign(facts, survey))).toEqual([false, false, true, false, false])
  expect(isForeign(emptyNode('pg1'), [])).toBe(false)
})
