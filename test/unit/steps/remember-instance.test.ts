import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { ClusterLock } from '../../../src/engine/cluster-lock.ts'
import { runSteps } from '../../../src/engine/run-plan.ts'
import { inOrder, pending, type Step } from '../../../src/engine/step.ts'
import { exitCodes, ReplctlError } from '../../../src/errors.ts'
import { createNode } from '../../../src/node/node.ts'
import { forgetInstance } from '../../../src/steps/remember-instance.ts'
import { createShellTransport } from '../node/shell-transport.ts'
import { inventoryOf } from '../some-cluster.ts'

let home: string

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'replctl-remember-'))
  await mkdir(join(home, '.replctl/shop/adopt'), { recursive: true })
  await writeFile(join(home, '.replctl/shop/adopt/before.json'), '{}')
})
afterEach(() => rm(home, { recursive: true, force: true }))

const lock = {
  ...{ isHeld: true, foundJournals: [], surveyOf: () => undefined },
  ...{ confirm: async () => undefined, prove: async () => undefined, release: async () => undefined },
  ...{ writeJournal: async () => undefined, clearJournal: async () => undefined },
} as unknown as ClusterLock

test('once the copies of an adopted instance’s files are removed, nothing is said to be taken back', async () => {
  const [settings] = inventoryOf(['pg1']).nodes
  const node = createNode(settings!, 'shop', createShellTransport(home))
  const failing: Step = {
    ...{ title: 'receive WAL on the archive host', node: node.name },
    check: async () => pending('nobody receives'),
    apply: async () => {
      throw new ReplctlError('timeout', 'nobody received')
    },
  }
  const outcome = await runSteps(
    inOrder([forgetInstance(settings!), failing]),
    {
      ...{ nodes: new Map([[node.name, node]]), timeoutMs: 1_000 },
      ...{ signal: new AbortController().signal, listener: () => undefined },
    },
    lock,
    {
      ...{ version: 1, command: 'init primary', wish: { node: 'pg1', adopt: true }, by: 'dba@control' },
      ...{ since: '2026-03-01T12:00:00.000Z', isPastPointOfNoReturn: false, begun: [] },
    },
  )
  expect(existsSync(join(home, '.replctl/shop/adopt'))).toBe(false)
  expect(outcome).toMatchObject({ hasCrossed: true, exitCode: exitCodes.timeout })
  expect(outcome.error?.detail).toContain('replctl resume')
  expect(outcome.error?.detail).not.toContain('replctl abort')
})
