import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { readPlaces } from '../../../src/node/measure-room.ts'
import { createNode, type Node } from '../../../src/node/node.ts'
import { inventoryOf } from '../some-cluster.ts'
import { createShellTransport } from './shell-transport.ts'

let home: string
let node: Node
let data: string

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'replctl-room-'))
  data = join(home, "pg's data")
  const [settings] = inventoryOf(['pg1']).nodes
  const postgres = { ...settings!.postgres, dataDir: data }
  node = createNode({ ...settings!, postgres }, 'shop', createShellTransport(home))
})
afterEach(() => rm(home, { recursive: true, force: true }))

const megabyte = (path: string) => writeFile(path, Buffer.alloc(2 ** 20, 1))

test('what a clone left is measured in its directory, and in the tablespace folders that it claimed', async () => {
  const [claimed, foreign] = [join(home, 'ts a'), join(home, 'ts b')]
  for (const space of [claimed, foreign]) {
    await mkdir(join(space, 'PG_15_202209061'), { recursive: true })
    await megabyte(join(space, 'PG_15_202209061', '16384'))
    await megabyte(join(space, "somebody's"))
  }
  await mkdir(data)
  await megabyte(join(data, 'backup_label'))
  await mkdir(join(home, '.replctl/shop'), { recursive: true })
  await writeFile(join(home, '.replctl/shop/tablespaces'), `${claimed}\n`)
  const tablespaces = [claimed, foreign].map((location) => ({ location, bytes: 1 }))
  const begun = async (counts: boolean) =>
    (await readPlaces(node, { dataBytes: 1, tablespaces }, counts)).map((place) =>
      Math.round(place.begunBytes / 2 ** 20),
    )
  expect(await begun(true)).toEqual([1, 1, 0])
  expect(await begun(false)).toEqual([0, 0, 0])
})

test('a folder that is to be made has the room of the one above it', async () => {
  const size = { dataBytes: 1, tablespaces: [{ location: '/proc/nowhere/at all', bytes: 1 }] }
  const places = await readPlaces(node, size, true)
  expect(places.map((place) => place.path)).toEqual([data, '/proc/nowhere/at all'])
  expect(places[0]).toMatchObject({ begunBytes: 0, freeBytes: expect.any(Number) })
  expect(places[0]!.fileSystem).not.toBe(places[1]!.fileSystem)
})
