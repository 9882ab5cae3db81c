import { describe, expect, test } from 'vitest'
import type { NodeFacts } from '../../../src/cluster/facts.ts'
import { endedKept, forgetEnded, isOver, operationId } from '../../../src/cluster/unfinished.ts'
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

describe('a node that was away while so many operations ended that the name of its own is forgotten', () => {
  const later = (minutes: number) => new Date(Date.parse(since) + minutes * 60_000).toISOString()
  const ended = Array.from({ length: endedKept }, (_, n) =>
    operationId({ by: 'dba@control', since: later(n + 1) }),
  )
  const away = emptyNode('pg1', { journal })
  const journals = (...others: readonly NodeFacts[]) =>
    forgetEnded([away, ...others]).map((facts) => facts.journal)

  test('has a journal that counts no more', () => {
    expect(journals(emptyNode('pg2', { ended }))).toEqual([null, null])
    expect(isOver(journal, [emptyNode('pg2', { ended })])).toBe(true)
  })

  test('has one that counts where the others, too, hold it: then it never ended', () => {
    expect(journals(emptyNode('pg2', { ended, journal }))).toEqual([journal, journal])
    // An operation that gives way again at its end holds it meanwhile.
    const aside = JSON.stringify({ by: 'dba@control', since: later(50), before: JSON.parse(journal) })
    expect(journals(emptyNode('pg2', { ended, journal: aside }))).toEqual([journal, aside])
  })

  test('has one that counts where not so many ended, or where one of them was begun before it', () => {
    expect(journals(emptyNode('pg2', { ended: ended.slice(1) }))).toEqual([journal, null])
    const older = operationId({ by: 'dba@control', since: later(-1) })
    expect(journals(emptyNode('pg2', { ended: [older, ...ended.slice(1)] }))).toEqual([journal, null])
    expect(journals(emptyNode('pg2', { ended: ['garbage', ...ended.slice(1)] }))).toEqual([journal, null])
  })
})
