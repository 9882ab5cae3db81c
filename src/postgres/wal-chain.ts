import { compareLsn, type Lsn } from './lsn.ts'
import type { TimelineHistory } from './timeline-history.ts'
import { isSegmentFile, parseWalFileName, segmentNumber, walFileNameOf } from './wal-file.ts'

export interface WalChainWish {
  /** Names of the complete segments that there are, without suffixes. */
  readonly segments: ReadonlySet<string>
  /** Those of them that a recovery finds in the archive; undefined: all. */
  readonly archived?: ReadonlySet<string>
  /** The line to follow, with its ancestors. */
  readonly history: TimelineHistory
  /** Where to begin, and on which timeline of that line. */
  readonly from: Lsn
  readonly fromTimeline: number
  readonly segmentSizeBytes: number
}

/** How far WAL reaches without a gap. */
export interface WalChain {
  /** The last segment before the first gap; null where even the first one is missing. */
  readonly last: string | null
  /** Segments that are missing although later ones are there, or a later timeline begins. */
  readonly missing: readonly string[]
  /**
   * A segment that its timeline wrote after it was left, and that PostgreSQL would read in the place of the first one that is not there:
   * it takes the newest timeline of the line that has a segment of that number. Then the recovery follows what was abandoned. Null: none.
   * @see src/backend/access/transam/xlogrecovery.c, XLogFileReadAnyTLI (seen on 15)
   */
  readonly astray: string | null
}

/**
 * Follows WAL from a position on along a line of timelines. The segment in which a timeline was left belongs to the
 * next one, which begins with a copy of it: of the old timeline it exists as `.partial` at most.
 */
export function walChain(wish: WalChainWish): WalChain {
  const { segments, history, segmentSizeBytes: size } = wish
  const first = history.switches.findIndex((entry) => entry.timeline === wish.fromTimeline)
  const ancestors = first < 0 ? [] : history.switches.slice(first)
  let next = segmentNumber(wish.from, size)
  let last: string | null = null
  const missing: string[] = []
  const want = (timeline: number, number: bigint) => {
    const name = walFileNameOf(timeline, number, size)
    if (!segments.has(name)) missing.push(name)
    else if (missing.length === 0) last = name
  }
  for (const { timeline, leftAt } of ancestors) {
    const end = segmentNumber(leftAt, size)
    for (; next < end; next += 1n) want(timeline, next)
  }
  const begin = next
  const newest = newestSegment(segments, history.timeline, size)
  // A line that has only its history file so far ends where the one before was left.
  for (; newest !== null && next <= newest; next += 1n) want(history.timeline, next)
  const absent = missing[0] ?? (newest === null ? walFileNameOf(history.timeline, begin, size) : null)
  return { last, missing, astray: absent === null ? null : abandonedInPlaceOf(absent, last, wish) }
}

/** What a recovery that comes to a segment which is not there finds of an older timeline of the line; it never goes back to one it has left. */
function abandonedInPlaceOf(absent: string, last: string | null, wish: WalChainWish): string | null {
  const { history, fromTimeline, segmentSizeBytes: size, archived = wish.segments } = wish
  const { timeline } = parseWalFileName(absent)
  const reached = last === null ? fromTimeline : parseWalFileName(last).timeline
  const number = numberOf(absent, size)
  const older = history.switches
    .map((entry) => entry.timeline)
    .filter((one) => one >= reached && one < timeline)
    .map((one) => walFileNameOf(one, number, size))
  return older.findLast((name) => archived.has(name)) ?? null
}

/** Number of the newest segment of a timeline; null where it has none. */
function newestSegment(segments: ReadonlySet<string>, timeline: number, size: number): bigint | null {
  const prefix = walFileNameOf(timeline, 0n, size).slice(0, 8)
  let newest = ''
  for (const name of segments) {
    if (isSegmentFile(name) && name.startsWith(prefix) && name > newest) newest = name
  }
  if (newest === '') return null
  return numberOf(newest, size)
}

function numberOf(name: string, size: number): bigint {
  const { log, segment } = parseWalFileName(name)
  return BigInt(log) * (0x1_0000_0000n / BigInt(size)) + BigInt(segment)
}

/** Whether a backup of `timeline` that ends at `stop` lies on this line. */
export function isOnLine(history: TimelineHistory, timeline: number, stop: Lsn): boolean {
  if (history.timeline === timeline) return true
  const left = history.switches.find((entry) => entry.timeline === timeline)?.leftAt
  return left !== undefined && compareLsn(stop, left) <= 0
}
