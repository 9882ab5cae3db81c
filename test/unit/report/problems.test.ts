import { describe, expect, test } from 'vitest'
import type { Problem } from '../../../src/cluster/problem.ts'
import { ReplctlError } from '../../../src/errors.ts'
import { createPaint } from '../../../src/report/paint.ts'
import { errorText, problemsText, warningText } from '../../../src/report/problems.ts'

const plain = createPaint(0)

describe('an error', () => {
  test('says what happened, why, where, and what to do', () => {
    const error = new ReplctlError('slot-missing', 'could not create replication slot "db2" on db1', {
      detail:
        'All 10 slots are in use (max_replication_slots is 10). Slot "old3" is inactive and holds back 48 GiB of WAL.',
      hint: 'Drop "old3" if its standby is gone: SELECT pg_drop_replication_slot(\'old3\'). Nothing was changed; run this command again.',
      node: 'db1',
      step: 'have the replication slot "db2" for db2',
    })
    expect(errorText(error, plain)).toBe(
      `error: could not create replication slot "db2" on db1
step: have the replication slot "db2" for db2 (on db1)
detail: All 10 slots are in use (max_replication_slots is 10). Slot "old3" is inactive and holds
  back 48 GiB of WAL.
hint: Drop "old3" if its standby is gone: SELECT pg_drop_replication_slot('old3'). Nothing was
  changed; run this command again.
`,
    )
  })

  test('that has nothing but a message is one line', () => {
    expect(errorText(new ReplctlError('usage', 'unknown command "promot"'), plain)).toBe(
      'error: unknown command "promot"\n',
    )
  })

  test.each([
    ['pg1 is fenced', 'pg1', undefined, null],
    ['could not reach pg1.', 'pg1', undefined, null],
    ['could not reach pg10', 'pg1', undefined, 'node: pg1'],
    ['no byte came', 'pg2', 'take a base backup', 'step: take a base backup (on pg2)'],
    ['"take a base backup" did not take effect on pg2', 'pg2', 'take a base backup', null],
    ['no byte came', undefined, 'take a base backup', 'step: take a base backup'],
  ])('"%s" of %s, %s names the place: %s', (message, node, step, expected) => {
    const lines = errorText(new ReplctlError('timeout', message, { node, step }), plain).split('\n')
    expect(lines[1]).toBe(expected ?? '')
  })

  test('does not carry control characters of a host to the terminal', () => {
    const error = new ReplctlError('start-failed', 'could not start', {
      detail: '\x1b[2JFATAL:\tno\r\nLOG: end\n',
    })
    expect(errorText(error, plain)).toBe('error: could not start\ndetail: FATAL: no\n  LOG: end\n')
  })

  test('is red where colours are wanted, and says the same', () => {
    const error = new ReplctlError('timeout', 'waited in vain', { hint: 'Look again.' })
    expect(errorText(error, createPaint(1))).toBe(
      '\x1b[31merror:\x1b[39m \x1b[1mwaited in vain\x1b[22m\nhint: Look again.\n',
    )
  })
})

test('a warning says that it is one', () => {
  const error = new ReplctlError('hook-failed', 'the hook failed', { detail: 'Exit status 1.' })
  expect(warningText(error, plain)).toBe('warning: the hook failed\ndetail: Exit status 1.\n')
})

test('problems are separated by an empty line', () => {
  const problems: Problem[] = [
    { code: 'no-primary', severity: 'error', node: null, message: 'no node accepts writes', hint: null },
    {
      code: 'lag-too-high',
      severity: 'warning',
      node: 'pg3',
      message: 'replay is behind',
      detail: 'By 20 MiB.',
      hint: 'Wait.',
    },
  ]
  expect(problemsText(problems, plain)).toBe(
    `error: no node accepts writes

warning: replay is behind
node: pg3
detail: By 20 MiB.
hint: Wait.
`,
  )
})

test('no problem is no text', () => {
  expect(problemsText([], plain)).toBe('')
})
