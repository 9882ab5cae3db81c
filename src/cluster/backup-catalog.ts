import {
  type BackupCheck,
  type BackupMetadata,
  isBackupId,
  isNoteOfBackup,
  metadataFile,
  storedBytes,
} from '../postgres/backup-metadata.ts'
import { compareLsn, lsnToBytes } from '../postgres/lsn.ts'
import { parseTimelineHistory, type TimelineHistory } from '../postgres/timeline-history.ts'
import { isOnLine, type WalChain, walChain } from '../postgres/wal-chain.ts'
import {
  historyFileName,
  nextWalFileName,
  segmentNumber,
  walFileName,
  walFileNameOf,
  walFileStart,
} from '../postgres/wal-file.ts'

/** One folder below `backup/`, as it was found. */
export interface FoundBackup {
  readonly id: string
  /** Null where backup.json cannot be read; `fault` then says why. */
  readonly metadata: BackupMetadata | null
  readonly fault: string | null
  /** Everything in the folder: name → size in bytes; folders and links have null. */
  readonly files: ReadonlyMap<string, number | null>
  readonly check: BackupCheck | null
}

/** A backup that is being taken, or was interrupted, and what it was begun with. */
export interface IncomingBackup {
  readonly id: string
  readonly request: BackupRequest | null
  /** So young that it is finished instead of taken anew. */
  readonly isFresh: boolean
}

/** What a backup was begun with: `request.json` in its folder. */
export interface BackupRequest {
  readonly cluster: string
  readonly source: string
  readonly label: string
  readonly parent: string | null
  readonly startedAt: string
  readonly postgresVersion: string
  readonly major: number
}

/** What the archive holds of one system identifier. */
export interface BackupCatalog {
  readonly systemIdentifier: string
  /** The oldest first. */
  readonly backups: readonly FoundBackup[]
  /** Backups that are being taken, or were interrupted. */
  readonly incoming: readonly IncomingBackup[]
  /** Complete segments, without suffixes. */
  readonly segments: ReadonlySet<string>
  /** Names, without `.partial`, of segments that are there in part only: WAL is being streamed into them, or their timeline was left. */
  readonly partials: ReadonlySet<string>
  /** Texts of the history files, by timeline. */
  readonly histories: ReadonlyMap<number, string>
}

/** What is known of a backup without reading its files. */
export interface JudgedBackup {
  readonly id: string
  readonly metadata: BackupMetadata | null
  readonly bytes: number
  /** Nothing speaks against restoring it. */
  readonly isGood: boolean
  /** What does, naming the file; empty: nothing. */
  readonly damage: readonly string[]
}

/**
 * The backup of a cluster to go on with: one that runs, or that a killed replctl left not long ago. What is listed is finished,
 * whatever a crash of the archive host left of its making.
 */
export function incomingOf(
  catalogs: readonly BackupCatalog[],
  cluster: string,
  isRunning: boolean,
): string | null {
  const found = catalogs
    .flatMap(({ incoming, backups }) => incoming.filter(({ id }) => backups.every((one) => one.id !== id)))
    .find(({ id, request }) => request?.cluster === cluster && isBackupId(id))
  return found !== undefined && (isRunning || found.isFresh) ? found.id : null
}

/** Judges every backup of a catalog: a damaged one takes the incremental ones that build on it along. */
export function judgeBackups(catalog: BackupCatalog): readonly JudgedBackup[] {
  const lines = timelinesOf(catalog).flatMap((timeline) => historyOf(catalog, timeline) ?? [])
  const own = new Map(catalog.backups.map((found) => [found.id, damageOf(found, catalog, lines)]))
  return catalog.backups.map((found) => {
    const { id, metadata } = found
    const damage = [...(own.get(id) ?? []), ...damageOfParents(metadata, catalog, own)]
    const bytes =
      metadata === null
        ? [...found.files.values()].reduce<number>((sum, size) => sum + (size ?? 0), 0)
        : storedBytes(metadata)
    return { id, metadata, bytes, isGood: damage.length === 0, damage }
  })
}

function damageOf(found: FoundBackup, catalog: BackupCatalog, lines: readonly TimelineHistory[]): string[] {
  const { id, metadata, files, check } = found
  if (metadata === null) return [`${metadataFile} cannot be used: ${found.fault ?? 'it is missing'}`]
  const foreign = [
    ...(metadata.id === id ? [] : [`${metadataFile} is that of backup ${metadata.id}`]),
    ...(metadata.systemIdentifier === catalog.systemIdentifier
      ? []
      : [`${metadataFile} is of another cluster (system identifier ${metadata.systemIdentifier})`]),
  ]
  const wanted = new Map(metadata.files.map((file) => [file.name, file.bytes]))
  const wrong = [...wanted].flatMap(([name, bytes]) => {
    const size = files.get(name)
    if (size === undefined) return [`${name} is missing`]
    return size === bytes ? [] : [`${name} has ${size ?? 'no'} bytes, not ${bytes}`]
  })
  const extra = [...files.keys()].filter((name) => !wanted.has(name) && !isNoteOfBackup(name))
  // No recovery finds its way from there, whatever else is whole.
  const lost = lines.some((line) => isBackupOn(line, metadata))
    ? []
    : [`${historyFileName(metadata.timeline)} is missing or damaged in the archive`]
  const known = [...foreign, ...wrong, ...lost, ...extra.map((name) => `${name} is not part of the backup`)]
  return [...known, ...(check?.damage ?? []).filter((line) => !known.includes(line))]
}

function damageOfParents(
  metadata: BackupMetadata | null,
  catalog: BackupCatalog,
  own: ReadonlyMap<string, readonly string[]>,
): string[] {
  if (metadata?.parent == null) return []
  const chain = chainOf(metadata.id, catalog)
  return chain.is === 'broken'
    ? [chain.why]
    : chain.backups.slice(0, -1).flatMap((one) => {
        const damage = own.get(one.id) ?? []
        return damage.length === 0 ? [] : [`backup ${one.id}, which it builds on: ${damage[0]}`]
      })
}

export type BackupChain =
  | { readonly is: 'whole'; readonly backups: readonly BackupMetadata[] }
  | { readonly is: 'broken'; readonly why: string }

/** A backup with those it builds on, the full one first. */
export function chainOf(id: string, catalog: BackupCatalog): BackupChain {
  const chain: BackupMetadata[] = []
  for (let next: string | null = id; next !== null; ) {
    const found = catalog.backups.find((one) => one.id === next)
    const metadata: BackupMetadata | null = found?.metadata ?? null
    const child = chain[0]
    if (metadata === null) return { is: 'broken', why: `backup ${next}, which it builds on, is missing` }
    const isOther = metadata.id !== next || metadata.systemIdentifier !== catalog.systemIdentifier
    if (child !== undefined && isOther) {
      const whose = metadata.systemIdentifier === catalog.systemIdentifier ? '' : ' of another cluster'
      return {
        is: 'broken',
        why: `in the place of backup ${next}, which it builds on, lies backup ${metadata.id}${whose}`,
      }
    }
    if (child !== undefined && (metadata.id >= child.id || metadata.major !== child.major)) {
      return { is: 'broken', why: `backup ${child.id} cannot build on ${metadata.id}` }
    }
    if (metadata.kind === 'incremental' && metadata.parent === null) {
      return { is: 'broken', why: `backup ${metadata.id} does not say what it builds on` }
    }
    chain.unshift(metadata)
    next = metadata.parent
  }
  return { is: 'whole', backups: chain }
}

/** The line that a timeline of the archive continues; null where its history file is missing or damaged. */
export function historyOf(catalog: BackupCatalog, timeline: number): TimelineHistory | null {
  const text = timeline === 1 ? '' : catalog.histories.get(timeline)
  if (text === undefined) return null
  try {
    return parseTimelineHistory(text, timeline)
  } catch {
    return null
  }
}

/** Every timeline that the archive knows, the newest last. */
export function timelinesOf(catalog: BackupCatalog): readonly number[] {
  const ofSegments = [...catalog.segments].map((name) => Number.parseInt(name.slice(0, 8), 16))
  const ofBackups = catalog.backups.flatMap(({ metadata }) => metadata?.timeline ?? [])
  return [...new Set([...ofSegments, ...ofBackups, ...catalog.histories.keys()])].toSorted((a, b) => a - b)
}

/** Whether a backup lies on a line, so that recovery along that line can begin with it. */
export function isBackupOn(history: TimelineHistory, backup: BackupMetadata): boolean {
  return isOnLine(history, backup.timeline, backup.stopLsn)
}

/** WAL that there is from a backup on, along a line: what the archive holds, and what the backup brings along. */
export function chainFrom(
  catalog: BackupCatalog,
  backup: BackupMetadata,
  history: TimelineHistory,
): WalChain {
  const { segments: archived } = catalog
  return walChain({
    segments: new Set([...archived, ...walOf(backup)]),
    archived,
    history,
    from: backup.startLsn,
    fromTimeline: backup.timeline,
    segmentSizeBytes: backup.walSegmentSizeBytes,
  })
}

/**
 * The segment that is being streamed, where a recovery along this line that has read all complete ones comes to it next. It is handed out
 * under its full name only while there is no newer timeline.
 */
export function streamedAfter(
  catalog: BackupCatalog,
  backup: BackupMetadata,
  history: TimelineHistory,
  last: string | null,
): string | null {
  if (timelinesOf(catalog).at(-1) !== history.timeline) return null
  const size = backup.walSegmentSizeBytes
  const begin = last === null ? backup.startLsn : walFileStart(nextWalFileName(last, size), size)
  const next = walFileName(history.timeline, begin, size)
  return catalog.partials.has(next) ? next : null
}

/** The order in which they were taken: after a restore into the past an LSN says nothing of it. */
export function byFinish(a: BackupMetadata, b: BackupMetadata): number {
  return Date.parse(a.finishedAt) - Date.parse(b.finishedAt) || (a.id < b.id ? -1 : 1)
}

/** By the end of the backup; equal ones by name. */
export function byStop(a: BackupMetadata, b: BackupMetadata): number {
  return compareLsn(a.stopLsn, b.stopLsn) || (a.id < b.id ? -1 : 1)
}

/**
 * Segments of a backup's own range that the archive lacks and will need. The last one may never come under its name: where the
 * timeline was left within it, the segment of that number on the next timeline holds all of it.
 */
export function missingWalOf(catalog: BackupCatalog, backup: BackupMetadata): readonly string[] {
  const { timeline, stopLsn, walSegmentSizeBytes: size } = backup
  const isGoneOn = (name: string) =>
    timelinesOf(catalog).some((newer) => {
      const line = historyOf(catalog, newer)
      const at = line?.switches.findIndex((one) => one.timeline === timeline) ?? -1
      const left = line?.switches[at]
      if (line == null || left === undefined || compareLsn(left.leftAt, stopLsn) < 0) return false
      const next = line.switches[at + 1]?.timeline ?? line.timeline
      return (
        walFileName(timeline, left.leftAt, size) === name &&
        catalog.segments.has(walFileName(next, left.leftAt, size))
      )
    })
  return walOf(backup).filter((name) => !catalog.segments.has(name) && !isGoneOn(name))
}

/** Segments that hold WAL from a backup's start to its end. */
export function walOf(backup: BackupMetadata): readonly string[] {
  const { timeline, startLsn, stopLsn, walSegmentSizeBytes: size } = backup
  const first = segmentNumber(startLsn, size)
  const last = (lsnToBytes(stopLsn) - 1n) / BigInt(size)
  return Array.from({ length: Number(last - first) + 1 }, (_, index) =>
    walFileNameOf(timeline, first + BigInt(index), size),
  )
}
