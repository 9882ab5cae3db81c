import { expect, test } from 'vitest'
import { hasGotOn, parseRecoveryState, standstill } from '../../../src/postgres/recovery-state.ts'

const log = 'LOG:  entering standby mode\nLOG:  redo starts at 0/2000028\n'
const state = (work: string, text = log) => parseRecoveryState(`${work}${text}`)

test('a recovery that waits for WAL which is not there stands still, however often it wakes up', () => {
  const before = state('at work 12 163840 no\n')
  expect(before).toEqual({ log, work: { ticks: 12, bytes: 163840, waitsForDisk: false } })
  expect(hasGotOn(before, state('at work 14 263840 no\n'))).toBe(false)
  expect(hasGotOn(state(''), state(''))).toBe(false)
  const waits = 'LOG:  waiting for WAL to become available at 0/3000018\n'
  expect(hasGotOn(state('', log), state('', `${log}${waits}`))).toBe(false)
  expect(hasGotOn(state('', `${log}${waits}`), state('', `${log}${waits}${waits}`))).toBe(false)
})

test.each([
  ['uses the processor', 'at work 40 163840 no\n', log],
  ['reads', 'at work 12 8163840 no\n', log],
  ['waits for a disk', 'at work 12 163840 yes\n', log],
  ['says something', 'at work 12 163840 no\n', `${log}LOG:  consistent\n`],
])('one that %s gets on', (_, work, text) => {
  expect(hasGotOn(state('at work 12 163840 no\n'), state(work, text))).toBe(true)
})

test('why it stands still is told by its log', () => {
  expect(standstill(log)).toContain('ends before its data is consistent')
  expect(standstill(`${log}LOG:  consistent recovery state reached at 0/3000000`)).toContain('takes no reads')
})
