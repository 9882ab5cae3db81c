import { existsSync, readdirSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { NodeFacts, NodeMark } from '../../../src/cluster/facts.ts'
import type { StepContext } from '../../../src/engine/step.ts'
import { lookAtJob, startJob, stopJob } from '../../../src/node/jobs.ts'
import { createNode, type Node } from '../../../src/node/node.ts'
import { forgetNode, purgeDataDirectory, stopStandby } from '../../../src/steps/remove-node.ts'
import { rewindJob } from '../../../src/steps/rewind-data-directory.ts'
import { baseBackupJob } from '../../../src/steps/take-base-backup.ts'
import { createShellTransport } from '../node/shell-transport.ts'
import { inventoryOf, runningNode } from '../some-cluster.ts'

let home: string
let data: string
let space: string
let ctx: StepContext

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'replctl-remove-'))
  ;[data, space] = [join(home, 'data'), join(home, 'space')]
  for (const folder of [data, join(space, 'PG_15_202209061'), join(home, '.replctl/shop')]) {
    await mkdir(folder, { recursive: true })
  }
  await writeFile(join(home, '.replctl/shop/tablespaces'), `${space}\n`)
  const inventory = inventoryOf(['pg1', 'pg2'])
  const [pg1, pg2] = inventory.nodes.map((settings) =>
    createNode(
      { ...settings, postgres: { ...settings.postgres, dataDir: data } },
      'shop',
      createShellTransport(home),
    ),
  ) as [Node, Node]
  const leads: NodeFacts = runningNode('pg1', {})
  // Seen at the end of time, so that it is never looked at anew.
  pg1.lastSurvey = { at: Number.MAX_VALUE, activity: 0, facts: Promise.resolve(leads) }
  ctx = {
    ...{ node: pg2, on: (name) => (name === pg1.name ? pg1 : pg2), timeoutMs: 5_000 },
    ...{ signal: new AbortController().signal, isDryRun: false, isChecking: true, seenAt: new Map() },
    ...{ progress: () => undefined, warn: () => undefined },
  }
})
afterEach(() => rm(home, { recursive: true, force: true }))

const mark = async (phase: NodeMark['phase']) => {
  const inode = String((await stat(data)).ino)
  const text = { cluster: 'shop', node: 'pg2', dataDirectory: data, systemIdentifier: '', inode, phase }
  await writeFile(join(home, '.replctl/shop/node.json'), JSON.stringify(text))
}
const step = () => purgeDataDirectory(ctx.node.name, ctx.on('pg1' as Node['name']).name)

describe('purging', () => {
  test('a clone of which only tablespaces have arrived takes these away, too; then nothing is left to do', async () => {
    await mark('cloning')
    expect(await step().check(ctx)).toMatchObject({ is: 'pending' })
    await step().apply!(ctx)
    expect([existsSync(data), readdirSync(space)]).toEqual([false, []])
    // As the engine does after each step that changed something.
    ctx.node.lastSurvey = null
    expect(await step().check(ctx)).toMatchObject({ is: 'satisfied' })
  })

  test('a pg_rewind that an interrupted run left at work is ended before anything goes', async () => {
    await mark('cloning')
    await startJob(ctx.node, rewindJob, 'sleep 60', [])
    try {
      await step().apply!(ctx)
      expect(await lookAtJob(ctx.node, rewindJob)).toMatchObject({ isRunning: false })
    } finally {
      await stopJob(ctx.node, rewindJob)
    }
  })

  test('an empty folder that is no clone of ours changes nothing', async () => {
    await mark('done')
    expect(await step().check(ctx)).toMatchObject({ is: 'satisfied' })
    expect(readdirSync(space)).toEqual(['PG_15_202209061'])
  })

  test('what is not a standby of this cluster is left alone, with everything it links to', async () => {
    await writeFile(join(data, 'PG_VERSION'), '15\n')
    expect(await step().check(ctx)).toMatchObject({
      is: 'refused',
      error: { code: 'foreign-data-directory' },
    })
    await expect(step().apply!(ctx)).rejects.toMatchObject({ code: 'foreign-data-directory' })
    expect([readdirSync(data), readdirSync(space)]).toEqual([['PG_VERSION'], ['PG_15_202209061']])
    expect(await readFile(join(home, '.replctl/shop/tablespaces'), 'utf8')).toBe(`${space}\n`)
  })
})

describe('a node that leaves while its clone is under way, or was cut off', () => {
  // Services of this very machine are nobody's business here.
  const forget = async () => {
    const { output } = ctx.node
    const tame: Node = {
      ...ctx.node,
      output: async (command, options) =>
        command.title === 'look for drop-ins' ? '' : await output(command, options),
    }
    await forgetNode(ctx.node.name).apply!({ ...ctx, node: tame, on: () => tame })
    ctx.node.lastSurvey = null
  }
  const names = () => [ctx.node.name, ctx.on('pg1' as Node['name']).name] as const

  test('is not filled any longer', async () => {
    await mark('cloning')
    const stop = stopStandby(...names())
    expect(await stop.check(ctx)).toMatchObject({ is: 'satisfied' })
    await startJob(ctx.node, baseBackupJob, 'sleep 60', [])
    try {
      expect(await stop.check(ctx)).toMatchObject({ is: 'pending' })
      await stop.apply!(ctx)
      expect(await lookAtJob(ctx.node, baseBackupJob)).toMatchObject({ isRunning: false })
      expect(await stop.check(ctx)).toMatchObject({ is: 'satisfied' })
    } finally {
      await stopJob(ctx.node, baseBackupJob)
    }
  })

  test('keeps the mark of what was begun there: by it that can be gone on with, or purged', async () => {
    await mark('cloning')
    await writeFile(join(data, 'PG_VERSION'), '15\n')
    await writeFile(join(home, '.replctl/shop/pgpass'), '')
    const { check } = forgetNode(ctx.node.name)
    expect(await check(ctx)).toMatchObject({ is: 'pending' })
    await forget()
    expect(await check(ctx)).toMatchObject({ is: 'satisfied' })
    expect(existsSync(join(home, '.replctl/shop/pgpass'))).toBe(false)
    expect(await step().check(ctx)).toMatchObject({ is: 'pending' })
    await step().apply!(ctx)
    expect([existsSync(data), readdirSync(space)]).toEqual([false, []])
  })

  test('has no mark any more where it was built', async () => {
    await mark('done')
    await forget()
    expect(existsSync(join(home, '.replctl/shop/node.json'))).toBe(false)
  })
})
