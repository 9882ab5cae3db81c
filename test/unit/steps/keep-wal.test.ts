import { expect, test } from 'vitest'
import type { Inventory } from '../../../src/cluster/inventory.ts'
import type { SqlSession } from '../../../src/node/sql-session.ts'
import { keepWalForArchive, openKeeper } from '../../../src/steps/keep-wal.ts'
import { inventoryOf } from '../some-cluster.ts'

const sessionOf = (said: string[]): SqlSession => ({
  isOpen: true,
  value: async () => null,
  json: async () => null as never,
  execute: async (sql) => void said.push(sql),
  close: async () => undefined,
})
const archiving = (mode: 'push' | 'stream'): Inventory =>
  ({ ...inventoryOf(['pg1']), archive: { mode } }) as Inventory

test('the slot that keeps WAL for the archive is held by a session of its own: a checkpoint may end it', async () => {
  const said: string[] = []
  const keeper = await openKeeper(archiving('push'), { openAside: async () => sessionOf(said) })
  await keepWalForArchive(archiving('push'), keeper!)
  expect(said).toEqual([
    expect.stringContaining("pg_create_physical_replication_slot('replctl_promotion', true, true)"),
  ])
})

test('where no other session can be had the promotion goes on without', async () => {
  const refusing = { openAside: () => Promise.reject(new Error('too many connections')) }
  expect(await openKeeper(archiving('push'), refusing)).toBeNull()
})

test('without an archive, or with one that receives by itself, there is nothing to keep', async () => {
  const said: string[] = []
  const opening = { openAside: async () => sessionOf(said) }
  for (const inventory of [inventoryOf(['pg1']), archiving('stream')]) {
    expect(await openKeeper(inventory, opening)).toBeNull()
    await keepWalForArchive(inventory, sessionOf(said))
  }
  expect(said).toEqual([])
})
