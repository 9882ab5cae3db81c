/** Lines of the report: what was measured against what, the ratio, and the goal. */
import { peakKb } from './measure.mjs'

const rows = []

/** Adds a line: `value` is what the goal is about, a ratio (`times`) or another unit; `goal` null: only to be seen. */
export function row(what, ownMs, against, otherMs, value, goal, unit = 'times') {
  const line = {
    what,
    own: `${Math.round(ownMs)} ms`,
    against,
    other: `${Math.round(otherMs)} ms`,
    value,
    goal,
    unit,
  }
  rows.push(line)
  console.error(tell(line))
}

function tell({ what, own, against, other, value, goal, unit }) {
  const shown = unit === 'times' ? `${value.toFixed(2)} times` : `${Math.round(value)} ${unit}`
  const verdict =
    goal === null ? '' : `  (goal: at most ${goal} ${unit}: ${value <= goal ? 'met' : 'MISSED'})`
  return `${what}: ${own}; ${against}: ${other}; ${shown}${verdict}`
}

export function report() {
  console.log('\nmedians, one run, the same hosts')
  for (const line of rows) console.log(tell(line))
  if (peakKb() === 0) return
  const isMet = peakKb() < 150 * 1024
  console.log(
    `peak memory of replctl: ${Math.round(peakKb() / 1024)} MB (goal: under 150 MB: ${isMet ? 'met' : 'MISSED'})`,
  )
}
