import type { Hosts } from './hosts.ts'
import { describeFailure } from './run-process.ts'

export interface SqlOptions {
  /** Default: the port of this host's instance. */
  readonly port?: number | undefined
  /** Folder of the server's unix socket. Default: wherever the socket of that port is. */
  readonly socketDirectory?: string | undefined
  /** Operating system user that runs psql. Default: the PostgreSQL OS user. */
  readonly user?: string | undefined
  /** Database role. Default: the same as `user`. */
  readonly role?: string | undefined
  /** Default `postgres`. */
  readonly database?: string | undefined
  readonly timeoutMs?: number | undefined
}

/** A row as the server sees it. A single SELECT gives JSON types (LSNs, times and integers of 16 digits or more are strings), everything else gives strings. */
// biome-ignore lint/suspicious/noExplicitAny: tests know what they select
export type SqlRow = Record<string, any>

/**
 * Runs SQL on a host by psql over the server's unix socket, not through replctl's own path, and returns the rows.
 * Several statements, separated by `;`, are separate transactions; only the last result is returned.
 * @throws {Error} with psql's own message
 */
export async function sql(
  hosts: Hosts,
  host: string,
  query: string,
  options: SqlOptions = {},
): Promise<SqlRow[]> {
  const { osUser, port, socketDirectory } = hosts.postgresOf(host)
  const user = options.user ?? osUser
  const statement = query.trim().replace(/;$/, '')
  const isSelect = /^(select|table|values)\b/i.test(statement) && !statement.includes(';')
  const finished = await hosts.exec(
    host,
    [
      ...[
        'sh',
        '-c',
        findPsql,
        'psql',
        options.socketDirectory ?? socketDirectory ?? '',
        String(options.port ?? port),
      ],
      ...['-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', '-'],
      ...(isSelect ? ['-A', '-t'] : ['--csv', '-P', `null=${nullMark}`]),
      ...['-d', options.database ?? 'postgres', '-U', options.role ?? user],
    ],
    {
      user,
      env: { PGCLIENTENCODING: 'UTF8', PGCONNECT_TIMEOUT: '10' },
      input: isSelect ? `SELECT row_to_json(result) FROM (${statement}\n) AS result` : statement,
      timeoutMs: options.timeoutMs,
      check: false,
    },
  )
  if (finished.exitCode !== 0) throw new Error(describeFailure(`${host}: ${query}`, finished))
  if (isSelect) return finished.stdout.split('\n').filter(Boolean).map(parseJsonRow)
  return rowsOf(parseCsv(finished.stdout))
}

/** As `sql`, for a query with one row and one column. */
export async function sqlValue(
  hosts: Hosts,
  host: string,
  query: string,
  options: SqlOptions = {},
): Promise<SqlRow[string]> {
  const rows = await sql(hosts, host, query, options)
  if (rows.length !== 1) throw new Error(`${host}: one row expected, ${rows.length} found: ${query}`)
  return Object.values(rows[0]!)[0]
}

const nullMark = '\u0001null'

/** Debian's /usr/bin/psql is a Perl wrapper that costs 50 ms: the real one is called where it is found. */
const findPsql = `
directory=$1 port=$2
shift 2
for psql in /usr/lib/postgresql/*/bin/psql /usr/pgsql-*/bin/psql "$(command -v psql)"; do
  [ -x "$psql" ] && break
done
[ -n "$directory" ] || for directory in /var/run/postgresql /tmp; do
  [ -S "$directory/.s.PGSQL.$port" ] && break
done
exec "$psql" -h "$directory" -p "$port" "$@"
`

function rowsOf(table: readonly (readonly string[])[]): SqlRow[] {
  const [names, ...rows] = table
  return rows.map((row) =>
    Object.fromEntries(row.map((value, index) => [names![index], value === nullMark ? null : value])),
  )
}

function parseCsv(text: string): string[][] {
  const rows: string[][] = []
  let row: string[] = []
  for (const [, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\n]*))(,|\n)/g)) {
    row.push(quoted?.replaceAll('""', '"') ?? plain ?? '')
    if (end === '\n') {
      rows.push(row)
      row = []
    }
  }
  return rows
}

/** Integers that a double cannot hold (system identifiers, sizes of everything) become strings, as LSNs are. */
function parseJsonRow(line: string): SqlRow {
  return JSON.parse(line.replace(/("(?:[^"\\]|\\.)*":)(-?\d{16,})(?=[,}])/g, '$1"$2"'))
}
