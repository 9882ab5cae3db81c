import { createHash } from 'node:crypto'
import type { Lsn, TimelineId } from './lsn.ts'

/** A file of a base backup as it lies in the archive, e.g. `base.tar.zst`. */
export interface BackupFile {
  readonly name: string
  readonly bytes: number
  /** Of the file as it lies there, taken when its content had just been proved. */
  readonly sha256: string
}

export interface BackupTablespace {
  /** e.g. `16384`: the name of its tar file and of its link in pg_tblspc. */
  readonly oid: string
  readonly location: string
  /** Size when it is restored; undefined in backups that were taken before it was measured. */
  readonly bytes?: number
}

/** What `backup.json` says of a base backup. It is written last, when everything else is proved and on disk. */
export interface BackupMetadata {
  readonly format: 1
  /** e.g. `20261126T061500Z`. */
  readonly id: string
  readonly cluster: string
  readonly systemIdentifier: string
  readonly kind: 'full' | 'incremental'
  /** The backup that an incremental one builds on. */
  readonly parent: string | null
  readonly label: string
  /** Node it was taken from. */
  readonly source: string
  readonly postgresVersion: string
  readonly major: number
  /** ISO 8601, UTC. From `finishedAt` on every moment can be restored. */
  readonly startedAt: string
  readonly finishedAt: string
  readonly timeline: TimelineId
  readonly startLsn: Lsn
  readonly stopLsn: Lsn
  readonly walSegmentSizeBytes: number
  readonly tablespaces: readonly BackupTablespace[]
  /** Size of the restored data directory with its tablespaces. */
  readonly dataBytes: number
  readonly files: readonly BackupFile[]
  /** How its content was proved: against the manifest, or, before PostgreSQL 13, by unpacking all of it. */
  readonly verifiedBy: 'pg_verifybackup' | 'unpacking'
  readonly verifiedAt: string
}

/** What the last `backup verify` found. Lies beside backup.json as check.json. */
export interface BackupCheck {
  readonly checkedAt: string
  /** Each damage in a sentence that names the file; empty: none. */
  readonly damage: readonly string[]
}

export const metadataFile = 'backup.json'
export const checkFile = 'check.json'
export const manifestFile = 'backup_manifest'

/** Whether replctl itself keeps a file beside those of a backup: what a crash left of a new check.json is none of it either. */
export const isNoteOfBackup = (name: string): boolean =>
  name === metadataFile || name === checkFile || name.startsWith(`${checkFile}.replctl-new.`)

/** A backup's name: the moment it began, in UTC. Sorts by age. */
export function backupId(at: Date): string {
  return at.toISOString().replaceAll(/[-:]/g, '').replace(/\.\d+/, '')
}

/**
 * The name of a new backup: this moment, but behind all that are taken, for by their names a chain is known to be in order. The clock
 * that named those may have been ahead of this one.
 */
export function nextBackupId(now: Date, taken: readonly string[]): string {
  const last = taken.filter(isBackupId).toSorted().at(-1) ?? ''
  const [, year, month, day, hour, minute, second] = idShape.exec(last) ?? []
  const lastMs = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`)
  return backupId(Number.isNaN(lastMs) ? now : new Date(Math.max(now.getTime(), lastMs + 1_000)))
}

const idShape = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/

export const isBackupId = (text: string): boolean => /^\d{8}T\d{6}Z$/.test(text)

/** The text of backup.json: with a checksum of its own, so that an edit is noticed. */
export function printBackupMetadata(metadata: BackupMetadata): string {
  return `${JSON.stringify({ ...metadata, checksum: hashOf(metadata) }, null, 2)}\n`
}

/** Reads backup.json. @throws {RangeError} if it is damaged, or was edited */
export function parseBackupMetadata(text: string): BackupMetadata {
  const { checksum, ...metadata } = parseObject(text) as unknown as BackupMetadata & { checksum?: string }
  if (metadata.format !== 1) throw new RangeError('it is not of a format that this replctl knows')
  if (checksum !== hashOf(metadata)) throw new RangeError('its checksum is wrong: it was edited or damaged')
  return metadata
}

/** Reads check.json; null where there is none that can be read. */
export function parseBackupCheck(text: string): BackupCheck | null {
  try {
    const check = parseObject(text) as unknown as BackupCheck
    return Array.isArray(check.damage) ? check : null
  } catch {
    return null
  }
}

function parseObject(text: string): Record<string, unknown> {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw new RangeError('it is not JSON')
  }
  if (typeof value !== 'object' || value === null) throw new RangeError('it is no JSON object')
  return value as Record<string, unknown>
}

const hashOf = (metadata: object): string =>
  createHash('sha256').update(JSON.stringify(metadata)).digest('hex')

/** Bytes that a backup takes in the archive. */
export const storedBytes = (metadata: BackupMetadata): number =>
  metadata.files.reduce((sum, file) => sum + file.bytes, 0)
