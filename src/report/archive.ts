import type { ArchiveState } from '../cluster/archive-state.ts'
import type { ArchiveContent, ArchiveVerdict } from '../cluster/judge-archive.ts'
import type { Problem } from '../cluster/problem.ts'

import { formatBytes, formatDuration } from './bytes.ts'
import type { Paint } from './paint.ts'
import { problemsText } from './problems.ts'
import { columns } from './table.ts'

/** `result` of `archive check`. */
export function archiveCheckJson(content: ArchiveContent, verdict: ArchiveVerdict): object {
  return {
    system_identifier: content.systemIdentifier,
    files: content.files,
    size_bytes: content.bytes,
    segment_size_bytes: content.segmentSizeBytes,
    timelines: content.timelines.map(({ timeline, first, last, count, gaps }) => ({
      timeline,
      first,
      last,
      segments: count,
      gaps: gaps.map((gap) => ({ first: gap.first, last: gap.last, segments: gap.count })),
    })),
    histories: [...content.histories.keys()].toSorted((a, b) => a - b),
    partial: content.partials,
    restorable_from: verdict.restorableFrom,
    restorable_to: verdict.restorableTo,
    headers_read: content.headersRead,
    unpacked: content.unpacked,
    incoming: content.incoming.length,
    foreign: content.foreign,
  }
}

export function archiveCheckText(content: ArchiveContent, verdict: ArchiveVerdict, paint: Paint): string {
  const rows = content.timelines.map(({ timeline, first, last, count }) => [
    `timeline ${timeline}`,
    `${first} to ${last}`,
    `${count} ${count === 1 ? 'segment' : 'segments'}`,
  ])
  const range =
    verdict.restorableFrom === null
      ? paint.warn('There is nothing to recover from.')
      : `Without a gap from ${verdict.restorableFrom} to ${verdict.restorableTo}.`
  const unpacked = content.unpacked === 0 ? '' : `, ${content.unpacked} unpacked`
  const read = `${content.files} files, ${formatBytes(content.bytes)}; ${content.headersRead} headers read${unpacked}.`
  const foreign = content.foreign.length === 0 ? '' : ` ${content.foreign.length} foreign files left alone.`
  return [
    `${columns(rows)}${range}\n${paint.dim(read + foreign)}\n`,
    verdict.problems.length === 0 ? '' : `\n${problemsText(verdict.problems, paint)}`,
  ].join('')
}

/** One line for `status`, nothing where there is no archive. */
export function archiveLine(state: ArchiveState | null, paint: Paint): string {
  if (state === null) return ''
  const place = `archive ${paint.name(state.host)}:${state.dir}`
  if (!state.reachable) return `${place}: ${paint.bad('cannot be reached')}\n`
  const lag = lagText(state)
  const room = state.free_bytes === null ? '' : `, ${formatBytes(state.free_bytes)} free`
  const backup = backupText(state)
  const isLate = isBackupLate(state)
  return `${place}: ${state.ok ? lag : paint.bad(`failing, ${lag}`)}, ${isLate ? paint.bad(backup) : backup}${room}\n`
}

function backupText({ last_backup: id, last_backup_seconds: age }: ArchiveState): string {
  return id === null ? 'no backup' : `last backup ${formatDuration((age ?? 0) * 1000)} ago`
}

function isBackupLate({ last_backup_seconds: age, max_backup_age_seconds: limit }: ArchiveState): boolean {
  return limit !== null && (age === null || age > limit)
}

function lagText(state: ArchiveState): string {
  if (state.lag_bytes === 0 && state.lag_segments === 0) return 'up to date'
  const parts = [
    ...(state.lag_segments === null ? [] : [`${state.lag_segments} segments wait`]),
    ...(state.lag_bytes === null ? [] : [`${formatBytes(state.lag_bytes)} behind`]),
    ...(state.lag_seconds === null ? [] : [`last one ${formatDuration(state.lag_seconds * 1000)} ago`]),
  ]
  if (parts.length > 0) return parts.join(', ')
  // Where no primary says how far it is, the archive host's files alone are known.
  const age = state.last_archived_seconds
  if (age === null) return 'nothing archived yet'
  return `lag not known, last file ${formatDuration(age * 1000)} ago`
}

/** `archive status` for people. */
export function archiveStatusText(state: ArchiveState, problems: readonly Problem[], paint: Paint): string {
  const bytes = (value: number | null) => (value === null ? '-' : formatBytes(value))
  const rows = [
    ['place', `${state.host}:${state.dir}`],
    ['mode', state.mode],
    ['last archived', lastArchivedText(state)],
    ['lag', lagText(state)],
    ['last failure', failureText(state)],
    ['last backup', lastBackupText(state, paint)],
    ['size', state.files === null ? '-' : `${bytes(state.size_bytes)} in ${state.files} files`],
    ['growth', state.bytes_per_day === null ? '-' : `${bytes(state.bytes_per_day)} a day`],
    ['disk', `${bytes(state.free_bytes)} of ${bytes(state.total_bytes)} free`],
    ['full in', state.until_full_seconds === null ? '-' : formatDuration(state.until_full_seconds * 1000)],
  ]
  return `${columns(rows.map(([title = '', text = '']) => [paint.dim(title), text]))}${
    problems.length === 0 ? '' : `\n${problemsText(problems, paint)}`
  }`
}

function lastArchivedText({ last_archived: file, last_archived_seconds: age }: ArchiveState): string {
  if (file === null && age === null) return '-'
  return `${file ?? 'a file'}${age === null ? '' : `, ${formatDuration(age * 1000)} ago`}`
}

function lastBackupText(state: ArchiveState, paint: Paint): string {
  const { backups, last_backup: id, last_backup_seconds: age, max_backup_age_seconds: limit } = state
  if (backups === null) return '-'
  const is = id === null ? 'none' : `${id}, ${formatDuration((age ?? 0) * 1000)} ago, one of ${backups}`
  const most = limit === null ? '' : ` (at most ${formatDuration(limit * 1000)})`
  return `${isBackupLate(state) ? paint.bad(is) : is}${most}`
}

function failureText({ last_failure: failure }: ArchiveState): string {
  if (failure === null) return 'none'
  const said = failure.message === null ? '' : `: ${failure.message.split('\n').join(' ')}`
  return `${failure.file}, ${failure.failures} so far${failure.failing ? '' : ', it works again'}${said}`
}
