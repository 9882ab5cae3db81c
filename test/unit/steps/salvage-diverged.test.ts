import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { NodeFacts } from '../../../src/cluster/facts.ts'
import type { StepContext } from '../../../src/engine/step.ts'
import type { ReplctlError } from '../../../src/errors.ts'
import { createNode, type Node } from '../../../src/node/node.ts'
import { SalvageFolder } from '../../../src/node/salvage-folder.ts'
import type { SqlSession } from '../../../src/node/sql-session.ts'
import type { ClusterInput } from '../../../src/steps/cluster-input.ts'
import { findDivergence } from '../../../src/steps/salvage/divergence.ts'
import { requireRoom } from '../../../src/steps/salvage/make-salvage.ts'
import { openOnPrimary } from '../../../src/steps/salvage/save-node.ts'
import { requireSalvaged, salvageDiverged } from '../../../src/steps/salvage-diverged.ts'
import { createShellTransport } from '../node/shell-transport.ts'
import { control, emptyNode, fenceMark, inventoryOf, lsn, runningNode, timeline } from '../some-cluster.ts'

let home: string
let nodes: readonly [Node, Node]
let warnings: ReplctlError[]
/** What the primary's server answers. */
let answer: string

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'replctl-salvage-'))
  warnings = []
  answer = ''
  const sql = { value: async () => answer } as unknown as SqlSession
  nodes = inventoryOf(['pg1', 'pg2']).nodes.map(
    (settings): Node => ({
      ...createNode(
        { ...settings, postgres: { ...settings.postgres, dataDir: join(home, settings.name) } },
        'shop',
        createShellTransport(home),
      ),
      sql: async () => sql,
    }),
  ) as [Node, Node]
  for (const { settings } of nodes) {
    await mkdir(join(settings.postgres.dataDir, 'pg_wal'), { recursive: true })
  }
})
afterEach(() => rm(home, { recursive: true, force: true }))

function context(own: NodeFacts, primary: NodeFacts): StepContext {
  const [node, leads] = nodes
  // Seen at the end of time, so that it is never looked at anew.
  const seen = (facts: NodeFacts) => ({
    ...{ at: Number.MAX_VALUE, activity: 0, facts: Promise.resolve(facts) },
  })
  node.lastSurvey = seen(own)
  leads.lastSurvey = seen(primary)
  return {
    ...{ node, on: (name) => (name === node.name ? node : leads), timeoutMs: 5_000 },
    ...{ signal: new AbortController().signal, isDryRun: false, isChecking: true, seenAt: new Map() },
    ...{ progress: () => undefined, warn: (error) => void warnings.push(error) },
  }
}

describe('a salvage that cannot even begin', () => {
  const damaged = emptyNode('pg1', {
    ...{ dataDirectoryState: 'instance', fence: fenceMark('pg2'), control: null },
    binaries: { directory: '/bin', major: 15, version: '15.18' } as NodeFacts['binaries'],
  })
  const steps = (allowDataLoss: boolean) => {
    const [node, primary] = nodes.map(({ name }) => name) as [Node['name'], Node['name']]
    return [
      salvageDiverged(node, primary, {} as ClusterInput, allowDataLoss),
      requireSalvaged(node, primary, allowDataLoss),
    ] as const
  }

  test('stands in the way of a rejoin', async () => {
    const ctx = context(damaged, runningNode('pg2', {}))
    for (const step of steps(false)) {
      await expect(step.check(ctx)).rejects.toMatchObject({ code: 'control-data-unreadable' })
    }
  })

  test('is told, and gone on without, where the operator allows for the loss', async () => {
    const ctx = context(damaged, runningNode('pg2', {}))
    const [save, required] = steps(true)
    expect(await save.check(ctx)).toMatchObject({ is: 'pending' })
    await save.apply!(ctx)
    await save.verify!(ctx)
    expect(warnings).toMatchObject([
      { code: 'salvage-incomplete', message: expect.stringContaining('cannot read pg_control on pg1') },
    ])
    expect(await required.check(ctx)).toMatchObject({
      is: 'satisfied',
      because: expect.stringContaining('allowed for: cannot read pg_control'),
    })
  })

  test('is no loss to be allowed for where it is the primary that does not answer', async () => {
    const silent = { ...runningNode('pg2', {}), instance: null }
    const [save] = steps(true)
    await expect(save.check(context(damaged, silent))).rejects.toMatchObject({ code: 'instance-stopped' })
  })
})

describe('a node on a timeline of the primary’s number', () => {
  const history = '1\t0/3000000\tno recovery target specified\n'
  const leads = runningNode('pg2', { timeline: timeline(2), history })
  const old = emptyNode('pg1', {
    ...{ dataDirectoryState: 'instance', fence: fenceMark('pg2'), hasStandbySignal: true },
    control: control({ timeline: timeline(2), checkpointLsn: lsn('0/3000100') }),
  })
  const begins = async (...heads: readonly string[]) => {
    for (const [n, { settings }] of nodes.entries()) {
      const wal = join(settings.postgres.dataDir, 'pg_wal')
      await writeFile(join(wal, '00000002.history'), history)
      if (heads[n] !== undefined) await writeFile(join(wal, '000000020000000000000003'), heads[n].repeat(200))
    }
  }
  const find = async (own: NodeFacts = old) => await findDivergence(context(own, leads), own, leads.name)

  test('is not said to have nothing of its own where that timeline is another one', async () => {
    await begins('a', 'b')
    await expect(find()).rejects.toMatchObject({
      code: 'salvage-incomplete',
      message: 'what pg1 wrote cannot be told from what pg2 wrote',
    })
  })
  test('nor where it led, and the WAL that would tell is gone', async () => {
    await begins('a')
    await expect(find()).rejects.toMatchObject({ code: 'salvage-incomplete' })
    expect(await find({ ...old, fence: null })).toBeNull()
  })
  test('has nothing of its own where it is the very same one', async () => {
    await begins('a', 'a')
    expect(await find()).toBeNull()
  })
})

test('whether the new primary has a database is asked for, and not read out of a message in its own language', async () => {
  const leads = runningNode('pg2', {})
  answer = '0'
  expect(await openOnPrimary(context(emptyNode('pg1'), leads), leads, 'neu')).toBeNull()
  answer = '1'
  await expect(openOnPrimary(context(emptyNode('pg1'), leads), leads, 'neu')).rejects.toMatchObject({
    node: 'pg2',
  })
})

test('WAL that would fill the disk is not copied', async () => {
  const folder = new SalvageFolder(nodes[0], 'tl1-0-3000000')
  await folder.begin()
  await requireRoom(folder, nodes[0].name, 1, 1)
  await expect(requireRoom(folder, nodes[0].name, 2 ** 40, 16 * 1024 * 1024)).rejects.toMatchObject({
    code: 'disk-full',
    detail: expect.stringMatching(/\d+ bytes, and [1-9]\d+ are free/),
  })
})
