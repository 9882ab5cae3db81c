import { existsSync, lstatSync, readdirSync, readlinkSync } from 'node:fs'
import { mkdir, mkdtemp, realpath, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { createNode, type Node, stateScript } from '../../../src/node/node.ts'
import {
  claimWalFolder,
  forgetFoundWalScript,
  noteWalLinkScript,
  restoreWalLinkScript,
  walFolderOf,
  walLinkScript,
} from '../../../src/steps/wal-link.ts'
import { createShellTransport } from '../node/shell-transport.ts'
import { inventoryOf } from '../some-cluster.ts'

let home: string
let node: Node
let data: string
let wal: string

beforeEach(async () => {
  home = await realpath(await mkdtemp(join(tmpdir(), 'replctl-wal-')))
  node = createNode(inventoryOf(['pg1']).nodes[0]!, 'shop', createShellTransport(home))
  data = join(home, "pg's data")
  wal = join(home, 'other disk')
  await mkdir(data)
  await mkdir(wal)
})
afterEach(() => rm(home, { recursive: true, force: true }))

const run = (script: string, ...args: string[]) => node.output(stateScript(node, 'try', script, args))
const note = () => run(`${walLinkScript}${noteWalLinkScript}`, data)
const claim = (ofSource: string | null) => claimWalFolder({ node }, data, ofSource)
/** As pg_basebackup does, at its beginning. */
const link = () => symlink(wal, join(data, 'pg_wal'))

describe('a link pg_wal that was made before there is data', () => {
  beforeEach(() => link())

  test('says where WAL goes, and what a failed try put there is removed', async () => {
    await note()
    expect(await claim(null)).toBe(wal)
    await writeFile(join(wal, '000000010000000000000001'), 'x')
    expect(await claim('/somewhere/else')).toBe(wal)
    expect(readdirSync(wal)).toEqual([])
    // Nothing of ours links to it any more: it may be another node's by now.
    await rm(join(data, 'pg_wal'))
    await writeFile(join(wal, 'precious'), 'x')
    await expect(claim(null)).rejects.toThrow(/find the place of pg_wal/)
    expect(readdirSync(wal)).toEqual(['precious'])
  })

  test('returns when all is taken back, and its folder is empty again', async () => {
    await note()
    await writeFile(join(wal, '000000010000000000000001'), 'x')
    await run(`${walLinkScript}empty_wal_folder "$2"; rm "$2/pg_wal"${restoreWalLinkScript}:`, data)
    expect([readlinkSync(join(data, 'pg_wal')), readdirSync(wal)]).toEqual([wal, []])
  })

  test('counts for nothing where its folder is not empty: what stands there is somebody else’s', async () => {
    await writeFile(join(wal, 'precious'), 'x')
    await note()
    expect(await claim(null)).toBeUndefined()
    expect(readdirSync(wal)).toEqual(['precious'])
  })
})

describe('without a link', () => {
  test('the folder in the place of the source’s may be a link itself: what is in it is found again', async () => {
    const place = join(home, 'link')
    await symlink(wal, place)
    await note()
    expect(await claim(place)).toBe(wal)
    await link()
    await writeFile(join(wal, '000000010000000000000001'), 'x')
    expect(await claim(place)).toBe(wal)
    expect(readdirSync(wal)).toEqual([])
  })

  test('WAL goes where the source has it, if an empty folder stands there', async () => {
    await note()
    expect(await claim(wal)).toBe(wal)
    await link()
    await writeFile(join(wal, '000000010000000000000001'), 'x')
    await run(forgetFoundWalScript, data)
    expect(readdirSync(wal)).toEqual([])
    await rm(join(data, 'pg_wal'))
    await run(`${walLinkScript}${restoreWalLinkScript}:`, data)
    expect(existsSync(join(data, 'pg_wal'))).toBe(false)
  })

  test('a folder that is not empty, or not there, is left alone', async () => {
    await note()
    await writeFile(join(wal, 'precious'), 'x')
    expect(await claim(wal)).toBeUndefined()
    expect(await claim(join(home, 'nowhere'))).toBeUndefined()
    expect(await claim(null)).toBeUndefined()
    await run(forgetFoundWalScript, data)
    expect(readdirSync(wal)).toEqual(['precious'])
  })

  test('the place of an instance’s pg_wal is told only where it is a link', async () => {
    await mkdir(join(data, 'pg_wal'))
    expect(await walFolderOf(node, data)).toBeNull()
    await rm(join(data, 'pg_wal'), { recursive: true })
    await symlink(wal, join(data, 'pg_wal'))
    expect(await walFolderOf(node, data)).toBe(wal)
    expect(lstatSync(join(data, 'pg_wal')).isSymbolicLink()).toBe(true)
  })
})
