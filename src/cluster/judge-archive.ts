import { type ErrorDetails, ReplctlError } from '../errors.ts'
import {
  type ArchiveContent,
  type ArchivedTimeline,
  type ArchiveGap,
  gapBetween,
} from '../postgres/archive-content.ts'
import { parseTimelineHistory, type TimelineHistory } from '../postgres/timeline-history.ts'
import {
  historyFileName,
  isBackupHistoryFile,
  isPartialFile,
  isSegmentFile,
  parseWalFileName,
  segmentNumber,
  walFileNameOf,
  walFileStart,
} from '../postgres/wal-file.ts'
import { archiveHost } from './names.ts'
import { type Problem, problemOf } from './problem.ts'

export type { ArchiveContent } from '../postgres/archive-content.ts'

/** What the primary says of what must be there; unknown where none answers. */
export interface ArchiveExpectation {
  readonly timeline: number
  /** What the server says: where nothing lies in the archive, nobody else does. */
  readonly segmentSizeBytes: number | null
  /** `pg_stat_archiver.last_archived_wal`, as a rule a segment; null: nothing yet, or WAL is streamed to the archive. */
  readonly lastArchived: string | null
  /** Text of the history file of its timeline; null on timeline 1. */
  readonly history: string | null
}

export interface ArchiveVerdict {
  readonly problems: readonly Problem[]
  /** The segments from which on every byte up to the newest is there, on the way to the cluster's timeline; null: none. */
  readonly restorableFrom: string | null
  readonly restorableTo: string | null
}

/** Leftovers of pushes younger than this may be pushes under way. */
const staleSeconds = 3600

/**
 * Whether everything in an archive is whole, and nothing is missing on the way to the cluster's timeline: the primary's; the
 * newest of the archive where none answers.
 */
export function judgeArchive(
  content: ArchiveContent,
  expected: ArchiveExpectation | null,
  nowSeconds: number,
): ArchiveVerdict {
  const problems: Problem[] = []
  const add = (
    code: 'archive-damaged' | 'archive-conflict' | 'archive-gap' | 'archive-leftovers' | 'wrong-timeline',
    message: string,
    details: ErrorDetails = {},
    severity: Problem['severity'] = 'error',
  ) => problems.push(problemOf(new ReplctlError(code, message, { node: archiveHost, ...details }), severity))
  for (const { file, what } of content.faults.slice(0, 50)) {
    add('archive-damaged', `${file} is damaged: ${what}`, {
      hint: 'Recovery stops there. If a node still has the segment in pg_wal, remove the damaged copy and archive it again; then take a new backup.',
    })
  }
  if (content.faults.length > 50)
    add('archive-damaged', `${content.faults.length - 50} more files are damaged`)
  for (const files of content.conflicts) {
    add('archive-conflict', `${files.join(' and ')} differ`, {
      hint: 'Two servers wrote this timeline. Find out which copy is right and remove the other; until then neither is handed out.',
    })
  }
  const stale = content.incoming.filter((one) => nowSeconds - one.modifiedAt > staleSeconds)
  if (stale.length > 0) {
    add(
      'archive-leftovers',
      `${stale.length} file(s) of pushes that were killed are left`,
      {
        detail: stale
          .map((one) => one.name)
          .slice(0, 5)
          .join(', '),
        hint: 'The next push removes them.',
      },
      'warning',
    )
  }
  const size = content.segmentSizeBytes ?? expected?.segmentSizeBytes ?? null
  const way = wayToNewest(content, expected, size, add)
  const gaps =
    size === null
      ? []
      : way.flatMap((stretch, index) => gapsOn(stretch, way.slice(0, index).some(isReadOf(size)), size))
  for (const gap of gaps.slice(0, 50)) {
    add('archive-gap', `${describeGap(gap)} missing from the archive`, {
      detail: 'Point-in-time recovery from a backup before it cannot get across.',
      hint: 'If a node still has it in pg_wal, archive it from there; else take a new backup: replctl backup',
    })
  }
  const range = restorableRange(way, gaps, size)
  return { problems, ...range }
}

type Add = (
  code: 'archive-conflict' | 'archive-gap' | 'wrong-timeline',
  message: string,
  details?: ErrorDetails,
  severity?: Problem['severity'],
) => void

interface Stretch {
  readonly timeline: number
  /** Numbers of the first and last segment that recovery reads on this timeline; null: as far as there are any. */
  readonly from: bigint | null
  readonly to: bigint | null
  readonly line: ArchivedTimeline | undefined
  /** The primary says that `to` was archived. */
  readonly isPromised: boolean
}

/** Whether something lies there that recovery reads on a stretch; what lies behind its end is of a line that was left. */
const isReadOf =
  (size: number) =>
  ({ line, to }: Stretch): boolean =>
    line !== undefined && (to === null || numberOf(line.first, size) <= to)

/** The stretches of WAL on the way to the cluster's timeline, oldest first. */
function wayToNewest(
  content: ArchiveContent,
  expected: ArchiveExpectation | null,
  size: number | null,
  add: Add,
): Stretch[] {
  const { timelines, histories } = content
  const highest = Math.max(0, ...timelines.map((one) => one.timeline), ...histories.keys())
  // A timeline of which nothing was archived yet is only missed once something should be there.
  const newest = expected?.timeline ?? highest
  if (newest === 0) return []
  if (highest > newest) {
    add(
      'wrong-timeline',
      `the archive knows timeline ${highest}, and the primary is on ${newest}`,
      {
        detail: `What lies there of a timeline after ${newest} is of a node that was promoted and no longer leads, or beside the cluster.`,
        hint: `Backups and restores follow the primary. To restore that other line: replctl restore NODE --timeline ${highest}`,
      },
      'warning',
    )
  }
  const own = newest === expected?.timeline ? expected.history : null
  const text = histories.get(newest) ?? own
  if (own !== null && text !== null && text.trim() !== own.trim()) {
    add('archive-conflict', `${historyFileName(newest)} in the archive is not that of the primary`, {
      detail: `Two nodes were promoted to timeline ${newest}: what lies there of it may be of both, and no recovery can tell.`,
      hint: 'Have a new timeline, by a switchover, and take a new base backup: replctl backup',
    })
  }
  if (newest > 1 && !histories.has(newest)) {
    add('archive-gap', `${historyFileName(newest)} is missing from the archive`, {
      detail: `Recovery cannot find its way to timeline ${newest} without it.`,
      hint: 'It lies in pg_wal of every node on that timeline and is archived at promotion: replctl archive status',
    })
  }
  const history = readHistory(text ?? '', newest, add)
  if (size === null) return []
  const lineOf = (timeline: number) => timelines.find((one) => one.timeline === timeline)
  const archived = expected?.timeline === newest ? expected.lastArchived : null
  const ancestors = history.switches.map(({ timeline, leftAt }, index): Stretch => {
    const begin = history.switches[index - 1]?.leftAt
    const to = segmentNumber(leftAt, size) - 1n
    const isLast = index === history.switches.length - 1
    return {
      timeline,
      from: begin === undefined ? null : segmentNumber(begin, size),
      // The segment of the switch itself is whole only on the timeline that it began.
      to,
      line: lineOf(timeline),
      isPromised: isLast && to > 0n && endsTimeline(archived, timeline, newest),
    }
  })
  const begin = history.switches.at(-1)?.leftAt
  const line = lineOf(newest)
  const there = lastFinished(content, newest, line, size)
  const promised = promisedSegment(archived, newest, size)
  return [
    ...ancestors,
    {
      timeline: newest,
      from: begin === undefined ? null : segmentNumber(begin, size),
      // A label names the segment that its backup began in: others came after it.
      to:
        promised === null
          ? there
          : there !== null && there > promised && !isSegmentFile(archived ?? '')
            ? there
            : promised,
      line,
      isPromised: promised !== null,
    },
  ]
}

/** The segment of a timeline that the server archived last, or before the backup label that it archived last: names go in order. */
function promisedSegment(archived: string | null, timeline: number, size: number): bigint | null {
  if (archived === null || !(isSegmentFile(archived) || isBackupHistoryFile(archived))) return null
  const segment = archived.slice(0, 24)
  return parseWalFileName(segment).timeline === timeline ? numberOf(segment, size) : null
}

/** Whether what was archived last ends one timeline and begins the next: what comes before it is there by then. */
function endsTimeline(archived: string | null, timeline: number, newest: number): boolean {
  if (archived === null) return false
  return isPartialFile(archived)
    ? parseWalFileName(archived).timeline === timeline
    : archived === historyFileName(newest)
}

/** The last segment that must be whole: whoever streams the next one has finished it, or is about to give it its name. */
function lastFinished(
  { partials }: ArchiveContent,
  timeline: number,
  line: ArchivedTimeline | undefined,
  size: number,
): bigint | null {
  const streamed = partials
    .filter((name) => parseWalFileName(name).timeline === timeline)
    .map((name) => numberOf(name, size))
  const finished = streamed.map((number) => number - 1n).filter((number) => !streamed.includes(number))
  const all = line === undefined ? finished : [...finished, numberOf(line.last, size)]
  return all.toSorted((a, b) => (a < b ? -1 : 1)).at(-1) ?? null
}

function readHistory(text: string, timeline: number, add: Add): TimelineHistory {
  try {
    return parseTimelineHistory(text, timeline)
  } catch {
    add('archive-gap', `${historyFileName(timeline)} cannot be read`, {
      hint: 'Compare it with the one in pg_wal of the nodes.',
    })
    return parseTimelineHistory('', timeline)
  }
}

const numberOf = (name: string, size: number): bigint => segmentNumber(walFileStart(name, size), size)

/** What is missing of one stretch. Where nothing that comes before it is there at all, it begins with the oldest segment. */
function gapsOn(
  { timeline, from, to, line, isPromised }: Stretch,
  isOlderThere: boolean,
  size: number,
): ArchiveGap[] {
  if (to === null) return []
  const start = isOlderThere ? from : null
  if (line === undefined) {
    const begin = start ?? (isPromised ? to : null)
    return begin === null || begin > to ? [] : [gapBetween(timeline, begin - 1n, to + 1n, size)]
  }
  const [first, last] = [numberOf(line.first, size), numberOf(line.last, size)]
  const within = line.gaps.flatMap((gap): ArchiveGap[] => {
    const [begin, end] = [numberOf(gap.first, size), numberOf(gap.last, size)]
    if (begin > to) return []
    return [gapBetween(timeline, begin - 1n, (end < to ? end : to) + 1n, size)]
  })
  return [
    ...(start !== null && first > start
      ? [gapBetween(timeline, start - 1n, first < to + 1n ? first : to + 1n, size)]
      : []),
    ...within,
    ...(last < to && to >= first ? [gapBetween(timeline, last, to + 1n, size)] : []),
  ]
}

function describeGap({ first, last, count }: ArchiveGap): string {
  return count === 1 ? `${first} is` : `${first} to ${last} (${count} segments) are`
}

function restorableRange(
  way: readonly Stretch[],
  gaps: readonly ArchiveGap[],
  size: number | null,
): Pick<ArchiveVerdict, 'restorableFrom' | 'restorableTo'> {
  const present = size === null ? [] : way.filter(isReadOf(size))
  const newest = present.at(-1)
  if (size === null || newest?.line === undefined) return { restorableFrom: null, restorableTo: null }
  const lastGap = gaps.at(-1)
  if (lastGap === undefined)
    return { restorableFrom: present[0]?.line?.first ?? null, restorableTo: newest.line.last }
  const { timeline } = parseWalFileName(lastGap.last)
  const after = numberOf(lastGap.last, size) + 1n
  if (after > numberOf(newest.line.last, size)) return { restorableFrom: null, restorableTo: null }
  return { restorableFrom: walFileNameOf(timeline, after, size), restorableTo: newest.line.last }
}
