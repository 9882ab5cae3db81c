import { existsSync, readdirSync } from 'node:fs'
import { mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { NodeFacts, NodeMark } from '../../../src/cluster/facts.ts'
import { type Step, type StepContext, satisfied } from '../../../src/engine/step.ts'
import { createNode, type Node } from '../../../src/node/node.ts'
import { look } from '../../../src/steps/look.ts'
import {
  deleteDataDirectoryAside,
  moveDataDirectoryAside,
  onceMovedAside,
  requireReplaceableDataDirectory,
  whileOldIsAside,
} from '../../../src/steps/replace-data-directory.ts'
import { createShellTransport } from '../node/shell-transport.ts'
import { control, inventoryOf, lsn, ours, runningNode, stoppedNode, timeline } from '../some-cluster.ts'

// On files of this machine.

let home: string
let data: string

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'replctl-replace-'))
  data = join(home, 'data')
  for (const folder of [data, join(home, '.replctl/shop')]) await mkdir(folder, { recursive: true })
})
afterEach(() => rm(home, { recursive: true, force: true }))

function context(dataDir = data): StepContext & { readonly warned: string[] } {
  const [pg1, pg2] = inventoryOf(['pg1', 'pg2']).nodes.map((settings) =>
    createNode(
      { ...settings, postgres: { ...settings.postgres, dataDir } },
      'shop',
      createShellTransport(home),
    ),
  ) as [Node, Node]
  // Seen at the end of time, so that it is never looked at anew.
  pg1.lastSurvey = { at: Number.MAX_VALUE, activity: 0, facts: Promise.resolve(runningNode('pg1', {})) }
  const warned: string[] = []
  return {
    ...{ node: pg2, on: (name) => (name === pg1.name ? pg1 : pg2), timeoutMs: 5_000 },
    ...{ signal: new AbortController().signal, isDryRun: false, isChecking: true, seenAt: new Map() },
    ...{ progress: () => undefined, warn: (error) => void warned.push(error.code), warned },
  }
}

/** A standby of this cluster, stopped. */
async function standby(ctx: StepContext, phase: NodeMark['phase'], changes: Partial<NodeFacts> = {}) {
  const inode = String((await stat(data)).ino)
  const facts = stoppedNode('pg2', '0/3000000', {
    control: control({ timeline: timeline(3), checkpointLsn: lsn('0/3000000') }),
    ...{ hasStandbySignal: true, dataDirectoryInode: inode },
    mark: {
      ...{ cluster: 'shop', node: 'pg2', dataDirectory: data, systemIdentifier: ours },
      inode,
      phase,
    },
    ...changes,
  })
  ctx.node.lastSurvey = { at: Number.MAX_VALUE, activity: 0, facts: Promise.resolve(facts) }
}
const move = (ctx: StepContext, isResumed = false) =>
  moveDataDirectoryAside(ctx.node.name, 'pg1' as Node['name'], { isResumed })

describe('add-standby --reclone', () => {
  test('replaces a whole clone that never came to stream', async () => {
    const ctx = context()
    await standby(ctx, 'cloned')
    expect(await move(ctx).check(ctx)).toMatchObject({ is: 'pending' })
  })

  test('leaves the clone that it made itself: another run of it goes on with that', async () => {
    const ctx = context()
    await standby(ctx, 'cloned')
    expect(await move(ctx, true).check(ctx)).toMatchObject({ is: 'satisfied' })
    await mkdir(`${data}.replctl-old`)
    expect(await move(ctx).check(ctx)).toMatchObject({ is: 'satisfied' })
    await standby(ctx, 'cloning')
    expect(await move(ctx).check(ctx)).toMatchObject({ is: 'satisfied' })
  })

  test('says beforehand where the old data cannot be kept: a mount point', async () => {
    const [kept, mount] = [context(), context('/proc')]
    for (const ctx of [kept, mount]) {
      await standby(ctx, 'done')
      const step = requireReplaceableDataDirectory(ctx.node.name, 'pg1' as Node['name'])
      expect(await step.check(ctx)).toMatchObject({ is: 'satisfied' })
    }
    expect([kept.warned, mount.warned]).toEqual([[], ['old-data-not-kept']])
  })

  test('does not say "taken back" where the old data was deleted in place', async () => {
    const ctx = context()
    await standby(ctx, 'done', { dataDirectoryState: 'empty', control: null })
    await expect(move(ctx).undo!(ctx)).rejects.toMatchObject({ code: 'cannot-abort' })
  })

  test('starts nothing of which a part was deleted in place', async () => {
    const ctx = context()
    await standby(ctx, 'cloning')
    await expect(move(ctx).undo!(ctx)).rejects.toMatchObject({ code: 'cannot-abort' })
  })
})

describe('what builds a clone in the place of an old standby', () => {
  test('finds the place free in a plan, and what is there in a run and once the new clone is begun', async () => {
    const ctx = context()
    const seen = async (isDryRun: boolean) => {
      let state = ''
      const node = ctx.node.name
      const check = async (now: StepContext) => {
        const facts = await look(now)
        const sql = await now.on(node).openSql()
        state = `${facts.dataDirectoryState}, ${facts.mark?.phase}, ${sql === null}, ${facts.control !== null}`
        return satisfied('so')
      }
      await onceMovedAside({ title: 'build it', node, check }, move(ctx)).check({ ...ctx, isDryRun })
      return state
    }
    await standby(ctx, 'done')
    expect(await seen(true)).toBe('empty, undefined, true, true')
    expect(await seen(false)).toBe('instance, done, true, true')
    await standby(ctx, 'cloning')
    expect(await seen(true)).toBe('instance, cloning, true, true')
  })

  async function takeBack(ctx: StepContext): Promise<boolean> {
    let isUndone = false
    const step: Step = {
      ...{ title: 'build it', node: ctx.node.name, check: async () => satisfied('so') },
      undo: async () => {
        isUndone = true
      },
    }
    await whileOldIsAside(step).undo!(ctx)
    return isUndone
  }

  test('is taken back while the old data is aside, and while the clone is not whole', async () => {
    const ctx = context()
    await standby(ctx, 'cloning')
    expect(await takeBack(ctx)).toBe(true)
    await mkdir(`${data}.replctl-old`)
    for (const phase of ['cloned', 'done'] as const) {
      await standby(ctx, phase)
      expect(await takeBack(ctx)).toBe(true)
    }
  })

  test('is not taken away from the old standby, which is back already', async () => {
    const ctx = context()
    await standby(ctx, 'done')
    expect(await takeBack(ctx)).toBe(false)
  })

  test('stays where the old data was deleted in place: it is the only copy there', async () => {
    const ctx = context('/proc')
    for (const phase of ['cloned', 'done'] as const) {
      await standby(ctx, phase)
      await expect(takeBack(ctx)).rejects.toMatchObject({ code: 'cannot-abort' })
    }
  })
})

test('what is left of an old directory whose removal was cut off goes with the next, and is never put back', async () => {
  const ctx = context()
  const step = deleteDataDirectoryAside(ctx.node.name)
  expect(step.cannotBeUndone).toBe(true)
  expect(await step.check(ctx)).toMatchObject({ is: 'satisfied' })
  await mkdir(join(`${data}.replctl-old-gone`, 'base'), { recursive: true })
  expect(await step.check(ctx)).toMatchObject({ is: 'pending' })
  await mkdir(`${data}.replctl-old`)
  await writeFile(join(data, 'PG_VERSION'), '15\n')
  await step.apply!(ctx)
  expect(await step.check(ctx)).toMatchObject({ is: 'satisfied' })
  expect([existsSync(data), readdirSync(home).toSorted()]).toEqual([true, ['.replctl', 'data']])
})

test('a plan tells that the old directory will go, where it will have been moved aside', async () => {
  const check = async (dataDir: string, isReplacing: boolean) => {
    const ctx = context(dataDir)
    return (await deleteDataDirectoryAside(ctx.node.name, { isReplacing }).check({ ...ctx, isDryRun: true }))
      .is
  }
  expect([await check(data, true), await check(data, false), await check('/proc', true)]).toEqual([
    ...['unknown', 'satisfied', 'satisfied'],
  ])
})
