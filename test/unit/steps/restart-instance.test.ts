import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { StepContext } from '../../../src/engine/step.ts'
import { ReplctlError } from '../../../src/errors.ts'
import { createNode } from '../../../src/node/node.ts'
import type { SqlSession } from '../../../src/node/sql-session.ts'
import { restartInstance } from '../../../src/steps/restart-instance.ts'
import { createShellTransport } from '../node/shell-transport.ts'
import { inventoryOf, postmaster, runningNode } from '../some-cluster.ts'

let home: string

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'replctl-restart-'))
})
afterEach(() => rm(home, { recursive: true, force: true }))

const service = { start: 'service start', stop: 'service stop', restart: 'service restart' }

/** An instance whose restart ends with `ending`; it is down then, after it has been seen `looksUntilDown` times to be on its way. */
function instance(ending: () => void, looksUntilDown = 0) {
  const log: string[] = []
  let state: 'up' | 'stopping' | 'down' = 'up'
  let looks = 0
  const transport = createShellTransport(home)
  const run = transport.run.bind(transport)
  const [settings] = inventoryOf(['pg1']).nodes
  const node = createNode({ ...settings!, postgres: { ...settings!.postgres, service } }, 'shop', {
    ...transport,
    run: async (command, options) => {
      if (!Object.values(service).some((line) => command.title === line)) return await run(command, options)
      log.push(`${command.title}, ${(options?.timeoutMs ?? 0) / 1000} s`)
      state = 'up'
      if (command.title === service.restart) {
        state = looksUntilDown > 0 ? 'stopping' : 'down'
        ending()
        state = 'up'
      }
      return { status: 0, signal: null, stdout: '', stderr: '' }
    },
  })
  const installed = [{ directory: '/nowhere/bin', major: 15, minor: 18, version: '15.18' }]
  node.known = { hostName: 'pg1', installed, clockOffsetMs: 0, freeBytes: null }
  node.shell = {
    look: async () => {
      if (state === 'stopping' && looks++ >= looksUntilDown) state = 'down'
      const running = state === 'down' ? '' : `4711\n/data\n1700000000\n5432\n/run/pg\n*\n  1 2\nready   `
      const process = state === 'down' ? '' : 'alive'
      const sections = { directory: 'instance', version: '15', postmaster: running, process }
      return Object.entries(sections)
        .map(([name, value]) => `@@${name}\n${value}\n\n@@\n`)
        .join('')
    },
    run: async () => Promise.reject(new RangeError('nothing is to be run')),
    proveRecent: async () => undefined,
  }
  const lists = { replication: [], slots: [], settings: {}, tablespaces: [], receiver: null, archiver: null }
  const document = { version: 150018, system_identifier: '7412', in_recovery: false, ...lists }
  const sql = {
    isOpen: true,
    json: async () => ({ ...document, current_lsn: null, receive_lsn: null, replay_lsn: null }),
    execute: async (text: string) => void log.push(text),
  } as unknown as SqlSession
  node.sql = async () =>
    state === 'up' ? sql : Promise.reject(new ReplctlError('sql-failed', 'shutting down'))
  node.openSql = async () => (state === 'up' ? { sql, endpoint: 'here' } : null)
  const ctx: StepContext = {
    ...{ node, on: () => node, timeoutMs: 1_000, signal: new AbortController().signal },
    ...{ isDryRun: false, isChecking: false, seenAt: new Map() },
    ...{ progress: () => undefined, warn: () => undefined },
  }
  const facts = runningNode('pg1', {}, { postmaster: postmaster() })
  return { log, restarted: () => restartInstance(ctx, facts) }
}

test('a primary checkpoints before it is restarted, and its stop is given ten minutes', async () => {
  const { log, restarted } = instance(() => undefined)
  await restarted()
  expect(log).toEqual(['CHECKPOINT', 'service restart, 600 s'])
})

test('one whose stop outlasted the restart is started again when it is down: it is not left so', async () => {
  const { log, restarted } = instance(() => {
    throw new ReplctlError('timeout', 'it took too long')
  }, 1)
  await restarted()
  expect(log).toEqual(['CHECKPOINT', 'service restart, 600 s', 'service start, 600 s'])
})

test('a restart that failed otherwise is an error', async () => {
  const { log, restarted } = instance(() => {
    throw new ReplctlError('connection-lost', 'gone')
  })
  await expect(restarted()).rejects.toMatchObject({ code: 'connection-lost' })
  expect(log).toEqual(['CHECKPOINT', 'service restart, 600 s'])
})
