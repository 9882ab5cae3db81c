import { existsSync, lstatSync, readdirSync, readlinkSync } from 'node:fs'
import { mkdir, mkdtemp, realpath, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { createNode, type Node, stateScript } from '../../../src/node/node.ts'
import { purgeScript } from '../../../src/steps/purge-script.ts'
import { createShellTransport } from '../node/shell-transport.ts'
import { inventoryOf } from '../some-cluster.ts'

let home: string
let node: Node
let data: string
let wal: string
let space: string

beforeEach(async () => {
  home = await realpath(await mkdtemp(join(tmpdir(), 'replctl-purge-')))
  node = createNode(inventoryOf(['pg1']).nodes[0]!, 'shop', createShellTransport(home))
  ;[data, wal, space] = [join(home, "pg's data"), join(home, 'wal disk'), join(home, 'far space')]
  for (const folder of [`${data}/pg_tblspc`, `${data}/base`, wal, space, join(home, '.replctl/shop')]) {
    await mkdir(folder, { recursive: true })
  }
  await state('node.json', '{}')
})
afterEach(() => rm(home, { recursive: true, force: true }))

const state = (name: string, text: string) => writeFile(join(home, '.replctl/shop', name), text)
const stateFiles = () => readdirSync(join(home, '.replctl/shop')).filter((name) => name !== 'work')
const purge = async (begun: 'begun' | 'built' = 'built', ...used: string[]) =>
  (await node.output(stateScript(node, 'purge', purgeScript, [data, '15', begun, ...used]))).trim()

/** What PostgreSQL keeps in pg_wal. */
async function fillWal(): Promise<void> {
  await mkdir(join(wal, 'archive_status'))
  await mkdir(join(wal, 'summaries'))
  const names = ['000000010000000000000001', '000000010000000000000002.00000028.backup', '00000002.history']
  for (const name of [...names, 'xlogtemp.4711', 'archive_status/000000010000000000000001.ready']) {
    await writeFile(join(wal, name), 'x')
  }
}

describe('a standby with its WAL on another disk', () => {
  beforeEach(async () => {
    await fillWal()
    await symlink(wal, join(data, 'pg_wal'))
  })

  test('leaves an empty folder, and the link that was there before it', async () => {
    await state('wal_link', `${wal}\nprepared\n`)
    expect(await purge()).toBe('')
    expect([readdirSync(data), readdirSync(wal), stateFiles()]).toEqual([['pg_wal'], [], []])
    expect(lstatSync(join(data, 'pg_wal')).isSymbolicLink()).toBe(true)
  })

  test('leaves no link that replctl made itself', async () => {
    await state('wal_link', `${wal}\nfound\n`)
    expect(await purge()).toBe('')
    expect([existsSync(data), readdirSync(wal)]).toEqual([false, []])
  })

  test('keeps what is not WAL, and says so', async () => {
    await state('wal_link', `${wal}\nprepared\n`)
    await mkdir(join(wal, 'other_cluster'))
    await writeFile(join(wal, '000000010000000000000001.mine, not a segment'), 'x')
    await writeFile(join(wal, 'notes'), 'precious')
    expect(await purge()).toBe(`files\t${wal}`)
    expect(existsSync(data)).toBe(false)
    expect(readdirSync(wal)).toEqual(expect.arrayContaining(['notes', 'other_cluster']))
  })

  test.each([
    ['nothing is noted', undefined],
    ['another folder is noted', '/somewhere/else\nprepared\n'],
  ])('does not touch a folder that was not given to it: %s', async (_, note) => {
    if (note !== undefined) await state('wal_link', note)
    expect(await purge()).toBe(`link\t${wal}`)
    expect([existsSync(data), readdirSync(wal).length]).toEqual([false, 6])
  })
})

describe('tablespaces', () => {
  const fillSpace = async () => {
    for (const name of ['PG_15_202209061', 'PG_16_202307071', 'notes']) {
      await mkdir(join(space, name, '16384'), { recursive: true })
    }
  }
  beforeEach(fillSpace)

  test('of a standby go where its links lead, but not what another major version has there', async () => {
    await symlink(space, join(data, 'pg_tblspc/16400'))
    await purge()
    expect(readdirSync(space)).toEqual(['PG_16_202307071', 'notes'])
  })

  test('of a clone that was killed go from the folders that it had claimed', async () => {
    await state('tablespaces', `${space}\n`)
    await purge('begun')
    expect(readdirSync(space)).toEqual(['PG_16_202307071', 'notes'])
    expect([existsSync(data), stateFiles()]).toEqual([false, []])
  })

  test('what a standby claimed long ago may be another’s by now', async () => {
    await state('tablespaces', `${space}\n`)
    await purge('built')
    expect(readdirSync(space)).toContain('PG_15_202209061')
  })

  test('that a node on the same machine has are not its to delete, even if a link leads there', async () => {
    await symlink(space, join(data, 'pg_tblspc/16400'))
    await purge('built', space)
    expect(readdirSync(space)).toContain('PG_15_202209061')
  })
})

test('a data directory that is a link: what it leads to is emptied, and both stay', async () => {
  const real = join(home, 'ssd')
  await rename(data, real)
  await symlink(real, data)
  await writeFile(join(real, 'PG_VERSION'), '15\n')
  await purge()
  expect([readlinkSync(data), readdirSync(real), stateFiles()]).toEqual([real, [], []])
})

test('a purge that was killed is gone on with, and comes to the same end', async () => {
  await symlink(wal, join(data, 'pg_wal'))
  await rm(join(data, 'pg_tblspc'), { recursive: true })
  await fillWal()
  for (const _ of ['killed before its notes were removed', 'again']) {
    await state('node.json', '{}')
    await state('wal_link', `${wal}\nprepared\n`)
    await purge('begun')
  }
  expect([readdirSync(data), readdirSync(wal)]).toEqual([['pg_wal'], []])
})
