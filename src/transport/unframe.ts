/** Splits a stream at the begin marker: before it is noise, after the rest of its line is the command's output. */
export interface Unframer {
  /** Takes what arrived and gives what of it the command itself printed. */
  push(chunk: Buffer): Buffer
  /** The words behind the marker once it was seen, e.g. `['4711', '4712']`. */
  readonly words: readonly string[] | undefined
  /** What came before the marker: banners, start-up files; at most its last 64 kB. */
  readonly noise: string
}

const mostNoise = 65_536
const nothing = Buffer.alloc(0)

/** Removes banners and what start-up files print: everything up to the line that holds `marker`. */
export function createUnframer(marker: string): Unframer {
  const needle = Buffer.from(marker)
  let held = nothing
  let words: string[] | undefined
  return {
    get words() {
      return words
    },
    get noise() {
      return held.toString('utf8')
    },
    push(chunk) {
      if (words !== undefined) return chunk
      held = Buffer.concat([held, chunk])
      const start = held.indexOf(needle)
      const end = start < 0 ? -1 : held.indexOf(0x0a, start)
      if (end < 0) {
        if (held.length > 2 * mostNoise && start < 0) held = held.subarray(-mostNoise)
        return nothing
      }
      words = held
        .toString('latin1', start + needle.length, end)
        .trim()
        .split(' ')
      const rest = held.subarray(end + 1)
      held = held.subarray(0, start)
      return rest
    },
  }
}
