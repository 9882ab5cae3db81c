import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { Inventory } from '../../../src/cluster/inventory.ts'
import type { StepContext } from '../../../src/engine/step.ts'
import { createNode } from '../../../src/node/node.ts'
import type { ClusterInput } from '../../../src/steps/cluster-input.ts'
import { requireArchiveStream } from '../../../src/steps/ensure-archive-stream.ts'
import { awaitCondition } from '../../kit/await-condition.ts'
import { createShellTransport } from '../node/shell-transport.ts'
import { inventoryOf } from '../some-cluster.ts'

// The script itself, under this machine's sh; what receives is a stand-in that holds the lock.

let home: string
let state: string
let check: () => Promise<unknown>

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'replctl-stream-'))
  state = join(home, '.replctl/shop')
  await mkdir(state, { recursive: true })
  const [settings] = inventoryOf(['pg1']).nodes
  const postgres = { ...settings!.postgres, dataDir: join(home, 'data') }
  const node = createNode({ ...settings!, postgres }, 'shop', createShellTransport(home))
  const archive = { host: 'backup1', user: 'postgres', dir: join(home, 'archive'), mode: 'stream' }
  const inventory = { ...inventoryOf(['pg1']), archive } as Inventory
  const ctx: StepContext = {
    ...{ node, on: () => node, timeoutMs: 5_000, signal: new AbortController().signal },
    ...{ isDryRun: false, isChecking: true, seenAt: new Map() },
    ...{ progress: () => undefined, warn: () => undefined },
  }
  const [step] = requireArchiveStream({ inventory } as ClusterInput, node.settings)
  check = () => step!.check(ctx)
})
afterEach(() => rm(home, { recursive: true, force: true }))

test('an archive host that receives for another cluster of the same name is not taken away from it', async () => {
  await writeFile(
    join(state, 'archive-stream'),
    "#!/bin/sh\ncluster='shop'\nsystem_identifier='7300000000000000002'\n",
  )
  // It ran once.
  await writeFile(join(state, 'stream.lock'), '')
  await writeFile(join(state, 'stream.child'), '1 receiving\n')
  const owner = { error: { code: 'foreign-cluster', detail: expect.stringContaining('7300000000000000002') } }
  expect(await check()).not.toMatchObject(owner)
  const script = `echo "$$ receiving" > '${state}/stream.child'; touch '${state}/begun'; exec sleep 60`
  const holder = spawn('flock', [join(state, 'stream.lock'), 'sh', '-c', script], { detached: true })
  try {
    await awaitCondition('it receives', async () => existsSync(join(state, 'begun')))
    expect(await check()).toMatchObject({ is: 'refused', ...owner })
    // One that only looks for its primary, as after that cluster was given up, is in nobody's way.
    await writeFile(join(state, 'stream.child'), '1 other\n')
    expect(await check()).not.toMatchObject(owner)
  } finally {
    // With its child.
    process.kill(-holder.pid!, 'SIGKILL')
  }
})
