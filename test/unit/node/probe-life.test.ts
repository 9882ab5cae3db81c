import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { createNode } from '../../../src/node/node.ts'
import { probeLife } from '../../../src/node/probe-life.ts'
import { inventoryOf } from '../some-cluster.ts'
import { createShellTransport } from './shell-transport.ts'

const hasProc = process.platform === 'linux'

describe.runIf(hasProc)('a look at a server that says nothing', () => {
  let folder: string
  let server: Server
  let port: number
  const sockets = new Set<import('node:net').Socket>()

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'replctl-probe-'))
    server = createServer((socket) => void sockets.add(socket))
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    port = (server.address() as AddressInfo).port
  })
  afterEach(async () => {
    for (const socket of sockets) socket.destroy()
    server.close()
    await rm(folder, { recursive: true })
  })

  /** In the place of pg_isready: a program of these words. */
  const readyProgram = async (program: string) => {
    const path = join(folder, 'pg_isready')
    await writeFile(path, `#!${process.execPath}\n${program}\n`)
    await chmod(path, 0o755)
  }
  const look = (receiver: { pid: number; reportSeconds: number } | null = null, shell = '/bin/sh') =>
    probeLife(createNode(inventoryOf(['pg1']).nodes[0]!, 'shop', createShellTransport(folder, [shell])), {
      ...{ binDirectory: folder, name: 'pg2', address: '127.0.0.1', port },
      ...{ limitSeconds: 0.8, receiver },
    })
  const connects = `require('node:net').connect(${'Number(process.argv[6])'}, process.argv[4])`

  test('whoever takes the connection is there, although nobody speaks', async () => {
    await readyProgram(`${connects}; setTimeout(() => {}, 60_000)`)
    expect(await look()).toEqual({ port: 'held', stream: null })
  })

  test('a connection that does not come about is no sign', async () => {
    await readyProgram('setTimeout(() => {}, 60_000)')
    expect(await look()).toEqual({ port: 'silent', stream: null })
  })

  test('that it took too long is known before it is ended, however slow the host is after that', async () => {
    await readyProgram('setTimeout(() => {}, 60_000)')
    const slow = join(folder, 'slow-sh')
    const kill = 'kill() { command kill "$@"; sleep 0.3; }'
    await writeFile(slow, `#!/bin/sh\nshift\nscript=$1\nshift\nexec /bin/sh -c '${kill}\n'"$script" "$@"\n`)
    await chmod(slow, 0o755)
    expect(await look(null, slow)).toEqual({ port: 'silent', stream: null })
  })

  test('one that is killed by somebody else has not looked', async () => {
    await readyProgram("process.kill(process.pid, 'SIGKILL')")
    await expect(look()).rejects.toMatchObject({ code: 'remote-command-failed' })
  })

  test.each([
    [0, 'answers'],
    [1, 'answers'],
    [2, 'silent'],
  ])('what pg_isready says by %s: %s', async (status, seen) => {
    await readyProgram(`process.exit(${status})`)
    expect(await look()).toEqual({ port: seen, stream: null })
  })

  test('what a receiver sends is acknowledged for as long as the other side holds its connection', async () => {
    await readyProgram('process.exit(2)')
    const { connect } = await import('node:net')
    const socket = connect(port, '127.0.0.1')
    await new Promise((resolve) => socket.once('connect', resolve))
    const begun = performance.now()
    expect(await look({ pid: process.pid, reportSeconds: 1 })).toEqual({
      port: 'silent',
      stream: 'acknowledged',
    })
    expect(performance.now() - begun).toBeGreaterThan(1_300)
    socket.destroy()
  })

  test('a receiver without a connection sees nothing', async () => {
    await readyProgram('process.exit(2)')
    expect(await look({ pid: 2 ** 22 + 1, reportSeconds: 1 })).toEqual({ port: 'silent', stream: null })
  })
})
