import { expect, test } from 'vitest'
import { forgetEnded, operationId } from '../../../src/cluster/unfinished.ts'
import { emptyNode } from '../some-cluster.ts'

const since = '2026-03-01T12:00:00.000Z'
const journal = JSON.stringify({ version: 1, command: 'promote', by: 'dba@control', since })

test('a node that was away when an operation ended still has its journal, which counts no more', () => {
  const ended = [operationId({ by: 'dba@control', since })]
  const survey = forgetEnded([emptyNode('pg1', { journal }), emptyNode('pg2', { ended })])
  expect(survey.map((facts) => facts.journal)).toEqual([null, null])
})

test('another operation’s journal, and what is no journal at all, stay', () => {
  const ended = [operationId({ by: 'eve@control', since })]
  const survey = forgetEnded([
    emptyNode('pg1', { journal, ended }),
    emptyNode('pg2', { journal: '{"version":1,' }),
    emptyNode('pg3', { journal: 'null' }),
  ])
  expect(survey.map((facts) => facts.journal)).toEqual([journal, '{"version":1,', 'null'])
})
