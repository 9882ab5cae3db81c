import { bytesToLsn, type Lsn, type TimelineId } from './lsn.ts'

/** What the first page of a WAL segment says of it. */
export interface SegmentHeader {
  /** Of the page: a segment that a promotion began is a copy, whose first pages still carry the old timeline. */
  readonly timeline: TimelineId
  /** Of the segment's first byte. */
  readonly startLsn: Lsn
  readonly systemIdentifier: string
  readonly segmentSizeBytes: number
}

/** How many bytes of a segment are needed. */
export const segmentHeaderBytes = 40

/**
 * Reads the long header of a segment's first page, in its writer's byte order; undefined if the bytes are none.
 * @see src/include/access/xlog_internal.h, XLogLongPageHeaderData
 */
export function parseSegmentHeader(bytes: Uint8Array): SegmentHeader | undefined {
  if (bytes.length < segmentHeaderBytes) return undefined
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  // 0xD098 in 11, counted up since then.
  const isMagic = (isLittle: boolean) => (view.getUint16(0, isLittle) & 0xfc00) === 0xd000
  const isLittle = isMagic(true)
  if (!isLittle && !isMagic(false)) return undefined
  const hasLongHeader = (view.getUint16(2, isLittle) & 2) !== 0
  if (!hasLongHeader) return undefined
  return {
    timeline: view.getUint32(4, isLittle) as TimelineId,
    startLsn: bytesToLsn(view.getBigUint64(8, isLittle)),
    systemIdentifier: String(view.getBigUint64(24, isLittle)),
    segmentSizeBytes: view.getUint32(32, isLittle),
  }
}
