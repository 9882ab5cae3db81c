import { type AwaitOptions, awaitCondition } from './await-condition.ts'
import type { Hosts } from './hosts.ts'
import type { FinishedProcess } from './run-process.ts'
import { type SqlOptions, type SqlRow, sql, sqlValue } from './sql.ts'

export interface PostgresServerOptions {
  /** Default: what `hosts.postgresOf(host)` says. */
  readonly dataDir?: string | undefined
  readonly port?: number | undefined
  /** Folder of initdb, pg_ctl and postgres. Default: the newest the host has. */
  readonly binDir?: string | undefined
  readonly socketDirectory?: string | undefined
}

export type StopMode = 'smart' | 'fast' | 'immediate'
export type LsnMode = 'insert' | 'write' | 'flush' | 'receive' | 'replay'

const lsnFunctions = {
  insert: 'pg_current_wal_insert_lsn()',
  write: 'pg_current_wal_lsn()',
  flush: 'pg_current_wal_flush_lsn()',
  receive: 'pg_last_wal_receive_lsn()',
  replay: 'pg_last_wal_replay_lsn()',
} as const

/** One instance on a test host, driven without replctl: to prepare a state, and to assert on the server's own views. */
export class PostgresServer {
  readonly hosts: Hosts
  readonly host: string
  readonly dataDir: string
  readonly port: number
  readonly #options: PostgresServerOptions
  #binDir: string | undefined

  constructor(hosts: Hosts, host: string, options: PostgresServerOptions = {}) {
    this.hosts = hosts
    this.host = host
    this.dataDir = options.dataDir ?? hosts.postgresOf(host).dataDir
    this.port = options.port ?? hosts.postgresOf(host).port
    this.#options = options
    this.#binDir = options.binDir
  }

  /** Runs one of the server's programs as the PostgreSQL OS user: `run('pg_controldata', [dataDir])`. */
  async run(
    program: string,
    args: readonly string[],
    options: { check?: boolean } = {},
  ): Promise<FinishedProcess> {
    const { osUser } = this.hosts.postgresOf(this.host)
    return this.hosts.exec(this.host, [`${await this.binDir()}/${program}`, ...args], {
      user: osUser,
      ...options,
    })
  }

  /** initdb, then the lines are appended to postgresql.conf. */
  async init(configuration: readonly string[] = [], initdbArguments: readonly string[] = []): Promise<void> {
    await this.run('initdb', ['-D', this.dataDir, '-A', 'trust', '-N', '-E', 'UTF8', ...initdbArguments])
    const folder = this.#options.socketDirectory ?? this.hosts.postgresOf(this.host).socketDirectory
    const lines = [
      `port = ${this.port}`,
      "listen_addresses = '*'",
      ...(folder ? [`unix_socket_directories = '${folder}'`] : []),
      ...configuration,
    ]
    await this.appendFile('postgresql.conf', lines)
    await this.appendFile('pg_hba.conf', ['host all,replication all samenet trust'])
  }

  /** Appends lines to a file in the data directory. */
  async appendFile(name: string, lines: readonly string[]): Promise<void> {
    const { osUser } = this.hosts.postgresOf(this.host)
    const input = lines.map((line) => `${line}\n`).join('')
    await this.hosts.exec(this.host, ['sh', '-c', 'cat >>"$1"', 'sh', `${this.dataDir}/${name}`], {
      user: osUser,
      input,
    })
  }

  async start(): Promise<void> {
    const log = `${this.dataDir}.log`
    const started = await this.run('pg_ctl', ['-D', this.dataDir, '-l', log, '-w', 'start'], { check: false })
    if (started.exitCode === 0) return
    const tail = await this.hosts.exec(this.host, ['tail', '-n', '20', log], { check: false })
    throw new Error(`${this.host}: could not start ${this.dataDir}\n${started.stdout}${tail.stdout}`)
  }

  async stop(mode: StopMode = 'fast'): Promise<void> {
    await this.run('pg_ctl', ['-D', this.dataDir, '-w', '-m', mode, 'stop'])
  }

  async restart(): Promise<void> {
    await this.stop()
    await this.start()
  }

  async reload(): Promise<void> {
    await this.run('pg_ctl', ['-D', this.dataDir, 'reload'])
  }

  /** Behind replctl's back. */
  async promote(): Promise<void> {
    await this.run('pg_ctl', ['-D', this.dataDir, '-w', 'promote'])
  }

  /** Kills all processes of the instance at once, as the machine's out-of-memory killer would do. */
  async kill9(): Promise<void> {
    await kill9(this.hosts, this.host, this.dataDir)
  }

  /** Whether a postmaster of this data directory runs, as `pg_ctl status` sees it. */
  async isRunning(): Promise<boolean> {
    return (await this.run('pg_ctl', ['-D', this.dataDir, 'status'], { check: false })).exitCode === 0
  }

  async sql(query: string, options: SqlOptions = {}): Promise<SqlRow[]> {
    return sql(this.hosts, this.host, query, this.#sqlOptions(options))
  }

  async sqlValue(query: string, options: SqlOptions = {}): Promise<SqlRow[string]> {
    return sqlValue(this.hosts, this.host, query, this.#sqlOptions(options))
  }

  async isInRecovery(): Promise<boolean> {
    return this.sqlValue('SELECT pg_is_in_recovery()')
  }

  /** e.g. `0/3000148`; `receive` and `replay` are for standbys, the others for a primary. */
  async lsn(mode: LsnMode): Promise<string> {
    return this.sqlValue(`SELECT ${lsnFunctions[mode]}`)
  }

  /** Waits until a query's only value is true. Errors (the server starts up, say) count as "not yet". */
  async awaitSql(condition: string, options: AwaitOptions = {}): Promise<void> {
    await awaitCondition(`${this.host}: ${condition}`, () => this.sqlValue(condition), options)
  }

  /** Waits until the server answers queries. */
  async awaitAnswer(options: AwaitOptions = {}): Promise<void> {
    await this.awaitSql('SELECT true', options)
  }

  /** Waits until a standby of this name streams from this server. */
  async awaitStreaming(applicationName: string, options: AwaitOptions = {}): Promise<void> {
    const where = `application_name = '${applicationName}' AND state = 'streaming'`
    await this.awaitSql(`SELECT count(*) = 1 FROM pg_stat_replication WHERE ${where}`, options)
  }

  /** Waits until this standby has replayed all that the primary had flushed when the wait began. */
  async awaitCatchup(primary: PostgresServer, options: AwaitOptions = {}): Promise<void> {
    await this.awaitSql(`SELECT pg_last_wal_replay_lsn() >= '${await primary.lsn('flush')}'::pg_lsn`, options)
  }

  /** Fields of pg_controldata by their English labels, e.g. `Database cluster state`. */
  async controlData(): Promise<ReadonlyMap<string, string>> {
    const { stdout } = await this.run('pg_controldata', [this.dataDir])
    return new Map(
      stdout
        .split('\n')
        .map((line) => /^([^:]+):\s*(.*)$/.exec(line))
        .flatMap((match) => (match ? [[match[1]!, match[2]!] as const] : [])),
    )
  }

  async binDir(): Promise<string> {
    this.#binDir ??= await newestBinDir(this.hosts, this.host)
    return this.#binDir
  }

  #sqlOptions(options: SqlOptions): SqlOptions {
    const { socketDirectory } = this.#options
    return { port: this.port, socketDirectory, ...options }
  }
}

/** Kills the postmaster of a data directory and all its children with SIGKILL; does nothing if there is none. */
export async function kill9(hosts: Hosts, host: string, dataDir: string): Promise<void> {
  const script = `
read -r postmaster <"$1/postmaster.pid" 2>/dev/null || exit 0
[ "$(readlink "/proc/$postmaster/cwd")" = "$(cd "$1" && pwd -P)" ] || exit 0
kill -s STOP "$postmaster"
kill -s KILL "$postmaster" $(ps -o pid= --ppid "$postmaster")
while [ -d "/proc/$postmaster" ]; do sleep 0.01; done
`
  await hosts.exec(host, ['sh', '-c', script, 'sh', dataDir])
}

async function newestBinDir(hosts: Hosts, host: string): Promise<string> {
  const folders = '/usr/lib/postgresql/*/bin /usr/pgsql-*/bin'
  const script = `for initdb in $(printf '%s/initdb\n' ${folders} | sort -rV) "$(command -v initdb)"; do
  [ -x "$initdb" ] && dirname "$initdb" && exit 0
done
exit 1`
  const found = await hosts.exec(host, script, { check: false })
  if (found.exitCode !== 0) throw new Error(`${host} has no initdb: is PostgreSQL installed?`)
  return found.stdout.trim()
}
