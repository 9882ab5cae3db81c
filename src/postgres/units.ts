const durationUnits = { us: 0.001, ms: 1, s: 1000, min: 60_000, h: 3_600_000, d: 86_400_000 } as const
const sizeUnits = { B: 1, kB: 2 ** 10, MB: 2 ** 20, GB: 2 ** 30, TB: 2 ** 40 } as const

/** A unit of time as PostgreSQL spells it. */
export type DurationUnit = keyof typeof durationUnits

/**
 * Reads a duration in PostgreSQL's units as whole milliseconds: `500ms`, `5s`, `2min`, `1h30min`, `1.5d`.
 * A plain number is refused unless `plainUnit` says what it counts; `0` needs no unit.
 * @throws {RangeError} if it is not a duration, with the forms that are
 * @see https://www.postgresql.org/docs/current/config-setting.html
 */
export function parseDuration(text: string, plainUnit?: DurationUnit): number {
  const total = sumOfParts(text, durationUnits, plainUnit)
  if (total === undefined) {
    throw new RangeError(
      `not a duration: ${JSON.stringify(text)}; write it like 500ms, 5s, 2min, 1h30min or 1d`,
    )
  }
  // 100us is not "no time at all": 0 often means "never" or "off".
  return total > 0 ? Math.max(1, Math.round(total)) : 0
}

/**
 * Reads a size in PostgreSQL's units as bytes, 1024-based and case-sensitive: `512B`, `64kB`, `16MB`, `1.5GB`.
 * A plain number is refused, for PostgreSQL counts it differently from parameter to parameter; `0` needs no unit.
 * @throws {RangeError} if it is not a size, with the forms that are
 */
export function parseSize(text: string): number {
  const total = sumOfParts(text, sizeUnits)
  if (total === undefined) {
    throw new RangeError(`not a size: ${JSON.stringify(text)}; write it like 512B, 64kB, 16MB, 10GB or 1TB`)
  }
  if (total > Number.MAX_SAFE_INTEGER)
    throw new RangeError(`too large a size: ${JSON.stringify(text)}; it can be at most 8191TB`)
  return Math.round(total)
}

function sumOfParts<Unit extends string>(
  text: string,
  units: Readonly<Record<Unit, number>>,
  plainUnit?: Unit,
): number | undefined {
  const trimmed = text.trim()
  if (/^\d+(\.\d+)?$/.test(trimmed)) {
    if (plainUnit !== undefined) return Number(trimmed) * units[plainUnit]
    return Number(trimmed) === 0 ? 0 : undefined
  }
  if (!/^(\d+(\.\d+)?\s*[A-Za-z]+\s*)+$/.test(trimmed)) return undefined
  let total = 0
  for (const [, amount, unit] of trimmed.matchAll(/(\d+(?:\.\d+)?)\s*([A-Za-z]+)/g)) {
    if (unit === undefined || !Object.hasOwn(units, unit)) return undefined
    total += Number(amount) * units[unit as Unit]
  }
  return total
}
