import { describe, expect, test } from 'vitest'
import { cutToWidth, oneLine, plainText, textWidth } from '../../../src/report/plain-text.ts'

describe('text from a host', () => {
  test.each([
    ['colours', '\x1b[1;31mFATAL\x1b[0m: no', 'FATAL: no'],
    ['a terminal title', '\x1b]0;owned\x07x\x1b]0;owned\x1b\\y', 'xy'],
    ['bells, backspaces and C1 controls', 'a\x07b\x08c\x9bd', 'abcd'],
    ['an escape at the end', 'a\x1b', 'a'],
    ['carriage returns, as line breaks', 'a\r\nb\rc', 'a\nb\nc'],
    ['tabs, as spaces', 'a\tb', 'a b'],
  ])('loses %s', (_name, text, expected) => {
    expect(plainText(text)).toBe(expected)
  })

  test('keeps letters of every script', () => {
    expect(plainText('Größe 大きさ ✓')).toBe('Größe 大きさ ✓')
  })

  test('fits on one line', () => {
    expect(oneLine(' could not\n\tstart \x1b[2J')).toBe('could not start')
  })
})

test.each([
  ['pg1', 3],
  ['Größe', 5],
  ['大きさ', 6],
  ['e\u0301', 1],
  ['🐘', 2],
])('%s takes %d columns', (text, width) => {
  expect(textWidth(text)).toBe(width)
})

test.each([
  ['pg_basebackup', 13, 'pg_basebackup'],
  ['pg_basebackup', 8, 'pg_base…'],
  ['大きさ', 4, '大…'],
  ['ab', 1, '…'],
  ['ab', 0, ''],
])('%s cut to %d columns is %s', (text, width, expected) => {
  expect(cutToWidth(text, width)).toBe(expected)
})
