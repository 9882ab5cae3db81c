import { expect, test } from 'vitest'
import { type Journal, newestJournal, parseJournal } from '../../../src/engine/journal.ts'

const journal = (changes: Partial<Journal> = {}): Journal => ({
  version: 1,
  command: 'promote',
  wish: { node: 'pg2' },
  by: 'dba@control',
  since: '2026-03-01T12:00:00.000Z',
  isPastPointOfNoReturn: false,
  begun: ['pg1: stop'],
  ...changes,
})
const newest = (...journals: readonly Partial<Journal>[]) =>
  newestJournal(journals.map((changes) => JSON.stringify(journal(changes))))

test('a journal is read as it was written', () => {
  expect(parseJournal(JSON.stringify(journal()))).toEqual(journal())
})

test.each([
  '',
  'not JSON',
  'null',
  '[]',
  '{}',
  '{"version":2,"command":"promote","begun":[]}',
  '{"version":1}',
  '{"version":1,"command":"promote","begun":"a"}',
  '{"version":1,"command":"pro',
])('what cannot be one of ours is none: %s', (text) => {
  expect(parseJournal(text)).toBeNull()
})

test('of several nodes’ journals the newest operation counts', () => {
  const older = { since: '2026-03-01T11:59:59.999Z', isPastPointOfNoReturn: true, begun: ['a', 'b', 'c'] }
  expect(newest(older, { command: 'verify' })?.command).toBe('verify')
  expect(newest({ command: 'verify' }, older)?.command).toBe('verify')
})

test('of one operation’s journals the one that crossed the point of no return, then the longest', () => {
  expect(newest({ begun: ['a', 'b', 'c'] }, { isPastPointOfNoReturn: true })?.isPastPointOfNoReturn).toBe(
    true,
  )
  expect(newest({ begun: ['a'] }, { begun: ['a', 'b'] }, { begun: [] })?.begun).toEqual(['a', 'b'])
})

test('what cannot be read is passed over', () => {
  expect(newestJournal(['', 'garbage', JSON.stringify(journal())])).toEqual(journal())
  expect(newestJournal([])).toBeNull()
})
