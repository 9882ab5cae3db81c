import { parseDuration, parseSize } from './units.ts'

/**
 * Whether two spellings of a setting's value mean the same: `on` and `true`, `256MB` and `262144kB`, `0.5` and `.50`.
 * `unit` is pg_settings.unit (`8kB`, `MB`, `ms`, …), which a bare number counts in.
 */
export function isSameSettingValue(a: string, b: string, unit?: string | null): boolean {
  if (a.trim() === b.trim()) return true
  const [numberOfA, numberOfB] = [settingNumber(a, unit), settingNumber(b, unit)]
  if (numberOfA !== undefined && numberOfB !== undefined) return numberOfA === numberOfB
  const [truthOfA, truthOfB] = [truth(a), truth(b)]
  return truthOfA !== undefined && truthOfA === truthOfB
}

/** A numeric setting as bytes, milliseconds or a plain number, by what it says; undefined: it is not numeric. */
export function settingNumber(text: string, unit?: string | null): number | undefined {
  const trimmed = text.trim()
  if (/^[+-]?(\d+(\.\d*)?|\.\d+)$/.test(trimmed)) {
    const number = Number(trimmed)
    // Negative and zero are switches ("unlimited", "off"), in no unit.
    return number > 0 && unit ? number * (settingNumber(unitAsAmount(unit)) ?? 1) : number
  }
  return attempt(() => parseSize(trimmed)) ?? attempt(() => parseDuration(trimmed))
}

/** A bare number with the unit it counts in: `1024`, `MB` → `1024MB`; `4`, `8kB` → `32kB`. All else as it is. */
export function withUnit(text: string, unit?: string | null): string {
  const parts = /^(\d*)([A-Za-z]+)$/.exec(unit ?? '')
  if (parts === null || !/^\d+$/.test(text.trim()) || Number(text) === 0) return text
  return `${Number(text) * Number(parts[1] || '1')}${parts[2]}`
}

const unitAsAmount = (unit: string) => (/^\d/.test(unit) ? unit : `1${unit}`)

function attempt(parse: () => number): number | undefined {
  try {
    return parse()
  } catch (error) {
    if (error instanceof RangeError) return undefined
    throw error
  }
}

const truths: Readonly<Record<string, boolean>> = {
  on: true,
  true: true,
  yes: true,
  '1': true,
  off: false,
  false: false,
  no: false,
  '0': false,
}

function truth(text: string): boolean | undefined {
  return truths[text.trim().toLowerCase()]
}
