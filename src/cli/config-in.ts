/** The value of --config on a command line that nobody could make sense of otherwise. */
export function configIn(words: readonly string[]): string | undefined {
  for (const [index, word] of words.entries()) {
    if (word === '--') return undefined
    if (word === '-c' || word === '--config') return words[index + 1]
    const [, value] = /^(?:--config=|-c(?=[^-]))(.*)$/s.exec(word) ?? []
    if (value !== undefined) return value
  }
  return undefined
}
