import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { FenceMark } from '../../../src/cluster/facts.ts'
import type { Step, StepContext } from '../../../src/engine/step.ts'
import { findServing } from '../../../src/node/find-serving.ts'
import { createNode } from '../../../src/node/node.ts'
import type { ClusterInput, Templates } from '../../../src/steps/cluster-input.ts'
import { type FoundInstance, fenceInstance } from '../../../src/steps/fence-instance.ts'
import { createShellTransport } from '../node/shell-transport.ts'
import { template } from '../postgres/fixture.ts'
import { fenceMark, inventoryOf } from '../some-cluster.ts'

// On files of this machine: what is to be proved is which of them are there afterwards. A PostgreSQL that runs here serves another port.
const port = 61_432

let home: string
let data: string
let state: string

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'replctl-fence-'))
  data = join(home, 'data')
  state = join(home, '.replctl/shop')
  await mkdir(data)
  await mkdir(state, { recursive: true })
  await writeFile(join(data, 'PG_VERSION'), '15\n')
  await writeFile(join(data, 'postgresql.conf'), '')
})
afterEach(() => rm(home, { recursive: true, force: true }))

function fencing(newPrimary: string, found: Partial<FoundInstance> = {}) {
  const inventory = inventoryOf(['pg1', 'pg2', 'pg3'])
  const nodes = inventory.nodes.map((settings) =>
    createNode(
      { ...settings, postgres: { ...settings.postgres, dataDir: data, port } },
      'shop',
      createShellTransport(home),
    ),
  )
  const templates = { standbyConf: template('standby.conf') } as Templates
  const input: ClusterInput = { inventory, templates }
  const target = inventory.nodes.find((one) => one.name === newPrimary)!
  const step = fenceInstance(nodes[0]!.name, target, input, { wasRunning: false, ...found })
  const ctx: StepContext = {
    ...{ node: nodes[0]!, on: (name) => nodes.find((one) => one.name === name)!, timeoutMs: 5_000 },
    ...{ signal: new AbortController().signal, isDryRun: false, isChecking: false, seenAt: new Map() },
    ...{ progress: () => undefined, warn: () => undefined },
  }
  return { step, ctx }
}

const apply = async ({ step, ctx }: { step: Step; ctx: StepContext }) => {
  await step.check(ctx)
  await step.apply!(ctx)
}
const undo = ({ step, ctx }: { step: Step; ctx: StepContext }) => step.undo!(ctx)
const signal = () => existsSync(join(data, 'standby.signal'))
const mark = async (): Promise<FenceMark | null> =>
  existsSync(join(state, 'fenced.json'))
    ? JSON.parse(await readFile(join(state, 'fenced.json'), 'utf8'))
    : null
const wasFencedFor = async (newPrimary: string) => {
  await writeFile(join(data, 'standby.signal'), '')
  const left = { ...fenceMark(newPrimary), wasRunning: true }
  await writeFile(join(state, 'fenced.json'), JSON.stringify(left))
  return left
}

test('a fencing that is taken back before it wrote its mark leaves an older one as it is', async () => {
  const older = await wasFencedFor('pg2')
  await undo(fencing('pg3'))
  expect([signal(), await mark()]).toEqual([true, older])
})

test('a fencing of one that was fenced before is taken back to that', async () => {
  const older = await wasFencedFor('pg2')
  const step = fencing('pg3')
  await apply(step)
  expect(await mark()).toMatchObject({ newPrimary: 'pg3', before: older })
  await undo(step)
  expect([signal(), await mark()]).toEqual([true, older])
})

test('a fencing that left its signal and no mark, the disk being full, is taken back', async () => {
  await writeFile(join(data, 'standby.signal'), '')
  await undo(fencing('pg3'))
  expect([signal(), await mark()]).toEqual([false, null])
})

test('a stopped standby that was told to promote loses the trigger file, and stays a standby when that is taken back', async () => {
  await writeFile(join(data, 'standby.signal'), '')
  await writeFile(join(state, 'promote'), '')
  const step = fencing('pg3', { wasStandby: true })
  await apply(step)
  expect([signal(), existsSync(join(state, 'promote'))]).toEqual([true, false])
  expect(await mark()).toMatchObject({ newPrimary: 'pg3', wasStandby: true })
  // Another process takes it back: the mark alone knows.
  await undo(fencing('pg3'))
  expect([signal(), await mark()]).toEqual([true, null])
})

test('what is fenced stays fenced where another node was told to promote before, and may do so yet', async () => {
  const step = fencing('pg3', { mayAnotherPromote: true })
  await apply(step)
  await expect(undo(step)).rejects.toMatchObject({ code: 'cannot-abort', node: 'pg3' })
  expect([signal(), await mark()]).toMatchObject([true, { newPrimary: 'pg3' }])
})

test('a copy of the data directory is not fenced in place of the instance that serves the port from another', async () => {
  const other = join(home, 'other')
  for (const directory of [data, other]) {
    await mkdir(join(directory, 'global'), { recursive: true })
    await writeFile(join(directory, 'global/pg_control'), Buffer.from('0123456789'))
  }
  await copyFile('/bin/sleep', join(home, 'postgres'))
  const server = spawn(join(home, 'postgres'), ['60'], { cwd: other, stdio: 'ignore' })
  try {
    const serves = (its: number) =>
      writeFile(join(other, 'postmaster.pid'), `${server.pid}\n${other}\n1700000000\n${its}\n`)
    await serves(port)
    await expect(apply(fencing('pg2'))).rejects.toMatchObject({
      code: 'primary-alive',
      message: expect.stringContaining(`process ${server.pid} serves port ${port} from ${other}`),
    })
    expect([signal(), await mark()]).toEqual([false, null])
    expect(await findServing(fencing('pg2').ctx.node)).toEqual([
      { pid: server.pid, systemIdentifier: '3978425819141910832', directory: other },
    ])
    // Another node of the cluster on the same host is none of it.
    await serves(port + 1)
    await apply(fencing('pg2'))
    expect([signal(), (await mark())?.newPrimary]).toEqual([true, 'pg2'])
    expect(await findServing(fencing('pg2').ctx.node)).toEqual([])
  } finally {
    server.kill()
  }
})

test('a primary that was running must not stay stopped by an operation that fails', () => {
  expect(fencing('pg2', { wasRunning: true }).step.mustNotStandAlone).toBe(true)
  expect(fencing('pg2').step.mustNotStandAlone).toBeUndefined()
})

test('one in whose data directory nothing can be written is stopped, and nothing is left there', async () => {
  const { step, ctx } = fencing('pg2', { isUnwritable: true })
  expect(await step.check(ctx)).toMatchObject({ is: 'satisfied', because: /nothing can be written/ })
  await step.apply!(ctx)
  expect([signal(), await mark()]).toEqual([false, null])
})
