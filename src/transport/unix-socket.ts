import { Duplex } from 'node:stream'
import { ReplctlError } from '../errors.ts'

/**
 * Gives a stream that is connected already the face of a net.Socket that is about to connect: `pg` calls
 * `connect` and waits for the event, and sets socket options that have no meaning inside a tunnel.
 */
export function asConnectedSocket(inner: Duplex): Duplex {
  return new ConnectedSocket(inner)
}

class ConnectedSocket extends Duplex {
  readonly #inner: Duplex
  #isAtEnd = false

  constructor(inner: Duplex) {
    super({ allowHalfOpen: false })
    this.#inner = inner
    // An error between opening and the first listener must not end the process.
    this.on('error', () => {})
    inner.on('data', (chunk: Buffer) => {
      if (!this.push(chunk)) inner.pause()
    })
    inner.on('end', () => {
      this.#isAtEnd = true
      this.push(null)
    })
    inner.on('error', (error: Error) => this.destroy(error))
    // Without an end the link broke. A tick later, since the end may have come just now.
    inner.on('close', () => setImmediate(() => this.destroy(this.#isAtEnd ? undefined : brokenLink())))
    inner.pause()
  }

  connect(): this {
    setImmediate(() => this.emit('connect'))
    return this
  }
  setNoDelay(): this {
    return this
  }
  setKeepAlive(): this {
    return this
  }
  setTimeout(): this {
    return this
  }
  ref(): this {
    return this
  }
  unref(): this {
    return this
  }

  override _read(): void {
    this.#inner.resume()
  }
  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#inner.write(chunk, done)
  }
  /** pg corks the five messages of a prepared statement: they go through the tunnel as one packet. */
  override _writev(chunks: { readonly chunk: Buffer }[], done: (error?: Error | null) => void): void {
    this.#inner.write(Buffer.concat(chunks.map(({ chunk }) => chunk)), done)
  }
  override _final(done: (error?: Error | null) => void): void {
    this.#inner.end()
    done()
  }
  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#inner.destroy()
    done(error)
  }
}

/** What a socket says whose connection broke; `pg` knows the code. */
export function brokenLink(): Error {
  return Object.assign(new Error('the connection was closed'), { code: 'ECONNRESET' })
}

const causes: Readonly<Record<string, string>> = {
  ENOENT: 'There is no such socket.',
  ECONNREFUSED: 'The socket is there, but nothing listens on it.',
  EACCES: 'The login user may not use it.',
  ENOTSOCK: 'It is not a socket.',
}

/** The error for a unix socket that cannot be connected to; `why` is an errno name or a sentence. */
export function socketRefused(host: string, path: string, why: string): ReplctlError {
  return new ReplctlError('not-answering', `could not connect to socket ${path} on ${host}`, {
    detail: causes[why] ?? why,
    retryable: true,
  })
}
