import { describe, expect, test } from 'vitest'
import { colorLevel, createPaint } from '../../../src/report/paint.ts'

describe('whether to colour', () => {
  test.each([
    ['a terminal is coloured', true, {}, false, 1],
    ['a pipe is not', false, {}, false, 0],
    ['--no-color beats FORCE_COLOR', true, { FORCE_COLOR: '1' }, true, 0],
    ['NO_COLOR beats FORCE_COLOR', true, { NO_COLOR: '1', FORCE_COLOR: '1' }, false, 0],
    ['an empty NO_COLOR says nothing', true, { NO_COLOR: '' }, false, 1],
    ['FORCE_COLOR colours a pipe', false, { FORCE_COLOR: '1' }, false, 1],
    ['FORCE_COLOR=0 turns a terminal off', true, { FORCE_COLOR: '0' }, false, 0],
    ['an empty FORCE_COLOR says nothing', false, { FORCE_COLOR: '' }, false, 0],
    ['CLICOLOR_FORCE colours a pipe', false, { CLICOLOR_FORCE: '1' }, false, 1],
    ['CLICOLOR_FORCE=0 says nothing', true, { CLICOLOR_FORCE: '0' }, false, 1],
    ['FORCE_COLOR beats TERM=dumb', true, { TERM: 'dumb', FORCE_COLOR: '1' }, false, 1],
    ['a dumb terminal is not coloured', true, { TERM: 'dumb' }, false, 0],
  ])('%s', (_name, isTerminal, env, noColorFlag, expected) => {
    expect(colorLevel({ isTerminal, env, noColorFlag })).toBe(expected)
  })
})

test('level 0 leaves the text alone, whatever the surroundings say', () => {
  const paint = createPaint(0)
  expect([paint.good, paint.bad, paint.warn, paint.dim, paint.strong, paint.name].map((f) => f('x'))).toEqual(
    Array(6).fill('x'),
  )
})

test('level 1 colours by meaning', () => {
  const paint = createPaint(1)
  expect(paint.good('x')).toBe('\x1b[32mx\x1b[39m')
  expect(paint.bad('x')).toBe('\x1b[31mx\x1b[39m')
  expect(paint.warn('x')).toBe('\x1b[33mx\x1b[39m')
})
