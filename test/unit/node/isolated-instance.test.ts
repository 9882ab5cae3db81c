import { spawn } from 'node:child_process'
import { realpathSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { awaitScript, startIsolated } from '../../../src/node/isolated-instance.ts'
import { createNode, type Node, stateScript } from '../../../src/node/node.ts'
import { parseRecoveryState } from '../../../src/postgres/recovery-state.ts'
import { inventoryOf, timeline } from '../some-cluster.ts'
import { createShellTransport } from './shell-transport.ts'

const place = {
  ...{ major: 15, timeline: timeline(1), binDirectory: '/usr/lib/postgresql/15/bin' },
  ...{ home: '/home/postgres', configDirectory: '/data', control: null },
}
const settings = inventoryOf(['pg1']).nodes[0]!

/** A node whose old instance is started, and then says this, look by look; the last of it for ever. */
function recovering(...told: readonly string[]): Node {
  const answers = [...told]
  return {
    ...createNode(settings, 'shop', createShellTransport('/nowhere')),
    run: async () => ({ status: 0, signal: null, stdout: '', stderr: '' }),
    output: async () => {
      await new Promise((resolve) => setTimeout(resolve, 5))
      return (answers.length > 1 ? answers.shift() : answers[0]) ?? ''
    },
  }
}
const start = (node: Node, patienceMs = 50) =>
  startIsolated(node, place, { signal: new AbortController().signal, patienceMs })

test('an old instance whose WAL ends before it is consistent is given up, and its log is told', async () => {
  const node = recovering('at work 12 4096 no\nLOG:  redo starts at 0/2000028\n')
  await expect(start(node)).rejects.toMatchObject({
    code: 'start-failed',
    detail: expect.stringMatching(/redo starts at 0\/2000028\n.*ends before its data is consistent/),
  })
})

test('one that replays for long without a word is waited for', async () => {
  const looks = Array.from({ length: 40 }, (_, n) => `at work ${n * 100} 4096 no\nLOG:  redo starts\n`)
  await expect(start(recovering(...looks, 'ready\n'), 100)).resolves.toContain('socket')
})

test('what the processes of one that does not answer have done is looked at on its host', async () => {
  const home = realpathSync(await mkdtemp(join(tmpdir(), 'replctl-isolated-')))
  const data = join(home, 'data')
  await mkdir(data)
  const child = spawn('sh', ['-c', 'sleep 60 & wait'], { cwd: data, detached: true, stdio: 'ignore' })
  try {
    await writeFile(join(data, 'postmaster.pid'), `${child.pid}\n${data}\n1\n5432\n/socket\n\n\nstarting\n`)
    await writeFile(join(home, 'log'), 'LOG:  entering standby mode\n')
    const node = createNode(settings, 'shop', createShellTransport(home))
    const told = await node.output(
      stateScript(node, 'wait', awaitScript, [home, '/socket', data, '/bin', '3']),
    )
    expect(parseRecoveryState(told)).toEqual({
      log: 'LOG:  entering standby mode\n',
      work: { ticks: expect.any(Number), bytes: expect.any(Number), waitsForDisk: expect.any(Boolean) },
    })
  } finally {
    process.kill(-(child.pid ?? 0))
    await rm(home, { recursive: true, force: true })
  }
})
