import type { Duplex } from 'node:stream'
import { asReplctlError, ReplctlError } from '../errors.ts'
import { notAnswering, type SqlOptions, type SqlSession, type SqlTarget, sqlFailed } from './sql-session.ts'

interface PgError extends Error {
  readonly code?: string
  readonly detail?: string
  readonly severity?: string
}

/** Begins to load the client while the hosts are still being logged into. */
export function preloadPg(): void {
  import('pg').catch(() => undefined)
}

/**
 * What pg would else take from this process's PG* variables, which are about other servers. It takes them wherever a value
 * is empty, so none is: a blank is no option, and `false` asks for an ordinary session. Nor is there a password for the
 * local socket: PGPASSWORD and ~/.pgpass are for others.
 */
const ownStartup = {
  ssl: false,
  sslnegotiation: 'postgres',
  options: ' ',
  replication: 'false',
  application_name: 'replctl',
  client_encoding: 'utf8',
  connectionTimeoutMillis: 0,
  password: () => {
    throw sqlFailed('the server asks for a password on its local socket', '28P01')
  },
} as const

/** A session by the `pg` client over a stream that leads to the server's socket. Values stay text. */
export async function openPgSession(socket: Duplex, target: SqlTarget): Promise<SqlSession> {
  const { default: pg } = await import('pg')
  const client = new pg.Client({
    stream: () => socket as never,
    host: target.socketDirectory,
    port: target.port,
    user: target.user,
    database: target.database,
    ...ownStartup,
    types: { getTypeParser: () => (value: unknown) => value } as never,
  })
  let isOpen = true
  // pg emits 'error' twice when a server ends a session; unheard, it would end this process.
  client.on('error', () => {
    isOpen = false
  })
  client.on('end', () => {
    isOpen = false
  })
  const bounded = async <T>(work: Promise<T>, timeoutMs: number, what: string): Promise<T> => {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        isOpen = false
        socket.destroy()
        reject(notAnswering(what, timeoutMs))
      }, timeoutMs)
    })
    try {
      return await Promise.race([work, late])
    } catch (thrown) {
      throw translate(thrown)
    } finally {
      clearTimeout(timer)
    }
  }
  const connected = client.connect()
  connected.catch(() => undefined)
  await bounded(connected, 8_000, 'opening a session')
  // Steps that run side by side share the session: one statement at a time.
  let turn: Promise<unknown> = Promise.resolve()
  const query = (sql: string, options: SqlOptions = {}): Promise<string | null> => {
    const answer = turn.then(() => ask(sql, options))
    turn = answer.catch(() => undefined)
    return answer
  }
  const ask = async (sql: string, options: SqlOptions) => {
    const work = client.query({ text: sql, rowMode: 'array', name: options.name })
    work.catch(() => undefined)
    const result = await bounded(work, options.timeoutMs ?? 15_000, 'a statement')
    const last = Array.isArray(result) ? result[result.length - 1] : result
    return (last?.rows?.[0]?.[0] ?? null) as string | null
  }
  return {
    get isOpen() {
      return isOpen
    },
    value: query,
    json: async (sql, options) => JSON.parse((await query(sql, options)) ?? 'null'),
    execute: async (sql, options) => {
      await query(sql, options)
    },
    close: async () => {
      if (isOpen) await Promise.race([client.end().catch(() => undefined), wait(500)])
      isOpen = false
      socket.destroy()
    },
  }
}

const wait = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms).unref())

function translate(thrown: unknown): ReplctlError {
  if (thrown instanceof ReplctlError) return thrown
  const error = thrown as PgError
  if (error.severity !== undefined)
    return sqlFailed(error.message, error.code, error.severity === 'FATAL' ? error.detail : undefined)
  if (/connection terminated|ended|EPIPE|ECONNRESET|ECONNREFUSED|ENOENT|not queryable/i.test(error.message)) {
    return new ReplctlError('not-answering', `the instance closed the session: ${error.message}`, {
      hint: 'It may have been stopped or restarted meanwhile. Look again with "replctl status".',
      retryable: true,
    })
  }
  return asReplctlError(thrown)
}
