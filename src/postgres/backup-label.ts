import { type Lsn, parseLsn, type TimelineId } from './lsn.ts'

/** What `backup_label` says of the start of a base backup. */
export interface BackupLabel {
  readonly startLsn: Lsn
  readonly timeline: TimelineId
  readonly label: string
}

/**
 * Reads a backup_label. Before PostgreSQL 11 it had no timeline.
 * @throws {RangeError} if it is none
 * @see src/backend/access/transam/xlogbackup.c, build_backup_content
 */
export function parseBackupLabel(text: string): BackupLabel {
  const field = (name: string) => new RegExp(`^${name}: (.*)$`, 'm').exec(text)?.[1]
  const start = /^[0-9A-F/]+/i.exec(field('START WAL LOCATION') ?? '')?.[0]
  const timeline = Number(field('START TIMELINE'))
  if (start === undefined || !(timeline >= 1))
    throw new RangeError(`not a backup_label: ${text.slice(0, 100)}`)
  return { startLsn: parseLsn(start), timeline: timeline as TimelineId, label: field('LABEL') ?? '' }
}

/**
 * Reads a tablespace_map: `16384 /srv/fast`. A backslash hides a line break or a backslash within a path.
 * @see src/backend/access/transam/xlogrecovery.c, read_tablespace_map
 */
export function parseTablespaceMap(
  text: string,
): readonly { readonly oid: string; readonly location: string }[] {
  return [...text.matchAll(/^(\d+) ((?:\\[\s\S]|[^\\\n\r])+)$/gm)].map((match) => ({
    oid: match[1] ?? '',
    location: (match[2] ?? '').replaceAll(/\\([\s\S])/g, '$1'),
  }))
}

/** Where the WAL of a backup ends, by what `pg_basebackup -v` said under LC_ALL=C. @throws {RangeError} */
export function parseBackupStop(output: string): Lsn {
  const text = /write-ahead log end point: ([0-9A-F]+\/[0-9A-F]+)/i.exec(output)?.[1]
  if (text === undefined) throw new RangeError('pg_basebackup did not say where its WAL ends')
  return parseLsn(text)
}
