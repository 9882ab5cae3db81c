import { randomBytes } from 'node:crypto'
import { type Command, quoteForShell } from '../command.ts'
import type { Elevation } from './run-as.ts'

const searchPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
const cleanShell = `/usr/bin/env -i PATH=${searchPath} LC_ALL=C /bin/sh -c`
/** Linux takes no single argument over 128 KiB; a longer script travels on standard input. */
const longestLine = 90_000
/** csh as Debian's package of that name has it takes no word of 8 kB. */
const longestWord = 4_000
/**
 * As many escapes of five characters as fit into a word. It is cut between two of them: behind a lone backslash, the quote that ends the
 * word would be one of its characters to fish.
 */
const wordPattern = new RegExp(`(?:\\\\0[0-7]{3}|[^\\\\]){1,${longestWord / 5}}`, 'g')

/** A command ready to be given to a login shell, and what is needed to read its output. */
export interface FramedCommand {
  /** Only characters that sh, bash, csh and fish read alike inside single quotes. */
  readonly line: string
  /** Goes to standard input before the command's own. */
  readonly preamble: string
  /** Stands on stdout (followed by process ids) and on stderr where the command's own output begins. */
  readonly marker: string
}

export interface FrameOptions {
  readonly elevation: Elevation
  /** Keep standard input a pipe even where the command brings none: `start`. */
  readonly keepInput?: boolean
}

/**
 * Wraps a command so that it runs under /bin/sh with a clean environment, whatever the login shell is.
 * The script is not sent as it is: each character some shell would touch becomes an octal escape for printf.
 */
export function frameCommand(
  command: Command,
  { elevation, keepInput = false }: FrameOptions,
): FramedCommand {
  const halves = [randomBytes(8).toString('hex'), randomBytes(8).toString('hex')] as const
  const hasInput = keepInput || command.stdin !== undefined
  const body = encode(scriptOf(command, elevation, hasInput))
  const begin = beginLine(halves)
  const marker = halves.join('')
  const line = elevate(encode(begin) + body, elevation)
  if (line.length <= longestLine) return { line, preamble: '', marker }
  // `read` takes one byte at a time and so leaves the command's own input alone.
  const reader = `${begin}IFS= read -r script\neval "$(printf %b "$script")"`
  return { line: elevate(encode(reader), elevation), preamble: `${body}\n`, marker }
}

/**
 * The marker is put together only when it runs: a start-up file with `set -x` echoes the whole line to stderr.
 * The first id leads the process group (sshd and we make one for each command), the second is the script's own.
 */
function beginLine([first, second]: readonly [string, string]): string {
  const words = `${first} ${second}`
  return `printf '%s%s %s %s\\n' ${words} "\${1:-$$}" $$; printf '%s%s\\n' ${words} >&2\n`
}

function scriptOf(command: Command, { user, isOsUser }: Elevation, hasInput: boolean): string {
  const name = quoteForShell(user)
  return [
    `HOME=${homeOf(user)} USER=${name} LOGNAME=${name}; export HOME USER LOGNAME`,
    'cd "$HOME" 2>/dev/null || cd /',
    // PostgreSQL's own default for what its user makes; others read what root makes.
    `unset OLDPWD; umask ${isOsUser ? '077' : '022'}`,
    `set -- ${command.args.map(quoteForShell).join(' ')}`,
    ...(hasInput ? [] : ['exec </dev/null']),
    command.script,
  ].join('\n')
}

/** A tilde is expanded only unquoted; a name that needs quotes (a directory service's) is looked up instead. */
function homeOf(user: string): string {
  if (isPlainName(user)) return `~${user}`
  return `"$(getent passwd ${quoteForShell(user)} | cut -d: -f6)"`
}

function isPlainName(user: string): boolean {
  return /^[A-Za-z_][\w.-]*$/.test(user)
}

/** The encoded script follows in words, which are put together there. */
function elevate(encoded: string, { by, user }: Elevation): string {
  const pieces = encoded.match(wordPattern) ?? []
  const words = ['sh', ...pieces.map((piece) => `'${piece}'`)].join(' ')
  const decode = 'script=$(IFS=; printf %b "$*")'
  if (by === 'none') return `exec ${cleanShell} '${decode}; set --; eval "$script"' ${words}`
  const target = isPlainName(user) ? user : `"$(printf %b "${encode(user)}")"`
  const shell = `-- ${cleanShell} "$script" sh $$`
  const sudo = `exec sudo -n -H -u ${target} ${shell}`
  const runuser = `command -v runuser >/dev/null && exec runuser -u ${target} ${shell}; `
  return `exec ${cleanShell} '${decode}; ${by === 'runuser' ? runuser : ''}${sudo}' ${words}`
}

/** Octal escapes for `printf %b`, which is a builtin everywhere: no program such as base64 is needed. */
function encode(text: string): string {
  const bytes = Buffer.from(text).toString('latin1')
  return bytes.replace(
    /[^\w ./:=,@%+*?#;&|<>()[\]{}-]/g,
    (character) => `\\0${character.charCodeAt(0).toString(8).padStart(3, '0')}`,
  )
}
