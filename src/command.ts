/** A value that must never be shown: it prints as `***` and is revealed only where it is sent. */
export class Secret {
  readonly #value: string
  constructor(value: string) {
    this.#value = value
  }
  /** The value itself. Call it only to put it on standard input or into a 0600 file. */
  reveal(): string {
    return this.#value
  }
  toString(): string {
    return '***'
  }
  toJSON(): string {
    return '***'
  }
  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return '***'
  }
}

/** Who runs a command on the host: the PostgreSQL OS user, whoever replctl logged in as, or root (by sudo). */
export type RunAs = 'os-user' | 'login' | 'root'

/**
 * A command as a value: what runs on a host, as whom, with which standard input.
 * `script` is POSIX sh; its `$1`, `$2`, … are `args`. Neither may hold a secret: secrets travel in `stdin`.
 */
export interface Command {
  /** Shown by --verbose and in errors, e.g. `pg_controldata /var/lib/postgresql/15/shop`. */
  readonly title: string
  readonly script: string
  readonly args: readonly string[]
  readonly stdin: string | Uint8Array | Secret | undefined
  readonly runAs: RunAs
  /** It takes a moment: a shell that replctl has running on the host may run it, between two other things. */
  readonly isQuick?: true
}

export interface CommandOptions {
  readonly stdin?: string | Uint8Array | Secret | undefined
  readonly runAs?: RunAs
  readonly title?: string
  readonly isQuick?: true
}

/** A program with its arguments: `argv('/usr/bin/pg_ctl', ['-D', dir, 'status'])`. */
export function program(path: string, args: readonly string[] = [], options: CommandOptions = {}): Command {
  return {
    title: options.title ?? [path, ...args].map(quoteForDisplay).join(' '),
    script: 'exec "$@"',
    args: [path, ...args],
    stdin: options.stdin,
    runAs: options.runAs ?? 'os-user',
  }
}

/** A POSIX sh script with positional parameters: `shellScript('read the marker', 'cat "$1"', [path])`. */
export function shellScript(
  title: string,
  script: string,
  args: readonly string[] = [],
  options: CommandOptions = {},
): Command {
  const { stdin, runAs = 'os-user', isQuick } = options
  return { title, script, args, stdin, runAs, ...(isQuick === true ? { isQuick } : {}) }
}

/**
 * Quotes one word for a POSIX shell.
 * @throws {RangeError} if it holds a NUL character, which no argument can
 */
export function quoteForShell(word: string): string {
  if (word.includes('\0')) throw new RangeError('a shell word cannot hold a NUL character')
  return `'${word.replaceAll("'", "'\\''")}'`
}

const mostOfScript = 72
const mostOfWord = 60
const mostWords = 8

/**
 * The command line for people: what a shell is given, in one line, long scripts and words cut off at `…`. Standard input, where
 * secrets travel, is no part of it. `hidden`: beginnings of scripts that say nothing of what they do.
 */
export function commandLine({ script, args }: Command, hidden: readonly string[] = []): string {
  if (script === 'exec "$@"') return args.map(quoteForDisplay).join(' ')
  const begin = hidden.find((text) => script.startsWith(text)) ?? ''
  const oneLine = script.slice(begin.length).replaceAll(/\s+/g, ' ').trim()
  const words = args
    .slice(0, mostWords)
    .map((word) => quoteForDisplay(cutOff(word.replaceAll(/\s+/g, ' '), mostOfWord)))
  const rest = args.length > mostWords ? ['…'] : []
  return [
    'sh -c',
    quoteForShell(cutOff(oneLine, mostOfScript)),
    ...(args.length > 0 ? ['sh'] : []),
    ...words,
    ...rest,
  ].join(' ')
}

const cutOff = (text: string, most: number): string =>
  text.length > most ? `${text.slice(0, most).trimEnd()}…` : text

/** Quotes one word for a POSIX shell where it needs to be, for people to read and copy. */
export function quoteForDisplay(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : quoteForShell(word)
}
