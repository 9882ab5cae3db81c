import { readdirSync, readlinkSync, realpathSync, statSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { shellScript } from '../../../src/command.ts'
import type { StepContext } from '../../../src/engine/step.ts'
import { factsScript } from '../../../src/node/facts-script.ts'
import { readPlaces } from '../../../src/node/measure-room.ts'
import { createNode, type Node, stateScript } from '../../../src/node/node.ts'
import { emptyDirectoryScript, ensureDataDirectory } from '../../../src/steps/ensure-data-directory.ts'
import { canBeMoved, deleteDataDirectoryAside, isAside } from '../../../src/steps/replace-data-directory.ts'
import { emptyRestoreScript } from '../../../src/steps/restore-scripts.ts'
import { createShellTransport } from '../node/shell-transport.ts'
import { inventoryOf } from '../some-cluster.ts'

// On files of this machine: a data directory that is a link to a folder elsewhere.

let home: string
let real: string
let link: string
let node: Node

beforeEach(async () => {
  home = realpathSync(await mkdtemp(join(tmpdir(), 'replctl-linked-')))
  real = join(home, 'ssd/shop')
  link = join(home, "pg's data")
  for (const folder of [real, join(home, '.replctl/shop')]) await mkdir(folder, { recursive: true })
  await symlink(real, link)
  const settings = inventoryOf(['pg1']).nodes[0]!
  node = createNode(
    { ...settings, postgres: { ...settings.postgres, dataDir: link } },
    'shop',
    createShellTransport(home),
  )
})
afterEach(() => rm(home, { recursive: true, force: true }))

const context = (): StepContext => ({
  ...{ node, on: () => node, timeoutMs: 5_000 },
  ...{ signal: new AbortController().signal, isDryRun: false, isChecking: true, seenAt: new Map() },
  ...{ progress: () => undefined, warn: () => undefined },
})

test.each([
  ['a clone or initdb', emptyDirectoryScript],
  ['a restore', emptyRestoreScript],
])('what %s left in it is removed, and the link stays', async (_, script) => {
  await mkdir(join(real, 'base/1'), { recursive: true })
  await writeFile(join(real, 'PG_VERSION'), '15\n')
  await node.output(stateScript(node, 'empty', script, [link]))
  expect([readlinkSync(link), readdirSync(real)]).toEqual([real, []])
})

test('so is what a restore left in a tablespace folder, and behind a pg_wal, that is a link', async () => {
  const [space, wal] = [join(home, 'space'), join(home, 'wal')]
  for (const folder of ['far space', 'far wal']) {
    await mkdir(join(home, folder))
    await writeFile(join(home, folder, 'restored'), 'x')
  }
  await symlink(join(home, 'far space'), space)
  await symlink(join(home, 'far wal'), wal)
  await symlink(wal, join(real, 'pg_wal'))
  await writeFile(join(home, '.replctl/shop/tablespaces'), `${space}\n`)
  await node.output(stateScript(node, 'empty', emptyRestoreScript, [link]))
  expect(['far space', 'far wal'].map((folder) => readdirSync(join(home, folder)))).toEqual([[], []])
  expect(readlinkSync(join(real, 'pg_wal'))).toBe(wal)
})

test('the mark is of the folder, not of the link: another one behind the same link is not ours', async () => {
  const inode = async () => {
    const script = shellScript('look', factsScript, ['.replctl/shop', link, '', 'quick'])
    return /@@inode\n(\d+)\n/.exec((await node.run(script)).stdout)?.[1]
  }
  expect(await inode()).toBe(String(statSync(real).ino))
  await rename(real, `${real}.old`)
  await mkdir(real)
  expect(await inode()).toBe(String(statSync(real).ino))
})

test('a clone that was begun in it is counted where room for the next try is looked for', async () => {
  await writeFile(join(real, 'big'), Buffer.alloc(3_000_000, 'x'))
  const [place] = await readPlaces(node, { dataBytes: 1e18, tablespaces: [] }, true)
  expect(place?.begunBytes).toBeGreaterThanOrEqual(3_000_000)
})

test('a folder that is gone is made anew only beside the old one that was moved aside: the disk may not be mounted', async () => {
  await rm(real, { recursive: true })
  const make = ensureDataDirectory(node.name, 'cloning')
  await expect(make.apply!(context())).rejects.toMatchObject({ code: 'foreign-data-directory' })
  expect(readdirSync(join(home, 'ssd'))).toEqual([])
  await mkdir(`${real}.replctl-old`)
  await make.apply!(context())
  expect(readdirSync(join(home, 'ssd')).toSorted()).toEqual(['shop', 'shop.replctl-old'])
  const mark = JSON.parse(await readFile(join(home, '.replctl/shop/node.json'), 'utf8'))
  expect(mark).toMatchObject({ phase: 'cloning', inode: String(statSync(real).ino) })
})

test('what was moved aside is looked for, and named, beside the folder', async () => {
  const step = deleteDataDirectoryAside(node.name)
  expect(await step.check(context())).toMatchObject({ is: 'satisfied' })
  await mkdir(`${real}.replctl-old`)
  expect([await isAside({ node }), await step.check(context())]).toEqual([
    true,
    { is: 'pending', because: `${real}.replctl-old is there` },
  ])
  await step.apply!(context())
  expect([readlinkSync(link), readdirSync(join(home, 'ssd'))]).toEqual([real, ['shop']])
})

test('whether it can be renamed is a question of the folder', async () => {
  expect(await canBeMoved({ node })).toBe(true)
  await rm(link)
  await symlink('/proc', link)
  expect(await canBeMoved({ node })).toBe(false)
})
