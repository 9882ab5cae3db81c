import { type Lsn, parseLsn } from '../postgres/lsn.ts'
import { lastWalFileName } from '../postgres/wal-file.ts'
import type { SqlSession } from './sql-session.ts'

interface Switched {
  /** Where the finished segment ends; on a primary that wrote nothing since the last switch, where the current one begins. */
  readonly lsn: string
  readonly timeline: string
  readonly size: number
}

/**
 * Ends the current segment of a primary and names the last one that is finished, which is what will be archived. Not by
 * pg_walfile_name(): at a segment's first byte it names that segment itself from PostgreSQL 17 on, and on an idle primary nobody finishes it.
 */
export async function switchWal(sql: Pick<SqlSession, 'json'>): Promise<string> {
  const { lsn, timeline, size } = await sql.json<Switched>(
    `SELECT json_build_object('lsn', pg_switch_wal(), 'timeline', substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8),
       'size', (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size'))`,
  )
  const end: Lsn = parseLsn(lsn)
  return lastWalFileName(Number.parseInt(timeline, 16), end, size)
}
