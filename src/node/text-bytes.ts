/** Bytes that are no UTF-8, as the characters U+DC80 to U+DCFF: no text that can be read holds those. */
const oddBytesAt = 0xdc00

/**
 * Text of a file whatever its encoding is: each byte that is no UTF-8 is kept as one character, so that
 * {@link bytesOfText} gives the same bytes again.
 */
export function textOfBytes(bytes: Uint8Array): string {
  const parts: string[] = []
  let begin = 0
  for (let at = 0; at < bytes.length; ) {
    const length = sequenceLength(bytes, at)
    if (length > 0) {
      at += length
      continue
    }
    parts.push(Buffer.from(bytes.subarray(begin, at)).toString('utf8'))
    parts.push(String.fromCharCode(oddBytesAt + (bytes[at] ?? 0)))
    at += 1
    begin = at
  }
  parts.push(Buffer.from(bytes.subarray(begin)).toString('utf8'))
  return parts.join('')
}

/** The text as it is to be sent: as bytes where {@link textOfBytes} kept some that are no UTF-8. */
export function bytesOfText(text: string): string | Uint8Array {
  if (!/[\uDC80-\uDCFF]/u.test(text)) return text
  return Buffer.concat(
    text
      .split(/([\uDC80-\uDCFF])/u)
      .map((part) =>
        /^[\uDC80-\uDCFF]$/u.test(part) ? Buffer.of(part.charCodeAt(0) - oddBytesAt) : Buffer.from(part),
      ),
  )
}

const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Bytes of the character that begins here; 0: it is none. */
function sequenceLength(bytes: Uint8Array, at: number): number {
  const first = bytes[at] ?? 0
  if (first < 0x80) return 1
  const length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2
  if (first < 0xc2 || at + length > bytes.length) return 0
  try {
    strict.decode(bytes.subarray(at, at + length))
    return length
  } catch {
    return 0
  }
}
