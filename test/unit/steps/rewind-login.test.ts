import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { StepContext } from '../../../src/engine/step.ts'
import { startJob, stopJob } from '../../../src/node/jobs.ts'
import { createNode, type Node } from '../../../src/node/node.ts'
import type { SqlSession } from '../../../src/node/sql-session.ts'
import type { ClusterInput } from '../../../src/steps/cluster-input.ts'
import { rewindJob } from '../../../src/steps/rewind-data-directory.ts'
import { dropRewindLogin, ensureRewindLogin } from '../../../src/steps/rewind-login.ts'
import { createShellTransport } from '../node/shell-transport.ts'
import { emptyNode, inventoryOf, runningNode } from '../some-cluster.ts'

let home: string
let primary: Node
let old: Node
let ctx: StepContext
let statements: string[]
let role: object | null

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'replctl-login-'))
  statements = []
  role = null
  const sql = {
    json: async () => role,
    value: async () => "'2026-03-01'",
    execute: async (text: string) => void statements.push(text),
  } as unknown as SqlSession
  const nodes = inventoryOf(['pg1', 'pg2']).nodes.map(
    (settings): Node => ({
      ...createNode(settings, 'shop', createShellTransport(home)),
      sql: async () => sql,
    }),
  )
  ;[primary, old] = nodes as [Node, Node]
  const seen = (facts: object) => ({
    ...{ at: Number.MAX_VALUE, activity: 0, facts: Promise.resolve(facts) },
  })
  primary.lastSurvey = seen(runningNode('pg1', {})) as Node['lastSurvey']
  old.lastSurvey = seen(emptyNode('pg2')) as Node['lastSurvey']
  ctx = {
    ...{ node: primary, on: (name) => (name === 'pg1' ? primary : old), timeoutMs: 5_000 },
    ...{ signal: new AbortController().signal, isDryRun: false, isChecking: true, seenAt: new Map() },
    ...{ progress: () => undefined, warn: () => undefined },
  }
})
afterEach(() => rm(home, { recursive: true, force: true }))

const login = () => ensureRewindLogin(primary.settings, old.settings, {} as ClusterInput)

test('the role of a rewind is made with the comment by which it is known as our own, in one statement', async () => {
  // Its line in pg_hba.conf comes after that, and there is no such file.
  await expect(login().apply!(ctx)).rejects.toThrow()
  const [made] = statements
  expect(statements).toHaveLength(1)
  expect(made).toMatch(/^DO .*BEGIN CREATE ROLE .*COMMENT ON ROLE .*GRANT EXECUTE .*GRANT CONNECT.* END/)
})

test('one that expires in the middle of a rewind which is gone on with is made anew', async () => {
  role = { isOurs: true, verifier: 'SCRAM-SHA-256$…', isExpiring: true }
  expect(await login().check(ctx)).toEqual({
    ...{ is: 'pending', because: 'its password is valid for some hours only' },
  })
})

test('but not under a pg_rewind that is at work with it', async () => {
  role = { isOurs: true, verifier: 'SCRAM-SHA-256$…', isExpiring: true }
  await startJob(old, rewindJob, 'sleep 60', [])
  try {
    expect(await login().check(ctx)).toMatchObject({ is: 'satisfied' })
  } finally {
    await stopJob(old, rewindJob)
  }
})

test('the plan of a rewind drops the role that the rewind makes before', async () => {
  ctx = { ...ctx, isDryRun: true }
  const drop = (isToBeMade: boolean) =>
    dropRewindLogin(primary.settings, old.settings, {} as ClusterInput, { isToBeMade }).check(ctx)
  expect(await drop(true)).toMatchObject({ is: 'unknown' })
})
