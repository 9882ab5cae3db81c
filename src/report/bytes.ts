const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

/** A size with a unit, 1024-based: `512 B`, `1.2 GiB`, `16 MiB`; one decimal below ten. */
export function formatBytes(bytes: number): string {
  if (bytes < 0) return `-${formatBytes(-bytes)}`
  let [value, unit] = [bytes, 0]
  // 1023.7 KiB would be rounded to 1024 KiB, which is 1.0 MiB.
  while (Math.round(value) >= 1024 && unit < units.length - 1) {
    value /= 1024
    unit += 1
  }
  const text = unit === 0 || value >= 9.95 ? String(Math.round(value)) : value.toFixed(1)
  return `${text} ${units[unit]}`
}

/** A duration in PostgreSQL's units, the two largest of them: `12 ms`, `0.4 s`, `42 s`, `3 min 20 s`, `2 h 5 min`. */
export function formatDuration(ms: number): string {
  if (ms < 0) return `-${formatDuration(-ms)}`
  if (ms < 99.5) return `${Math.round(ms)} ms`
  if (ms < 9_950) return `${(ms / 1000).toFixed(1).replace(/\.0$/, '')} s`
  const seconds = Math.round(ms / 1000)
  if (seconds < 60) return `${seconds} s`
  if (seconds < 3_600) return twoUnits(seconds, 60, 'min', 's')
  const minutes = Math.round(seconds / 60)
  if (minutes < 24 * 60) return twoUnits(minutes, 60, 'h', 'min')
  return twoUnits(Math.round(minutes / 60), 24, 'd', 'h')
}

function twoUnits(total: number, size: number, large: string, small: string): string {
  const rest = total % size
  return `${Math.floor(total / size)} ${large}${rest === 0 ? '' : ` ${rest} ${small}`}`
}
