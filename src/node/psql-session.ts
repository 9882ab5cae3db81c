import { randomBytes } from 'node:crypto'
import { program, shellScript } from '../command.ts'
import { ReplctlError } from '../errors.ts'
import type { RunningCommand, Transport } from '../transport/transport.ts'
import { notAnswering, type SqlOptions, type SqlSession, type SqlTarget, sqlFailed } from './sql-session.ts'

interface Answer {
  /** Null: no row came. */
  readonly rows: string | null
  readonly hasFailed: boolean
  readonly sqlState: string
  readonly message: string
}

/**
 * Runs psql, of the data directory's own major version where no folder is given, where its postmaster.pid says that the
 * instance answers; ends at once where it does not run.
 */
const findInstanceScript = `
data=$1 bin=$2; shift 2
if [ -z "$bin" ]; then
  read -r major < "$data/PG_VERSION" || exit 66
  for bin in "/usr/lib/postgresql/$major/bin" "/usr/pgsql-$major/bin" "/opt/homebrew/opt/postgresql@$major/bin" \\
      "/usr/local/opt/postgresql@$major/bin" ''; do
    [ -x "$bin/psql" ] && break
  done
fi
{ read -r pid; read -r _; read -r _; read -r port; read -r socket; } 2>/dev/null < "$data/postmaster.pid" || exit 66
[ -n "$bin" ] && kill -0 "$pid" 2>/dev/null && [ -n "$socket" ] || exit 66
exec "$bin/psql" -h "$socket" -p "$port" "$@"
`

/**
 * A session by a `psql` that runs on the host as the PostgreSQL OS user: statements go in through its standard
 * input, answers come back between markers that hold a random word.
 * @see https://www.postgresql.org/docs/current/app-psql.html (ERROR, SQLSTATE, LAST_ERROR_MESSAGE)
 */
export async function openPsqlSession(
  transport: Transport,
  target: SqlTarget,
  dataDirectory?: string,
): Promise<SqlSession> {
  const options = [
    ...['-X', '-A', '-t', '-q', '-w', '-R', '\x1e', '-F', '\x1f', '-P', 'null=\x1d', '-P', 'pager=off'],
    ...['-U', target.user, '-d', target.database],
  ]
  const command =
    dataDirectory === undefined
      ? program(`${target.binDirectory}/psql`, [
          ...options,
          ...['-h', target.socketDirectory, '-p', String(target.port)],
        ])
      : shellScript('open a psql session', findInstanceScript, [
          dataDirectory,
          target.binDirectory,
          ...options,
        ])
  const running = await transport.start(command)
  const reader = new AnswerReader(running)
  const ask = async (sql: string, timeoutMs = 15_000): Promise<string | null> => {
    const answer = await reader.ask(sql, timeoutMs)
    if (answer.hasFailed) throw sqlFailed(answer.message, answer.sqlState)
    if (answer.rows === null) return null
    const first = answer.rows.split('\x1e')[0]?.split('\x1f')[0] ?? ''
    return first === '\x1d' ? null : first
  }
  const kept = new Map<string, Promise<unknown>>()
  const query = async (sql: string, { name, timeoutMs }: SqlOptions = {}): Promise<string | null> => {
    if (name === undefined) return await ask(sql, timeoutMs)
    const isKept = kept.get(name) ?? ask(`PREPARE ${name} AS ${sql}`, timeoutMs)
    kept.set(name, isKept)
    await isKept
    return await ask(`EXECUTE ${name}`, timeoutMs)
  }
  return {
    get isOpen() {
      return reader.isOpen
    },
    value: query,
    json: async (sql, options) => JSON.parse((await query(sql, options)) ?? 'null'),
    execute: async (sql, options) => {
      await query(sql, options)
    },
    close: async () => {
      reader.close()
    },
  }
}

/** Sends one statement at a time and cuts its answer out of psql's output. */
class AnswerReader {
  isOpen = true
  readonly #running: RunningCommand
  readonly #word = randomBytes(12).toString('hex')
  #output = ''
  #complaints = ''
  #waiting: { resolve: (answer: Answer) => void; reject: (error: Error) => void } | undefined
  #queue: Promise<unknown> = Promise.resolve()

  constructor(running: RunningCommand) {
    this.#running = running
    running.onStdout((chunk) => {
      this.#output += chunk
      this.#take()
    })
    running.onStderr((chunk) => {
      this.#complaints = (this.#complaints + chunk).slice(-4000)
    })
    const ended = () => {
      this.isOpen = false
      this.#waiting?.reject(psqlEnded(this.#complaints))
      this.#waiting = undefined
    }
    running.finished.then(ended, ended)
  }

  ask(sql: string, timeoutMs: number): Promise<Answer> {
    const turn = this.#queue.then(() => this.#ask(sql, timeoutMs))
    this.#queue = turn.catch(() => undefined)
    return turn
  }

  close(): void {
    this.isOpen = false
    this.#running.endInput()
  }

  async #ask(sql: string, timeoutMs: number): Promise<Answer> {
    if (!this.isOpen) throw psqlEnded(this.#complaints)
    const answer = new Promise<Answer>((resolve, reject) => {
      this.#waiting = { resolve, reject }
    })
    answer.catch(() => undefined)
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        this.isOpen = false
        this.#running.kill()
        reject(notAnswering('a statement', timeoutMs))
      }, timeoutMs)
    })
    // Statements sent in one \\; chain would share one transaction; a line break keeps comments from eating the end.
    const end = `\\echo '${this.#word}' :ERROR :SQLSTATE :LAST_ERROR_MESSAGE '${this.#word}'\n`
    // An empty statement after the last one would hide its failure.
    const statement = sql.replace(/[;\s]+$/, '')
    try {
      // In the race from the start: a write that fails or hangs must not leave the deadline without a listener.
      const written = this.#running.write(`${statement}\n;\n${end}`)
      return await Promise.race([written.then(() => answer), answer, late])
    } finally {
      clearTimeout(timer)
    }
  }

  #take(): void {
    const start = this.#output.indexOf(this.#word)
    const end = start < 0 ? -1 : this.#output.indexOf(`${this.#word}\n`, start + this.#word.length)
    if (end < 0) return
    // psql ends the last row with a line break of its own; a value may end with some as well.
    const printed = this.#output.slice(0, start)
    const rows = printed === '' ? null : printed.replace(/\n$/, '')
    const said = this.#output.slice(start + this.#word.length, end).trim()
    this.#output = this.#output.slice(end + this.#word.length + 1)
    const [failed = 'true', sqlState = '', ...message] = said.split(' ')
    this.#waiting?.resolve({ rows, hasFailed: failed === 'true', sqlState, message: message.join(' ') })
    this.#waiting = undefined
  }
}

function psqlEnded(complaints: string): ReplctlError {
  const said = complaints.trim()
  const refusal = /FATAL:\s*(.*)/.exec(said)?.[1]
  const added = /DETAIL:\s*(.*)/.exec(said)?.[1]
  if (refusal !== undefined) return sqlFailed(refusal, loginStateOf(refusal), added)
  if (/no password supplied/.test(said))
    return sqlFailed('the server asks for a password on its local socket', '28P01')
  return new ReplctlError('not-answering', 'the instance closed the session', {
    detail: said === '' ? undefined : `psql said: ${said}`,
    hint: 'It may have been stopped or restarted meanwhile. Look again with "replctl status".',
    retryable: true,
  })
}

/** SQLSTATE of a refused login, which psql does not tell: by the server's words, where they are in English. */
function loginStateOf(said: string): string | undefined {
  if (/^database ".*" does not exist$/.test(said)) return '3D000'
  if (/too many clients already|remaining connection slots are reserved|too many connections for/.test(said))
    return '53300'
  const isAboutLogin = /^role ".*" (does not exist|is not permitted)|pg_hba\.conf|authentication failed/.test(
    said,
  )
  return isAboutLogin ? '28000' : undefined
}
