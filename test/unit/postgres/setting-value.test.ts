import { expect, test } from 'vitest'
import { isSameSettingValue, settingNumber } from '../../../src/postgres/setting-value.ts'

test.each([
  ['on', 'on', true],
  ['on', 'TRUE', true],
  ['on', '1', true],
  ['off', 'no', true],
  ['on', 'off', false],
  ['256MB', '262144kB', true],
  ['1GB', '1024MB', true],
  ['5min', '300s', true],
  ['1d', '24h', true],
  ['0.5', '.50', true],
  ['-1', '-1', true],
  ['-1', '0', false],
  ['0', '0MB', true],
  [' a, b ', 'a, b', true],
  ['a', 'A', false],
  ['256MB', '256mb', false],
  ['', '0', false],
])('%j and %j are the same: %s', (a, b, isSame) => {
  expect(isSameSettingValue(a, b)).toBe(isSame)
  expect(isSameSettingValue(b, a)).toBe(isSame)
})

test.each([
  ['128MB', '16384', '8kB', true],
  ['4MB', '4096', 'kB', true],
  ['5s', '5000', 'ms', true],
  ['5min', '300', 's', true],
  ['1kB', '1024', 'B', true],
  ['-1', '-1', 'MB', true],
  ['128MB', '128', '8kB', false],
])('%s is %s in units of %s: %s', (a, b, unit, isSame) => {
  expect(isSameSettingValue(a, b, unit)).toBe(isSame)
})

test('text is no number', () => {
  expect(settingNumber('replica')).toBeUndefined()
  expect(settingNumber('')).toBeUndefined()
})
