/**
 * Text of a row as it comes from a server. A database in SQL_ASCII holds whatever bytes its clients sent, and no server gives bytes
 * that are not UTF-8 to a session that wants UTF-8: from there all of it comes in hexadecimal digits.
 */

/** The expression that gives a text of the row so that it arrives whatever it holds. */
export const asWireText = (text: string): string =>
  `CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN encode(convert_to(${text}, 'SQL_ASCII'), 'hex') ELSE ${text} END`

/**
 * JSON text of a row from what the server gave. A byte that is part of no UTF-8 character stands there as `\udc` and its two digits
 * (what Python calls surrogateescape): no character is written so, and the byte can be had again.
 */
export function jsonFromWire(wire: string): string {
  return !isHex(wire) ? wire : fromBytes(wire, (byte) => `\\udc${byte}`)
}

/** A literal (`'text'`, `E'C:\\\\x'` or `NULL`) from what the server gave; such a byte is escaped in it as `\xe9`. */
export function literalFromWire(wire: string): string {
  if (!isHex(wire)) return wire
  let isEscaped = false
  const literal = fromBytes(wire, (byte) => {
    isEscaped = true
    return `\\x${byte}`
  })
  // One that holds a backslash of its own has the E already.
  return isEscaped && literal.startsWith("'") ? `E${literal}` : literal
}

/** Neither a JSON object nor a literal begins with a digit, and each in hexadecimal does. */
const isHex = (wire: string): boolean => /^\d/.test(wire)

/** The longest pieces that are UTF-8 as they are, every other byte as `write` writes its two digits. */
function fromBytes(hex: string, write: (byte: string) => string): string {
  const bytes = Buffer.from(hex, 'hex')
  const whole = decoded(bytes)
  if (whole !== null) return whole
  const parts: string[] = []
  let at = 0
  while (at < bytes.length) {
    const size = characterSize(bytes, at)
    parts.push(size === 0 ? write(bytes.toString('hex', at, at + 1)) : bytes.toString('utf8', at, at + size))
    at += Math.max(size, 1)
  }
  return parts.join('')
}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function decoded(bytes: Uint8Array): string | null {
  try {
    return decoder.decode(bytes)
  } catch {
    return null
  }
}

/** Bytes of the character that begins there; 0: none does. */
function characterSize(bytes: Uint8Array, at: number): number {
  const first = bytes[at] ?? 0
  if (first < 0x80) return 1
  const size = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2
  const piece = bytes.subarray(at, at + size)
  return piece.length === size && decoded(piece) !== null ? size : 0
}
