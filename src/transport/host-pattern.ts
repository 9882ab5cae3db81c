/** Whether `text` matches a pattern of OpenSSH: `*` is anything, `?` one character, the rest is literal. */
export function matchesWildcard(text: string, pattern: string): boolean {
  const source = pattern
    .replaceAll(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.')
  return new RegExp(`^${source}$`, 's').test(text)
}

/**
 * Whether a host matches a list of patterns, e.g. `['*.example.org', '!db3.example.org']`.
 * A negated pattern that matches rules the host out, wherever it stands.
 */
export function matchesHostPatterns(host: string, patterns: readonly string[]): boolean {
  let isMatch = false
  for (const pattern of patterns) {
    const isNegated = pattern.startsWith('!')
    if (!matchesWildcard(host, (isNegated ? pattern.slice(1) : pattern).toLowerCase())) continue
    if (isNegated) return false
    isMatch = true
  }
  return isMatch
}
