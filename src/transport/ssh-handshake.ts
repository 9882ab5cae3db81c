import { randomBytes } from 'node:crypto'
import type { Duplex } from 'node:stream'
import type { AuthHandlerMiddleware, Client, ConnectConfig } from 'ssh2'
import type { ReplctlError } from '../errors.ts'
import {
  type HostKeySubject,
  judgeHostKey,
  keyUnknown,
  lookupName,
  preferKnownTypes,
} from './host-key-check.ts'
import { type KnownHost, knownHostLine } from './known-hosts.ts'
import { learnHostKey, readKnownHosts, readRevokedKeys } from './known-hosts-files.ts'
import { authRefused, hostUnreachable } from './ssh-errors.ts'
import { type LoginPlan, planLogin } from './ssh-login.ts'
import type { RouteRequest, SshHop } from './ssh-route.ts'

/** What has to be known before a host is logged into. */
export interface LoginKnowledge {
  readonly known: readonly KnownHost[]
  readonly plan: LoginPlan
}

/** The connection ended before the host said who it is: it may be too busy, and a second try may work. */
export class EarlyCloseError extends Error {}

/** Reads what the login needs; may go on while the connection is being made. */
export async function prepareLogin(hop: SshHop, { home, env }: RouteRequest): Promise<LoginKnowledge> {
  const [known, revoked, plan] = await Promise.all([
    readKnownHosts(hop.knownHostsFiles),
    hop.revokedKeysFile === undefined ? [] : readRevokedKeys(hop.revokedKeysFile),
    planLogin(hop, home, env.REPLCTL_SSH_PASSPHRASE || undefined),
  ])
  return { known: [...known, ...revoked], plan }
}

/**
 * Verifies the host's key and logs in.
 * @throws {ReplctlError} `host-key-…`, `auth-refused`, `host-unreachable`
 * @throws {EarlyCloseError}
 */
export async function logIn(
  client: Client,
  hop: SshHop,
  socket: Duplex,
  { known, plan }: LoginKnowledge,
  policy: 'strict' | 'accept-new',
): Promise<void> {
  if (socket.destroyed) throw new EarlyCloseError('it closed the connection')
  const subject = subjectOf(hop)
  let refusal: ReplctlError | undefined
  let learnt: Buffer | undefined
  let isEncrypted = false
  let learning: Promise<void> | undefined
  const methods = new Set<string>()
  const config: ConnectConfig = {
    sock: socket,
    username: hop.user,
    // Our own clock covers the whole way.
    readyTimeout: 0,
    keepaliveInterval: Math.floor(hop.silenceMs / 3),
    // We watch for silence ourselves: a busy link may leave these unanswered and yet be alive.
    keepaliveCountMax: 1000,
    algorithms: { serverHostKey: preferKnownTypes(subject, known) },
    authHandler: offerInTurn(hop.user, plan, methods),
    hostVerifier: (key: Buffer) => {
      const verdict = judgeHostKey(subject, key, known)
      if (verdict.is === 'refused') refusal = verdict.error
      if (verdict.is === 'new' && policy === 'strict') refusal = keyUnknown(subject, key, known)
      if (verdict.is === 'new') learnt = key
      return refusal === undefined
    },
  }
  const loggingIn = new Promise<void>((resolve, reject) => {
    client.on('error', (error: Error & { level?: string }) => {
      if (error.level === 'agent') return
      reject(refusal ?? explain(hop, error, plan, [...methods], isEncrypted))
    })
    client.once('handshake', () => {
      isEncrypted = true
      // Only now is it proved that the host holds the key: the verifier is asked before the signature is checked.
      if (learnt) learning = learn(hop, subject, learnt)
      learning?.catch(reject)
    })
    client.once('close', () => reject(refusal ?? closedEarly(hop, plan, isEncrypted)))
    client.once('ready', () => resolve())
    client.connect(config)
  })
  await loggingIn
  await learning
}

async function learn(hop: SshHop, subject: HostKeySubject, key: Buffer): Promise<void> {
  if (subject.learnInto === undefined) return
  const salt = hop.hashKnownHosts ? randomBytes(20) : undefined
  await learnHostKey(subject.learnInto, knownHostLine(lookupName(subject), key, salt))
}

function offerInTurn(username: string, plan: LoginPlan, methods: Set<string>): AuthHandlerMiddleware {
  const waiting = [...plan.attempts]
  let hasAsked = false
  return (left, _partialSuccess, next) => {
    for (const method of left ?? []) methods.add(method)
    const offer = async (): Promise<void> => {
      for (let attempt = waiting.shift(); attempt !== undefined; attempt = waiting.shift()) {
        const method = await attempt.prepare()
        if (method === undefined) continue
        hasAsked = true
        return next(method)
      }
      if (hasAsked) return next(false as never)
      // No key at all: ask what would be taken, so that the error can say it.
      hasAsked = true
      next({ type: 'none', username })
    }
    offer().catch(() => next(false as never))
  }
}

function explain(
  hop: SshHop,
  error: Error & { level?: string; code?: unknown },
  plan: LoginPlan,
  methods: readonly string[],
  isEncrypted: boolean,
): Error {
  if (error.level === 'client-authentication') return authRefused(hop, plan, methods)
  // sshd's own words when it has had enough: "Too many authentication failures".
  if (/authentication failures/i.test(error.message)) return authRefused(hop, plan, methods)
  if (!isEncrypted && (error.level === 'protocol' || codeOf(error) === 'ECONNRESET'))
    return new EarlyCloseError(error.message, { cause: error })
  return hostUnreachable(hop, error)
}

function codeOf(error: Error): unknown {
  return (error as NodeJS.ErrnoException).code
}

function closedEarly(hop: SshHop, plan: LoginPlan, isEncrypted: boolean): Error {
  const message = 'it closed the connection'
  if (!isEncrypted) return new EarlyCloseError(message)
  return plan.attempts.length > 0
    ? hostUnreachable(hop, new Error(`${message} during the login`))
    : authRefused(hop, plan, [])
}

function subjectOf({ host, address, port, hostKeyAlias, learnInto }: SshHop): HostKeySubject {
  const isAlias = hostKeyAlias !== undefined
  return { host, lookupHost: hostKeyAlias ?? address, port, isAlias, learnInto }
}
