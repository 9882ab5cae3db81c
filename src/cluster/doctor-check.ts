import type { ReplctlError } from '../errors.ts'

/** One precondition, tried. */
export interface DoctorCheck {
  readonly node: string
  /** e.g. `ssh`, `disk`, `reach pg1`. */
  readonly check: string
  /** What was seen. */
  readonly detail: string
  readonly problem: ReplctlError | null
  /** Of the problem; a warning is in nobody's way. */
  readonly severity: 'error' | 'warning'
}

/** Makes the checks of one node. */
export function checksOf(node: string) {
  const make = (
    check: string,
    detail: string,
    problem: ReplctlError | null,
    severity: DoctorCheck['severity'],
  ) => ({
    ...{ node, check, detail, problem, severity },
  })
  return {
    fine: (check: string, detail: string): DoctorCheck => make(check, detail, null, 'error'),
    bad: (check: string, problem: ReplctlError, detail = problem.message): DoctorCheck =>
      make(check, detail, problem, 'error'),
    doubtful: (check: string, problem: ReplctlError, detail = problem.message): DoctorCheck =>
      make(check, detail, problem, 'warning'),
  }
}

/** Whether it would be in the way. */
export const hasFailed = ({ problem, severity }: DoctorCheck): boolean =>
  problem !== null && severity === 'error'
