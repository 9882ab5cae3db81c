import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { createNode, type Node } from '../../../src/node/node.ts'
import { pruneArchive } from '../../../src/node/prune-archive.ts'
import { inventoryOf } from '../some-cluster.ts'
import { createShellTransport } from './shell-transport.ts'

const systemIdentifier = '7300000000000000001'
const foreign = ['notes.txt', '000000010000000000000001.gz.tmp', 'README', '0000000100000000000000', 'a b']
const old = [
  '000000010000000000000001',
  '000000010000000000000002.zst',
  '000000010000000000000002.00000028.backup',
  '00000001000000000000000F.lz4',
  '000000020000000000000010.partial.gz',
]
const needed = [
  '000000010000000000000011.zst',
  '000000020000000000000011',
  '000000020000000100000000.gz',
  '000000020000000000000011.00000028.backup',
  '00000002.history',
]

// Dozens of processes each.
vi.setConfig({ testTimeout: 60_000 })

let dir: string
let wal: string
let archive: Node

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'replctl-prune-'))
  wal = join(dir, systemIdentifier, 'wal')
  await mkdir(join(wal, '.incoming'), { recursive: true })
  for (const name of [...foreign, ...old, ...needed]) await writeFile(join(wal, name), 'wal')
  archive = createNode(inventoryOf(['pg1']).nodes[0]!, 'shop', createShellTransport(dir))
})
afterEach(() => rm(dir, { recursive: true, force: true }))

const left = async () => (await readdir(wal)).filter((name) => name !== '.incoming').sort()

test('what lies before the first needed segment goes, on every timeline; nothing else does', async () => {
  const wish = { dir, systemIdentifier, before: '000000020000000000000011' }
  const answer = {
    files: old.length,
    bytes: 3 * old.length,
    first: old[0],
    last: '000000020000000000000010.partial.gz',
  }
  expect(await pruneArchive(archive, { ...wish, isDryRun: true })).toEqual(answer)
  expect(await left()).toHaveLength(foreign.length + old.length + needed.length)
  expect(await pruneArchive(archive, wish)).toEqual(answer)
  expect(await left()).toEqual([...foreign, ...needed].sort())
  expect(await pruneArchive(archive, wish)).toEqual({ files: 0, bytes: 0, first: null, last: null })
})

test('an archive that is not there is an error, not an empty one', async () => {
  const wish = { dir, systemIdentifier: '1', before: '000000010000000000000011' }
  await expect(pruneArchive(archive, wish)).rejects.toMatchObject({ code: 'archive-failing' })
})
