import { expect, test } from 'vitest'
import { runKind } from '../../../src/cli/main.ts'

test.each([
  ['status', 'status'],
  ['-c /etc/x.yaml promote pg2 --yes', 'promote'],
  ['promote --dry-run', 'promote --dry-run'],
  ['backup list', 'backup list'],
  // What only tells about a command is none of its runs.
  ['complete -- promote pg', 'complete'],
  ['complete -- pro', 'complete'],
  ['promote -h', 'help'],
  ['help promote', 'help'],
  ['promote --help', 'help'],
  // There is no end to what is not known.
  ['frobnicate', ''],
  ['--version', ''],
])('%s is a run of the kind "%s"', (line, kind) => {
  expect(runKind(line.split(' '))).toBe(kind)
})
