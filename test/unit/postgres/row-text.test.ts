import { expect, test } from 'vitest'
import { jsonFromWire, literalFromWire } from '../../../src/postgres/row-text.ts'

const hex = (...parts: readonly (string | readonly number[])[]) =>
  Buffer.concat(parts.map((part) => Buffer.from(part as never))).toString('hex')

test.each([
  ['{"id":1,"v":"grün"}', '{"id":1,"v":"grün"}'],
  [hex('{"v":"grün"}'), '{"v":"grün"}'],
  [hex('{"v":"caf', [0xe9], 'a"}'), '{"v":"caf\\udce9a"}'],
  [hex('{"v":"', [0xc3], '"}'), '{"v":"\\udcc3"}'],
  [hex('{"v":"', [0xed, 0xb2, 0x80], '€"}'), '{"v":"\\udced\\udcb2\\udc80€"}'],
])('the JSON of a row: %s', (wire, json) => {
  expect(jsonFromWire(wire)).toBe(json)
  expect(() => JSON.parse(jsonFromWire(wire))).not.toThrow()
})

test.each([
  ["'12'", "'12'"],
  ['NULL', 'NULL'],
  ["E'C:\\\\x'", "E'C:\\\\x'"],
  [hex('NULL'), 'NULL'],
  [hex("'it''s grün'"), "'it''s grün'"],
  [hex("'caf", [0xe9], "a'"), "E'caf\\xe9a'"],
  [hex("E'b\\\\", [0xff], "'"), "E'b\\\\\\xff'"],
  [hex("'", [0xf0, 0x9f, 0x98], "'"), "E'\\xf0\\x9f\\x98'"],
])('a literal: %s', (wire, literal) => {
  expect(literalFromWire(wire)).toBe(literal)
})
