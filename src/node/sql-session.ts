import type { NodeSettings } from '../cluster/inventory.ts'
import { ReplctlError } from '../errors.ts'
import type { Transport } from '../transport/transport.ts'
import type { SqlEndpoint } from './node.ts'
import { openPgSession } from './pg-session.ts'
import { openPsqlSession } from './psql-session.ts'

/** One SQL session on a node's instance, as the PostgreSQL OS user's role (a superuser). */
export interface SqlSession {
  /** False once the server or the link is gone. */
  readonly isOpen: boolean
  /** First column of the first row as text; null for no row or SQL NULL. */
  value(sql: string, options?: SqlOptions): Promise<string | null>
  /** The same, read as JSON. */
  json<T>(sql: string, options?: SqlOptions): Promise<T>
  /** A statement without a result. */
  execute(sql: string, options?: SqlOptions): Promise<void>
  close(): Promise<void>
}

export interface SqlOptions {
  /** The call rejects with `not-answering` after this long, whatever the server does. Default 15 s. */
  readonly timeoutMs?: number
  /** For a statement that is sent again and again: under this name the server keeps its plan. A word in lower case. */
  readonly name?: string
}

/**
 * First statements of every session. Our own statements never hang behind a missing synchronous standby or a lock, are not
 * refused by what the cluster sets for its applications (a standby serves no serializable transaction, not even a look),
 * and what holds a secret's verifier reaches neither the server's log nor pg_stat_statements.
 */
const settings = [
  "SET application_name = 'replctl'",
  'SET synchronous_commit = local',
  'SET default_transaction_read_only = off',
  'SET default_transaction_deferrable = off',
  "SET lock_timeout = '10s'",
  "SET client_encoding = 'UTF8'",
  'SET standard_conforming_strings = on',
  "SET log_statement = 'none'",
  'SET log_min_duration_statement = -1',
  "SET log_min_error_statement = 'panic'",
  "SET pg_stat_statements.track_utility = 'off'",
  'SET idle_in_transaction_session_timeout = 0',
]
/** Without these a server may refuse, or end, the others. */
const first = [
  "SET default_transaction_isolation = 'read committed'",
  'SET statement_timeout = 0',
  'SET search_path = pg_catalog',
]
/** Limits that only newer versions know: a CHECKPOINT takes its time, and a session waits as long as its command does. */
const limits = ['transaction_timeout', 'idle_session_timeout'].map(
  (name) => `CASE WHEN current_setting('${name}', true) <> '0' THEN set_config('${name}', '0', false) END`,
)
/** Transactions of their own: what follows is read under them, and the first is over before a limit on it can be. */
export const sessionPreamble = [
  ...['BEGIN', ...first, 'COMMIT', `SELECT ${limits.join(', ')}`],
  ...['BEGIN', ...settings, 'COMMIT'],
].join('; ')

/**
 * Opens SQL on a node. Logged in as the PostgreSQL OS user: `pg` over a forwarded channel to the unix socket, where
 * peer authentication sees that user. Logged in as root or an administrator, peer authentication would see *that*
 * user, so the session is a `psql` run as the OS user, fed through its standard input; likewise where sshd
 * forbids forwarding to sockets.
 */
export async function openSqlSession(
  transport: Transport,
  settings: NodeSettings,
  endpoint: SqlEndpoint,
): Promise<SqlSession> {
  const target = targetOf(settings, endpoint)
  if (!transport.socketPeerIsOsUser) return await prepared(await openPsqlSession(transport, target))
  const socket = await transport.openUnixSocket(target.socketPath).catch(() => undefined)
  return await prepared(
    await (socket === undefined ? openPsqlSession(transport, target) : openPgSession(socket, target)),
  )
}

/**
 * Opens SQL where the instance answers as a rule, before anybody looked whether it runs: rejects where it does not. The
 * psql of an administrator's login is told by the data directory's own postmaster.pid where to go.
 */
export async function presumeSqlSession(
  transport: Transport,
  settings: NodeSettings,
  endpoint: SqlEndpoint,
  dataDirectory: string,
): Promise<SqlSession> {
  const target = targetOf(settings, endpoint)
  if (!transport.socketPeerIsOsUser) {
    return await prepared(await openPsqlSession(transport, target, dataDirectory))
  }
  return await prepared(await openPgSession(await transport.openUnixSocket(target.socketPath, false), target))
}

function targetOf(settings: NodeSettings, endpoint: SqlEndpoint): SqlTarget {
  return {
    socketPath: `${endpoint.socketDirectory}/.s.PGSQL.${endpoint.port}`,
    socketDirectory: endpoint.socketDirectory,
    port: endpoint.port,
    user: settings.postgres.osUser,
    database: settings.postgres.database,
    binDirectory: endpoint.binDirectory,
  }
}

async function prepared(session: SqlSession): Promise<SqlSession> {
  try {
    await session.execute(sessionPreamble, { timeoutMs: 10_000 })
    return session
  } catch (thrown) {
    await session.close()
    throw thrown
  }
}

/** What a session connects to. */
export interface SqlTarget {
  readonly socketPath: string
  readonly socketDirectory: string
  readonly port: number
  readonly user: string
  readonly database: string
  readonly binDirectory: string
}

/**
 * An error that the server reported. `message`, SQLSTATE and `added`, its own DETAIL, are the server's: the last one of a refused
 * login only, where it says why and holds no values of rows.
 */
export function sqlFailed(message: string, sqlState: string | undefined, added?: string): ReplctlError {
  const details = [...(sqlState === undefined ? [] : [`SQLSTATE ${sqlState}.`]), ...(added ? [added] : [])]
  return new ReplctlError('sql-failed', `the server refused a statement: ${message}`, {
    detail: details.length === 0 ? undefined : details.join(' '),
    retryable: sqlState?.startsWith('57') === true,
    cause: { sqlState },
  })
}

/** SQLSTATE of a `sql-failed` error, e.g. `42P01`. */
export function sqlStateOf(error: unknown): string | undefined {
  if (!(error instanceof ReplctlError)) return undefined
  return (error.cause as { sqlState?: string } | undefined)?.sqlState
}

/** The server took the connection or the statement, and did not answer in time. */
export function notAnswering(what: string, timeoutMs: number): ReplctlError {
  return new ReplctlError('not-answering', `the instance does not answer (${what})`, {
    detail: `Nothing came back within ${timeoutMs / 1000} s.`,
    hint: 'Look at its processes and its log: it may be frozen, overloaded, or waiting for its disk.',
  })
}
