import type * as z from 'zod'
import { didYouMean, nearestWord } from '../cluster/nearest-word.ts'
import type { InventoryProblem, YamlPath } from './inventory-problem.ts'
import { keysAllowedAt, sectionsWithKey } from './schema.ts'

type Issue = z.core.$ZodIssue

/** What was checked, and how each number in it was written: 1.10 is 1.1 to YAML. */
interface Checked {
  readonly root: unknown
  sourceOf(path: YamlPath): string | undefined
}

/** Puts what zod found into words: one or more problems for each issue. `root` is the value that was checked. */
export function describeIssues(
  issues: readonly Issue[],
  root: unknown,
  sourceOf: Checked['sourceOf'],
): InventoryProblem[] {
  const problems = issues.flatMap((issue) => describeIssue(issue, { root, sourceOf }))
  // `hots: …` is one mistake, not an unknown key and a missing one.
  const explained = new Set(problems.flatMap(({ path, meant }) => (meant ? [pathKey([...path, meant])] : [])))
  return problems.filter(({ path, missing }) => !(missing && explained.has(pathKey([...path, missing]))))
}

interface DescribedIssue extends InventoryProblem {
  /** The key that an unknown one was probably meant to be. */
  readonly meant?: string | undefined
  /** The key that is missing in the map at `path`. */
  readonly missing?: string
}

function describeIssue(issue: Issue, checked: Checked): DescribedIssue[] {
  const { path } = issue
  const value = valueAt(checked.root, path)
  switch (issue.code) {
    case 'unrecognized_keys':
      return issue.keys.map((key) => describeUnknownKey(path, key))
    case 'invalid_key':
      return [
        {
          path: path.slice(0, -1),
          at: { key: path },
          message: issue.issues[0]?.message ?? issue.message,
          hint: nameHint(path),
        },
      ]
    case 'invalid_union':
      return describeUnion(issue, checked)
    case 'custom':
      return [{ path, at: 'value', message: issue.message, hint: hintIn(issue.params) }]
    default:
      return [
        value === undefined
          ? describeMissing(path)
          : { path, at: 'value', ...describeValue(issue, value, writtenAt(checked, path, value)) },
      ]
  }
}

function describeUnknownKey(path: YamlPath, key: string): DescribedIssue {
  const common = { path, at: { key: [...path, key] }, message: `unknown key "${key}"` }
  const allowed = keysAllowedAt(path)
  const homes = sectionsWithKey(key).filter((section) => path.length === 0 || allowed.includes(section))
  if (homes.length > 0) {
    return { ...common, hint: `It belongs under ${homes.map((home) => `"${home}"`).join(' or ')}.` }
  }
  const meant = nearestWord(key, allowed)
  if (meant !== undefined) return { ...common, meant, hint: `Did you mean "${meant}"?` }
  return { ...common, hint: `Known here: ${allowed.join(', ')}.` }
}

function describeMissing(path: YamlPath): DescribedIssue {
  const parent = path.slice(0, -1)
  const missing = String(path.at(-1))
  return { path: parent, at: 'key', message: `missing key "${missing}"`, missing }
}

/** Of the alternatives it takes the one that was meant: a map whose keys are wrong, rather than not a map at all. */
function describeUnion(issue: Extract<Issue, { code: 'invalid_union' }>, checked: Checked): DescribedIssue[] {
  const value = valueAt(checked.root, issue.path)
  if (value === undefined) return [describeMissing(issue.path)]
  const meant = isMap(value) ? issue.errors.find((branch) => !branch.some(isAboutType)) : undefined
  if (meant) {
    return meant.flatMap((inner) =>
      describeIssue({ ...inner, path: [...issue.path, ...inner.path] }, checked),
    )
  }
  const values = issue.errors.flatMap((branch) =>
    branch.flatMap((inner) => ('values' in inner ? inner.values : [])),
  )
  const hint = typeof value === 'string' ? didYouMean(value, values.map(String)) : undefined
  return [
    {
      path: issue.path,
      at: 'value',
      message: `${issue.message}, found ${writtenAt(checked, issue.path, value)}`,
      hint,
    },
  ]
}

function isAboutType(issue: Issue): boolean {
  return issue.path.length === 0 && (issue.code === 'invalid_type' || issue.code === 'invalid_value')
}

function describeValue(
  issue: Issue,
  value: unknown,
  written: string,
): { message: string; hint?: string | undefined } {
  const found = `found ${written}`
  if (issue.code === 'invalid_type') {
    return {
      message: `expected ${nameType(issue.expected)}, ${found}`,
      hint: typeHint(issue.expected, value, written),
    }
  }
  if (issue.code === 'invalid_value') {
    const values = issue.values.map(String)
    return {
      message: `expected one of ${values.join(', ')}, ${found}`,
      hint: typeof value === 'string' ? didYouMean(value, values) : undefined,
    }
  }
  if (issue.code === 'too_small') return { message: `must be at least ${issue.minimum}, ${found}` }
  if (issue.code === 'too_big') return { message: `must be at most ${issue.maximum}, ${found}` }
  return { message: issue.message }
}

function typeHint(expected: string, value: unknown, written: string): string | undefined {
  if (value === null) return 'Give it a value, or remove the key.'
  if (expected === 'string' && ['number', 'boolean'].includes(typeof value))
    return `Put it in quotes: "${written}"`
  if ((expected === 'number' || expected === 'int') && typeof value === 'string' && /^\d+$/.test(value)) {
    return `Remove the quotes: ${value}`
  }
  if (expected === 'boolean') return 'Write true or false.'
  return undefined
}

function nameType(expected: string): string {
  const names: Readonly<Record<string, string>> = {
    string: 'text',
    int: 'a whole number',
    number: 'a number',
    boolean: 'true or false',
    object: 'a map of keys and values',
    record: 'a map of keys and values',
    array: 'a list',
  }
  return names[expected] ?? expected
}

/** As it was written, where YAML made a number or a word of its own of it. */
function writtenAt({ sourceOf }: Checked, path: YamlPath, value: unknown): string {
  const isPlain = typeof value === 'number' || typeof value === 'boolean'
  return (isPlain ? sourceOf(path) : undefined) ?? nameValue(value)
}

function nameValue(value: unknown): string {
  if (value === null) return 'nothing'
  if (Array.isArray(value)) return 'a list'
  if (isMap(value)) return 'a map'
  return typeof value === 'string' ? JSON.stringify(value) : String(value)
}

function nameHint(path: YamlPath): string | undefined {
  if (path.length !== 2 || path[0] !== 'nodes') return undefined
  return 'It starts with a letter or digit and has at most 128 letters, digits, ., _ and -.'
}

function hintIn(params: unknown): string | undefined {
  const hint = isMap(params) ? params.hint : undefined
  return typeof hint === 'string' ? hint : undefined
}

function valueAt(root: unknown, path: YamlPath): unknown {
  return path.reduce<unknown>(
    (value, part) => (typeof value === 'object' && value !== null ? Reflect.get(value, part) : undefined),
    root,
  )
}

function isMap(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function pathKey(path: YamlPath): string {
  return JSON.stringify(path)
}
