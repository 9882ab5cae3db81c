import { expect } from 'vitest'
import type { ReplctlResult } from './replctl.ts'

/**
 * Expects that a plan (`--dry-run --json`) said what its run then did: the same steps in the same order on the same nodes, to be
 * done those that were applied, and no others. The plan itself changed nothing.
 */
export function expectPlanToBeRun(planned: ReplctlResult, done: ReplctlResult): void {
  expect([planned.exitCode, planned.json?.changed], planned.stderr).toEqual([0, false])
  expect(linesOf(done)).toEqual(linesOf(planned).map((line) => line.replace(/: planned$/, ': applied')))
  // A run that says it changed something applied a step, and the other way round.
  const isApplied = linesOf(done).some((line) => line.endsWith(': applied'))
  expect([done.json?.changed, done.stderr]).toEqual([isApplied, done.stderr])
}

/** e.g. `7 pg1: start PostgreSQL: planned` */
const linesOf = ({ json }: ReplctlResult): string[] =>
  json.result.steps.map(
    (step: Record<string, unknown>) => `${step.n} ${step.node}: ${step.title}: ${step.state}`,
  )
