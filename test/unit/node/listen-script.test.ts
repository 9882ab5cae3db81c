import { execFile, spawn } from 'node:child_process'
import { mkdtemp, realpath, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, beforeEach, expect, onTestFinished, test } from 'vitest'
import { listenArgs, listenScript } from '../../../src/node/listen-script.ts'

/** Nothing listens there: no TCP port of ours is so high on a machine that runs tests. */
const port = 64_999
const lock = `/tmp/.s.PGSQL.${port}.lock`
let folder: string

beforeEach(async () => {
  folder = await realpath(await mkdtemp(join(tmpdir(), 'replctl-listen-')))
})
afterEach(async () => {
  await rm(lock, { force: true })
  await rm(folder, { recursive: true })
})

const ask = async (args = listenArgs({ port, parameters: {} })) =>
  (await promisify(execFile)('sh', ['-c', listenScript, 'sh', ...args])).stdout.trim()
const leave = (pid: string) => writeFile(lock, `${pid}\n${folder}\n1700000000\n${port}\n/tmp\n`)

test('the lock file of a socket counts while the process in it works in the data directory', async () => {
  expect(await ask()).toBe('')
  const server = spawn('sleep', ['60'], { cwd: folder })
  await leave(String(server.pid))
  expect(await ask()).toBe(`data ${folder}`)
  server.kill('SIGKILL')
  await new Promise((resolve) => server.once('exit', resolve))
  expect(await ask()).toBe('')
})

test('what a crash left counts for nothing, also where its number is another process by now', async () => {
  for (const pid of [String(process.pid), '', '1', '4194304999']) {
    await leave(pid)
    expect([pid, await ask()]).toEqual([pid, ''])
  }
})

test('a port is in use on the addresses that are listened on, where an instance has its own', async () => {
  const on = async (server: Server, addresses: string) =>
    await ask(
      listenArgs({
        port: (server.address() as AddressInfo).port,
        parameters: { listen_addresses: addresses, unix_socket_directories: folder },
      }),
    )
  const here = await listening('127.0.0.1')
  expect(await on(here, '127.0.0.1')).toBe('busy')
  expect(await on(here, 'localhost, 10.9.8.7')).toBe('busy')
  expect(await on(here, '*')).toBe('busy')
  expect(await on(here, 'pg1.example.com')).toBe('busy')
  expect(await on(here, '127.0.0.2')).toBe('')
  // A port of its own: the first one may be another's as soon as it is let go of.
  const everywhere = await listening(undefined)
  expect(await on(everywhere, '127.0.0.2')).toBe('busy')
})

async function listening(address: string | undefined): Promise<Server> {
  const server = createServer()
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, address, resolve))
  onTestFinished(() => void server.close())
  return server
}
