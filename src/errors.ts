/** Exit codes of the command line, as the public contract names them. */
export const exitCodes = {
  ok: 0,
  internal: 1,
  usage: 2,
  refused: 3,
  unreachable: 4,
  undone: 5,
  partial: 6,
  timeout: 7,
  locked: 8,
  unhealthy: 9,
  interrupted: 130,
  terminated: 143,
} as const

/**
 * Every error replctl raises, with the exit code it has while nothing has been changed.
 * Once a step was applied the engine turns it into 5 (undone) or 6 (stopped part-way).
 */
export const errorTable = {
  'internal-error': exitCodes.internal,
  usage: exitCodes.usage,
  'inventory-invalid': exitCodes.usage,
  'inventory-missing': exitCodes.usage,
  'inventory-exists': exitCodes.refused,
  'unknown-node': exitCodes.usage,
  'template-invalid': exitCodes.usage,
  'password-invalid': exitCodes.usage,
  'confirmation-needed': exitCodes.refused,
  'host-unreachable': exitCodes.unreachable,
  'host-key-changed': exitCodes.unreachable,
  'host-key-unknown': exitCodes.unreachable,
  'host-key-revoked': exitCodes.unreachable,
  'auth-refused': exitCodes.unreachable,
  'sudo-refused': exitCodes.unreachable,
  'connection-lost': exitCodes.unreachable,
  'remote-command-failed': exitCodes.refused,
  'sql-failed': exitCodes.refused,
  'not-answering': exitCodes.refused,
  'primary-alive': exitCodes.refused,
  'primary-unproven': exitCodes.refused,
  'no-primary': exitCodes.refused,
  'two-writers': exitCodes.refused,
  'no-candidate': exitCodes.refused,
  'standby-ahead': exitCodes.refused,
  'confirmed-commits-at-risk': exitCodes.refused,
  'not-promotable': exitCodes.refused,
  'method-not-available': exitCodes.refused,
  'not-a-standby': exitCodes.refused,
  'not-a-primary': exitCodes.refused,
  'not-streaming': exitCodes.refused,
  'wrong-upstream': exitCodes.refused,
  'wrong-timeline': exitCodes.refused,
  'replay-paused': exitCodes.refused,
  'lag-too-high': exitCodes.refused,
  'foreign-data-directory': exitCodes.refused,
  'foreign-cluster': exitCodes.refused,
  'data-directory-in-use': exitCodes.refused,
  'data-directory-kept': exitCodes.ok,
  'old-data-not-kept': exitCodes.ok,
  'instance-stopped': exitCodes.refused,
  'port-in-use': exitCodes.refused,
  'version-mismatch': exitCodes.refused,
  'minor-version-older': exitCodes.refused,
  'binaries-missing': exitCodes.refused,
  'control-data-unreadable': exitCodes.refused,
  'disk-full': exitCodes.refused,
  'settings-too-low': exitCodes.refused,
  'setting-overridden': exitCodes.refused,
  'restart-needed': exitCodes.ok,
  'replication-login-failed': exitCodes.refused,
  'tablespace-unmapped': exitCodes.refused,
  'base-backup-failed': exitCodes.refused,
  'no-archive': exitCodes.usage,
  'no-backup': exitCodes.refused,
  'backup-damaged': exitCodes.unhealthy,
  'backup-too-old': exitCodes.unhealthy,
  'wal-gap': exitCodes.unhealthy,
  'incremental-unavailable': exitCodes.refused,
  'target-invalid': exitCodes.usage,
  'target-unreachable': exitCodes.refused,
  'target-too-early': exitCodes.refused,
  'wal-missing': exitCodes.refused,
  'restore-failed': exitCodes.refused,
  'start-failed': exitCodes.refused,
  'stop-failed': exitCodes.refused,
  'slot-lost': exitCodes.refused,
  'wal-removed': exitCodes.refused,
  'slot-missing': exitCodes.refused,
  'slot-left-over': exitCodes.refused,
  'foreign-slot': exitCodes.refused,
  'foreign-role': exitCodes.refused,
  'orphan-standby': exitCodes.refused,
  'node-not-built': exitCodes.refused,
  'node-diverged': exitCodes.refused,
  'node-fenced': exitCodes.refused,
  'archive-failing': exitCodes.refused,
  'archive-conflict': exitCodes.refused,
  'archive-damaged': exitCodes.refused,
  'archive-gap': exitCodes.refused,
  'archive-leftovers': exitCodes.refused,
  'archive-unattended': exitCodes.refused,
  'backup-needs-wal': exitCodes.refused,
  'writes-blocked': exitCodes.refused,
  'subscribers-blocked': exitCodes.refused,
  'durability-reduced': exitCodes.refused,
  'rewind-unavailable': exitCodes.refused,
  'rewind-failed': exitCodes.refused,
  'salvage-incomplete': exitCodes.refused,
  'salvage-untold': exitCodes.ok,
  'start-guard-missing': exitCodes.refused,
  'clock-skew': exitCodes.refused,
  'locale-missing': exitCodes.refused,
  'operation-unfinished': exitCodes.refused,
  'nothing-to-resume': exitCodes.refused,
  'cannot-abort': exitCodes.refused,
  'lock-lost': exitCodes.unreachable,
  'hook-failed': exitCodes.ok,
  'report-not-written': exitCodes.ok,
  'long-transactions': exitCodes.ok,
  'prepared-transactions': exitCodes.ok,
  'logical-slots-stay': exitCodes.ok,
  'sandbox-unavailable': exitCodes.refused,
  locked: exitCodes.locked,
  timeout: exitCodes.timeout,
  interrupted: exitCodes.interrupted,
} as const

/** Stable, kebab-case name of an error, as it appears in `problems[].code`. */
export type ErrorCode = keyof typeof errorTable

export interface ErrorDetails {
  /** Why, with the values seen. Full sentences. */
  readonly detail?: string | undefined
  /** What to do next, a command if there is one. Full sentences. */
  readonly hint?: string | undefined
  /** Name of the node in the inventory. */
  readonly node?: string | undefined
  /** Title of the step that failed. */
  readonly step?: string | undefined
  /** Whether the same call may work if it is tried again. */
  readonly retryable?: boolean | undefined
  readonly cause?: unknown
}

/** The one error class: what happened (`message`), why (`detail`), and what to do next (`hint`). */
export class ReplctlError extends Error {
  readonly code: ErrorCode
  readonly detail: string | undefined
  readonly hint: string | undefined
  readonly node: string | undefined
  readonly step: string | undefined
  readonly retryable: boolean

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, { cause: details.cause })
    this.name = 'ReplctlError'
    this.code = code
    this.detail = details.detail
    this.hint = details.hint
    this.node = details.node
    this.step = details.step
    this.retryable = details.retryable ?? false
  }

  /** Exit code of this error while nothing has been changed. */
  get exitCode(): number {
    return errorTable[this.code]
  }

  /** The same error with some of its details replaced, e.g. the node added. */
  with(details: ErrorDetails): ReplctlError {
    return new ReplctlError(this.code, this.message, {
      detail: this.detail,
      hint: this.hint,
      node: this.node,
      step: this.step,
      retryable: this.retryable,
      cause: this.cause,
      ...details,
    })
  }
}

/** Turns anything thrown into a ReplctlError; what is not one becomes `internal-error`. */
export function asReplctlError(thrown: unknown): ReplctlError {
  if (thrown instanceof ReplctlError) return thrown
  const message = thrown instanceof Error ? thrown.message : String(thrown)
  return new ReplctlError('internal-error', `internal error: ${message}`, {
    detail: thrown instanceof Error ? thrown.stack : undefined,
    hint: 'This is a fault of replctl. Run it again with --verbose and report what it prints.',
    cause: thrown,
  })
}
