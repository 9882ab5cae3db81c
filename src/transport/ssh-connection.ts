import type { Duplex } from 'node:stream'
import type { Client } from 'ssh2'
import { ReplctlError } from '../errors.ts'
import { defer, settlesWithin } from './deferred.ts'
import { createGate } from './gate.ts'
import { dial, dialThrough } from './ssh-dial.ts'
import { connectTimedOut, hostUnreachable } from './ssh-errors.ts'
import { EarlyCloseError, logIn, prepareLogin } from './ssh-handshake.ts'
import { findRoute, type RouteRequest, type SshHop } from './ssh-route.ts'

/** A login that lasts: one client per hop, the last of which serves all commands. */
export interface SshConnection {
  readonly client: Client
  readonly loginUser: string
  /** Resolves when the link is gone, for whatever reason. */
  readonly lost: Promise<void>
  close(): Promise<void>
}

/** A way under construction; everything on it is torn down when it fails or takes too long. */
interface Journey {
  readonly request: RouteRequest
  readonly aborter: AbortController
  readonly sockets: Duplex[]
  readonly clients: Client[]
  /** For the message when time runs out. */
  hop: SshHop | undefined
  stage: string
}

const mostTries = 3

// sshd and bastions drop logins at random when more than ten are under way (MaxStartups), and a hundred key exchanges at
// once starve each other. Who takes longer than the patience makes room: dead hosts must not hold up the others.
const mostLogins = 8
const logins = createGate(mostLogins)
/** The largest number that has waited since nobody did. */
let crowd = 0

/** With however many dead hosts, the last one is dialled about this long after the first. */
const longestQueueMs = 3_000

/** How long a login may keep others waiting: the shorter, the more there are. In ms. */
export const patienceFor = (waiting: number): number =>
  Math.min(300, (longestQueueMs * mostLogins) / Math.max(1, waiting))

/**
 * Logs into a host, through the hosts before it; the time limit covers the whole way. Only a few logins begin at once.
 * @throws {ReplctlError} `host-unreachable`, `host-key-…`, `auth-refused`
 */
export async function openSshConnection(request: RouteRequest): Promise<SshConnection> {
  const { connectTimeoutMs } = request.settings
  const aborter = new AbortController()
  const entering = logins.enter('short', aborter.signal)
  crowd = Math.max(crowd, logins.waiting())
  const leave = await entering
  const impatience = setTimeout(leave, patienceFor(crowd))
  if (logins.waiting() === 0) crowd = 0
  const journey: Journey = { request, aborter, sockets: [], clients: [], hop: undefined, stage: '' }
  const late = defer<never>()
  const timer = setTimeout(() => late.reject(timedOut(journey)), connectTimeoutMs)
  const travelling = travel(journey)
  travelling.catch(() => {})
  try {
    return await Promise.race([travelling, late.promise])
  } catch (error) {
    tearDown(journey)
    throw onTheWay(journey, error)
  } finally {
    leave()
    clearTimeout(impatience)
    clearTimeout(timer)
  }
}

async function travel(journey: Journey): Promise<SshConnection> {
  journey.stage = 'reading the ssh configuration'
  const route = await findRoute(journey.request)
  for (const hop of route) await reach(journey, hop, 1)
  return watchConnection(journey, route.at(-1)!)
}

async function reach(journey: Journey, hop: SshHop, attempt: number): Promise<void> {
  const { request, aborter, clients, sockets } = journey
  aborter.signal.throwIfAborted()
  const before = clients.at(-1)
  journey.hop = hop
  journey.stage = 'connecting'
  // The host begins to serve the connection while ssh2 is still being loaded.
  const dialling = before ? dialThrough(before, hop) : dial(hop, request.env, aborter.signal)
  dialling.catch(() => {})
  const preparing = prepareLogin(hop, request)
  preparing.catch(() => {})
  request.onDialling?.()
  const { default: ssh2 } = await import('ssh2')
  const socket = await dialling
  socket.on('error', () => {})
  sockets.push(socket)
  journey.stage = 'logging in'
  const client = new ssh2.Client()
  clients.push(client)
  try {
    await logIn(client, hop, socket, await preparing, request.settings.hostKeyPolicy)
  } catch (error) {
    if (!(error instanceof EarlyCloseError)) throw error
    if (attempt >= mostTries || aborter.signal.aborted) throw hostUnreachable(hop, error)
    // sshd drops logins at random while too many begin at once (MaxStartups).
    clients.pop()
    await new Promise((resolve) => setTimeout(resolve, 100 * 2 ** attempt * (0.5 + Math.random())))
    await reach(journey, hop, attempt + 1)
  }
}

/** A refusal by a jump host names that host; say whom it was meant for. */
function onTheWay({ hop, request }: Journey, error: unknown): unknown {
  if (!(error instanceof ReplctlError) || hop === undefined || hop.host === request.host) return error
  return error.with({
    detail: `${error.detail ?? ''} It is a jump host on the way to ${request.host}.`.trim(),
  })
}

function timedOut({ request, hop, stage }: Journey): Error {
  const { host, settings } = request
  return connectTimedOut(
    hop ?? { host, address: host, port: settings.port ?? 22 },
    settings.connectTimeoutMs,
    stage,
  )
}

function tearDown({ aborter, sockets, clients }: Journey): void {
  aborter.abort()
  for (const client of clients) client.on('error', () => {})
  for (const socket of sockets) socket.destroy()
}

function watchConnection(journey: Journey, hop: SshHop): SshConnection {
  const client = journey.clients.at(-1)!
  const lost = defer()
  const ticks = 12
  let silent = 0
  // Ticks, not the time of day: after a suspended process wakes up the link deserves another chance.
  const timer = setInterval(() => {
    silent += 1
    if (silent > ticks) tearDown(journey)
  }, hop.silenceMs / ticks)
  journey.sockets.at(-1)!.on('data', () => {
    silent = 0
  })
  client.on('error', () => {})
  client.once('close', () => {
    clearInterval(timer)
    lost.resolve()
    tearDown(journey)
  })
  return {
    client,
    loginUser: hop.user,
    lost: lost.promise,
    close: async () => {
      client.end()
      await settlesWithin(lost.promise, 1000)
      tearDown(journey)
    },
  }
}
