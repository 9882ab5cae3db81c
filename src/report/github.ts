import type { Problem } from '../cluster/problem.ts'
import { plainText } from './plain-text.ts'

/** Whether problems shall also be written as annotations; with --json standard output holds the document alone. */
export function wantsAnnotations(
  env: Readonly<Record<string, string | undefined>>,
  isJson: boolean,
): boolean {
  return (env.GITHUB_ACTIONS ?? '') !== '' && !isJson
}

/**
 * Problems as lines that GitHub Actions shows beside the run and, with `file`, in that file.
 * The runner reads them from standard output.
 * @see https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions
 */
export function annotations(problems: readonly Problem[], file?: string): string {
  return problems.map((problem) => annotation(problem, file)).join('')
}

function annotation(
  { code, severity, node, message, detail, hint }: Problem,
  file: string | undefined,
): string {
  const title = node === null ? code : `${code} on ${node}`
  const properties = [...(file === undefined ? [] : [`file=${property(file)}`]), `title=${property(title)}`]
  const text = [message, detail, hint].filter((part) => part !== undefined && part !== null && part !== '')
  return `::${severity} ${properties.join(',')}::${data(text.join('\n'))}\n`
}

const data = (text: string): string =>
  plainText(text).replaceAll('%', '%25').replaceAll('\r', '%0D').replaceAll('\n', '%0A')

const property = (text: string): string => data(text).replaceAll(':', '%3A').replaceAll(',', '%2C')
