import { expect, test } from 'vitest'
import type { Problem } from '../../../src/cluster/problem.ts'
import { annotations, wantsAnnotations } from '../../../src/report/github.ts'

const problems: Problem[] = [
  {
    code: 'lag-too-high',
    severity: 'warning',
    node: 'pg2',
    message: 'lag is 80% of the limit',
    detail: 'Line one.\r\nLine two: ::error::no',
    hint: 'Wait.',
  },
  { code: 'no-primary', severity: 'error', node: null, message: 'no node accepts writes', hint: null },
]

test('a problem is a line of its own, whatever is in it', () => {
  expect(annotations(problems)).toBe(
    `::warning title=lag-too-high on pg2::lag is 80%25 of the limit%0ALine one.%0ALine two: ::error::no%0AWait.
::error title=no-primary::no node accepts writes
`,
  )
})

test('the file is named, its colons and commas escaped', () => {
  expect(annotations(problems.slice(1), 'a,b:c/100%.yaml')).toBe(
    '::error file=a%2Cb%3Ac/100%25.yaml,title=no-primary::no node accepts writes\n',
  )
})

test('there are none without problems', () => {
  expect(annotations([])).toBe('')
})

test.each([
  [{ GITHUB_ACTIONS: 'true' }, false, true],
  [{ GITHUB_ACTIONS: 'true' }, true, false],
  [{ GITHUB_ACTIONS: '' }, false, false],
  [{}, false, false],
])('surroundings %j with --json %j want them: %j', (env, isJson, expected) => {
  expect(wantsAnnotations(env, isJson)).toBe(expected)
})
