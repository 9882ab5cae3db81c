import { expect, test } from 'vitest'
import {
  parseSynchronousStandbyNames,
  synchronousStandbyNames,
} from '../../../src/postgres/synchronous-standby-names.ts'

test.each([
  ['async', 1, ['a', 'b'], ''],
  ['sync', 1, [], ''],
  ['sync', 1, ['shop_pg2', 'shop_pg3'], 'FIRST 1 ("shop_pg2", "shop_pg3")'],
  ['quorum', 2, ['a', 'b', 'c'], 'ANY 2 ("a", "b", "c")'],
  ['quorum', 3, ['a', 'b'], 'ANY 2 ("a", "b")'],
  ['sync', 0, ['a'], 'FIRST 1 ("a")'],
  ['sync', 1, ['we"ird', 'Capital-name'], 'FIRST 1 ("we""ird", "Capital-name")'],
] as const)('%s, %i of %j', (mode, count, names, value) => {
  expect(synchronousStandbyNames({ mode, count, names })).toBe(value)
})

test.each([
  ['', null],
  ['  ', null],
  ['FIRST 1 ("shop_pg2", "shop_pg3")', 'FIRST', 1, ['shop_pg2', 'shop_pg3']],
  ['ANY 2 ("a b", "we""ird", Plain)', 'ANY', 2, ['a b', 'we"ird', 'plain']],
  ['any 1(a,b)', 'ANY', 1, ['a', 'b']],
  ['2 (a, b, c)', 'FIRST', 2, ['a', 'b', 'c']],
  ['a, "First"', 'FIRST', 1, ['a', 'First']],
  ['any', 'FIRST', 1, ['any']],
  ['*', 'FIRST', 1, ['*']],
] as const)('%j is read as the server reads it', (value, ...parts) => {
  const [method, count, names] = parts
  expect(parseSynchronousStandbyNames(value)).toEqual(method === null ? null : { method, count, names })
})
