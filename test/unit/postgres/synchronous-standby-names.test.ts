import { expect, test } from 'vitest'
import { synchronousStandbyNames } from '../../../src/postgres/synchronous-standby-names.ts'

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
