/**
 * The text of pg_hba.conf with replctl's lines in one marked block at its top, because the first matching line wins.
 * Every other line, and their order, stays as it is; idempotent. A block found elsewhere is moved to the top.
 */
export function ensureManagedBlock(text: string, lines: readonly string[], cluster = ''): string {
  const begin = ['# BEGIN replctl', cluster].join(' ').trimEnd()
  const end = ['# END replctl', cluster].join(' ').trimEnd()
  return [begin, ...lines, end, removeManagedBlock(text)].join('\n')
}

/** The lines between the markers; undefined: there is no block. */
export function readManagedBlock(text: string): readonly string[] | undefined {
  const lines = text.split('\n')
  const block = findBlock(lines)
  return block && lines.slice(block.begin + 1, block.end)
}

/** Takes back what `ensureManagedBlock` did: byte for byte the text before it. */
export function removeManagedBlock(text: string): string {
  const lines = text.split('\n')
  const block = findBlock(lines)
  if (!block) return text
  return removeManagedBlock([...lines.slice(0, block.begin), ...lines.slice(block.end + 1)].join('\n'))
}

/** A pg_hba.conf belongs to one instance, so any cluster's block is this one's. Without an end it is no block. */
function findBlock(lines: readonly string[]): { begin: number; end: number } | undefined {
  const end = lines.findIndex((line, index) => /^# END replctl\b/.test(line) && lastBegin(lines, index) >= 0)
  return end < 0 ? undefined : { begin: lastBegin(lines, end), end }
}

function lastBegin(lines: readonly string[], before: number): number {
  return lines.slice(0, before).findLastIndex((line) => /^# BEGIN replctl\b/.test(line))
}
