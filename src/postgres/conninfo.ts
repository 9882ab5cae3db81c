/**
 * Writes a libpq connection string in keyword form, in the order given:
 * `{ host: '10.0.0.11', user: 'it\'s' }` → `host=10.0.0.11 user='it\'s'`. Empty values are left in, as `''`.
 * To put it into postgresql.conf it must still go through `quoteConfigValue`.
 * @throws {RangeError} if a keyword is none, or a value holds a NUL character
 * @see https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-KEYWORD-VALUE
 */
export function buildConninfo(entries: Readonly<Record<string, string>>): string {
  return Object.entries(entries)
    .map(([keyword, value]) => `${checkKeyword(keyword)}=${quoteConninfoValue(value)}`)
    .join(' ')
}

/** Quotes one value of a connection string, if it needs it: `a b` → `'a b'`. */
export function quoteConninfoValue(value: string): string {
  if (value.includes('\0')) throw new RangeError('a connection string cannot hold a NUL character')
  if (/^[\w.:/@%+,~-]+$/.test(value)) return value
  return `'${value.replace(/[\\']/g, '\\$&')}'`
}

/**
 * Reads a libpq connection string, in keyword form or as a postgresql:// URI; of a repeated keyword the last counts.
 * Several hosts of a URI come as libpq has them: `host` and `port` with commas in between.
 * Errors never hold the text, which may hold a password.
 * @throws {RangeError} if libpq would refuse it
 * @see src/interfaces/libpq/fe-connect.c, conninfo_parse and conninfo_uri_parse
 */
export function parseConninfo(text: string): Record<string, string> {
  const uri = /^postgres(?:ql)?:\/\//.exec(text)
  return uri ? parseUri(text.slice(uri[0].length)) : parseKeywords(text)
}

/** As libpq has it: a value may be empty, and after a closing quote no blank is needed. Blanks are those of ASCII. */
const keywordValue =
  /[ \t-\r]*(?<keyword>[^ \t-\r=]+)[ \t-\r]*=[ \t-\r]*(?:'(?<quoted>(?:[^\\']|\\.)*)'|(?!')(?<plain>(?:[^\\ \t-\r]|\\.?)*))/sy

function parseKeywords(text: string): Record<string, string> {
  const entries: [string, string][] = []
  let position = 0
  while (/[^ \t-\r]/.test(text.slice(position))) {
    keywordValue.lastIndex = position
    const match = keywordValue.exec(text)
    if (!match?.groups)
      throw new RangeError(`not a connection string: malformed at character ${position + 1}`)
    const { keyword = '', quoted, plain = '' } = match.groups
    entries.push([checkKeyword(keyword), (quoted ?? plain).replace(/\\(.?)/gs, '$1')])
    position = keywordValue.lastIndex
  }
  return Object.fromEntries(entries)
}

function parseUri(text: string): Record<string, string> {
  const match =
    /^(?:(?<user>[^:@/]*)(?::(?<password>[^@/]*))?@)?(?<hosts>[^/?]*)(?:\/(?<dbname>[^?]*))?(?:\?(?<query>.*))?$/s.exec(
      text,
    )
  if (!match?.groups) throw new RangeError('not a connection URI')
  const { user, password, hosts = '', dbname, query } = match.groups
  const pairs = hosts.split(',').map(splitHost)
  const named = {
    user,
    password,
    host: pairs.map(({ host }) => host).join(','),
    port: pairs.map(({ port }) => port).join(','),
    dbname,
  }
  const given = Object.entries(named).filter(([, value]) => value !== undefined && value !== '')
  return Object.fromEntries([
    ...given.map(([keyword, value]) => [keyword, decode(value!)] as const),
    ...parseQuery(query),
  ])
}

/** `[::1]:5432` → `{ host: '::1', port: '5432' }`. */
function splitHost(text: string): { host: string; port: string } {
  const match = /^(?:\[(?<literal>[^\]]+)\]|(?!\[)(?<name>[^:]*))(?::(?<port>.*))?$/s.exec(text)
  if (!match?.groups) throw new RangeError('not a connection URI: malformed host')
  const { literal, name, port } = match.groups
  return { host: literal ?? name ?? '', port: port ?? '' }
}

function parseQuery(query: string | undefined): [string, string][] {
  if (!query) return []
  return query
    .replace(/&$/, '')
    .split('&')
    .map((pair) => {
      const [keyword, value, ...rest] = pair.split('=')
      if (!keyword || value === undefined || rest.length > 0) {
        throw new RangeError('not a connection URI: malformed query parameter')
      }
      // libpq takes JDBC's ssl=true for sslmode=require.
      return keyword === 'ssl' && value === 'true'
        ? ['sslmode', 'require']
        : [checkKeyword(decode(keyword)), decode(value)]
    })
}

function decode(text: string): string {
  try {
    const decoded = decodeURIComponent(text)
    if (!decoded.includes('\0')) return decoded
  } catch {
    // Said below, without the text.
  }
  throw new RangeError('not a connection URI: malformed percent-encoding')
}

function checkKeyword(keyword: string): string {
  if (!/^[A-Za-z_]+$/.test(keyword)) throw new RangeError('not a connection string: malformed keyword')
  return keyword
}
