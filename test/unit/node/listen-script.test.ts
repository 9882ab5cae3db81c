import { execFile, spawn } from 'node:child_process'
import { mkdtemp, realpath, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { listenScript } from '../../../src/node/listen-script.ts'

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

const ask = async () =>
  (await promisify(execFile)('sh', ['-c', listenScript, 'sh', String(port)])).stdout.trim()
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
