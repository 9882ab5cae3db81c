/** One setting or directive of a file in postgresql.conf syntax. */
export interface ConfigEntry {
  /** In lower case; `include`, `include_if_exists` and `include_dir` are directives. */
  readonly name: string
  /** Without its quotes. */
  readonly value: string
  /** Counted from 1. */
  readonly line: number
}

/** The marker of the one line replctl adds to a file that is not its own. */
export const includeMarker = '# added by replctl; keep it last, so that what replctl sets wins'

/**
 * Quotes a value for postgresql.conf, recovery.conf or postgresql.auto.conf, always: `it's` → `'it''s'`.
 * Backslashes are escapes there, unlike in SQL, and are doubled; a line break becomes `\n`.
 * @throws {RangeError} if it holds a NUL character
 * @see src/backend/utils/misc/guc-file.l, DeescapeQuotedString
 */
export function quoteConfigValue(value: string): string {
  if (value.includes('\0')) throw new RangeError('a setting cannot hold a NUL character')
  const escaped = value
    .replaceAll('\\', '\\\\')
    .replaceAll("'", "''")
    .replaceAll('\n', '\\n')
    .replaceAll('\r', '\\r')
  return `'${escaped}'`
}

/**
 * Reads a file in postgresql.conf syntax, in order; of a repeated name the last counts (`lastValues`).
 * Included files are not opened: their directives are entries. Lines the server would refuse are left out.
 * @see https://www.postgresql.org/docs/current/config-setting.html#CONFIG-SETTING-CONFIGURATION-FILE
 */
export function parseConfigFile(text: string): readonly ConfigEntry[] {
  return text.split('\n').flatMap((line, index) => {
    const setting = parseLine(line)
    return setting ? [{ name: setting.name, value: setting.value, line: index + 1 }] : []
  })
}

/** What a file says in the end, without what it includes: name → value. */
export function lastValues(entries: readonly ConfigEntry[]): Map<string, string> {
  return new Map(entries.map(({ name, value }) => [name, value]))
}

/**
 * The text with exactly one marked line `include_if_exists = '<fileName>'`, and that one after every other setting.
 * A relative name starts from the folder of the including file. Unmarked lines are left alone; idempotent.
 */
export function ensureLastInclude(text: string, fileName: string): string {
  const lines = text.split('\n')
  const marked = lines.filter((line) => isMarkedInclude(line, fileName))
  const lastSetting = lines.findLast((line) => parseLine(line) !== undefined)
  if (marked.length === 1 && lastSetting === marked[0]) return text
  const rest = removeInclude(text, fileName)
  const lineBreak = rest === '' || rest.endsWith('\n') ? '' : '\n'
  return `${rest}${lineBreak}include_if_exists = ${quoteConfigValue(fileName)}  ${includeMarker}\n`
}

/** The text without the lines `ensureLastInclude` added for this file; unmarked ones stay. */
export function removeInclude(text: string, fileName: string): string {
  return withLines(text, (line) => (isMarkedInclude(line, fileName) ? [] : [line]))
}

/**
 * The text with these settings commented out: `port = 5433` → `#port = 5433  # commented out by replctl: <why>`.
 * Names are case-insensitive; everything else stays byte for byte.
 */
export function commentOutSettings(text: string, names: Iterable<string>, why: string): string {
  const wanted = lowerCased(names)
  const reason = why.replaceAll(/\s+/g, ' ').trim()
  return withLines(text, (line) => {
    const setting = parseLine(line)
    if (!setting || !wanted.has(setting.name)) return [line]
    const carriageReturn = line.endsWith('\r') ? '\r' : ''
    return [`#${line.trimEnd()}  # commented out by replctl: ${reason}${carriageReturn}`]
  })
}

/** The text without these settings: for postgresql.auto.conf, which overrides every other file. */
export function removeSettings(text: string, names: Iterable<string>): string {
  const wanted = lowerCased(names)
  return withLines(text, (line) => (wanted.has(parseLine(line)?.name ?? '') ? [] : [line]))
}

/** The text with this setting empty wherever it is set. */
export function emptySetting(text: string, name: string): string {
  return withLines(text, (line) => (parseLine(line)?.name === name ? [`${name} = ''`] : [line]))
}

interface ParsedLine {
  readonly name: string
  readonly value: string
  readonly comment: string
}

const letter = String.raw`[A-Za-z_\x80-\uffff]`
const identifier = String.raw`${letter}[\w\x80-\uffff]*`
const word = String.raw`[\w\x80-\uffff.:/-]`
/** Only words (but not `a.b`), whole numbers with a unit, and numbers with a point need no quotes. */
const plainValue = [
  String.raw`(?!${identifier}\.${identifier}(?!${word}))${letter}${word}*`,
  String.raw`[-+]?(?:0x[\da-fA-F]+|\d+)[A-Za-z]*`,
  String.raw`[-+]?\d*\.\d*(?:[Ee][-+]?\d+)?`,
].join('|')
/** `name = value # comment`, where the `=` may be left out. */
const settingLine = new RegExp(
  String.raw`^[ \t\r]*(?<name>${identifier}(?:\.${identifier})?)(?!${word})[ \t\r]*=?[ \t\r]*(?:'(?<quoted>(?:[^'\\]|\\.|'')*)'|(?<plain>${plainValue}))[ \t\r]*(?<comment>#.*)?$`,
  's',
)

function parseLine(line: string): ParsedLine | undefined {
  const match = settingLine.exec(line)
  if (!match?.groups) return undefined
  const { name = '', quoted, plain = '', comment = '' } = match.groups
  return { name: name.toLowerCase(), value: quoted === undefined ? plain : unescapeValue(quoted), comment }
}

const escapes: Readonly<Record<string, string>> = { b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' }

function unescapeValue(quoted: string): string {
  return quoted.replace(/''|\\([0-7]{1,3}|.)/gs, (whole, escaped: string | undefined) => {
    if (whole === "''" || escaped === undefined) return "'"
    return /^[0-7]/.test(escaped)
      ? String.fromCharCode(Number.parseInt(escaped, 8) & 0xff)
      : (escapes[escaped] ?? escaped)
  })
}

function isMarkedInclude(line: string, fileName: string): boolean {
  const setting = parseLine(line)
  if (setting?.name !== 'include_if_exists' || setting.value !== fileName) return false
  return setting.comment.startsWith('# added by replctl')
}

function withLines(text: string, change: (line: string) => readonly string[]): string {
  return text.split('\n').flatMap(change).join('\n')
}

function lowerCased(names: Iterable<string>): Set<string> {
  return new Set([...names].map((name) => name.toLowerCase()))
}
