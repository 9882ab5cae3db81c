/** The candidate that `word` is most likely a misspelling of, if any is near: `hots` → `host`. */
export function nearestWord(word: string, candidates: readonly string[]): string | undefined {
  let nearest: string | undefined
  let smallest = allowedEdits(word) + 1
  for (const candidate of candidates) {
    const edits = countEdits(word.toLowerCase(), candidate.toLowerCase())
    if (edits < smallest && edits < Math.min(word.length, candidate.length)) {
      nearest = candidate
      smallest = edits
    }
  }
  return nearest
}

/** A sentence for an error's hint, or undefined if no candidate is near. */
export function didYouMean(word: string, candidates: readonly string[]): string | undefined {
  const nearest = nearestWord(word, candidates)
  return nearest === undefined ? undefined : `Did you mean "${nearest}"?`
}

function allowedEdits(word: string): number {
  if (word.length <= 3) return 1
  return word.length <= 7 ? 2 : 3
}

/** Insertions, deletions, replacements and swaps of neighbours (optimal string alignment). */
export function countEdits(from: string, to: string): number {
  let beforeLast: number[] = []
  let last = Array.from({ length: to.length + 1 }, (_, column) => column)
  for (let row = 1; row <= from.length; row++) {
    const current = [row]
    for (let column = 1; column <= to.length; column++) {
      const isSame = from[row - 1] === to[column - 1]
      let edits = Math.min(last[column]! + 1, current[column - 1]! + 1, last[column - 1]! + (isSame ? 0 : 1))
      const isSwap =
        row > 1 && column > 1 && from[row - 1] === to[column - 2] && from[row - 2] === to[column - 1]
      if (isSwap) edits = Math.min(edits, beforeLast[column - 2]! + 1)
      current.push(edits)
    }
    beforeLast = last
    last = current
  }
  return last[to.length]!
}
