import { createHash } from 'node:crypto'
import { quoteForShell } from '../command.ts'
import { renderTemplate } from './template.ts'

/** How WAL is packed on its way and in the archive; `auto` takes the fastest that both ends have. */
export type ArchiveCompression = 'auto' | 'none' | 'gzip' | 'lz4' | 'zstd'

/** What archive-push exits with; archive-fetch and archive-receive use the same numbers. Always below 126. */
export const archiveStatus = {
  done: 0,
  /** The archive has no such file. */
  missing: 1,
  refused: 2,
  /** The archive holds other content under this name: a second primary, or a promotion without a new timeline. */
  conflict: 3,
  damaged: 4,
  /** The archive host cannot store it: disk full, directory missing. */
  archiveHostFailed: 5,
  unpackerMissing: 6,
  unreachable: 7,
  /** Empty, of the wrong size, or of another cluster, as the file's own header says. */
  wrongFile: 8,
  /** There is no such script: said by the command that would run it. */
  scriptMissing: 9,
} as const

/** Names in the state directory that the scripts and replctl share. */
export const archiveFiles = {
  /** Private key (0600); its public half stands beside it with `.pub`. */
  key: 'archive_key',
  knownHosts: 'archive_known_hosts',
  push: 'archive-push',
  fetch: 'archive-fetch',
  /** On the archive host, in the state directory of its user. */
  receive: 'archive-receive',
  /** On the archive host, with `mode: stream`: the supervisor of pg_receivewal, and the passfile it logs in with. */
  stream: 'archive-stream',
  streamPassfile: 'archive_pgpass',
  /** The nodes that it looks for the primary on, a line of a connection string for each. */
  streamNodes: 'archive_nodes',
  /** Why the last push failed: "STATUS FILE", then its messages. Absent since a push succeeded. */
  error: 'archive_error',
} as const

export interface ArchiveClientValues {
  readonly cluster: string
  /** Absolute, e.g. `/var/lib/postgresql/.replctl/shop`; on the node. */
  readonly stateDirectory: string
  /** Decimal, as pg_controldata prints it. */
  readonly systemIdentifier: string
  /** The archive host as the node reaches it. */
  readonly host: string
  readonly port: number
  readonly user: string
  /** `archive.dir` of the inventory. */
  readonly dir: string
  readonly connectTimeoutMs: number
}

export interface ArchivePushValues extends ArchiveClientValues {
  readonly compression: ArchiveCompression
}

/** The text of archive-push, for a node that may become primary: that is every node. */
export function renderArchivePush(template: string, values: ArchivePushValues): string {
  const name = 'templates/archive/archive-push.sh'
  return renderTemplate(template, { ...clientValues(values), compression: values.compression }, name)
}

/** The text of archive-fetch, the restore_command of standbys. */
export function renderArchiveFetch(template: string, values: ArchiveClientValues): string {
  return renderTemplate(template, clientValues(values), 'templates/archive/archive-fetch.sh')
}

/** The text of archive-receive, for the archive host; directory and system identifier come from authorized_keys. */
export function renderArchiveReceive(template: string, { cluster }: { readonly cluster: string }): string {
  return renderTemplate(template, { cluster }, 'templates/archive/archive-receive.sh')
}

export interface ArchiveStreamValues {
  readonly cluster: string
  /** Absolute, e.g. `/var/lib/replctl/shop/7300000000000000001/wal`. */
  readonly walDirectory: string
  /** How it logs in; on which node stands in `archive_nodes`. */
  readonly conninfo: string
  readonly slot: string
  /** Of the cluster: what another one writes is not received. */
  readonly systemIdentifier: string
}

/** The text of archive-stream, which keeps pg_receivewal running on the archive host. */
export function renderArchiveStream(template: string, values: ArchiveStreamValues): string {
  const { cluster, walDirectory, conninfo, slot, systemIdentifier } = values
  requireSystemIdentifier(systemIdentifier)
  return renderTemplate(
    template,
    { cluster, wal_directory: walDirectory, conninfo, slot, system_identifier: systemIdentifier },
    'templates/archive/archive-stream.sh',
  )
}

function clientValues(values: ArchiveClientValues): Record<string, string> {
  requireSystemIdentifier(values.systemIdentifier)
  const { cluster, stateDirectory, systemIdentifier, host, port, user, connectTimeoutMs } = values
  return {
    cluster,
    state_directory: stateDirectory,
    system_identifier: systemIdentifier,
    host,
    port: String(port),
    user,
    connect_timeout: String(Math.max(1, Math.ceil(connectTimeoutMs / 1000))),
    connection: archiveConnectionName(values),
  }
}

/**
 * Name of the socket of the warm connection, in the state directory, e.g. `ssh-1f9d08a2`. Another archive gets another one:
 * host, directory and system identifier are fixed at login, so that the old connection, which stays for minutes, would
 * bring everything into the old archive. Short, since ssh appends 17 characters to it and a socket's path has room for 104.
 */
export function archiveConnectionName(
  archive: Pick<ArchiveClientValues, 'host' | 'port' | 'user' | 'dir' | 'systemIdentifier'>,
): string {
  const { host, port, user, dir, systemIdentifier } = archive
  const hash = createHash('sha256').update(`${user}@${host}:${port}\n${dir}\n${systemIdentifier}`)
  return `ssh-${hash.digest('hex').slice(0, 8)}`
}

export interface ArchiveAddress {
  readonly host: string
  readonly port: number
  readonly user: string
}

/**
 * The value of archive_command. Where the script is gone, sh would end with 127, which PostgreSQL takes for a crash: its archiver
 * would end, begin anew, and count no failure that anybody could see.
 * @param scriptPath where archive-push is on the node; a `%` in it is doubled, as PostgreSQL wants it
 */
export function archiveCommandLine(scriptPath: string): string {
  return ifThere(scriptPath, "'%p' '%f'")
}

/** The value of restore_command on a standby: with 127 for a script that is gone it would shut down, and not start again. */
export function standbyRestoreCommandLine(scriptPath: string): string {
  return ifThere(scriptPath, "'%f' '%p'")
}

/** The value of restore_command in a recovery that ends: without the script it must not go on, for it would open the server too early. */
export function restoreCommandLine(scriptPath: string): string {
  return `${quoteForPlaceholders(scriptPath)} '%f' '%p'`
}

/** Whether a setting's value runs this script. */
export function runsScript(command: string, scriptPath: string): boolean {
  return command.includes(`${quoteForPlaceholders(scriptPath)} `)
}

/** In place of the shell, as without the condition: PostgreSQL's signals reach the script alone. */
function ifThere(scriptPath: string, words: string): string {
  const script = quoteForPlaceholders(scriptPath)
  const name = scriptPath.slice(scriptPath.lastIndexOf('/') + 1)
  const complaint = quoteForPlaceholders(`${name} is missing, or may not be run: see replctl status`)
  return `if [ -x ${script} ]; then exec ${script} ${words}; fi; echo ${complaint} >&2; exit ${archiveStatus.scriptMissing}`
}

const quoteForPlaceholders = (path: string): string => quoteForShell(path).replaceAll('%', '%%')

export const archiveSuffixes = ['none', 'gz', 'lz4', 'zst'] as const
export type ArchiveSuffix = (typeof archiveSuffixes)[number]

/** What an explicit compression puts behind a segment's name, e.g. `zstd` → `zst`. */
export const suffixOf: Readonly<Record<Exclude<ArchiveCompression, 'auto'>, ArchiveSuffix>> = {
  none: 'none',
  gzip: 'gz',
  lz4: 'lz4',
  zstd: 'zst',
}

/**
 * What the archive host can store, from what `archive-push --check` prints: `replctl-archive 1 none gz lz4 zst`.
 * @throws {RangeError} if it is no such answer
 */
export function parseArchiveCheck(output: string): readonly ArchiveSuffix[] {
  const words = /^replctl-archive 1 (.*)$/m.exec(output)?.[1]?.split(' ')
  if (!words) throw new RangeError(`not an answer of archive-receive: ${output}`)
  return archiveSuffixes.filter((suffix) => words.includes(suffix))
}

export interface ArchiveError {
  /** One of `archiveStatus`. */
  readonly status: number
  /** e.g. `00000001000000000000000A`. */
  readonly file: string
  /** What archive-push and the archive host said, as it is in PostgreSQL's log. */
  readonly message: string
}

/** Reads archive_error from a node's state directory; undefined if the text is not one. */
export function parseArchiveError(text: string): ArchiveError | undefined {
  const match = /^(\d{1,3}) (\S*)\n([\s\S]*)$/.exec(text)
  return match ? { status: Number(match[1]), file: match[2]!, message: match[3]!.trimEnd() } : undefined
}

/**
 * The text of archive_known_hosts on a node.
 * @param hostKeys e.g. `ssh-ed25519 AAAA…`, as they stand in the archive host's /etc/ssh/ssh_host_*_key.pub
 */
export function archiveKnownHosts(
  { host, port }: Pick<ArchiveAddress, 'host' | 'port'>,
  hostKeys: readonly string[],
): string {
  const name = port === 22 ? host : `[${host}]:${port}`
  return hostKeys.map((key) => `${name} ${publicKeyWords(key)}\n`).join('')
}

/** The public keys in such files, put together with a line break between them; what is no key is passed over. */
export function hostKeysIn(text: string): readonly string[] {
  const keys = text.split('\n').flatMap((line) => publicKeyIn(line) ?? [])
  return [...new Set(keys)]
}

export interface AuthorizedKey {
  readonly cluster: string
  /** The node whose key it is. */
  readonly node: string
  readonly systemIdentifier: string
  /** `archive.dir` of the inventory. */
  readonly dir: string
  /** Where archive-receive is on the archive host. */
  readonly receiverPath: string
  /** As ssh-keygen wrote it; its comment is replaced. */
  readonly publicKey: string
}

/**
 * The line that lets a node's key reach this cluster's archive and nothing else, e.g.
 * `restrict,command="'/…/archive-receive' '/var/lib/replctl/shop' '7…'" ssh-ed25519 AAAA… replctl:shop:pg1`.
 * @throws {RangeError} if a part cannot stand in authorized_keys
 * @see https://man.openbsd.org/sshd.8#AUTHORIZED_KEYS_FILE_FORMAT
 */
export function authorizedKeysLine(key: AuthorizedKey): string {
  requireSystemIdentifier(key.systemIdentifier)
  const command = [key.receiverPath, key.dir, key.systemIdentifier].map(quoteForShell).join(' ')
  if (/[\r\n]/.test(command)) throw new RangeError('a line of authorized_keys cannot hold a line break')
  if (/\s/.test(key.node)) throw new RangeError(`a node's name cannot hold a space: ${key.node}`)
  // sshd knows one escape within the quotes: \" for a quote.
  const option = `restrict,command="${command.replaceAll('"', '\\"')}"`
  return `${option} ${publicKeyWords(key.publicKey)} replctl:${key.cluster}:${key.node}`
}

/**
 * authorized_keys with this line of replctl's in it once: it takes the place of an older one of the same node, or goes to the end.
 * Every other line is kept as it is, those of another cluster that has the same name included.
 */
export function ensureAuthorizedKeysLine(text: string, line: string): string {
  const own = readKeysLine(line)
  if (own === undefined) throw new RangeError(`not a line of replctl's: ${line}`)
  const isOlder = (other: string): boolean => {
    const { mark, systemIdentifier, key } = readKeysLine(other) ?? {}
    return mark === own.mark && (systemIdentifier === own.systemIdentifier || key === own.key)
  }
  const lines = text.split(/(?<=\n)/)
  const first = lines.findIndex(isOlder)
  if (first < 0) return text === '' || text.endsWith('\n') ? `${text}${line}\n` : `${text}\n${line}\n`
  return lines.map((other, index) => (!isOlder(other) ? other : index === first ? `${line}\n` : '')).join('')
}

/** The parts of a line that has the shape of ours; a foreign key that merely has such a comment is not ours. */
function readKeysLine(line: string) {
  const match = /^restrict,command="'.*' '(\d+)'" \S+ ([A-Za-z0-9+/=]+) (replctl:\S+)\s*$/.exec(line)
  return match === null ? undefined : { systemIdentifier: match[1], key: match[2], mark: match[3] }
}

/** Key type and key, without the comment. */
function publicKeyWords(publicKey: string): string {
  const words = publicKeyIn(publicKey)
  if (words === undefined) throw new RangeError(`not a public key: ${publicKey}`)
  return words
}

function publicKeyIn(line: string): string | undefined {
  const [type = '', key = ''] = line.trim().split(/\s+/)
  return /^[a-z0-9@.-]+$/.test(type) && /^[A-Za-z0-9+/]+=*$/.test(key) ? `${type} ${key}` : undefined
}

function requireSystemIdentifier(text: string): void {
  if (!/^[0-9]{1,20}$/.test(text)) throw new RangeError(`not a system identifier: ${text}`)
}
