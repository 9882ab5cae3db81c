declare const brand: unique symbol

/** A WAL location as PostgreSQL prints it, e.g. `0/3000148`. Compare with `compareLsn`, never as text. */
export type Lsn = string & { readonly [brand]: 'Lsn' }

/** A timeline, ≥ 1. */
export type TimelineId = number & { readonly [brand]: 'TimelineId' }

/** Reads `16/B374D848`. @throws {RangeError} if it is not an LSN */
export function parseLsn(text: string): Lsn {
  if (!/^[0-9A-Fa-f]{1,8}\/[0-9A-Fa-f]{1,8}$/.test(text)) throw new RangeError(`not an LSN: ${text}`)
  return text.toUpperCase() as Lsn
}

/** The LSN as a byte position. */
export function lsnToBytes(lsn: Lsn): bigint {
  const [high = '0', low = '0'] = lsn.split('/')
  return (BigInt(`0x${high}`) << 32n) | BigInt(`0x${low}`)
}

export function bytesToLsn(bytes: bigint): Lsn {
  const hex = (value: bigint) => value.toString(16).toUpperCase()
  return `${hex(bytes >> 32n)}/${hex(bytes & 0xffffffffn)}` as Lsn
}

/** Negative, zero or positive, as `a` is before, at or after `b`. */
export function compareLsn(a: Lsn, b: Lsn): number {
  const difference = lsnToBytes(a) - lsnToBytes(b)
  return difference < 0n ? -1 : difference > 0n ? 1 : 0
}

/** Bytes of WAL from `from` to `to`; negative if `to` is earlier. */
export function lsnDistance(from: Lsn, to: Lsn): number {
  return Number(lsnToBytes(to) - lsnToBytes(from))
}
