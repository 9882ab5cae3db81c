import { type DoctorCheck, hasFailed } from '../cluster/doctor-check.ts'
import type { Problem } from '../cluster/problem.ts'
import type { Paint } from './paint.ts'
import { oneLine } from './plain-text.ts'
import { problemsText } from './problems.ts'
import { columns } from './table.ts'

/** One line of `result.checks` of `doctor`. */
export interface DoctorLine {
  readonly node: string
  readonly check: string
  /** False where a problem of severity error came of it. */
  readonly ok: boolean
  readonly detail: string
}

/** `result` of `doctor`. */
export function doctorJson(checks: readonly DoctorCheck[]): { readonly checks: readonly DoctorLine[] } {
  return {
    checks: checks.map((one) => ({
      node: one.node,
      check: one.check,
      ok: !hasFailed(one),
      detail: one.detail,
    })),
  }
}

/** A tick list for each node, then what is wrong and how to mend it. */
export function doctorText(
  checks: readonly DoctorCheck[],
  problems: readonly Problem[],
  paint: Paint,
): string {
  const nodes = [...new Set(checks.map((one) => one.node))]
  const lists = nodes.map((node) => {
    const rows = checks.filter((one) => one.node === node).map((one) => row(one, paint))
    return `${paint.name(node)}\n${columns(rows)}`
  })
  const what = problems.length === 0 ? [] : [problemsText(problems, paint)]
  return [...lists, ...what, verdict(problems, paint)].join('\n')
}

function row(check: DoctorCheck, paint: Paint): string[] {
  const detail = oneLine(check.detail)
  if (check.problem === null) return [`  ${paint.good('✓')}`, check.check, detail]
  return hasFailed(check)
    ? [`  ${paint.bad('✗')}`, check.check, paint.bad(detail)]
    : [`  ${paint.warn('!')}`, check.check, paint.warn(detail)]
}

function verdict(problems: readonly Problem[], paint: Paint): string {
  const errors = problems.filter((problem) => problem.severity === 'error').length
  if (errors > 0)
    return `${paint.bad(`${errors} ${errors === 1 ? 'problem is' : 'problems are'} in the way.`)}\n`
  const warnings = problems.length === 0 ? '' : ' The warnings are in nobody’s way.'
  return `${paint.good('Nothing is in the way.')}${warnings}\n`
}
