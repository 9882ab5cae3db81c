import { Chalk, type ColorSupportLevel } from 'chalk'

/** Colours by meaning. Each one is only a help: the text says the same without it. */
export interface Paint {
  good(text: string): string
  bad(text: string): string
  warn(text: string): string
  dim(text: string): string
  strong(text: string): string
  /** A node's name. */
  name(text: string): string
}

/** Colours of a level that was decided before: chalk itself looks at argv and knows nothing of NO_COLOR. */
export function createPaint(level: ColorSupportLevel): Paint {
  const chalk = new Chalk({ level })
  return {
    good: chalk.green,
    bad: chalk.red,
    warn: chalk.yellow,
    dim: chalk.dim,
    strong: chalk.bold,
    name: chalk.cyan,
  }
}

/**
 * Whether to colour: --no-color, then NO_COLOR, then FORCE_COLOR and CLICOLOR_FORCE, then TERM, then the terminal.
 * FORCE_COLOR=0 turns colours off, as it does for Node.js.
 * @see https://no-color.org
 */
export function colorLevel(ask: {
  readonly isTerminal: boolean
  readonly env: Readonly<Record<string, string | undefined>>
  readonly noColorFlag: boolean
}): 0 | 1 {
  const { NO_COLOR, FORCE_COLOR, CLICOLOR_FORCE, TERM } = ask.env
  if (ask.noColorFlag || isSet(NO_COLOR)) return 0
  if (isSet(FORCE_COLOR)) return FORCE_COLOR === '0' || FORCE_COLOR === 'false' ? 0 : 1
  if (isSet(CLICOLOR_FORCE) && CLICOLOR_FORCE !== '0') return 1
  return TERM !== 'dumb' && ask.isTerminal ? 1 : 0
}

const isSet = (value: string | undefined): value is string => value !== undefined && value !== ''
