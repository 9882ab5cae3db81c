import { expect, test } from 'vitest'
import type { StepReport } from '../../../src/engine/events.ts'
import { createPaint } from '../../../src/report/paint.ts'
import { planText } from '../../../src/report/plan.ts'

const plain = createPaint(0)
const step = (n: number, node: string, title: string, state: StepReport['state']) => ({
  n,
  node,
  title,
  state,
  ms: 3,
})

test('a plan lists every step and what it would do', () => {
  const steps = [
    step(1, 'pg1', 'have the role "replicator"', 'satisfied'),
    step(2, 'pg2-long', 'take a base backup from pg1', 'planned'),
    step(3, 'pg2-long', 'start PostgreSQL', 'planned'),
  ]
  expect(planText(steps, plain)).toBe(
    `1  pg1       have the role "replicator"   already so
2  pg2-long  take a base backup from pg1  planned
3  pg2-long  start PostgreSQL             planned
2 steps to do, 1 already so. Nothing was changed.
`,
  )
})

test('numbers of a long plan stand below each other', () => {
  const steps = Array.from({ length: 10 }, (_, index) => step(index + 1, 'pg1', 'look', 'satisfied'))
  const lines = planText(steps, plain).split('\n')
  expect(lines[0]).toBe(' 1  pg1  look  already so')
  expect(lines.slice(9)).toEqual([
    '10  pg1  look  already so',
    'Nothing to do: everything is already so.',
    '',
  ])
})

test('a plan that is refused says where', () => {
  expect(planText([step(1, 'pg1', 'require a free port', 'failed')], plain)).toBe(
    '1  pg1  require a free port  refused\nThe run would be refused here. Nothing was changed.\n',
  )
})

test('a plan without steps has nothing to do', () => {
  expect(planText([], plain)).toBe('Nothing to do: everything is already so.\n')
})
