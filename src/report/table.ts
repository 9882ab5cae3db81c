import Table from 'cli-table3'

const noLines = Object.fromEntries(
  ['top', 'bottom', 'left', 'right', 'mid', 'middle'].flatMap((side) =>
    ['', '-mid', '-left', '-right'].map((end) => [`${side}${end}`, '']),
  ),
)

/** Rows in columns two spaces apart, without lines; cells may be coloured. Every row ends with a line break. */
export function columns(rows: readonly (readonly string[])[]): string {
  if (rows.length === 0) return ''
  const table = new Table({
    chars: noLines,
    style: { 'padding-left': 0, 'padding-right': 2, head: [], border: [] },
  })
  table.push(...rows.map((row) => [...row]))
  return table
    .toString()
    .split('\n')
    .map((line) => `${line.trimEnd()}\n`)
    .join('')
}
