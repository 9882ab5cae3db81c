import net from 'node:net'
import { Duplex } from 'node:stream'
import type { Client } from 'ssh2'
import { answerWith, resolveName } from './resolve-name.ts'
import { hostUnreachable } from './ssh-errors.ts'
import type { SshHop } from './ssh-route.ts'

/** Opens the way to the first host: TCP, or what its ProxyCommand gives. */
export async function dial(hop: SshHop, env: NodeJS.ProcessEnv, signal: AbortSignal): Promise<Duplex> {
  return hop.proxyCommand === undefined ? dialTcp(hop, env, signal) : runProxy(hop.proxyCommand, env, signal)
}

/** Opens the way to a host through the one before it. */
export function dialThrough(client: Client, hop: SshHop): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    client.forwardOut('127.0.0.1', 0, hop.address, hop.port, (error, channel) =>
      error
        ? reject(hostUnreachable(hop, new Error(`the jump host says: ${error.message}`)))
        : resolve(channel),
    )
  })
}

async function dialTcp(hop: SshHop, env: NodeJS.ProcessEnv, signal: AbortSignal): Promise<Duplex> {
  const lookup = net.isIP(hop.address) === 0 ? await lookUp(hop, env, signal) : undefined
  return await new Promise((resolve, reject) => {
    // Without noDelay each command and each query waits 40 ms for the other side's delayed acknowledgement.
    const socket = net.connect({
      host: hop.address,
      port: hop.port,
      family: hop.addressFamily,
      noDelay: true,
      ...(lookup && { lookup }),
    })
    const onAbort = (): void => {
      socket.destroy()
    }
    signal.addEventListener('abort', onAbort, { once: true })
    // For good: a host may hang up before anybody else listens, and an error that nobody hears ends this process.
    socket.on('error', (error) => reject(hostUnreachable(hop, error)))
    socket.once('connect', () => {
      signal.removeEventListener('abort', onAbort)
      resolve(writeTogether(socket))
    })
  })
}

/**
 * What is written in one turn leaves at once, in one system call: ssh2 writes each packet in three parts, and without a delay each
 * of them would be a segment of its own and wake the other side.
 */
function writeTogether(socket: net.Socket): net.Socket {
  const write = socket.write
  let isGathering = false
  socket.write = (...given: unknown[]) => {
    if (!isGathering) {
      isGathering = true
      socket.cork()
      process.nextTick(() => {
        isGathering = false
        socket.uncork()
      })
    }
    return Reflect.apply(write, socket, given)
  }
  return socket
}

async function lookUp(
  { address: name, ...hop }: SshHop,
  env: NodeJS.ProcessEnv,
  signal: AbortSignal,
): Promise<net.LookupFunction | undefined> {
  try {
    const found = await resolveName({ name, family: hop.addressFamily, env, signal })
    signal.throwIfAborted()
    return found && answerWith(found)
  } catch (error) {
    throw hostUnreachable({ ...hop, address: name }, error)
  }
}

async function runProxy(command: string, env: NodeJS.ProcessEnv, signal: AbortSignal): Promise<Duplex> {
  const { execa } = await import('execa')
  const child = execa('/bin/sh', ['-c', `exec ${command}`], {
    env,
    extendEnv: false,
    buffer: false,
    reject: false,
    stderr: 'ignore',
    stdin: 'pipe',
  })
  child.catch(() => {})
  const stream = Duplex.from({ readable: child.stdout, writable: child.stdin })
  // A program that is missing or ends at once is seen by who logs in: the stream is destroyed then.
  for (const one of [child.stdin, child.stdout, stream]) one.on('error', () => {})
  const end = (): void => {
    child.kill()
  }
  signal.addEventListener('abort', end, { once: true })
  stream.once('close', end)
  return stream
}
