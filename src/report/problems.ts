import type { Problem } from '../cluster/problem.ts'
import type { ReplctlError } from '../errors.ts'
import type { Paint } from './paint.ts'
import { oneLine, plainText } from './plain-text.ts'
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
  const where = whereItWas(parts)
  return [
    `${colour(`${parts.label}:`)} ${paint.strong(body(parts.message))}`,
    ...(where === null ? [] : [`where: ${where}`]),
    ...(isBlank(parts.detail) ? [] : [`detail: ${body(parts.detail)}`]),
    ...(isBlank(parts.hint) ? [] : [`hint: ${body(parts.hint)}`]),
  ]
    .map((line) => `${line}\n`)
    .join('')
}

/** Node and step, as far as the message does not name them. */
function whereItWas({ message, node, step }: Parts): string | null {
  const isNamed = isBlank(node) || namesWord(message, node)
  if (isBlank(step) || message.includes(step)) return isNamed ? null : oneLine(node)
  return isBlank(node) ? `step "${oneLine(step)}"` : `${oneLine(node)}, step "${oneLine(step)}"`
}

const namesWord = (text: string, word: string): boolean =>
  text.split(/[^\w.-]+/).some((one) => one.replace(/\.+$/, '') === word)

const body = (text: string): string => wrap(plainText(text).trim(), { width: lineWidth, indent: '  ' })

const isBlank = (text: string | null | undefined): text is null | undefined | '' =>
  text === null || text === undefined || text.trim() === ''
