import { expect, test } from 'vitest'
import { wrapHelp } from '../../../src/cli/wrap-help.ts'

test('what goes on from a line of a list begins where its text began', () => {
  const list =
    '  none    it is there\n  follow  it holds nothing that the primary lacks: it is started\nThe end.'
  expect(wrapHelp(list, 44)).toBe(
    `  none    it is there
  follow  it holds nothing that the primary
          lacks: it is started
The end.`,
  )
})

test('a word that is longer than a line stays whole, and empty lines stay empty', () => {
  const path = `/${'a'.repeat(60)}`
  expect(wrapHelp(`It lies in ${path}\n\nfor good`, 40)).toBe(`It lies in\n${path}\n\nfor good`)
})

test('less than 40 columns is no width to break into', () => {
  expect(wrapHelp('one two '.repeat(10).trim(), 20)).toBe('one two '.repeat(10).trim())
})
