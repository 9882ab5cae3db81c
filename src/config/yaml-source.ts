import type { Pair, YAMLError, YAMLMap } from 'yaml'
import { isAlias, isMap, isPair, isScalar, isSeq, LineCounter, parseDocument, visit } from 'yaml'
import type { InventoryProblem, Position, YamlPath } from './inventory-problem.ts'

type YamlDocument = ReturnType<typeof parseDocument>

/** A YAML text as plain data that still knows where each value was written. */
export interface YamlSource {
  /** Undefined where the text cannot be read as one map. */
  readonly value: Readonly<Record<string, unknown>> | undefined
  readonly problems: readonly InventoryProblem[]
  /** The place of a key or value, or of the nearest thing around it that is in the text. */
  positionOf(path: YamlPath, target: 'key' | 'value'): Position
  /** A number or word of YAML as it was written there: `1.10`, which as a number is 1.1. Undefined where nothing of that kind is. */
  sourceOf(path: YamlPath): string | undefined
  /** Keys of a map in the text's order, which plain objects lose for keys such as `10`. */
  keysOf(path: YamlPath): readonly string[]
}

/** Reads YAML 1.2 with anchors and merge keys. It never throws: what is wrong is in `problems`. */
export function readYaml(text: string): YamlSource {
  const lineCounter = new LineCounter()
  // Duplicate keys are found below, where both places can be told.
  const document = parseDocument(text, { lineCounter, merge: true, prettyErrors: false, uniqueKeys: false })
  const positionAt = (offset: number): Position => {
    const { line, col } = lineCounter.linePos(offset)
    return { line: Math.max(1, line), column: Math.max(1, col) }
  }
  const source = {
    positionOf: (path: YamlPath, target: 'key' | 'value') => positionAt(offsetOf(document, path, target)),
    sourceOf: (path: YamlPath) => sourceAt(document, path),
    keysOf: (path: YamlPath) => keysAt(document, path),
  }
  const syntaxProblems = [...document.errors, ...document.warnings].map((error) =>
    describeSyntaxError(error, positionAt(error.pos[0])),
  )
  if (syntaxProblems.length > 0) return { ...source, value: undefined, problems: syntaxProblems }
  if (!isMap(document.contents)) {
    return { ...source, value: undefined, problems: [describeMissingMap(document.contents)] }
  }
  const { problems, isReadable } = tidyKeys(document, positionAt)
  if (!isReadable) return { ...source, value: undefined, problems }
  try {
    return { ...source, value: document.toJS({ maxAliasCount: 10_000 }), problems }
  } catch (thrown) {
    // Aliases of aliases of aliases, which would fill the memory.
    const message = thrown instanceof Error ? lowerFirst(thrown.message) : String(thrown)
    return { ...source, value: undefined, problems: [{ path: [], at: 'value', message }] }
  }
}

function describeSyntaxError(error: YAMLError, position: Position): InventoryProblem {
  const common = { path: [], at: position }
  if (error.code === 'MULTIPLE_DOCS') {
    return { ...common, message: 'more than one YAML document', hint: 'Remove the line "---".' }
  }
  if (error.code === 'TAB_AS_INDENT') {
    return { ...common, message: 'a tab cannot indent YAML', hint: 'Indent with spaces.' }
  }
  return { ...common, message: `not valid YAML: ${lowerFirst(error.message)}` }
}

function describeMissingMap(contents: unknown): InventoryProblem {
  const common = { path: [], at: 'value' } as const
  if (contents === null || (isScalar(contents) && contents.value === null)) {
    return { ...common, message: 'the file is empty', hint: 'Write one to start from with: replctl new' }
  }
  const found = isSeq(contents) ? 'a list' : 'text'
  return {
    ...common,
    message: `expected a map of keys and values, found ${found}`,
    hint: 'An inventory starts with a line such as: cluster: shop',
  }
}

/**
 * Makes every key and every parameter the text that was written, and reports keys that cannot be what was meant.
 * Duplicate keys leave the rest readable; what plain data cannot hold does not.
 */
function tidyKeys(document: YamlDocument, positionAt: (offset: number) => Position) {
  const problems: InventoryProblem[] = []
  let isReadable = true
  const report = (path: YamlPath, offset: number, message: string, hint?: string) =>
    problems.push({ path, at: positionAt(offset), message, hint })
  visit(document, {
    Alias(_, alias, ancestors) {
      if (alias.resolve(document) !== undefined) return
      isReadable = false
      const hint = `Mark what it stands for with &${alias.source}, further up.`
      report(pathOf(ancestors), rangeStart(alias) ?? 0, `unknown alias *${alias.source}`, hint)
    },
    Map(_, map, ancestors) {
      const path = pathOf(ancestors)
      const firstOffsets = new Map<string, number>()
      for (const pair of map.items.filter((item) => !isMergeKey(item))) {
        const offset = rangeStart(pair.key) ?? 0
        const key = readKey(pair)
        if (key === undefined) {
          isReadable = false
          report(path, offset, 'this cannot be a key')
          continue
        }
        const first = firstOffsets.get(key)
        firstOffsets.set(key, first ?? offset)
        if (first === undefined) continue
        const message = `duplicate key "${key}", first given on line ${positionAt(first).line}`
        report(path, offset, message, 'Remove one of the two.')
      }
      if (path.at(-1) === 'parameters' && !(path.length === 2 && path[0] === 'nodes'))
        keepNumbersAsWritten(map)
    },
  })
  return { problems, isReadable }
}

/** A pair's key, made the text that was written: a node called 1.10 would as a number become 1.1. */
function readKey(pair: Pair): string | undefined {
  if (!isScalar(pair.key)) return undefined
  if (typeof pair.key.value !== 'string') pair.key.value = pair.key.source ?? ''
  const key = keyOf(pair)
  return key === '__proto__' ? undefined : key
}

/** unix_socket_permissions: 0770 is octal to PostgreSQL and decimal to YAML; what was written is passed on. */
function keepNumbersAsWritten(map: YAMLMap): void {
  for (const { value } of map.items) {
    if (isScalar(value) && typeof value.value === 'number' && value.source !== undefined)
      value.value = value.source
  }
}

function pathOf(ancestors: readonly unknown[]): string[] {
  return ancestors.filter(isPair).map(keyOf)
}

function keyOf(pair: Pair): string {
  return isScalar(pair.key) ? String(pair.key.value) : ''
}

function offsetOf(document: YamlDocument, path: YamlPath, target: 'key' | 'value'): number {
  let key: unknown
  let value: unknown = document.contents
  let depth = 0
  for (const part of path) {
    const child = childOf(document, value, part)
    if (!child) break
    key = child.key
    value = child.value
    depth++
  }
  const isFound = depth === path.length
  const wanted = target === 'value' && isFound ? (value ?? key) : (key ?? value)
  return rangeStart(wanted) ?? 0
}

function childOf(
  document: YamlDocument,
  parent: unknown,
  part: PropertyKey,
): { key: unknown; value: unknown } | undefined {
  const collection = resolveAlias(document, parent)
  if (isSeq(collection)) {
    const item = collection.items[Number(part)]
    return item === undefined ? undefined : { key: item, value: item }
  }
  if (!isMap(collection)) return undefined
  const own = collection.items.findLast((pair) => keyOf(pair) === String(part))
  return (
    own ??
    mergedMaps(document, collection).reduce<ReturnType<typeof childOf>>(
      (found, merged) => found ?? childOf(document, merged, part),
      undefined,
    )
  )
}

function mergedMaps(document: YamlDocument, map: YAMLMap): readonly unknown[] {
  return map.items
    .filter((pair) => isMergeKey(pair))
    .flatMap((pair) => {
      const merged = resolveAlias(document, pair.value)
      return isSeq(merged) ? merged.items : [merged]
    })
}

function isMergeKey(pair: Pair): boolean {
  return isScalar(pair.key) && (pair.key.value === '<<' || typeof pair.key.value === 'symbol')
}

function sourceAt(document: YamlDocument, path: YamlPath): string | undefined {
  let value: unknown = document.contents
  for (const part of path) value = childOf(document, value, part)?.value
  const scalar = resolveAlias(document, value)
  return isScalar(scalar) ? scalar.source : undefined
}

function keysAt(document: YamlDocument, path: YamlPath): readonly string[] {
  let value: unknown = document.contents
  for (const part of path) value = childOf(document, value, part)?.value
  return [...new Set(keysOfMap(document, value))]
}

function keysOfMap(document: YamlDocument, value: unknown): readonly string[] {
  const map = resolveAlias(document, value)
  if (!isMap(map)) return []
  const merged = mergedMaps(document, map).flatMap((other) => keysOfMap(document, other))
  return [...map.items.filter((pair) => !isMergeKey(pair)).map(keyOf), ...merged]
}

function resolveAlias(document: YamlDocument, node: unknown): unknown {
  return isAlias(node) ? node.resolve(document) : node
}

function rangeStart(node: unknown): number | undefined {
  return (node as { range?: readonly number[] | null } | undefined)?.range?.[0]
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1)
}
