import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { Call } from '../../../src/cli/command-spec.ts'
import { fenceCommandOf, runHook } from '../../../src/cli/local-command.ts'
import type { Inventory } from '../../../src/cluster/inventory.ts'
import { inventoryOf } from '../some-cluster.ts'

const call = { io: { env: process.env } } as Call
const fence = (command: string, limitMs?: number) => {
  const inventory = { ...inventoryOf(['pg1']), folder: tmpdir(), fenceCommand: command } as Inventory
  return fenceCommandOf(inventory, call, limitMs)!(inventory.nodes[0]!)
}

test('a fence command that ends with status 0 has fenced, and only then', async () => {
  expect(await fence('echo off {node}')).toEqual({ hasFenced: true, said: 'off pg1' })
  expect(await fence('echo on >&2; exit 3')).toEqual({ hasFenced: false, said: 'on' })
})

test('one that hangs is killed with all that it started, and its output is not waited for', async () => {
  const startedAt = performance.now()
  const answer = await fence('echo $$; sleep 60; echo late', 500)
  expect(performance.now() - startedAt).toBeLessThan(10_000)
  expect(answer.hasFenced).toBe(false)
  expect(answer.said).toMatch(/did not end within 0.5 s/)
})

test('its own end counts, also where it leaves something behind that keeps its output open', async () => {
  const startedAt = performance.now()
  expect((await fence('setsid sleep 20 & echo begun')).hasFenced).toBe(true)
  expect((await fence('setsid sleep 20 & exit 3')).hasFenced).toBe(false)
  expect(performance.now() - startedAt).toBeLessThan(10_000)
})

test('a hook is told of the node that the event is about, by placeholders and by the environment', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'replctl-hook-'))
  try {
    const onEvent = `{ cat; echo {node} {host} "$REPLCTL_NODE" "$REPLCTL_HOST" "$REPLCTL_CLUSTER"; } > ${folder}/told`
    const inventory = { ...inventoryOf(['pg1']), folder, onEvent } as Inventory
    const { name, host } = inventory.nodes[0]!
    await runHook(inventory, call, { event: 'promote' }, inventory.nodes[0])
    expect(await readFile(`${folder}/told`, 'utf8')).toBe(
      `{"event":"promote"}\n${name} ${host} ${name} ${host} ${inventory.cluster}\n`,
    )
    await expect(runHook({ ...inventory, onEvent: 'exit 4' }, call, {}, undefined)).rejects.toMatchObject({
      code: 'hook-failed',
    })
  } finally {
    await rm(folder, { recursive: true })
  }
})
