import type { Problem } from '../cluster/problem.ts'
import { plainText } from './plain-text.ts'
import type { VerifyResult } from './verify.ts'

export interface JunitInput {
  readonly cluster: string
  /** Null when verify could not even begin. */
  readonly result: VerifyResult | null
  readonly problems: readonly Problem[]
  readonly elapsedMs: number
}

interface TestCase {
  readonly name: string
  readonly latencyMs: number | null
  readonly failure: Failure | null
}

interface Failure {
  readonly type: string
  readonly message: string
  readonly text: string
}

/**
 * The result of `verify` as JUnit XML: a test case for each node, one for the archive, and one for each further place
 * that has an error, so that the report fails whenever `verify` does. Warnings stand in `system-out`.
 */
export function junitXml(input: JunitInput): string {
  const cases = testCases(input)
  const failures = cases.filter((one) => one.failure !== null).length
  const name = `replctl verify ${input.cluster}`
  const counts = `tests="${cases.length}" failures="${failures}" errors="0" time="${seconds(input.elapsedMs)}"`
  const warnings = input.problems.filter((problem) => problem.severity === 'warning').map(tell)
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    `<testsuites name="${attribute(name)}" ${counts}>`,
    `  <testsuite name="${attribute(name)}" ${counts} skipped="0">`,
    ...cases.map((one) => caseXml(one, input.cluster)),
    ...(warnings.length === 0 ? [] : [`    <system-out>${xmlText(warnings.join('\n\n'))}</system-out>`]),
    '  </testsuite>',
    '</testsuites>',
    '',
  ].join('\n')
}

function testCases({ result, problems }: JunitInput): TestCase[] {
  const errors = problems.filter((problem) => problem.severity === 'error')
  const told = new Set<Problem>()
  const take = (belongs: (problem: Problem) => boolean) => {
    const taken = errors.filter((problem) => !told.has(problem) && belongs(problem))
    for (const problem of taken) told.add(problem)
    return taken
  }
  const archive = result?.archive ?? null
  const ofArchive = archive === null ? [] : take((problem) => problem.code.startsWith('archive-'))
  const cases = (result?.nodes ?? []).map((node) => ({
    name: node.name,
    latencyMs: node.latency_ms,
    failure: failureOf(
      node.ok,
      take((problem) => problem.node === node.name),
      'the row was not read back',
    ),
  }))
  const archiveCase = archive && {
    name: 'archive',
    latencyMs: archive.latency_ms,
    failure: failureOf(archive.ok, ofArchive, `${archive.segment ?? 'the segment'} was not archived`),
  }
  const elsewhere = new Set(errors.filter((problem) => !told.has(problem)).map((problem) => problem.node))
  const others = [...elsewhere].map((node) => ({
    name: node ?? 'cluster',
    latencyMs: null,
    failure: failureOf(
      false,
      take((problem) => problem.node === node),
      '',
    ),
  }))
  return [...cases, ...(archiveCase === null ? [] : [archiveCase]), ...others]
}

function failureOf(ok: boolean, problems: readonly Problem[], otherwise: string): Failure | null {
  const [first] = problems
  if (first === undefined) return ok ? null : { type: 'verify', message: otherwise, text: otherwise }
  return { type: first.code, message: first.message, text: problems.map(tell).join('\n\n') }
}

const tell = ({ severity, message, detail, hint }: Problem): string =>
  [`${severity}: ${message}`, detail && `detail: ${detail}`, hint && `hint: ${hint}`]
    .filter((line) => line !== undefined && line !== null && line !== '')
    .join('\n')

function caseXml({ name, latencyMs, failure }: TestCase, cluster: string): string {
  const head = `    <testcase classname="${attribute(`replctl.verify.${cluster}`)}" name="${attribute(name)}" time="${seconds(latencyMs ?? 0)}"`
  if (failure === null) return `${head}/>`
  return [
    `${head}>`,
    `      <failure type="${attribute(failure.type)}" message="${attribute(failure.message)}">${xmlText(failure.text)}</failure>`,
    '    </testcase>',
  ].join('\n')
}

const seconds = (ms: number): string => (ms / 1000).toFixed(3)

/** XML 1.0 has no way to write most control characters, not even escaped: they are left out. */
const xmlText = (text: string): string =>
  plainText(text)
    .replace(/[^\n\u0020-\u007e\u00a0-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, '')
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')

const attribute = (text: string): string => xmlText(text).replaceAll('"', '&quot;').replaceAll('\n', '&#10;')
