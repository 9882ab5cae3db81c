import type { ErrorCode, ReplctlError } from '../errors.ts'

/** One line of `problems`: something that is not what it should be, and what to do about it. */
export interface Problem {
  readonly code: ErrorCode
  readonly severity: 'error' | 'warning'
  readonly node: string | null
  readonly message: string
  readonly detail?: string
  readonly hint: string | null
}

/** The problem that an error describes. */
export function problemOf(error: ReplctlError, severity: Problem['severity'] = 'error'): Problem {
  return {
    code: error.code,
    severity,
    node: error.node ?? null,
    message: error.message,
    ...(error.detail === undefined ? {} : { detail: error.detail }),
    hint: error.hint ?? null,
  }
}
