import { ReplctlError } from '../errors.ts'

/** Keys and list indexes from the top of the file, e.g. `['nodes', 'pg2', 'host']`. */
export type YamlPath = readonly PropertyKey[]

/** Where something stands in a file, counted from 1. */
export interface Position {
  readonly line: number
  readonly column: number
}

/** Something wrong in the inventory. */
export interface InventoryProblem {
  /** What it is about; shown before the message as `nodes.pg2`. */
  readonly path: YamlPath
  /** Where to point: at the key that ends `path`, at its value, at another key's path, or at a place in the text. */
  readonly at: 'key' | 'value' | { readonly key: YamlPath } | Position
  readonly message: string
  readonly hint?: string | undefined
}

/** A problem with its place in the text. */
export interface LocatedProblem {
  readonly position: Position
  readonly path: YamlPath
  readonly message: string
  readonly hint?: string | undefined
}

/**
 * One error for all problems of a file, in the file's order: the first is the message, all of them the detail.
 * e.g. `replctl.yaml:12:5: nodes.pg2: unknown key "hots"`
 */
export function inventoryInvalid(file: string, problems: readonly LocatedProblem[]): ReplctlError {
  const sorted = problems.toSorted(
    (a, b) =>
      a.position.line - b.position.line ||
      a.position.column - b.position.column ||
      // Of two at one place, the one that we know a remedy for explains more.
      Number(b.hint !== undefined) - Number(a.hint !== undefined),
  )
  const lines = sorted.map((problem) => formatProblem(file, problem))
  const first = sorted[0]
  if (!first || !lines[0]) throw new RangeError('an inventory without problems is not invalid')
  return new ReplctlError('inventory-invalid', lines[0], {
    detail: sorted.length > 1 ? `${sorted.length} problems:\n${listProblems(lines, sorted)}` : undefined,
    hint: first.hint,
  })
}

function listProblems(lines: readonly string[], problems: readonly LocatedProblem[]): string {
  return lines.map((line, index) => [line, problems[index]?.hint].filter(Boolean).join('. ')).join('\n')
}

function formatProblem(file: string, { position, path, message }: LocatedProblem): string {
  const place = `${file}:${position.line}:${position.column}`
  return path.length > 0 ? `${place}: ${formatPath(path)}: ${message}` : `${place}: ${message}`
}

/** `nodes.pg2.hba[0]` */
function formatPath(path: YamlPath): string {
  return path
    .map((part, index) => (typeof part === 'number' ? `[${part}]` : `${index > 0 ? '.' : ''}${String(part)}`))
    .join('')
}
