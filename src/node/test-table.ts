import { ReplctlError } from '../errors.ts'
import { compareLsn, type Lsn, parseLsn } from '../postgres/lsn.ts'
import { quoteLiteral } from '../postgres/sql.ts'
import { type SqlSession, sqlStateOf } from './sql-session.ts'

/** The row that `verify` writes, and where its commit stands in WAL. */
export interface TestRow {
  readonly token: string
  /** Where it can be read: the test table, or a view of its own. */
  readonly relation: string
  /** WAL position right after the commit. */
  readonly lsn: Lsn
  /** End of what was flushed right after the commit: whoever has received this has the commit. */
  readonly flushedLsn: Lsn
}

const table = 'replctl.verification'
/** Undefined schema or table, and the races of two sessions that make them: try again. */
const makeAgain = new Set(['3F000', '42P01', '23505', '42P06', '42P07', 'XX000', '40P01', '55P03'])

/** A publication FOR ALL TABLES takes a new table's rows along at once, to subscribers that have no such table. */
const isEverythingPublished = 'SELECT 1 FROM pg_publication WHERE puballtables LIMIT 1'

/**
 * Writes a row with this token into the test table, which is made where it is missing. Several verifies at once share
 * the table; rows that a killed one left go after an hour. Where every table is published the row is that of a view: it
 * lies in the catalog, which standbys get like everything else and no logical subscriber ever sees.
 */
export async function writeTestRow(sql: SqlSession, token: string): Promise<TestRow> {
  for (let attempt = 1; ; attempt++) {
    try {
      const isView = (await sql.value(isEverythingPublished)) !== null
      await sql.execute('CREATE SCHEMA IF NOT EXISTS replctl')
      const relation = isView ? await makeView(sql, token) : await insertRow(sql, token)
      const lsn = (await sql.value('SELECT pg_current_wal_insert_lsn()::text')) as Lsn
      const flushedLsn = parseLsn((await sql.value('SELECT pg_current_wal_flush_lsn()::text')) ?? '0/0')
      return { token, relation, lsn, flushedLsn }
    } catch (thrown) {
      if (attempt >= 20 || !makeAgain.has(sqlStateOf(thrown) ?? '')) throw thrown
      await wait(10 * attempt)
    }
  }
}

async function insertRow(sql: SqlSession, token: string): Promise<string> {
  await sql.execute(
    `CREATE TABLE IF NOT EXISTS ${table} (token text PRIMARY KEY, written_at timestamptz NOT NULL DEFAULT now())`,
  )
  await sql.execute(`INSERT INTO ${table} (token) VALUES (${quoteLiteral(token)})`)
  return table
}

/** Its name says when it was made: one that a killed verify left can be told from one that is in use. */
async function makeView(sql: SqlSession, token: string): Promise<string> {
  const madeAt = await sql.value('SELECT extract(epoch FROM now())::bigint::text')
  const view = `${table}_${madeAt}_${token.replaceAll('-', '')}`
  await sql.execute(`CREATE OR REPLACE VIEW ${view} AS SELECT ${quoteLiteral(token)}::text AS token`)
  return view
}

/** Whether the row can be read here; false while the table itself has not arrived. */
export async function canReadTestRow(
  sql: SqlSession,
  { token, relation }: Pick<TestRow, 'token' | 'relation'>,
): Promise<boolean> {
  try {
    return (await sql.value(`SELECT 1 FROM ${relation} WHERE token = ${quoteLiteral(token)}`)) !== null
  } catch (thrown) {
    const state = sqlStateOf(thrown)
    // 40001: the query met the replay of another verify's clean-up.
    if (state === '42P01' || state === '3F000' || state === '40001') return false
    throw thrown
  }
}

/**
 * Whether somebody on this standby (a dump of everything) holds the test table. To drop it would cancel that, or stop replay
 * until it ends.
 */
export async function isTestTableHeld(sql: SqlSession): Promise<boolean> {
  const held = `SELECT 1 FROM pg_locks WHERE locktype = 'relation' AND relation = to_regclass('${table}')
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND pid <> pg_backend_pid() LIMIT 1`
  return (await sql.value(held, { timeoutMs: 2_000 })) !== null
}

/**
 * Takes the row away again, and the table and the schema with the last one; `keepsTable`: not those, which are left to the next
 * verify.
 */
export async function removeTestRow(
  sql: SqlSession,
  { token, relation }: Pick<TestRow, 'token' | 'relation'>,
  { keepsTable = false } = {},
): Promise<void> {
  if (relation !== table) {
    await removeView(sql, relation)
    return
  }
  const old = "written_at < now() - interval '1 hour'"
  await sql.execute(`DELETE FROM ${table} WHERE token = ${quoteLiteral(token)} OR ${old}`)
  if (keepsTable) return
  await sql.execute(`DO $$ BEGIN
    LOCK TABLE ${table} IN ACCESS EXCLUSIVE MODE NOWAIT;
    IF NOT EXISTS (SELECT FROM ${table}) THEN
      DROP TABLE ${table};
      DROP SCHEMA replctl;
    END IF;
  EXCEPTION WHEN lock_not_available OR undefined_table OR invalid_schema_name OR dependent_objects_still_exist THEN
    NULL;
  END $$`)
}

async function removeView(sql: SqlSession, view: string): Promise<void> {
  await sql.execute(`DROP VIEW IF EXISTS ${view}`)
  await sql.execute(`DO $$ DECLARE old name; BEGIN
    FOR old IN SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'replctl' AND c.relkind = 'v' AND c.relname ~ '^verification_[0-9]+_'
          AND split_part(c.relname, '_', 2)::bigint < extract(epoch FROM now()) - 3600 LOOP
      EXECUTE format('DROP VIEW IF EXISTS replctl.%I', old);
    END LOOP;
    BEGIN
      DROP SCHEMA IF EXISTS replctl;
    EXCEPTION WHEN lock_not_available OR invalid_schema_name OR dependent_objects_still_exist OR internal_error THEN
      NULL;
    END;
  END $$`)
}

/** How long to poll: until a moment (`performance.now()`), or a signal of the operator's. */
export interface Until {
  readonly deadlineMs: number
  readonly signal: AbortSignal
}

/** Polls a standby that replays late on purpose until it has received the row's commit. Null: not within the deadline. */
export async function awaitReceipt(
  sql: SqlSession,
  lsn: Lsn,
  writtenAtMs: number,
  until: Until,
): Promise<number | null> {
  for (;;) {
    const received = await sql.value('SELECT pg_last_wal_receive_lsn()::text')
    if (received !== null && compareLsn(parseLsn(received), lsn) >= 0) {
      return Math.round((performance.now() - writtenAtMs) * 10) / 10
    }
    if (performance.now() > until.deadlineMs || until.signal.aborted) return null
    await wait(3)
  }
}

/** Polls a standby until the row is there. Null: not within the deadline. */
export async function awaitTestRow(
  sql: SqlSession,
  row: Pick<TestRow, 'token' | 'relation'>,
  writtenAtMs: number,
  until: Until,
): Promise<number | null> {
  for (;;) {
    if (await canReadTestRow(sql, row)) return Math.round((performance.now() - writtenAtMs) * 10) / 10
    if (performance.now() > until.deadlineMs || until.signal.aborted) return null
    await wait(3)
  }
}

/** Read-only, full, shutting down, out of order: what the server refuses so is not a trigger's word. */
const notATriggers = /^(25|5[3-8]|XX)/

/** Those of the operator that run at DDL: one of them may be what refuses replctl's table. Null: there are none, or it is not. */
export async function eventTriggersBehind(sql: SqlSession, cause: ReplctlError): Promise<string | null> {
  const state = sqlStateOf(cause)
  if (state === undefined || notATriggers.test(state)) return null
  const query = `SELECT string_agg(quote_ident(evtname), ', ' ORDER BY evtname) FROM pg_event_trigger
    WHERE evtenabled IN ('O', 'A') AND evtevent IN ('ddl_command_start', 'ddl_command_end', 'sql_drop')`
  return await sql.value(query).catch(() => null)
}

/** The primary refuses to write: full disk, read-only default, no rights, an event trigger (`triggers`) that lets no DDL through. */
export function cannotWrite(node: string, cause: ReplctlError, triggers: string | null = null): ReplctlError {
  return new ReplctlError('sql-failed', `could not write the test row on ${node}`, {
    detail: `${cause.message}. ${cause.detail ?? ''}`.trim(),
    hint:
      triggers === null
        ? 'See to it that the primary accepts writes.'
        : `If an event trigger refused it (${triggers}), have it let DDL on schema replctl through where application_name is replctl: verify makes its table, and drops it again.`,
    node,
    cause,
  })
}

const wait = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))
