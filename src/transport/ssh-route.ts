import { join } from 'node:path'
import type { SshSettings } from '../cluster/inventory.ts'
import { ReplctlError } from '../errors.ts'
import { localUser } from './local-user.ts'
import { lookUpSshOptions, type SshOptions } from './ssh-options.ts'
import { expandSshTokens } from './ssh-tokens.ts'

/** One host to log into on the way, with everything that the inventory and ssh_config say about it. */
export interface SshHop {
  /** As written. */
  readonly host: string
  /** What is connected to. */
  readonly address: string
  readonly port: number
  readonly user: string
  /** Named by the inventory or ssh_config; empty: the usual files in ~/.ssh. */
  readonly identityFiles: readonly string[]
  readonly identitiesOnly: boolean
  /** Socket of the ssh-agent. */
  readonly agent: string | undefined
  readonly hostKeyAlias: string | undefined
  readonly knownHostsFiles: readonly string[]
  /** Where `accept-new` writes. */
  readonly learnInto: string | undefined
  readonly hashKnownHosts: boolean
  /** File of RevokedHostKeys. */
  readonly revokedKeysFile: string | undefined
  /** Named by CertificateFile; not supported, so that a refused login can say it. */
  readonly certificateFiles: readonly string[]
  readonly addressFamily: 0 | 4 | 6
  /** The link counts as dead after this long without a sign of life. */
  readonly silenceMs: number
  readonly proxyCommand: string | undefined
}

export interface RouteRequest {
  readonly host: string
  readonly settings: SshSettings
  readonly osUser: string
  readonly env: Readonly<Record<string, string | undefined>>
  readonly home: string
  /** Called when the first connection on the way is being made. */
  readonly onDialling?: (() => void) | undefined
}

interface Wanted {
  readonly host: string
  readonly user: string | undefined
  readonly port: number | undefined
  readonly defaultUser: string
  readonly depth: number
}

const longestRoute = 8
const longestSilenceMs = 12_000

/** Finds the hosts to log into one after the other; the last is the host itself. */
export async function findRoute(request: RouteRequest): Promise<readonly SshHop[]> {
  const { host, settings, osUser } = request
  return routeTo(request, { host, user: settings.user, port: settings.port, defaultUser: osUser, depth: 0 })
}

async function routeTo(request: RouteRequest, wanted: Wanted): Promise<readonly SshHop[]> {
  const { settings, home, env } = request
  if (wanted.depth > longestRoute) throw jumpLoop(request.host)
  const { configFile, connectTimeoutMs: timeoutMs } = settings
  const options = await lookUpSshOptions({ ...wanted, configFile, home, env, timeoutMs })
  const hop = hopTo(request, wanted, options)
  const jump = options.get('proxyjump')?.[0]
  if (jump === undefined || jump.toLowerCase() === 'none') return [hop]
  const tokens = { h: hop.address, n: hop.host, p: String(hop.port), r: hop.user }
  const jumps = jump.split(',').map((text) => parseJump(expandSshTokens(text.trim(), tokens)))
  const before: SshHop[] = []
  for (const [index, { host, user, port }] of jumps.entries()) {
    const next = { host, user, port, defaultUser: localUser(env).name, depth: wanted.depth + 1 }
    const route = await routeTo(request, next)
    // Only the first jump may have a way of its own; the others are reached through the one before.
    before.push(...(index === 0 ? route : route.slice(-1)))
  }
  return [...before, { ...hop, proxyCommand: undefined }]
}

function hopTo({ settings, home, env }: RouteRequest, wanted: Wanted, options: SshOptions): SshHop {
  const { host, depth } = wanted
  const first = (keyword: string): string | undefined => options.get(keyword)?.[0]
  const port = wanted.port ?? Number(first('port') ?? 22)
  const user = wanted.user ?? first('user') ?? wanted.defaultUser
  const address = expandSshTokens(first('hostname') ?? host, { h: host, n: host })
  const alias = setUnlessNone(first('hostkeyalias'))
  const tokens = {
    h: address,
    n: host,
    p: String(port),
    r: user,
    d: home,
    u: localUser(env).name,
    k: alias ?? host,
  }
  const path = (text: string): string =>
    expandSshTokens(text.replace(/^"(.*)"$/, '$1').replace(/^~(?=\/|$)/, home), tokens, env)
  const files = (value: string | undefined, usual: readonly string[]): readonly string[] =>
    value === undefined
      ? usual
      : splitFiles(value)
          .filter((file) => file !== 'none')
          .map(path)
  const ownFiles = files(first('userknownhostsfile'), usualKnownHosts(home))
  const wish: Wish = { ...settings, isJump: depth > 0 }
  const userFiles = knownHostsFiles(wish, ownFiles, options.has('userknownhostsfile'))
  const globalFiles = files(first('globalknownhostsfile'), usualGlobalKnownHosts)
  const revoked = setUnlessNone(first('revokedhostkeys'))
  return {
    host,
    address,
    port,
    user,
    identityFiles: identityFiles(wish, namedIdentities(options, path, home), home),
    identitiesOnly: first('identitiesonly') === 'yes',
    agent: agentSocket(first('identityagent'), env, path),
    hostKeyAlias: alias,
    knownHostsFiles: [...userFiles, ...globalFiles],
    learnInto: userFiles[0],
    hashKnownHosts: first('hashknownhosts') === 'yes',
    revokedKeysFile: revoked && path(revoked),
    certificateFiles: (options.get('certificatefile') ?? []).map(path),
    addressFamily: first('addressfamily') === 'inet' ? 4 : first('addressfamily') === 'inet6' ? 6 : 0,
    silenceMs: silenceOf(options),
    proxyCommand:
      setUnlessNone(first('proxycommand')) && expandSshTokens(first('proxycommand') ?? '', tokens),
  }
}

interface Wish extends Pick<SshSettings, 'identityFile' | 'knownHosts'> {
  readonly isJump: boolean
}

/**
 * The inventory's key is for the nodes: as with `ssh -i`, a jump host is asked with its own first. The inventory's comes
 * after them, for those who named it for all hosts.
 */
function identityFiles(
  { identityFile, isJump }: Wish,
  named: readonly string[],
  home: string,
): readonly string[] {
  if (!identityFile) return named
  if (!isJump) return [identityFile]
  return [...new Set(named.length > 0 ? [...named, identityFile] : [identityFile, ...usualIdentities(home)])]
}

/** Likewise, the inventory's known_hosts need not be where a jump host is known. The first is the one to learn into. */
function knownHostsFiles(
  { knownHosts, isJump }: Wish,
  own: readonly string[],
  isNamed: boolean,
): readonly string[] {
  if (!knownHosts) return own
  if (!isJump) return [knownHosts]
  return isNamed ? [...own, knownHosts] : [knownHosts, ...own]
}

function usualKnownHosts(home: string): readonly string[] {
  return [join(home, '.ssh', 'known_hosts'), join(home, '.ssh', 'known_hosts2')]
}
const usualGlobalKnownHosts = ['/etc/ssh/ssh_known_hosts', '/etc/ssh/ssh_known_hosts2']

/** The private keys OpenSSH tries where none is named. */
export function usualIdentities(home: string): readonly string[] {
  return ['id_ed25519', 'id_ecdsa', 'id_rsa'].map((name) => join(home, '.ssh', name))
}

/** `ssh -G` lists the usual files where none is named; those are not "named". */
function namedIdentities(
  options: SshOptions,
  path: (text: string) => string,
  home: string,
): readonly string[] {
  const named = (options.get('identityfile') ?? []).filter((file) => file !== 'none').map(path)
  return usualIdentities(home).every((file) => named.includes(file)) ? [] : named
}

function agentSocket(
  value: string | undefined,
  env: RouteRequest['env'],
  path: (text: string) => string,
): string | undefined {
  if (value === undefined || value === 'SSH_AUTH_SOCK') return env.SSH_AUTH_SOCK || undefined
  if (value === 'none') return undefined
  if (/^\$\w+$/.test(value)) return env[value.slice(1)] || undefined
  return path(value)
}

function silenceOf(options: SshOptions): number {
  const intervalMs = Number(options.get('serveraliveinterval')?.[0] ?? 0) * 1000
  const count = Number(options.get('serveralivecountmax')?.[0] ?? 3)
  const wished = intervalMs * Math.max(1, count)
  return wished > 0 ? Math.min(Math.max(wished, 3000), longestSilenceMs) : longestSilenceMs
}

function setUnlessNone(value: string | undefined): string | undefined {
  return value === undefined || value.toLowerCase() === 'none' ? undefined : value
}

/** `ssh -G` takes the quotes off: a blank in front of what cannot begin a path belongs to the path before it. */
export function splitFiles(value: string): readonly string[] {
  if (value.includes('"')) return value.match(/"[^"]*"|\S+/g) ?? []
  return value.trim().split(/\s+(?=[/~%$]|none(?:\s|$))/)
}

/** Reads one jump: `user@host:port`, `[::1]:22`, `ssh://user@host:port`. */
export function parseJump(text: string): {
  host: string
  user: string | undefined
  port: number | undefined
} {
  const plain = text.replace(/^ssh:\/\//, '').replace(/\/$/, '')
  const at = plain.lastIndexOf('@')
  const user = at < 0 ? undefined : plain.slice(0, at)
  const rest = plain.slice(at + 1)
  const [, bracketed, name, port] = /^(?:\[([^\]]+)\]|([^:]*))(?::(\d+))?$/.exec(rest) ?? []
  const host = bracketed ?? name ?? rest
  return { host, user, port: port === undefined ? undefined : Number(port) }
}

function jumpLoop(host: string): ReplctlError {
  return new ReplctlError('usage', `cannot find a way to ${host}`, {
    detail: `ProxyJump in the ssh configuration names more than ${longestRoute} hosts one behind the other.`,
    hint: `Look at it with: ssh -G ${host}`,
  })
}
