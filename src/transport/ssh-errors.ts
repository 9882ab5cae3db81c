import { ReplctlError } from '../errors.ts'
import type { LoginPlan } from './ssh-login.ts'
import type { SshHop } from './ssh-route.ts'

const causes: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'connection refused: nothing listens there',
  EHOSTUNREACH: 'no route to the host',
  ENETUNREACH: 'no route to its network',
  EHOSTDOWN: 'the host is down',
  ETIMEDOUT: 'it does not answer',
  ECONNRESET: 'it closed the connection at once',
  ENOTFOUND: 'its name is not found',
  ENONAME: 'its name is not found, or no name service answers',
  EAI_AGAIN: 'the name service does not answer',
  EACCES: 'a firewall on this machine forbids it',
  EPERM: 'a firewall on this machine forbids it',
}

/** Where on the way we are. */
type Place = Pick<SshHop, 'host' | 'address' | 'port'>

/** The error for a host that cannot be connected to, with the cause in words. */
export function hostUnreachable(hop: SshHop, cause: unknown): ReplctlError {
  const code = codeOf(cause)
  const why = causes[code] ?? (cause instanceof Error ? cause.message : String(cause))
  return new ReplctlError('host-unreachable', `could not connect to ${hop.host}`, {
    detail: `${addressOf(hop)}: ${why}.`,
    hint: hintFor(hop, why),
    retryable: true,
    cause,
  })
}

/** The error for a login that took longer than the whole way may take. */
export function connectTimedOut(hop: Place, timeoutMs: number, stage: string): ReplctlError {
  return new ReplctlError('host-unreachable', `could not connect to ${hop.host}`, {
    detail: `${addressOf(hop)}: timed out after ${timeoutMs / 1000} s while ${stage}.`,
    hint: `Try it: ssh -v -p ${hop.port} ${hop.address} (or raise ssh.connect_timeout).`,
    retryable: true,
  })
}

/** The error for a login that no key opened: which were tried, which could not be, and for whom. */
export function authRefused(
  hop: SshHop,
  { attempts, skipped }: LoginPlan,
  methods: readonly string[],
): ReplctlError {
  const tried = attempts
    .map(({ label }) => label)
    .filter((label) => !skipped.some((s) => s.startsWith(`${label}:`)))
  const said = [
    tried.length > 0 ? `Refused: ${tried.join(', ')}.` : 'No key was there to try.',
    skipped.length > 0 ? `Not tried: ${skipped.join('; ')}.` : '',
    hop.agent === undefined ? 'No ssh-agent was asked.' : '',
    methods.length > 0 && !methods.includes('publickey') ? `The host takes only: ${methods.join(', ')}.` : '',
  ]
  return new ReplctlError('auth-refused', `login as "${hop.user}" on ${hop.host} refused`, {
    detail: said.filter((sentence) => sentence !== '').join(' '),
    hint: `Add the public key to ${hop.user}'s authorized_keys there, or set ssh.user or ssh.identity_file. Try: ssh -p ${hop.port} ${hop.user}@${hop.address}`,
  })
}

function hintFor(hop: SshHop, why: string): string {
  if (/no matching|algorithm/i.test(why))
    return 'Allow curve25519-sha256, aes128-gcm and ssh-ed25519 in its sshd_config; post-quantum-only and certificate-only hosts are not supported.'
  if (/not found/.test(why)) return 'Correct the host in the inventory, or HostName in ~/.ssh/config.'
  return `Try it: ssh -p ${hop.port} ${hop.user}@${hop.address}`
}

function addressOf({ host, address, port }: Place): string {
  const name = address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`
  return address === host ? name : `${host} is ${name}`
}

function codeOf(error: unknown): string {
  // All addresses of a name failed: the first tells as much as any.
  const first: unknown = error instanceof AggregateError ? error.errors[0] : error
  const { code } = (first ?? {}) as { code?: unknown }
  return typeof code === 'string' ? code : ''
}
