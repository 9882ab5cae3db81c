import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createNode, type Node } from '../../../src/node/node.ts'
import { parseSlotFiles, readSlotFiles } from '../../../src/node/slot-files.ts'
import { inventoryOf } from '../some-cluster.ts'
import { createShellTransport } from './shell-transport.ts'

let home: string
let node: Node
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'replctl-slots-'))
  const settings = inventoryOf(['pg1']).nodes[0]!
  const postgres = { ...settings.postgres, dataDir: home }
  node = createNode({ ...settings, postgres }, 'shop', createShellTransport(home))
})
afterEach(() => rm(home, { recursive: true, force: true }))

/** As PostgreSQL writes it: a header of 16 bytes, the name, database, persistency, two transactions, restart_lsn. */
async function writeSlot(
  name: string,
  {
    database = 0,
    persistency = 0,
    restart = 0n,
  }: { database?: number; persistency?: number; restart?: bigint },
) {
  const file = Buffer.alloc(200)
  file.write(name, 16)
  file.writeUInt32LE(database, 80)
  file.writeUInt32LE(persistency, 84)
  file.writeUInt32LE(742, 88)
  file.writeBigUInt64LE(restart, 96)
  await mkdir(join(home, 'pg_replslot', name), { recursive: true })
  await writeFile(join(home, 'pg_replslot', name, 'state'), file)
}

test('a slot’s file says what it is, and whether it keeps WAL', async () => {
  expect(await readSlotFiles(node)).toEqual([])
  await writeSlot('barman', { restart: 0x3000060n })
  await writeSlot('decoder', { database: 5, restart: 0x3000060n })
  await writeSlot('far', { restart: 0x700000000n })
  await writeSlot('idle', {})
  await writeSlot('passing', { persistency: 2 })
  const physical = { type: 'physical', isTemporary: false, isReserved: true }
  expect(await readSlotFiles(node)).toEqual([
    { ...physical, name: 'barman' },
    { ...physical, name: 'decoder', type: 'logical' },
    { ...physical, name: 'far' },
    { ...physical, name: 'idle', isReserved: false },
    { ...physical, name: 'passing', isTemporary: true, isReserved: false },
  ])
})

test('one that cannot be read is not taken for one that can be made again', () => {
  expect(parseSlotFiles('barman \n')).toMatchObject([{ name: 'barman', type: 'logical' }])
})
