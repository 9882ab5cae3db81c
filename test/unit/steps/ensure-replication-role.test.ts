import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { NodeMark } from '../../../src/cluster/facts.ts'
import { Secret } from '../../../src/command.ts'
import type { StepContext } from '../../../src/engine/step.ts'
import { createNode } from '../../../src/node/node.ts'
import type { SqlSession } from '../../../src/node/sql-session.ts'
import { scramVerifier } from '../../../src/postgres/scram.ts'
import { ensurePassfile } from '../../../src/steps/ensure-replication-role.ts'
import { createShellTransport } from '../node/shell-transport.ts'
import { inventoryOf, postmaster, runningNode, standbyNode } from '../some-cluster.ts'

let home: string
let passfile: string

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'replctl-role-'))
  passfile = join(home, '.replctl/shop/pgpass')
  await mkdir(join(home, '.replctl/shop'), { recursive: true })
})
afterEach(() => rm(home, { recursive: true, force: true }))

const line = (password: string) => `*:*:*:replicator:${password}\n`

/** pg2 is a standby that is built; the role on pg1 has this password. */
function standby(rolePassword: string) {
  const { nodes, replication } = inventoryOf(['pg1', 'pg2'], {}, { password: new Secret('new') })
  const [pg1, pg2] = nodes.map((settings) => createNode(settings, 'shop', createShellTransport(home)))
  const mark = { phase: 'done' } as NodeMark
  const seen = (facts: ReturnType<typeof runningNode>) => ({
    at: Number.MAX_VALUE,
    activity: 0,
    facts: Promise.resolve(facts),
  })
  pg1!.lastSurvey = seen(runningNode('pg1', {}, { home, mark, postmaster: postmaster() }))
  pg2!.lastSurvey = seen(standbyNode('pg2', '0/1', {}, { home, mark }))
  const verifier = scramVerifier(rolePassword, Buffer.alloc(16))
  pg1!.sql = async () => ({ isOpen: true, value: async () => verifier }) as unknown as SqlSession
  const ctx: StepContext = {
    ...{ node: pg2!, on: (name) => (name === pg1!.name ? pg1! : pg2!), timeoutMs: 1_000 },
    ...{ signal: new AbortController().signal, isDryRun: false, isChecking: true, seenAt: new Map() },
    ...{ progress: () => undefined, warn: () => undefined },
  }
  return { ctx, step: ensurePassfile(pg2!.name, replication, pg1!.name) }
}

test.each([
  ['that the role never got is taken back', 'old', 'old'],
  ['that the role has by now stays when a later step fails', 'new', 'new'],
])('a new password %s', async (_what, ofRole, expected) => {
  await writeFile(passfile, line('old'), { mode: 0o600 })
  const { ctx, step } = standby(ofRole)
  await step.apply!(ctx)
  expect(await readFile(passfile, 'utf8')).toBe(line('new'))
  await step.undo!(ctx)
  expect(await readFile(passfile, 'utf8')).toBe(line(expected))
  expect((await stat(passfile)).mode & 0o777).toBe(0o600)
})

test('what an earlier change left is not taken for the password from before', async () => {
  await writeFile(`${passfile}.earlier`, line('old'))
  const { ctx, step } = standby('old')
  await step.apply!(ctx)
  await step.undo!(ctx)
  expect(await readFile(passfile, 'utf8')).toBe(line('new'))
})
