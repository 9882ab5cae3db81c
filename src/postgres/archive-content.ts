import type { ArchiveSuffix } from './archive.ts'
import { bytesToLsn, type TimelineId } from './lsn.ts'
import { parseSegmentHeader, type SegmentHeader, segmentHeaderBytes } from './segment-header.ts'
import {
  isBackupHistoryFile,
  isHistoryFile,
  isPartialFile,
  isSegmentFile,
  parseWalFileName,
  segmentNumber,
  walFileNameOf,
  walFileStart,
} from './wal-file.ts'

/** Segments that are missing between two that are there. */
export interface ArchiveGap {
  readonly first: string
  readonly last: string
  readonly count: number
}

/** The segments of one timeline. */
export interface ArchivedTimeline {
  readonly timeline: TimelineId
  /** e.g. `000000010000000000000003`; null where only a history file or a partial segment is there. */
  readonly first: string
  readonly last: string
  readonly count: number
  readonly gaps: readonly ArchiveGap[]
}

/** A file that is not what its name and this cluster say. */
export interface ArchiveFault {
  readonly file: string
  /** e.g. `it is empty`. */
  readonly what: string
}

/** What lies in an archive, as far as it can be told there. */
export interface ArchiveContent {
  readonly systemIdentifier: string
  /** Null where no segment's header could be read, and the server does not say it. */
  readonly segmentSizeBytes: number | null
  readonly timelines: readonly ArchivedTimeline[]
  /** Text of each history file, by timeline. */
  readonly histories: ReadonlyMap<number, string>
  readonly partials: readonly string[]
  readonly backupLabels: readonly string[]
  readonly faults: readonly ArchiveFault[]
  /** Files that are there twice, with different content. */
  readonly conflicts: readonly (readonly string[])[]
  /** Pushes under way, or what a killed one left. */
  readonly incoming: readonly { readonly name: string; readonly modifiedAt: number }[]
  /** Files that are none of replctl's; they are left alone. */
  readonly foreign: readonly string[]
  /** WAL, history files and labels. */
  readonly files: number
  readonly bytes: number
  /** Of how many segments the header was read, and how many were unpacked to their end. */
  readonly headersRead: number
  readonly unpacked: number
  readonly disk: ArchiveDisk | null
}

export interface ArchiveDisk {
  readonly totalBytes: number
  readonly usedBytes: number
  readonly freeBytes: number
}

interface Entry {
  /** Without its suffix. */
  readonly name: string
  readonly file: string
  readonly suffix: ArchiveSuffix
  readonly sizeBytes: number
}

export interface ArchiveLineReader {
  add(line: string): void
  isComplete(): boolean
  content(): ArchiveContent
}

/** How each compression's files begin, in hexadecimal. */
const magic: Readonly<Record<Exclude<ArchiveSuffix, 'none'>, string>> = {
  gz: '1f8b',
  lz4: '04224d18',
  zst: '28b52ffd',
}

/** Takes what the script of `readArchive` prints, line by line. `knownSize`: of a segment, where no header says it. */
export function readArchiveLines(systemIdentifier: string, knownSize?: number): ArchiveLineReader {
  const entries: Entry[] = []
  const seen = new Set<string>()
  const histories = new Map<number, string>()
  const heads: { readonly file: string; readonly bytes: Uint8Array; readonly sizeBytes: number | null }[] = []
  const faults: ArchiveFault[] = []
  const conflicts: (readonly string[])[] = []
  const incoming: { name: string; modifiedAt: number }[] = []
  const foreign: string[] = []
  let disk: ArchiveDisk | null = null
  let [unpacked, isComplete] = [0, false]

  const readers: Readonly<Record<string, (words: readonly string[], line: string) => void>> = {
    disk: ([total, used, free]) => {
      disk = {
        totalBytes: Number(total) * 1024,
        usedBytes: Number(used) * 1024,
        freeBytes: Number(free) * 1024,
      }
    },
    f: ([size, , ...rest]) => {
      const file = rest.join(' ')
      const entry = entryOf(file, Number(size))
      if (entry === undefined) foreign.push(file)
      else {
        entries.push(entry)
        seen.add(file)
      }
    },
    h: ([file = ''], line) => {
      const timeline = Number.parseInt(file.slice(0, 8), 16)
      const text = line.slice(`h ${file} `.length)
      histories.set(timeline, `${histories.get(timeline) ?? ''}${text}\n`)
    },
    i: ([, modified, ...rest]) => incoming.push({ name: rest.join(' '), modifiedAt: Number(modified) }),
    x: ([file = '', ...hex]) => {
      const entry = entryOf(file, 0)
      if (entry === undefined || !seen.has(file)) return
      if (entry.suffix === 'none') {
        heads.push({ file, bytes: bytesOf(hex), sizeBytes: null })
      } else if (!hex.join('').startsWith(magic[entry.suffix])) {
        faults.push({ file, what: `it is no .${entry.suffix} file` })
      }
    },
    u: ([file = '']) => {
      faults.push({ file, what: 'it cannot be read' })
    },
    c: ([file = '', ...words]) => {
      if (!seen.has(file)) return
      const isBad = words[0] === 'bad'
      const [size = '-', ...hex] = isBad ? words.slice(1) : words
      if (size !== '-') unpacked += 1
      if (isBad) faults.push({ file, what: 'it cannot be unpacked to its end' })
      else heads.push({ file, bytes: bytesOf(hex), sizeBytes: size === '-' ? null : Number(size) })
    },
    two: (words) => {
      const files = words.filter((_, index) => index % 2 === 0)
      const hashes = new Set(words.filter((_, index) => index % 2 === 1))
      if (hashes.size > 1) conflicts.push(files)
    },
    end: () => {
      isComplete = true
    },
  }
  return {
    add: (line) => {
      const [verb = '', ...words] = line.split(' ').filter((word, index) => index === 0 || word !== '')
      readers[verb]?.(words, line)
    },
    isComplete: () => isComplete,
    content: () => {
      const headers = heads.map((head) => ({ ...head, header: parseSegmentHeader(head.bytes) }))
      const size =
        headers.find((one) => one.header?.systemIdentifier === systemIdentifier)?.header?.segmentSizeBytes ??
        knownSize
      const known = new Set(faults.map((fault) => fault.file))
      const all = [
        ...faults,
        ...entries.flatMap((entry) => sizeFault(entry, size)),
        ...headers.flatMap((one) => headerFault(one, systemIdentifier)),
      ].filter((fault, index, list) => list.findIndex((other) => other.file === fault.file) === index)
      return {
        systemIdentifier,
        segmentSizeBytes: size ?? null,
        timelines: size === undefined ? [] : timelinesOf(entries, size),
        histories,
        partials: entries.filter((one) => isPartialFile(one.name)).map((one) => one.name),
        backupLabels: entries.filter((one) => isBackupHistoryFile(one.name)).map((one) => one.name),
        faults: all,
        conflicts,
        incoming,
        foreign,
        files: entries.length,
        bytes: entries.reduce((sum, one) => sum + one.sizeBytes, 0),
        headersRead: headers.filter((one) => !known.has(one.file)).length,
        unpacked,
        disk,
      }
    },
  }
}

function entryOf(file: string, sizeBytes: number): Entry | undefined {
  const match = /^(.*)\.(gz|lz4|zst)$/.exec(file)
  const name = match?.[1] ?? file
  const isOurs =
    isSegmentFile(name) || isPartialFile(name) || isHistoryFile(name) || isBackupHistoryFile(name)
  return isOurs ? { name, file, suffix: (match?.[2] ?? 'none') as ArchiveSuffix, sizeBytes } : undefined
}

const bytesOf = (hex: readonly string[]): Uint8Array =>
  Uint8Array.from(hex, (byte) => Number.parseInt(byte, 16))

function sizeFault(
  { name, file, suffix, sizeBytes }: Entry,
  segmentSize: number | undefined,
): ArchiveFault[] {
  if (sizeBytes === 0) return [{ file, what: 'it is empty' }]
  if (isHistoryFile(name) || isBackupHistoryFile(name)) return []
  if (suffix !== 'none') {
    return sizeBytes < segmentHeaderBytes ? [{ file, what: `it has ${sizeBytes} bytes only` }] : []
  }
  return segmentSize === undefined || sizeBytes === segmentSize
    ? []
    : [{ file, what: `it has ${sizeBytes} bytes, a segment of this cluster has ${segmentSize}` }]
}

interface Head {
  readonly file: string
  readonly header: SegmentHeader | undefined
  /** Unpacked; null where it was not read to its end. */
  readonly sizeBytes: number | null
}

function headerFault({ file, header, sizeBytes }: Head, systemIdentifier: string): ArchiveFault[] {
  const fault = (what: string) => [{ file, what }]
  if (header === undefined) return fault('it does not begin with the header of a WAL segment')
  if (header.systemIdentifier !== systemIdentifier)
    return fault(`it belongs to another cluster (system identifier ${header.systemIdentifier})`)
  if (sizeBytes !== null && sizeBytes !== header.segmentSizeBytes)
    return fault(`it has ${sizeBytes} bytes unpacked, its header says ${header.segmentSizeBytes}`)
  const name = file.slice(0, 24)
  if (walFileStart(name, header.segmentSizeBytes) !== header.startLsn)
    return fault(`its header says it begins at ${header.startLsn}, which is another segment`)
  if (header.timeline > parseWalFileName(name).timeline)
    return fault(`its header says timeline ${header.timeline}, later than its name`)
  return []
}

/** Runs of segments by timeline; `entries` are sorted by name. */
function timelinesOf(entries: readonly Entry[], size: number): ArchivedTimeline[] {
  const found = new Map<number, { first: bigint; last: bigint; count: number; gaps: ArchiveGap[] }>()
  for (const { name } of entries) {
    if (!isSegmentFile(name)) continue
    const { timeline } = parseWalFileName(name)
    const number = segmentNumber(walFileStart(name, size), size)
    const line = found.get(timeline)
    if (line === undefined) {
      found.set(timeline, { first: number, last: number, count: 1, gaps: [] })
      continue
    }
    if (number === line.last) continue
    if (number > line.last + 1n) line.gaps.push(gapBetween(timeline, line.last, number, size))
    line.last = number
    line.count += 1
  }
  return [...found].map(([timeline, line]) => ({
    timeline: timeline as TimelineId,
    first: walFileNameOf(timeline, line.first, size),
    last: walFileNameOf(timeline, line.last, size),
    count: line.count,
    gaps: line.gaps,
  }))
}

/** The segments after number `from` and before number `to`. */
export function gapBetween(timeline: number, from: bigint, to: bigint, size: number): ArchiveGap {
  return {
    first: walFileNameOf(timeline, from + 1n, size),
    last: walFileNameOf(timeline, to - 1n, size),
    count: Number(to - from - 1n),
  }
}

/** The end of a segment, i.e. the first byte after it. */
export function segmentEnd(name: string, size: number) {
  const number = segmentNumber(walFileStart(name, size), size)
  return bytesToLsn((number + 1n) * BigInt(size))
}
