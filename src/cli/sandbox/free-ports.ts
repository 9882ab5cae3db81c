import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { ReplctlError } from '../../errors.ts'

const lowest = 20_000

/**
 * Ports of 127.0.0.1 that nobody listens on, below those the system gives to outgoing connections: one of these
 * could take a stopped instance's port. The search begins where the folder's name says, so that sandboxes made at
 * the same time do not choose the same ones.
 * @throws {ReplctlError} `sandbox-unavailable`
 */
export async function findFreePorts(count: number, dir: string): Promise<readonly number[]> {
  const span = (await firstEphemeralPort()) - lowest
  const start = createHash('sha256').update(dir).digest().readUInt32BE(0)
  const found: number[] = []
  for (let tries = 0; tries < span && found.length < count; tries++) {
    const port = lowest + ((start + tries) % span)
    if (await isFree(port)) found.push(port)
  }
  if (found.length === count) return found
  throw new ReplctlError('sandbox-unavailable', `there are no ${count} free ports on this machine`)
}

async function firstEphemeralPort(): Promise<number> {
  const text = await readFile('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').catch(() => '')
  const first = Number.parseInt(text, 10)
  // 32768 is Linux's default; macOS and BSD begin at 49152.
  return first > lowest + 100 ? first : 32_768
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen({ host: '127.0.0.1', port, exclusive: true }, () => server.close(() => resolve(true)))
  })
}
