import { textWidth } from './plain-text.ts'

/** What must stay on one line: what is to be copied (a quoted name, a command, a statement), a number and its unit. */
const unbreakable =
  /"[^"\n]{1,80}"|\breplctl [^."(,;:\n]{1,80}|\bSELECT [^\n;.]{1,80}|\d (?:[KMGTP]i?B|kB|bytes|ms|s|min|h|d|%)(?!\w)/g

/**
 * Breaks text at spaces into lines of at most `width` columns; a command to copy is never broken. The lines after the
 * first begin with `indent`. Line breaks of the text itself stay.
 */
export function wrap(text: string, options: { readonly width: number; readonly indent: string }): string {
  return text
    .split('\n')
    .flatMap((line) => wrapLine(line, options.width - options.indent.length))
    .join(`\n${options.indent}`)
}

function wrapLine(line: string, width: number): string[] {
  const glued = line.replace(
    unbreakable,
    (part) => part.trimEnd().replaceAll(' ', '\0') + trailingSpace(part),
  )
  const lines: string[] = []
  for (const word of glued.trimEnd().split(' ')) {
    const last = lines.at(-1)
    if (last === undefined || textWidth(last) + 1 + textWidth(word) > width) lines.push(word)
    else lines[lines.length - 1] = `${last} ${word}`
  }
  return lines.map((one) => one.replaceAll('\0', ' '))
}

const trailingSpace = (text: string): string => text.slice(text.trimEnd().length)
