import type { Problem } from '../cluster/problem.ts'
import type { ReplctlError } from '../errors.ts'
import type { Paint } from './paint.ts'
import { plainText } from './plain-text.ts'
import { wrap } from './wrap.ts'

const lineWidth = 100

/** Every problem: what it is, why, and the command that mends it. Empty where there is none. */
export function problemsText(problems: readonly Problem[], paint: Paint): string {
  return problems.map((problem) => block({ ...problem, label: problem.severity }, paint)).join('\n')
}

/** A failure: what happened, why, where, and what to do next. */
export function errorText(error: ReplctlError, paint: Paint): string {
  return block({ ...partsOf(error), label: 'error' }, paint)
}

/** The same for something that did not stop the operation. */
export function warningText(error: ReplctlError, paint: Paint): string {
  return block({ ...partsOf(error), label: 'warning' }, paint)
}

interface Parts {
  readonly message: string
  readonly detail?: string | null | undefined
  readonly hint?: string | null | undefined
  readonly node?: string | null | undefined
  readonly step?: string | null | undefined
}

/** An error's message and the like are not its own enumerable properties. */
const partsOf = ({ message, detail, hint, node, step }: ReplctlError): Parts => ({
  message,
  detail,
  hint,
  node,
  step,
})

function block(parts: Parts & { readonly label: 'error' | 'warning' }, paint: Paint): string {
  const colour = parts.label === 'error' ? paint.bad : paint.warn
  const first = line(parts.label, parts.message).slice(`${parts.label}: `.length)
  return [
    `${colour(`${parts.label}:`)} ${paint.strong(first)}`,
    ...whereItWas(parts),
    ...(isBlank(parts.detail) ? [] : [line('detail', parts.detail)]),
    ...(isBlank(parts.hint) ? [] : [line('hint', parts.hint)]),
  ]
    .map((text) => `${text}\n`)
    .join('')
}

/** Step and node, as far as the message does not name them. */
function whereItWas({ message, node, step }: Parts): string[] {
  const isNodeNamed = isBlank(node) || namesWord(message, node)
  if (isBlank(step) || message.includes(step)) return isNodeNamed ? [] : [line('node', node)]
  return [line('step', isBlank(node) ? step : `${step} (on ${node})`)]
}

const namesWord = (text: string, word: string): boolean =>
  text.split(/[^\w.-]+/).some((one) => one.replace(/\.+$/, '') === word)

const line = (label: string, text: string): string =>
  wrap(`${label}: ${plainText(text).trim()}`, { width: lineWidth, indent: '  ' })

const isBlank = (text: string | null | undefined): text is null | undefined | '' =>
  text === null || text === undefined || text.trim() === ''
