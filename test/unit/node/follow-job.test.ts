import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { ReplctlError } from '../../../src/errors.ts'
import { followJob } from '../../../src/node/follow-job.ts'
import { startJob, stopJob, tellingScript } from '../../../src/node/jobs.ts'
import { createNode, type Node } from '../../../src/node/node.ts'
import { inventoryOf } from '../some-cluster.ts'
import { createShellTransport } from './shell-transport.ts'

let home: string
let node: Node

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'replctl-follow-'))
  node = createNode(inventoryOf(['pg1']).nodes[0]!, 'shop', createShellTransport(home))
})
afterEach(async () => {
  await stopJob(node, 'restore')
  await rm(home, { recursive: true, force: true })
})

const follow = (patienceMs: number) =>
  followJob({
    ...{ node, name: 'restore', what: 'the restore', patienceMs, signal: new AbortController().signal },
    progress: () => ({ message: 'verifying' }),
    tell: () => undefined,
    failed: (job) => new ReplctlError('restore-failed', job.output),
  })

/** Says nothing for some seconds; `$1` of the function that tells is the pid. The clock of the test is ten times as fast. */
const script = (how: string) => `sleep() { command sleep "$(awk "BEGIN { print $1 / 10 }")"; }
${tellingScript}
counted() { n=$((\${n:-0} + 1)); echo "$n"; }
still() { echo the same; }
silent() { command sleep ${how === 'still' ? 60 : 3}; }
echo verifying
telling ${how} silent
`

test('what reads for longer than the patience without a word is not taken for what stands still', async () => {
  await startJob(node, 'restore', script('counted'), [])
  expect(await follow(1_800)).toMatchObject({ status: 0, output: 'verifying\n' })
})

test('what stands still is given up', async () => {
  await startJob(node, 'restore', script('still'), [])
  await expect(follow(1_800)).rejects.toMatchObject({ code: 'timeout' })
})

test('the status of what is told of is that of its command, and the bytes that it reads are told', async () => {
  await startJob(
    node,
    'restore',
    `${tellingScript}
fails() { (exit 92); }
telling read_by fails; echo "status $?"
read_by $$ | grep -c '[0-9]'`,
    [],
  )
  expect(await follow(10_000)).toMatchObject({ output: 'status 92\n1\n' })
})
