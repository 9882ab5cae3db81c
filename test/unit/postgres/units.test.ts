import { describe, expect, test } from 'vitest'
import { parseDuration, parseSize } from '../../../src/postgres/units.ts'

describe('a duration', () => {
  test.each([
    ['500ms', 500],
    ['5s', 5000],
    ['5 s', 5000],
    ['2min', 120_000],
    ['1h', 3_600_000],
    ['1d', 86_400_000],
    ['1h30min', 5_400_000],
    ['1h 30min', 5_400_000],
    ['1.5h', 5_400_000],
    ['2500us', 3],
    ['100us', 1],
    ['0', 0],
    ['0s', 0],
    [' 5s ', 5000],
  ])('%j is %d ms', (text, expected) => {
    expect(parseDuration(text)).toBe(expected)
  })

  test.each([
    '',
    '5',
    '5m',
    '5S',
    's',
    '-5s',
    '5s-',
    '1h30',
    '5 minutes',
    'toString',
    '5constructor',
    '1e3s',
  ])('%j is refused', (text) => {
    expect(() => parseDuration(text)).toThrow(RangeError)
  })

  test('a plain number counts what the caller says', () => {
    expect(parseDuration('5', 's')).toBe(5000)
    expect(parseDuration('0.5', 'min')).toBe(30_000)
    expect(parseDuration('5ms', 's')).toBe(5)
  })

  test('the error names the forms that are accepted', () => {
    expect(() => parseDuration('5m')).toThrow(
      'not a duration: "5m"; write it like 500ms, 5s, 2min, 1h30min or 1d',
    )
  })
})

describe('a size', () => {
  test.each([
    ['512B', 512],
    ['64kB', 65_536],
    ['16MB', 16_777_216],
    ['16 MB', 16_777_216],
    ['1.5GB', 1_610_612_736],
    ['1TB', 1_099_511_627_776],
    ['0', 0],
  ])('%j is %d bytes', (text, expected) => {
    expect(parseSize(text)).toBe(expected)
  })

  test.each(['', '16', '16mb', '16KB', '16 M', '-1', '1PB', '99999999TB', 'MB'])('%j is refused', (text) => {
    expect(() => parseSize(text)).toThrow(RangeError)
  })
})
