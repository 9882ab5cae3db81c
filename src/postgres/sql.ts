/**
 * Quotes a value for SQL: `it's` → `'it''s'`. With a backslash in it the result is ` E'…'`, which means the same
 * whatever standard_conforming_strings says; the blank keeps it off the word before, as in PQescapeLiteral().
 * @throws {RangeError} if it holds a NUL character
 */
export function quoteLiteral(text: string): string {
  const doubled = `'${withoutNul(text).replaceAll("'", "''")}'`
  return text.includes('\\') ? ` E${doubled.replaceAll('\\', '\\\\')}` : doubled
}

/**
 * Quotes a name for SQL, always: `order` → `"order"`.
 * @throws {RangeError} if it is empty or holds a NUL character
 */
export function quoteIdentifier(name: string): string {
  if (name === '') throw new RangeError('an SQL name cannot be empty')
  return `"${withoutNul(name).replaceAll('"', '""')}"`
}

function withoutNul(text: string): string {
  if (text.includes('\0')) throw new RangeError('SQL text cannot hold a NUL character')
  return text
}
