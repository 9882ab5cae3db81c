import type { NodeFacts } from '../cluster/facts.ts'
import type { NodeSettings } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { type Command, program, type Secret, shellScript } from '../command.ts'
import { asReplctlError, ReplctlError } from '../errors.ts'
import type {
  CommandResult,
  RunningCommand,
  RunOptions,
  StartOptions,
  Transport,
  TransportObserver,
} from '../transport/transport.ts'
import { isForRunningShell } from './shell-request.ts'
import { openSqlSession, presumeSqlSession, type SqlSession } from './sql-session.ts'

/** Where an instance answers, read from its own postmaster.pid. */
export interface SqlEndpoint {
  readonly socketDirectory: string
  readonly port: number
  /** Holds `psql`: needed where peer authentication does not serve the login user. */
  readonly binDirectory: string
}

/** The lasting part of a host's facts. */
export type HostKnowledge = Pick<
  NodeFacts,
  'hostName' | 'installed' | 'clockOffsetMs' | 'freeBytes' | 'walFreeBytes'
>

/** Counts the beginnings and ends of commands and statements that may change something, on all nodes of one command. */
export interface Activity {
  count: number
}

/** Facts with the moment (`performance.now()`) and the activity at which they began to be gathered. */
export interface RecentSurvey {
  readonly at: number
  readonly activity: number
  readonly facts: Promise<NodeFacts>
}

/** Looks and quick commands go through it without a login of their own. */
export interface RunningShell {
  /** What a survey wants of the host. */
  look(): Promise<string>
  /** @throws {ReplctlError} `lock-lost` */
  run(command: Command): Promise<CommandResult>
  /**
   * Proves that what is about to be changed is still ours to change: at no cost where it answered a moment ago by the clock on
   * the wall, which goes on while a laptop sleeps. @throws {ReplctlError} `lock-lost`
   */
  proveRecent(): Promise<void>
}

/** One node that can be touched: its host through a transport, its instance by SQL. */
export interface Node {
  readonly name: NodeName
  readonly cluster: string
  readonly settings: NodeSettings
  readonly transport: Transport
  /** What a survey found of the host that does not change within one command; filled by the first survey. */
  known: HostKnowledge | null
  /** The last survey, for steps that follow each other closely; null after a step has changed anything. */
  lastSurvey: RecentSurvey | null
  /** A shell that runs on the host and answers at once: the holder of the cluster's lock. Null where there is none. */
  shell: RunningShell | null
  /** What replctl did to the cluster so far, on this node and the others. */
  readonly activity: Activity
  /** Resolves for every exit status; rejects where the outcome is unknown. */
  run(command: Command, options?: RunOptions): Promise<CommandResult>
  /** The same for a command that only reads: what was surveyed before it still holds. */
  read(command: Command, options?: RunOptions): Promise<CommandResult>
  /** Standard output of a command that must succeed. @throws {ReplctlError} `remote-command-failed` */
  output(command: Command, options?: RunOptions): Promise<string>
  start(command: Command, options?: StartOptions): Promise<RunningCommand>
  /** The node's SQL session, opened at the first call and again after it was lost. */
  sql(endpoint: SqlEndpoint): Promise<SqlSession>
  /** The session that is open, or being opened, and where its instance answers; null where there is none. */
  openSql(): Promise<{ readonly sql: SqlSession; readonly endpoint: string } | null>
  /**
   * Begins to open the session that will be wanted as a rule. It is used where the instance turns out to answer just
   * there (logged in as root or an administrator: wherever `dataDirectory` says), else forgotten.
   */
  presumeSql(endpoint: SqlEndpoint, dataDirectory: string): void
  /**
   * One more session, to where the first one leads: for what must not end that one with itself. It lasts as long as the node is
   * connected. @throws {ReplctlError} `not-answering` also where there is no first one
   */
  openAside(): Promise<SqlSession>
  /** Forgets the SQL session, e.g. before the instance is stopped. */
  closeSql(): Promise<void>
  close(): Promise<void>
}

/** Of a session that found its own way to the instance of the data directory. */
const anywhere = 'wherever the data directory says'

const nameOf = ({ socketDirectory, port }: SqlEndpoint) => `${socketDirectory}:${port}`

/** Whether a session (`openSql`) leads to the instance that answers at this place. */
export function isSameEndpoint(endpoint: string, place: SqlEndpoint): boolean {
  return endpoint === anywhere || endpoint === nameOf(place)
}

/** A node over a transport. Errors that come out of it name the node. `activity` is shared by the nodes of one command. */
export function createNode(
  settings: NodeSettings,
  cluster: string,
  transport: Transport,
  activity: Activity = { count: 0 },
  observer?: TransportObserver,
): Node {
  let session:
    | {
        readonly endpoint: string
        readonly opened: Promise<SqlSession>
        readonly another: () => Promise<SqlSession>
      }
    | undefined
  const asides: SqlSession[] = []
  const named = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work
    } catch (thrown) {
      throw asReplctlError(thrown).with({ node: settings.name })
    }
  }
  const closeSql = async () => {
    const closing = session?.opened.then(
      (opened) => opened.close(),
      () => undefined,
    )
    session = undefined
    // One that a frozen instance never opens, or is busy with a statement that it never answers, goes with the connection.
    await Promise.race([closing, new Promise((resolve) => setTimeout(resolve, 300).unref())])
  }
  const runByTransport = (command: Command, options: RunOptions | undefined) =>
    transport.run(command, { timeoutMs: 60_000, ...options })
  const runInShell = (command: Command): Promise<CommandResult> | null =>
    node.shell !== null && isForRunningShell(command) ? observed(node.shell, command) : null
  const observed = async (shell: RunningShell, command: Command): Promise<CommandResult> => {
    const startedAt = performance.now()
    observer?.commandStarted?.(transport.host, command)
    const result = await shell.run(command)
    observer?.commandFinished?.(transport.host, command, result, performance.now() - startedAt)
    return result
  }
  /** A step may have slept between two of its commands, and somebody else have taken over meanwhile. */
  const whileOurs = <T>(begin: () => Promise<T>): Promise<T> =>
    node.shell === null ? begin() : node.shell.proveRecent().then(begin)
  const counted = (sql: SqlSession) => countStatements(sql, activity)
  const node: Node = {
    name: settings.name,
    cluster,
    settings,
    transport,
    known: null,
    lastSurvey: null,
    shell: null,
    activity,
    run: (command, options) =>
      acting(activity, named(runInShell(command) ?? whileOurs(() => runByTransport(command, options)))),
    // Without the lock nothing is written, but it can still be read.
    read: (command, options) =>
      named(
        runInShell(command)?.catch(() => runByTransport(command, options)) ??
          runByTransport(command, options),
      ),
    output: async (command, options) => {
      const result = await node.run(command, options)
      if (result.status !== 0) throw commandFailed(settings.name, command, result)
      return result.stdout
    },
    start: (command, options) => acting(activity, named(whileOurs(() => transport.start(command, options)))),
    sql: async (endpoint) => {
      if (session !== undefined && isSameEndpoint(session.endpoint, endpoint)) {
        const existing = await session.opened.catch(() => undefined)
        if (existing?.isOpen) return existing
      }
      await closeSql()
      const another = () => named(openSqlSession(transport, settings, endpoint)).then(counted)
      const opened = another()
      opened.catch(() => undefined)
      session = { endpoint: nameOf(endpoint), opened, another }
      return await opened
    },
    openSql: async () => {
      if (session === undefined) return null
      const { opened, endpoint } = session
      const sql = await opened.catch(() => undefined)
      return sql?.isOpen === true ? { sql, endpoint } : null
    },
    presumeSql: (endpoint, dataDirectory) => {
      if (session !== undefined) return
      const another = () =>
        named(presumeSqlSession(transport, settings, endpoint, dataDirectory)).then(counted)
      const opened = another()
      opened.catch(() => undefined)
      session = { endpoint: transport.socketPeerIsOsUser ? nameOf(endpoint) : anywhere, opened, another }
    },
    openAside: async () => {
      if (session === undefined) throw noSession(settings.name)
      const aside = await session.another()
      asides.push(aside)
      return aside
    },
    closeSql,
    close: async () => {
      // The slots that they hold are gone before the connection is.
      const closing = Promise.allSettled(asides.map((aside) => aside.close()))
      await Promise.race([closing, new Promise((resolve) => setTimeout(resolve, 300).unref())])
      await closeSql()
      await transport.close()
    },
  }
  return node
}

async function acting<T>(activity: Activity, work: Promise<T>): Promise<T> {
  activity.count += 1
  try {
    return await work
  } finally {
    activity.count += 1
  }
}

function noSession(node: NodeName): ReplctlError {
  return new ReplctlError('not-answering', `there is no session to PostgreSQL on ${node}`, { node })
}

/** A statement may change something, unless it is a query for a document: those only read. */
function countStatements(sql: SqlSession, activity: Activity): SqlSession {
  return {
    get isOpen() {
      return sql.isOpen
    },
    json: (query, options) => sql.json(query, options),
    value: (query, options) => acting(activity, sql.value(query, options)),
    execute: (query, options) => acting(activity, sql.execute(query, options)),
    close: () => sql.close(),
  }
}

/** The error of a command that ended with a status that its caller did not expect. */
export function commandFailed(node: string, command: Command, result: CommandResult): ReplctlError {
  const how = result.signal === null ? `exit status ${result.status}` : `signal ${result.signal}`
  const said = (result.stderr.trim() || result.stdout.trim()).split('\n').slice(-12).join('\n')
  const isFull = /no space left on device/i.test(result.stderr)
  return new ReplctlError(
    isFull ? 'disk-full' : 'remote-command-failed',
    `could not run "${command.title}" on ${node}`,
    {
      detail: `It ended with ${how}.${said === '' ? '' : ` It said: ${said}`}`,
      hint: isFull ? 'Free some space on that file system, then run the command again.' : undefined,
      node,
    },
  )
}

/** Sets `$state` from `$1`, a node's `stateDir`. */
export const stateVariableScript = `
case $1 in /*) state=$1 ;; *) state="$HOME/$1" ;; esac
`

/** Prefix of every script that works in replctl's state directory: `$state` exists, private to the OS user. */
export const stateDirectoryScript = `
umask 077${stateVariableScript}[ -d "$state" ] || mkdir -p "$state" || exit 70
`

/** A script in the state directory; `$1` names that directory, its own arguments begin at `$2`. One that only looks makes none. */
export function stateScript(
  node: Node,
  title: string,
  script: string,
  args: readonly string[] = [],
  stdin?: string | Secret,
  { onlyLooks, ...options }: { readonly isQuick?: true; readonly onlyLooks?: true } = {},
): Command {
  const argv = [node.settings.stateDir, ...args]
  const begin = onlyLooks === true ? stateVariableScript : stateDirectoryScript
  return shellScript(title, `${begin}${script}`, argv, { stdin, ...options })
}

/** A PostgreSQL program of the node, e.g. `pgProgram(binaries, 'pg_ctl', ['-D', dir, 'status'])`. */
export function pgProgram(binDirectory: string, name: string, args: readonly string[]): Command {
  return program(`${binDirectory}/${name}`, args)
}
