import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { lockScript } from '../../../src/node/lock-script.ts'
import { awaitCondition } from '../../kit/await-condition.ts'

let dir: string
let holder: ChildProcess | undefined

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'replctl-lock-'))
  // As on Alpine: the flock of busybox has no -w.
  writeFileSync(
    join(dir, 'flock'),
    '#!/bin/sh\ncase $1 in -n) exec /usr/bin/flock "$@" ;; esac\necho "usage: flock [-sxun] FD" >&2\nexit 1\n',
  )
  chmodSync(join(dir, 'flock'), 0o755)
})
afterEach(() => {
  holder?.kill('SIGKILL')
  rmSync(dir, { recursive: true, force: true })
})

const run = (seconds: number) =>
  spawnSync('sh', ['-c', `${lockScript(7, '"$1/lock"', seconds)}echo locked`, 'sh', dir], {
    env: { PATH: `${dir}:/usr/bin:/bin` },
    encoding: 'utf8',
  })

async function hold(seconds: number) {
  const script = `exec 7>>"$1/lock"; flock 7 && echo held; exec sleep ${seconds}`
  holder = spawn('sh', ['-c', script, 'sh', dir], { stdio: ['ignore', 'pipe', 'ignore'] })
  let said = ''
  holder.stdout?.on('data', (chunk: Buffer) => {
    said += chunk.toString()
  })
  await awaitCondition('it holds the lock', async () => said.includes('held'))
}

test('a lock is waited for with a flock that cannot wait for so long by itself', async () => {
  expect(run(1)).toMatchObject({ status: 0, stdout: 'locked\n', stderr: '' })
  await hold(1)
  expect(run(30)).toMatchObject({ status: 0, stdout: 'locked\n' })
})

test('a lock that somebody keeps ends the script with a status of its own, and names the file', async () => {
  await hold(60)
  expect(run(1)).toMatchObject({ status: 75, stdout: '', stderr: `${dir}/lock is locked\n` })
})
