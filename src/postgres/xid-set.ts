/** Whether transaction id `a` was assigned before `b`: ids wrap around, so that order holds within 2^31 of each other. */
export function xidPrecedes(a: number, b: number): boolean {
  return ((a - b) | 0) < 0
}

/** The later of two transaction ids. */
export const laterXid = (a: number, b: number): number => (xidPrecedes(a, b) ? b : a)

const pageBits = 1 << 15

/** Many transaction ids in little memory: those of one divergence lie close together. */
export class XidSet {
  readonly #pages = new Map<number, Uint8Array>()
  #size = 0

  get size(): number {
    return this.#size
  }

  add(xid: number): void {
    const key = Math.floor(xid / pageBits)
    let page = this.#pages.get(key)
    if (page === undefined) {
      page = new Uint8Array(pageBits / 8)
      this.#pages.set(key, page)
    }
    const bit = xid % pageBits
    if (((page[bit >> 3] ?? 0) & (1 << (bit & 7))) !== 0) return
    page[bit >> 3] = (page[bit >> 3] ?? 0) | (1 << (bit & 7))
    this.#size += 1
  }

  has(xid: number): boolean {
    const bit = xid % pageBits
    return (((this.#pages.get(Math.floor(xid / pageBits))?.[bit >> 3] ?? 0) >> (bit & 7)) & 1) === 1
  }
}
