import { expect, test } from 'vitest'
import { wrap } from '../../../src/report/wrap.ts'

const narrow = { width: 30, indent: '  ' }

test('breaks at spaces, and indents what follows', () => {
  expect(wrap('All 10 slots are in use on pg1, and none of them is inactive.', narrow)).toBe(
    ['All 10 slots are in use on', '  pg1, and none of them is', '  inactive.'].join('\n'),
  )
})

test('keeps line breaks of the text itself', () => {
  expect(wrap('one\ntwo', narrow)).toBe('one\n  two')
})

test('leaves a word alone that is too long', () => {
  const path = `/var/lib/${'x'.repeat(40)}`
  expect(wrap(`Look into ${path} there.`, narrow)).toBe(`Look into\n  ${path}\n  there.`)
})

test('keeps a number and its unit together', () => {
  expect(wrap('An inactive slot holds back 48 GiB of WAL.', narrow)).toBe(
    'An inactive slot holds back\n  48 GiB of WAL.',
  )
})

test.each([
  ['a command', 'Clone it again: replctl add-standby pg3 --reclone'],
  ['a quoted command', 'Then run this one: "replctl add-standby pg3 --reclone"'],
  ['a statement', 'Resume it there now: SELECT pg_wal_replay_resume( );'],
])('never breaks %s', (_name, text) => {
  const [first = '', ...rest] = wrap(text, narrow).split('\n  ')
  expect(rest).toHaveLength(1)
  expect(`${first} ${rest[0]}`).toBe(text)
  expect(rest[0]).toMatch(/^(replctl|"replctl|SELECT)/)
})
