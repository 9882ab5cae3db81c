import type { JudgedBackup } from '../cluster/backup-catalog.ts'
import { formatBytes } from './bytes.ts'
import type { Paint } from './paint.ts'
import { oneLine } from './plain-text.ts'
import { columns } from './table.ts'

/** One entry of `result.backups`. */
export interface ListedBackup {
  readonly id: string
  readonly start_lsn: string | null
  readonly stop_lsn: string | null
  readonly timeline: number | null
  readonly bytes: number
  readonly verified: boolean
  readonly kind: 'full' | 'incremental' | null
  readonly parent: string | null
  readonly label: string | null
  readonly source: string | null
  readonly postgres_version: string | null
  readonly started_at: string | null
  readonly finished_at: string | null
  readonly data_bytes: number | null
  readonly system_identifier: string | null
  /** Why it cannot be relied on; null: it can. */
  readonly reason: string | null
}

export function listedBackup({ id, metadata, bytes, isGood, damage }: JudgedBackup): ListedBackup {
  return {
    id,
    start_lsn: metadata?.startLsn ?? null,
    stop_lsn: metadata?.stopLsn ?? null,
    timeline: metadata?.timeline ?? null,
    bytes,
    verified: isGood,
    kind: metadata?.kind ?? null,
    parent: metadata?.parent ?? null,
    label: metadata?.label ?? null,
    source: metadata?.source ?? null,
    postgres_version: metadata?.postgresVersion ?? null,
    started_at: metadata?.startedAt ?? null,
    finished_at: metadata?.finishedAt ?? null,
    data_bytes: metadata?.dataBytes ?? null,
    system_identifier: metadata?.systemIdentifier ?? null,
    reason: isGood ? null : damage.join('; '),
  }
}

/** A line for each backup; what speaks against one stands below it. */
export function backupsText(
  backups: readonly ListedBackup[],
  unfinished: readonly string[],
  paint: Paint,
): string {
  const rows = backups.map((one) => [
    one.verified ? paint.good('✓') : paint.bad('✗'),
    paint.strong(one.id),
    one.kind === 'incremental' ? `on ${one.parent}` : (one.kind ?? '-'),
    one.timeline === null ? '-' : `timeline ${one.timeline}`,
    `${one.start_lsn ?? '-'} to ${one.stop_lsn ?? '-'}`,
    formatBytes(one.bytes),
    one.source === null ? '' : `from ${one.source}`,
    oneLine(one.label ?? ''),
  ])
  const bad = backups.filter((one) => one.reason !== null)
  return [
    backups.length === 0 ? 'There is no backup. Take one: replctl backup\n' : columns(rows),
    ...bad.map((one) => paint.bad(`${one.id} is not restorable: ${oneLine(one.reason ?? '')}\n`)),
    ...unfinished.map((id) =>
      paint.warn(`${id} is being taken, or was interrupted: replctl backup goes on with it.\n`),
    ),
  ].join('')
}

/** What `backup` took. */
export function takenText(taken: ListedBackup, paint: Paint): string {
  const size = taken.data_bytes === null ? '' : `, of ${formatBytes(taken.data_bytes)} of data`
  return `Backup ${paint.strong(taken.id)} is taken and verified: ${formatBytes(taken.bytes)}${size}, timeline ${taken.timeline}, ${taken.start_lsn} to ${taken.stop_lsn}.\n`
}

/** `result` of `backup expire`. */
export interface ExpiredResult {
  readonly removed: readonly string[]
  readonly kept: readonly string[]
  readonly wal: { readonly before: string | null; readonly files: number; readonly bytes: number }
}

export function expiredText({ removed, kept, wal }: ExpiredResult, paint: Paint): string {
  const gone = removed.length === 0 ? 'No backup is past retention.' : `Removed: ${removed.join(', ')}.`
  const pruned =
    wal.files === 0
      ? ''
      : ` ${wal.files} WAL files (${formatBytes(wal.bytes)}) before ${wal.before} are gone.`
  return `${gone} Kept: ${paint.strong(kept.join(', '))}.${pruned}\n`
}
