import { existsSync, readdirSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { NodeFacts, NodeMark } from '../../../src/cluster/facts.ts'
import type { StepContext } from '../../../src/engine/step.ts'
import { lookAtJob, startJob, stopJob } from '../../../src/node/jobs.ts'
import { createNode, type Node } from '../../../src/node/node.ts'
import { moveDataDirectoryAside, purgeDataDirectory } from '../../../src/steps/remove-node.ts'
import { rewindJob } from '../../../src/steps/rewind-data-directory.ts'
import { createShellTransport } from '../node/shell-transport.ts'
import { control, inventoryOf, lsn, ours, runningNode, stoppedNode, timeline } from '../some-cluster.ts'

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

describe('add-standby --reclone', () => {
  const move = (isResumed = false) =>
    moveDataDirectoryAside(ctx.node.name, ctx.on('pg1' as Node['name']).name, { isResumed })
  /** A standby of this cluster, stopped. */
  const standby = async (phase: NodeMark['phase']) => {
    const inode = String((await stat(data)).ino)
    const facts = stoppedNode('pg2', '0/3000000', {
      control: control({ timeline: timeline(3), checkpointLsn: lsn('0/3000000') }),
      ...{ hasStandbySignal: true, dataDirectoryInode: inode },
      mark: {
        ...{ cluster: 'shop', node: 'pg2', dataDirectory: data, systemIdentifier: ours },
        inode,
        phase,
      },
    })
    ctx.node.lastSurvey = { at: Number.MAX_VALUE, activity: 0, facts: Promise.resolve(facts) }
  }

  test('replaces a whole clone that never came to stream', async () => {
    await standby('cloned')
    expect(await move().check(ctx)).toMatchObject({ is: 'pending' })
  })

  test('leaves the clone that it made itself: another run of it goes on with that', async () => {
    await standby('cloned')
    expect(await move(true).check(ctx)).toMatchObject({ is: 'satisfied' })
    await mkdir(`${data}.replctl-old`)
    expect(await move().check(ctx)).toMatchObject({ is: 'satisfied' })
    await standby('cloning')
    expect(await move().check(ctx)).toMatchObject({ is: 'satisfied' })
  })
})
