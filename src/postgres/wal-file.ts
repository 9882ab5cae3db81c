import { bytesToLsn, type Lsn, lsnToBytes, type TimelineId } from './lsn.ts'

/** 16 MiB, what initdb takes unless told otherwise. */
export const defaultWalSegmentSizeBytes = 16 * 1024 * 1024

/** A WAL segment's name taken apart; log and segment together are its number, given the segment size. */
export interface WalFile {
  readonly timeline: TimelineId
  /** The upper 32 bits of its LSNs. */
  readonly log: number
  /** Which segment within these 4 GiB. */
  readonly segment: number
}

export const isSegmentFile = (name: string): boolean => /^[0-9A-F]{24}$/.test(name)
/** A segment that its timeline left unfinished, kept at promotion: `….partial`. Recovery never asks for it. */
export const isPartialFile = (name: string): boolean => /^[0-9A-F]{24}\.partial$/.test(name)
/** e.g. `00000002.history`. */
export const isHistoryFile = (name: string): boolean => /^[0-9A-F]{8}\.history$/.test(name)
/** e.g. `000000010000000000000002.00000028.backup`: notes that a base backup started in this segment. */
export const isBackupHistoryFile = (name: string): boolean => /^[0-9A-F]{24}\.[0-9A-F]{8}\.backup$/.test(name)

/** What `%f` of archive_command can be; anything else must never be archived. */
export const isArchivableFile = (name: string): boolean =>
  isSegmentFile(name) || isPartialFile(name) || isHistoryFile(name) || isBackupHistoryFile(name)

/** The segments of a timeline in order, counted from the start of WAL. */
export function segmentNumber(lsn: Lsn, segmentSizeBytes: number): bigint {
  return lsnToBytes(lsn) / BigInt(segmentSizeBytes)
}

/** The name of the segment that holds the byte at `lsn`, e.g. `000000010000000000000003`. */
export function walFileName(timeline: number, lsn: Lsn, segmentSizeBytes: number): string {
  return walFileNameOf(timeline, segmentNumber(lsn, segmentSizeBytes), segmentSizeBytes)
}

/**
 * The name of the segment that holds the byte before `lsn`: the last one needed to reach exactly `lsn`.
 * At a segment's first byte this differs from `walFileName`: pg_walfile_name() answers like this one up to
 * PostgreSQL 16, and like `walFileName` from 17 on.
 */
export function lastWalFileName(timeline: number, lsn: Lsn, segmentSizeBytes: number): string {
  return walFileName(timeline, bytesToLsn(lsnToBytes(lsn) - 1n), segmentSizeBytes)
}

/** The name of a segment by its number. */
export function walFileNameOf(timeline: number, number: bigint, segmentSizeBytes: number): string {
  const perLog = segmentsPerLog(segmentSizeBytes)
  return [BigInt(timeline), number / perLog, number % perLog].map(hex8).join('')
}

/** @throws {RangeError} if it is no segment's name (with or without `.partial`) */
export function parseWalFileName(name: string): WalFile {
  const match = /^([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})(\.partial)?$/.exec(name)
  if (!match) throw new RangeError(`not a WAL segment: ${name}`)
  const [timeline, log, segment] = match.slice(1, 4).map((digits) => Number.parseInt(digits, 16))
  return { timeline: timeline as TimelineId, log: log!, segment: segment! }
}

/** The LSN of a segment's first byte. */
export function walFileStart(name: string, segmentSizeBytes: number): Lsn {
  const { log, segment } = parseWalFileName(name)
  const number = BigInt(log) * segmentsPerLog(segmentSizeBytes) + BigInt(segment)
  return bytesToLsn(number * BigInt(segmentSizeBytes))
}

/** The segment after this one, on the same timeline. */
export function nextWalFileName(name: string, segmentSizeBytes: number): string {
  const start = lsnToBytes(walFileStart(name, segmentSizeBytes))
  const { timeline } = parseWalFileName(name)
  return walFileName(timeline, bytesToLsn(start + BigInt(segmentSizeBytes)), segmentSizeBytes)
}

/** The names of all segments that hold bytes of [from, to), in order; none if `to` is not after `from`. */
export function walFileNamesBetween(
  timeline: number,
  from: Lsn,
  to: Lsn,
  segmentSizeBytes: number,
): readonly string[] {
  if (lsnToBytes(to) <= lsnToBytes(from)) return []
  const first = segmentNumber(from, segmentSizeBytes)
  const last = segmentNumber(bytesToLsn(lsnToBytes(to) - 1n), segmentSizeBytes)
  const count = Number(last - first) + 1
  return Array.from({ length: count }, (_, index) =>
    walFileNameOf(timeline, first + BigInt(index), segmentSizeBytes),
  )
}

/** e.g. `00000002.history` for timeline 2. */
export function historyFileName(timeline: number): string {
  return `${hex8(BigInt(timeline))}.history`
}

/** The timeline of `0000000A.history`. @throws {RangeError} if it is no history file */
export function parseHistoryFileName(name: string): TimelineId {
  if (!isHistoryFile(name)) throw new RangeError(`not a timeline history file: ${name}`)
  return Number.parseInt(name.slice(0, 8), 16) as TimelineId
}

const segmentsPerLog = (segmentSizeBytes: number) => 0x1_0000_0000n / BigInt(segmentSizeBytes)
const hex8 = (value: bigint) => value.toString(16).toUpperCase().padStart(8, '0')

/**
 * Where a standby's own WAL ends: the place of the last of the segments that follow `from` without a gap. Segments that
 * are kept for reuse stand behind it under names to come; they are older than the one before them. A place is a segment's
 * name without its timeline, e.g. `0000000000000003`; `segments`: place and time of the last change, by place.
 */
export function endOfLocalWal(
  segments: readonly (readonly [place: string, modified: number])[],
  from: string,
  segmentSizeBytes: number,
): string {
  const perLog = 0x1_0000_0000 / segmentSizeBytes
  const numberOf = (place: string) =>
    Number.parseInt(place.slice(0, 8), 16) * perLog + Number.parseInt(place.slice(8), 16)
  let [end, time] = [from, segments.find(([place]) => place === from)?.[1]]
  for (const [place, modified] of segments) {
    if (time === undefined || numberOf(place) !== numberOf(end) + 1 || modified < time) continue
    end = place
    time = modified
  }
  return end
}
