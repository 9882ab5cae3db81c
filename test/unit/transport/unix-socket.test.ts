import type { Socket } from 'node:net'
import { Duplex, PassThrough } from 'node:stream'
import { describe, expect, test } from 'vitest'
import { asConnectedSocket, socketRefused } from '../../../src/transport/unix-socket.ts'

/** A channel whose other end the test holds. */
function channel() {
  const incoming = new PassThrough({ highWaterMark: 16 })
  const written: string[] = []
  const stalled: (() => void)[] = []
  const inner = new Duplex({
    read: () => {},
    write: (chunk, _encoding, done) => {
      written.push(String(chunk))
      stalled.push(done)
    },
    final: (done) => done(),
    emitClose: false,
  })
  incoming.on('data', (chunk) => inner.push(chunk))
  return { inner, written, stalled, socket: asConnectedSocket(inner) as Socket }
}

describe('a tunnel with the face of a socket', () => {
  test('emits connect when it is told to connect', async () => {
    const { socket } = channel()
    const connected = new Promise((resolve) => socket.once('connect', resolve))
    expect(socket.connect(5432, 'db1')).toBe(socket)
    await connected
    expect(socket.setNoDelay(true).setKeepAlive(true, 1).setTimeout(1).ref().unref()).toBe(socket)
  })

  test('keeps what comes before anyone listens', async () => {
    const { inner, socket } = channel()
    inner.push('early')
    await new Promise(setImmediate)
    const data = new Promise((resolve) => socket.once('data', (chunk) => resolve(String(chunk))))
    expect(await data).toBe('early')
  })

  test('what was corked goes through as one packet', async () => {
    const { written, stalled, socket } = channel()
    socket.cork()
    for (const part of ['parse ', 'bind ', 'execute ', 'sync']) socket.write(part)
    socket.uncork()
    await new Promise(setImmediate)
    expect(written).toEqual(['parse bind execute sync'])
    expect(stalled).toHaveLength(1)
  })

  test('passes on that the other side is slow', async () => {
    const { written, stalled, socket } = channel()
    let isWritten = false
    socket.write('a', () => {
      isWritten = true
    })
    await new Promise(setImmediate)
    expect([written, isWritten]).toEqual([['a'], false])
    stalled[0]!()
    await new Promise(setImmediate)
    expect(isWritten).toBe(true)
  })

  test('closes without an error after an orderly end', async () => {
    const { inner, socket } = channel()
    let error: unknown
    socket.on('error', (e) => {
      error = e
    })
    socket.resume()
    const closed = new Promise((resolve) => socket.once('close', resolve))
    inner.push(null)
    await new Promise(setImmediate)
    inner.emit('close')
    await closed
    expect(error).toBeUndefined()
  })

  test('says ECONNRESET when the link breaks', async () => {
    const { inner, socket } = channel()
    const failed = new Promise((resolve) => socket.once('error', resolve))
    inner.emit('close')
    expect(await failed).toMatchObject({ code: 'ECONNRESET' })
    expect(socket.destroyed).toBe(true)
  })
})

describe('a refused socket', () => {
  test.each([
    ['ENOENT', 'There is no such socket.'],
    ['ECONNREFUSED', 'The socket is there, but nothing listens on it.'],
    ['a sentence.', 'a sentence.'],
  ])('%s: %s', (why, detail) => {
    expect(socketRefused('db1', '/run/s', why)).toMatchObject({
      code: 'not-answering',
      message: 'could not connect to socket /run/s on db1',
      detail,
    })
  })
})
