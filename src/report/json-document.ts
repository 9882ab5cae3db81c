import type { Problem } from '../cluster/problem.ts'

/** What every command says with --json. */
export interface JsonDocument {
  /** As typed, e.g. `init primary`. */
  readonly command: string
  /** Null when the inventory could not be read. */
  readonly cluster: string | null
  readonly exitCode: number
  readonly changed: boolean
  readonly elapsedMs: number
  readonly result: object | null
  readonly problems: readonly Problem[]
}

/** Exactly one JSON document on exactly one line. */
export function jsonDocument(document: JsonDocument): string {
  const { command, cluster, exitCode, changed, elapsedMs, result, problems } = document
  return `${JSON.stringify(
    {
      command,
      cluster,
      ok: exitCode === 0,
      exit_code: exitCode,
      changed,
      elapsed_ms: Math.round(elapsedMs),
      result,
      problems: problems.map(jsonProblem),
    },
    // A bigint would make JSON.stringify throw, and there would be no document at all.
    (_key, value: unknown) => (typeof value === 'bigint' ? String(value) : value),
  )}\n`
}

function jsonProblem({ code, severity, node, message, detail, hint }: Problem): object {
  return { code, severity, node, message, ...(detail === undefined ? {} : { detail }), hint }
}
