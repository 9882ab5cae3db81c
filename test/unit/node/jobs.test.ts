import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { Secret } from '../../../src/command.ts'
import { type JobState, lookAtJob, startJob, stopJob } from '../../../src/node/jobs.ts'
import { createNode, type Node } from '../../../src/node/node.ts'
import { inventoryOf } from '../some-cluster.ts'
import { createShellTransport } from './shell-transport.ts'

let home: string
let node: Node

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'replctl-jobs-'))
  node = createNode(inventoryOf(['pg1']).nodes[0]!, 'shop', createShellTransport(home))
})
afterEach(async () => {
  await stopJob(node, 'clone')
  await rm(home, { recursive: true, force: true })
})

async function ended(): Promise<JobState> {
  const deadline = Date.now() + 3_000
  for (;;) {
    const state = await lookAtJob(node, 'clone')
    if (!state.isRunning || Date.now() > deadline) return state
  }
}

test('a job gets its arguments word for word, and its end is found later', async () => {
  await startJob(node, 'clone', new Secret('printf "<%s>" "$@"; echo; echo oops >&2; exit 3'), [
    'a b',
    "it's",
    '$(id)',
  ])
  expect(await ended()).toEqual({
    isRunning: false,
    status: 3,
    pulse: '',
    output: "<a b><it's><$(id)>\noops\n",
  })
})

test('one that runs is not started again, and stopping ends it with everything it started', async () => {
  await startJob(node, 'clone', 'echo first; sleep 60 & wait', [])
  await startJob(node, 'clone', 'echo second', [])
  const state = await lookAtJob(node, 'clone')
  expect(state).toMatchObject({ isRunning: true, status: null })
  expect(state.output).not.toContain('second')
  await stopJob(node, 'clone')
  expect(existsSync(join(home, '.replctl/shop/job-clone'))).toBe(false)
})

test('somebody who looks at it in the moment of its start is not in its way', async () => {
  const folder = join(home, '.replctl/shop/job-clone')
  await mkdir(folder, { recursive: true })
  // Holds a share of the lock, as a look does that waited for the end of the last job, until its input ends.
  const looking = spawn('flock', ['-s', join(folder, 'lock'), 'sh', '-c', 'echo held; read -r _'])
  await once(looking.stdout, 'data')
  const starting = startJob(node, 'clone', 'echo done', [])
  await vi.waitUntil(() => existsSync(join(folder, 'run')))
  expect(await lookAtJob(node, 'clone')).toMatchObject({ isRunning: false })
  looking.stdin.end()
  await starting
  expect(await ended()).toMatchObject({ isRunning: false, status: 0, output: 'done\n' })
})

test('one that ended can be started anew, and nothing is left of its last run', async () => {
  await startJob(node, 'clone', 'exit 1', [])
  expect((await ended()).status).toBe(1)
  await startJob(node, 'clone', 'echo again', [])
  expect(await ended()).toEqual({ isRunning: false, status: 0, pulse: '', output: 'again\n' })
})

test('one that never was is not running, and a look leaves no trace of it', async () => {
  expect(await lookAtJob(node, 'clone')).toEqual({ isRunning: false, status: null, pulse: '', output: '' })
  expect(existsSync(join(home, '.replctl/shop/job-clone'))).toBe(false)
})

test('a look waits for the end of one that runs, and no longer', async () => {
  await startJob(node, 'clone', 'sleep 60', [])
  expect(await lookAtJob(node, 'clone', 100)).toMatchObject({ isRunning: true, status: null })
  await stopJob(node, 'clone')
  await startJob(node, 'clone', 'sleep 0.5; echo over', [])
  expect(await lookAtJob(node, 'clone', 20_000)).toEqual({
    isRunning: false,
    status: 0,
    pulse: '',
    output: 'over\n',
  })
})
