/** Narrower than this help is not broken into lines at all. */
const narrowest = 40

/** Breaks help into lines of at most `width` columns. What goes on from a line of a list begins where its text began. */
export function wrapHelp(text: string, width: number): string {
  if (width < narrowest) return text
  return text
    .split('\n')
    .map((line) => wrapLine(line, width))
    .join('\n')
}

function wrapLine(line: string, width: number): string {
  // `  rewind    it has WAL of its own`, or only an indent.
  const [head = ''] = /^(?: +\S+ {2,}| *)/.exec(line) ?? []
  const indent = ' '.repeat(head.length)
  const lines: string[] = []
  for (const word of line.slice(head.length).trimEnd().split(' ')) {
    const last = lines.at(-1)
    if (last === undefined || head.length + last.length + 1 + word.length > width) lines.push(word)
    else lines[lines.length - 1] = `${last} ${word}`
  }
  return `${head}${lines.join(`\n${indent}`)}`.trimEnd()
}
