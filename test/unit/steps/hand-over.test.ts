import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { StepContext } from '../../../src/engine/step.ts'
import { createNode } from '../../../src/node/node.ts'
import { Handover } from '../../../src/steps/hand-over.ts'
import { createShellTransport } from '../node/shell-transport.ts'
import { inventoryOf } from '../some-cluster.ts'

// On files of this machine: a candidate that died while it was told to promote.

let home: string
let data: string
let trigger: string

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'replctl-hand-over-'))
  data = join(home, 'data')
  trigger = join(home, '.replctl/shop/promote')
  await mkdir(data)
  await mkdir(join(home, '.replctl/shop'), { recursive: true })
})
afterEach(() => rm(home, { recursive: true, force: true }))

async function candidate(major: string, signal: 'standby' | 'none') {
  await writeFile(join(data, 'PG_VERSION'), `${major}\n`)
  const [name, text] = major === '11' ? ['recovery.conf', "standby_mode = 'on'\n"] : ['standby.signal', '']
  if (signal === 'standby') await writeFile(join(data, name!), text!)
  const inventory = inventoryOf(['pg1', 'pg2'])
  const [pg1, pg2] = inventory.nodes
  const settings = { ...pg2!, postgres: { ...pg2!.postgres, dataDir: data } }
  const node = createNode(settings, 'shop', createShellTransport(home))
  const ctx: StepContext = {
    ...{ node, on: () => node, timeoutMs: 1_000, signal: new AbortController().signal },
    ...{ isDryRun: false, isChecking: false, seenAt: new Map() },
    ...{ progress: () => undefined, warn: () => undefined },
  }
  const exchange = { oldPrimary: pg1!.name, candidate: pg2!.name }
  const step = new Handover(exchange as never, [pg2!.name], inventory).promoteCandidate()
  return { hasCrossed: () => step.hasCrossed!(ctx) }
}

test('a candidate that died before it saw the trigger file was not promoted, and will not be when it is started', async () => {
  await writeFile(trigger, '')
  const { hasCrossed } = await candidate('11', 'standby')
  expect([await hasCrossed(), existsSync(trigger)]).toEqual([false, false])
})

test('where the trigger file cannot be taken away, nobody knows', async () => {
  await mkdir(trigger)
  const { hasCrossed } = await candidate('11', 'standby')
  await expect(hasCrossed()).rejects.toMatchObject({ code: 'remote-command-failed' })
})

test.each(['11', '15'])('one that is no standby any more may have been promoted (%s)', async (major) => {
  const { hasCrossed } = await candidate(major, 'none')
  expect(await hasCrossed()).toBe(true)
})

test('pg_promote() leaves nothing behind that a start would mind', async () => {
  const { hasCrossed } = await candidate('15', 'standby')
  expect(await hasCrossed()).toBe(false)
})
