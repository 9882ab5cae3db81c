import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { describe, expect, test } from 'vitest'
import { dial } from '../../../src/transport/ssh-dial.ts'
import { someHop } from './some-hop.ts'

describe('the way to a host', () => {
  test('a host that hangs up before anybody logs in ends the way, not this process', async () => {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const accepted = once(server, 'connection')
    const signal = new AbortController().signal
    const socket = await dial({ ...someHop, address: '127.0.0.1', port }, process.env, signal)
    const [theirs] = (await accepted) as [Socket]
    theirs.resetAndDestroy()
    if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve))
    expect(socket.destroyed).toBe(true)
    expect(socket.listenerCount('error')).toBeGreaterThan(0)
    server.close()
  })

  test.each(['nosuchprogram %h', 'exit 1'])(
    'a ProxyCommand that ends at once (%s) does so too',
    async (proxyCommand) => {
      const stream = await dial({ ...someHop, proxyCommand }, process.env, new AbortController().signal)
      if (!stream.closed) await new Promise((resolve) => stream.once('close', resolve))
      expect(stream.destroyed).toBe(true)
      expect(stream.listenerCount('error')).toBeGreaterThan(0)
    },
  )
})
