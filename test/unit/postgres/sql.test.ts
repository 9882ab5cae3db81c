import { expect, test } from 'vitest'
import { quoteIdentifier, quoteLiteral } from '../../../src/postgres/sql.ts'

test.each([
  ['', "''"],
  ["it's", "'it''s'"],
  ['a\\b', " E'a\\\\b'"],
  ["\\'", " E'\\\\'''"],
  ['Grüße\n', "'Grüße\n'"],
])('the literal %j', (text, quoted) => {
  expect(quoteLiteral(text)).toBe(quoted)
})

test.each([
  ['order', '"order"'],
  ['a"b', '"a""b"'],
  ['a\\b', '"a\\b"'],
])('the name %j', (name, quoted) => {
  expect(quoteIdentifier(name)).toBe(quoted)
})

test('NUL and the empty name are refused', () => {
  expect(() => quoteLiteral('a\0')).toThrow(RangeError)
  expect(() => quoteIdentifier('a\0')).toThrow(RangeError)
  expect(() => quoteIdentifier('')).toThrow(RangeError)
})
