import { ReplctlError } from '../errors.ts'
import { localUser } from './local-user.ts'
import { parseConfigLine, readSshConfig, type SshConfigText, systemConfigFile } from './ssh-config-files.ts'

/** What ssh_config says about a host: keyword in lower case → its values, e.g. `identityfile` → two paths. */
export type SshOptions = ReadonlyMap<string, readonly string[]>

export interface SshOptionsQuery {
  readonly host: string
  /** Given by the inventory or a jump, so ssh_config does not decide it. */
  readonly user: string | undefined
  /** Who logs in where neither the inventory nor ssh_config says it. */
  readonly defaultUser: string
  readonly port: number | undefined
  readonly configFile: string | undefined
  readonly home: string
  readonly env: Readonly<Record<string, string | undefined>>
  readonly timeoutMs: number
}

/** The keywords that change anything here; a file without them need not be evaluated. */
const relevant: ReadonlySet<string> = new Set(
  `addressfamily canonicaldomains canonicalizehostname certificatefile globalknownhostsfile hashknownhosts
  hostkeyalias hostname identitiesonly identityagent identityfile port proxycommand proxyjump revokedhostkeys
  serveralivecountmax serveraliveinterval user userknownhostsfile`.split(/\s+/),
)
/** Debian's own file says HashKnownHosts; that alone is not worth a process. */
const notAlone: ReadonlySet<string> = new Set(['hashknownhosts'])
/** Stands for "ssh_config names no user": `ssh -G` would give the local user's name. */
const noUser = 'replctl.no.user'

/** Looks up what ssh_config says about a host: by `ssh -G` where there is one, else by parsing it. */
export async function lookUpSshOptions(query: SshOptionsQuery): Promise<SshOptions> {
  const config = await readConfig(query)
  if (!isRelevant(config.expanded)) return new Map()
  const options = await readOptions(query, config)
  if (options.get('userknownhostsfile')?.[0] === usualKnownHosts(query.env))
    options.delete('userknownhostsfile')
  return options
}

/**
 * `Match user` is about who logs in. Where nobody is named yet, it would be taken for the user of this process; so where it
 * matters, it is asked once more with the user it comes to.
 */
async function readOptions(query: SshOptionsQuery, config: SshConfigText): Promise<Map<string, string[]>> {
  const read = async (asked: SshOptionsQuery) =>
    (await askSsh(asked, config)) ?? (await parseOptions(asked, config))
  const options = await read(query)
  const isNamed = options.has('user') && options.get('user')?.[0] !== noUser
  const isDecided = query.user !== undefined || isNamed || !asksForUser(config.expanded)
  const decided = isDecided ? options : await read({ ...query, user: query.defaultUser })
  if (!isNamed) decided.delete('user')
  return decided
}

function asksForUser(text: string): boolean {
  return text.split('\n').some((line) => {
    const [keyword, value] = parseConfigLine(line)
    return keyword === 'match' && /\buser\b|%r/i.test(value)
  })
}

/** How `ssh -G` writes its default: below the home directory of /etc/passwd, where ours may be another. */
function usualKnownHosts(env: SshOptionsQuery['env']): string {
  const { home } = localUser(env)
  return `${home}/.ssh/known_hosts ${home}/.ssh/known_hosts2`
}

async function readConfig({ home, configFile }: SshOptionsQuery): Promise<SshConfigText> {
  try {
    return await readSshConfig(home, configFile)
  } catch (error) {
    throw configUnreadable(`${(error as Error).message}.`, error)
  }
}

function isRelevant(text: string): boolean {
  return text.split('\n').some((line) => {
    const [keyword] = parseConfigLine(line)
    return relevant.has(keyword) && !notAlone.has(keyword)
  })
}

async function askSsh(
  query: SshOptionsQuery,
  config: SshConfigText,
): Promise<Map<string, string[]> | undefined> {
  const { execa } = await import('execa')
  // No file: a failover must not need room in the temporary folder of the control host.
  const file = '/dev/stdin'
  const system = config.hasSystem ? `Match all\nInclude ${systemConfigFile}\n` : ''
  const user = query.user === undefined ? [] : ['-l', query.user]
  const port = query.port === undefined ? [] : ['-p', String(query.port)]
  const asked = ['ssh', '-G', '-F', file, ...user, ...port, '--', query.host]
  // A pipe of the shell's own: what this process would make is a socket, which cannot be opened by its name.
  const result = await execa('/bin/sh', ['-c', 'cat | exec "$@"', 'sh', ...asked], {
    reject: false,
    input: `${config.user}\n${system}Match all\nUser ${noUser}\n`,
    timeout: query.timeoutMs,
    env: { ...query.env, LC_ALL: 'C' },
    extendEnv: false,
    maxBuffer: 1_000_000,
  })
  if (result.exitCode === 0) return collect(result.stdout)
  // No ssh is 127. The last one: a container's user without an entry in /etc/passwd, whom ssh does not serve at all.
  const isUseless = /unknown option|illegal option|No user exists for uid/.test(result.stderr)
  if (result.exitCode === undefined || result.exitCode === 127 || isUseless) return undefined
  throw configUnreadable(result.stderr.trim().replaceAll(file, query.configFile ?? '~/.ssh/config'))
}

function collect(text: string): Map<string, string[]> {
  const options = new Map<string, string[]>()
  for (const line of text.split('\n')) {
    const [keyword, value] = parseConfigLine(line)
    if (keyword !== '') options.set(keyword, [...(options.get(keyword) ?? []), value])
  }
  return options
}

async function parseOptions(query: SshOptionsQuery, config: SshConfigText): Promise<Map<string, string[]>> {
  const { default: SshConfig } = await import('ssh-config')
  const asked = query.user === undefined ? { Host: query.host } : { Host: query.host, User: query.user }
  // Its Match exec needs bash where the system has another sh: such a block never applies here.
  const computed = SshConfig.parse(config.expanded).compute(asked, { ignoreCase: true, matchExec: false })
  const options = new Map<string, string[]>()
  for (const [keyword, value] of Object.entries(computed)) {
    const isList = /^(identityfile|certificatefile)$/.test(keyword)
    const values = Array.isArray(value) ? value : [String(value)]
    options.set(keyword, isList ? values : [values.join(' ')])
  }
  return options
}

function configUnreadable(detail: string, cause?: unknown): ReplctlError {
  return new ReplctlError('usage', 'cannot read the ssh configuration', {
    detail,
    hint: 'Correct it, or name another file in ssh.config_file.',
    cause,
  })
}
