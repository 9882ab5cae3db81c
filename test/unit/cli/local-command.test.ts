import { tmpdir } from 'node:os'
import { expect, test } from 'vitest'
import type { Call } from '../../../src/cli/command-spec.ts'
import { fenceCommandOf } from '../../../src/cli/local-command.ts'
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

test('one that leaves something behind that keeps its output open does not hold it up at the limit', async () => {
  const startedAt = performance.now()
  const answer = await fence('setsid sleep 20 & echo begun', 500)
  expect(performance.now() - startedAt).toBeLessThan(10_000)
  expect(answer.hasFenced).toBe(false)
})
