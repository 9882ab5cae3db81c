import { ReplctlError } from '../errors.ts'
import { compareLsn, type Lsn, parseLsn, type TimelineId } from './lsn.ts'
import { isSegmentFile, parseWalFileName, segmentNumber, walFileNameOf, walFileStart } from './wal-file.ts'

/** One ancestor: the timeline, and the LSN at which it was left for the next one. */
export interface TimelineSwitch {
  readonly timeline: TimelineId
  /** The first byte that belongs to the next timeline. */
  readonly leftAt: Lsn
  /** e.g. `no recovery target specified`. */
  readonly reason: string
}

/** A timeline with its ancestors, oldest first; timeline 1 has none. */
export interface TimelineHistory {
  readonly timeline: TimelineId
  readonly switches: readonly TimelineSwitch[]
}

/**
 * Parses a `.history` file, as it lies in pg_wal and as `TIMELINE_HISTORY` returns it.
 * Shape of a line: `1<tab>0/3000148<tab>no recovery target specified`. Timeline 1 has no file: give `''`.
 * @throws {ReplctlError} `control-data-unreadable` if a line is malformed or the timelines do not rise
 * @see src/backend/access/transam/timeline.c, readTimeLineHistory
 */
export function parseTimelineHistory(text: string, timeline: number): TimelineHistory {
  const switches = text.split('\n').flatMap((line) => {
    if (/^\s*(#|$)/.test(line)) return []
    const match = /^\s*(\d+)\s+([0-9A-Fa-f]+\/[0-9A-Fa-f]+)\s*(.*?)\s*$/.exec(line)
    if (!match) throw malformed(timeline, line)
    return [{ timeline: Number(match[1]) as TimelineId, leftAt: parseLsn(match[2]!), reason: match[3]! }]
  })
  const order = [...switches.map((entry) => entry.timeline), timeline]
  const falling = order.findIndex((id, index) => index > 0 && id <= order[index - 1]!)
  if (falling > 0) throw malformed(timeline, `timeline ${order[falling]} after ${order[falling - 1]}`)
  return { timeline: timeline as TimelineId, switches }
}

/**
 * The LSN at which `timeline` was left on the way to `history.timeline`: what a node of that timeline has
 * beyond it is not part of this history. Undefined if the timeline is no ancestor (or is this one itself).
 */
export function forkPoint(history: TimelineHistory, timeline: number): Lsn | undefined {
  return history.switches.find((entry) => entry.timeline === timeline)?.leftAt
}

/** Whether WAL of `timeline` up to `lsn` is part of this history, so that a node there can simply follow. */
export function isInHistory(history: TimelineHistory, timeline: number, lsn: Lsn): boolean {
  if (timeline === history.timeline) return true
  const leftAt = forkPoint(history, timeline)
  return leftAt !== undefined && compareLsn(lsn, leftAt) <= 0
}

/**
 * The name under which recovery along this history asks first for the segment of a number: that of the newest timeline which had
 * begun by the segment's end.
 * @see src/backend/access/transam/xlogrecovery.c, XLogFileReadAnyTLI
 */
export function segmentOnLine(history: TimelineHistory, number: bigint, segmentSizeBytes: number): string {
  const line = linesOf(history).findLast(
    ({ begin }) => begin === null || segmentNumber(begin, segmentSizeBytes) <= number,
  )
  return walFileNameOf(line?.timeline ?? history.timeline, number, segmentSizeBytes)
}

/** Timelines of one history that are newer than the other one, and so none of it. */
export function timelinesPast(own: TimelineHistory, other: TimelineHistory): readonly TimelineId[] {
  return linesOf(own)
    .map((line) => line.timeline)
    .filter((timeline) => timeline > other.timeline)
}

/**
 * Those of these WAL files that hold nothing of this history: segments of a timeline that is none of it, and those of an ancestor
 * past the segment in which that was left. None where the history of the timeline is not known.
 */
export function segmentsOffLine(
  names: readonly string[],
  history: TimelineHistory,
  segmentSizeBytes: number,
): string[] {
  if (history.switches.length === 0 && history.timeline > 1) return []
  const lines = linesOf(history)
  return names.filter(isSegmentFile).filter((name) => {
    const line = lines.find((one) => one.timeline === parseWalFileName(name).timeline)
    return (
      line === undefined ||
      (line.end !== null && compareLsn(walFileStart(name, segmentSizeBytes), line.end) > 0)
    )
  })
}

/** The last timeline two histories share, and the LSN at which the first of them left it; null LSN: neither has. */
export interface CommonAncestor {
  readonly timeline: TimelineId
  readonly lsn: Lsn | null
}

/**
 * Where two histories part; undefined if they share no timeline at the same place, i.e. have nothing in common.
 * @see src/bin/pg_rewind/pg_rewind.c, findCommonAncestorTimeline
 */
export function commonAncestor(a: TimelineHistory, b: TimelineHistory): CommonAncestor | undefined {
  const linesOfA = linesOf(a)
  const linesOfB = linesOf(b)
  let shared = 0
  while (isSameStart(linesOfA[shared], linesOfB[shared])) shared += 1
  if (shared === 0) return undefined
  const { timeline, end: endOfA } = linesOfA[shared - 1]!
  return { timeline, lsn: earlier(endOfA, linesOfB[shared - 1]!.end) }
}

interface Line {
  readonly timeline: TimelineId
  readonly begin: Lsn | null
  readonly end: Lsn | null
}

function linesOf(history: TimelineHistory): Line[] {
  const { switches, timeline } = history
  const ancestors = switches.map((entry, index) => ({
    timeline: entry.timeline,
    begin: switches[index - 1]?.leftAt ?? null,
    end: entry.leftAt,
  }))
  return [...ancestors, { timeline, begin: switches.at(-1)?.leftAt ?? null, end: null }]
}

function isSameStart(a: Line | undefined, b: Line | undefined): boolean {
  if (!a || !b || a.timeline !== b.timeline) return false
  if (a.begin === null || b.begin === null) return a.begin === b.begin
  return compareLsn(a.begin, b.begin) === 0
}

function earlier(a: Lsn | null, b: Lsn | null): Lsn | null {
  if (a === null || b === null) return a ?? b
  return compareLsn(a, b) <= 0 ? a : b
}

function malformed(timeline: number, what: string): ReplctlError {
  return new ReplctlError('control-data-unreadable', `cannot read the history file of timeline ${timeline}`, {
    detail: `Malformed: ${JSON.stringify(what.slice(0, 200))}.`,
    hint: 'Compare the .history files in pg_wal on the other nodes and in the archive.',
  })
}
