import { describe, expect, test } from 'vitest'
import type { StepContext } from '../../../src/engine/step.ts'
import { createNode } from '../../../src/node/node.ts'
import { probeSeconds } from '../../../src/node/probe-life.ts'
import { fenceUnreachable, signOfLife } from '../../../src/steps/fence-unreachable.ts'
import { createRecordingTransport } from '../../../src/transport/recording-transport.ts'
import { inventoryOf } from '../some-cluster.ts'

const [pg1, pg2, pg3] = inventoryOf(['pg1', 'pg2', 'pg3']).nodes

/** Witnesses whose pg_isready ends so; null: the host does not answer. */
function seenBy(...statuses: readonly number[]) {
  const section = (name: string, value: string) => `@@${name}\n${value}\n\n@@\n`
  const host = section('directory', 'empty') + section('installed', '/usr/bin\tpostgres (PostgreSQL) 15.18')
  const transports = statuses.map((status) =>
    createRecordingTransport()
      .answer('look at the host', host)
      .answer(/sign of life/, { status, stderr: 'what it said' }),
  )
  const nodes = [pg2!, pg3!].map((settings, index) =>
    createNode(settings, 'shop', transports[index] ?? createRecordingTransport()),
  )
  const ctx: StepContext = {
    ...{ node: nodes[0]!, on: (name) => nodes.find((node) => node.name === name)!, timeoutMs: 1_000 },
    ...{ signal: new AbortController().signal, isDryRun: false, isChecking: true, seenAt: new Map() },
    ...{ progress: () => undefined, warn: () => undefined },
  }
  const sign = signOfLife(
    ctx,
    pg1!,
    nodes.slice(0, statuses.length).map(({ name }) => name),
  )
  return { sign, transports }
}

describe('the look at the old primary’s port', () => {
  test.each([0, 1])('that answers (pg_isready ends with %s) is a sign of life', async (status) => {
    expect(await seenBy(status).sign).toBe('its port 5432 answers pg2')
    expect(await seenBy(2, status).sign).toBe('its port 5432 answers pg3')
  })

  test('that does not answer is none', async () => {
    expect(await seenBy(2, 2).sign).toBe(null)
  })

  test.each([3, 124, 126, 127, 137])('that could not be done (%s) proves nothing', async (status) => {
    await expect(seenBy(status, 2).sign).rejects.toMatchObject({
      code: 'remote-command-failed',
      detail: expect.stringContaining('what it said'),
    })
    // The candidate at least must have looked.
    expect(await seenBy(2, status).sign).toBe(null)
  })

  test('takes two round trips, no negotiation of encryption first, and has its time from the inventory', async () => {
    const { sign, transports } = seenBy(2)
    await sign
    const probe = transports[0]!.calls.find(({ title }) => /sign of life/.test(title))?.command
    expect(probe?.script).toContain('PGSSLMODE=disable PGGSSENCMODE=disable')
    expect(probe?.args).toEqual(['/usr/bin', '10.0.0.11', '5432', '1', '', '0'])
    const within = (connectTimeoutMs: number) =>
      probeSeconds({ ...pg1!, ssh: { ...pg1!.ssh, connectTimeoutMs } })
    expect([500, 1_000, 2_000, 5_000, 60_000].map(within)).toEqual([0.3, 0.3, 0.6, 1, 1])
  })
})

test('one that answers, and in whose data directory nothing can be written, needs the command or the flag as well', async () => {
  const wish = { oldPrimary: pg1!, witnesses: [pg2!.name], fence: null, isUnwritable: true }
  const step = fenceUnreachable({ ...wish, allowSplitBrain: false })
  const finding = await step.check(undefined as never)
  expect(finding).toMatchObject({
    is: 'refused',
    error: {
      code: 'primary-unproven',
      message: 'cannot fence the old primary pg1: nothing can be written there',
      hint: expect.stringMatching(/fence\.command.*--allow-split-brain/),
    },
  })
  const command = async () => ({ hasFenced: true, said: '' })
  const withCommand = fenceUnreachable({ ...wish, fence: command, allowSplitBrain: false })
  expect(await withCommand.check(undefined as never)).toMatchObject({ is: 'pending' })
})
