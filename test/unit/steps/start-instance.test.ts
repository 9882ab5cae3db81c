import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { StepContext } from '../../../src/engine/step.ts'
import { createNode, type Node } from '../../../src/node/node.ts'
import { sqlFailed } from '../../../src/node/sql-session.ts'
import { startInstance } from '../../../src/steps/start-instance.ts'
import { createShellTransport } from '../node/shell-transport.ts'
import { inventoryOf } from '../some-cluster.ts'

let home: string

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'replctl-start-'))
})
afterEach(() => rm(home, { recursive: true, force: true }))

/** A postmaster that refuses every login so. `seen`: whether its process is there, at one look after the other. */
function refusing(
  message: string,
  sqlState: string,
  { signal = '', seen = ['alive'] } = {},
): { node: Node; ctx: StepContext } {
  const [settings] = inventoryOf(['pg1']).nodes
  const postgres = { ...settings!.postgres, database: 'shop' }
  const node = createNode({ ...settings!, postgres }, 'shop', createShellTransport(home))
  const postmaster = `4711\n/data\n1700000000\n5432\n/run/pg\n*\n  1 2\nready   `
  const sections = { directory: 'instance', version: '15', postmaster, signal }
  const text = (process: string) =>
    Object.entries({ ...sections, process }).map(([name, value]) => `@@${name}\n${value}\n\n@@\n`)
  const states = [...seen]
  const installed = [{ directory: '/nowhere/bin', major: 15, minor: 18, version: '15.18' }]
  node.known = { hostName: 'pg1', installed, clockOffsetMs: 0, freeBytes: null }
  node.shell = {
    look: async () => text((states.length > 1 ? states.shift() : states[0]) ?? '').join(''),
    run: async () => Promise.reject(new RangeError('nothing is to be run')),
    proveRecent: async () => undefined,
  }
  node.sql = async () => Promise.reject(sqlFailed(message, sqlState))
  const ctx: StepContext = {
    ...{ node, on: () => node, timeoutMs: 250, signal: new AbortController().signal },
    ...{ isDryRun: false, isChecking: false, seenAt: new Map() },
    ...{ progress: () => undefined, warn: () => undefined },
  }
  return { node, ctx }
}

const started = async ({ node, ctx }: ReturnType<typeof refusing>) =>
  await startInstance(node.name).apply!(ctx).catch((thrown: unknown) => thrown)

test('a start is not waited for where the database of the inventory does not exist', async () => {
  expect(await started(refusing('database "shop" does not exist', '3D000'))).toMatchObject({
    code: 'sql-failed',
    message: expect.stringContaining('database "shop" does not exist'),
    hint: expect.stringContaining('set postgres.database'),
  })
})

test('nor where pg_hba.conf refuses the login', async () => {
  expect(await started(refusing('no pg_hba.conf entry', '28000'))).toMatchObject({
    code: 'sql-failed',
    hint: expect.stringContaining('pg_hba.conf'),
  })
})

test.each([
  ['what is starting up', 'the database system is starting up', '57P03', ''],
  ['a standby, which may yet replay it,', 'database "shop" does not exist', '3D000', 'standby.signal'],
])('%s is waited for, and what it said last comes with the timeout', async (_who, said, state, signal) => {
  expect(await started(refusing(said, state, { signal }))).toMatchObject({
    code: 'timeout',
    detail: expect.stringContaining(said),
  })
})

test('what somebody else started a moment before is waited for, and is no failed start', async () => {
  const starting = refusing('the database system is starting up', '57P03', { seen: ['dead', 'alive'] })
  expect(await started(starting)).toMatchObject({
    code: 'timeout',
    message: expect.stringContaining('answers'),
  })
})

test('what does not start is a failed start', async () => {
  expect(await started(refusing('', '57P03', { seen: ['dead'] }))).toMatchObject({ code: 'start-failed' })
})
