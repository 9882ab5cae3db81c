import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { writeTextFile } from '../../../src/node/files.ts'
import { createNode, type Node } from '../../../src/node/node.ts'
import { inventoryOf } from '../some-cluster.ts'
import { createShellTransport } from './shell-transport.ts'

let home: string
let node: Node

beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'replctl-write-'))
  const [settings] = inventoryOf(['pg1']).nodes
  node = createNode(settings!, 'shop', createShellTransport(home))
})
afterEach(() => rmSync(home, { recursive: true, force: true }))

const at = (name: string) => join(home, name)
const modeOf = (name: string) => (statSync(at(name)).mode & 0o7777).toString(8)

describe('writeTextFile', () => {
  test('a new file is its owner’s alone, or has the mode that it is given', async () => {
    await writeTextFile(node, at('a b.conf'), 'x = 1\n')
    await writeTextFile(node, at('script'), 'echo\n', { mode: '0700' })
    await writeTextFile(node, at('open.conf'), 'y\n', { mode: '0644' })
    expect(readFileSync(at('a b.conf'), 'utf8')).toBe('x = 1\n')
    expect([modeOf('a b.conf'), modeOf('script'), modeOf('open.conf')]).toEqual(['600', '700', '644'])
    expect(readdirSync(home).toSorted()).toEqual(['a b.conf', 'open.conf', 'script'])
  })

  test('a file that is there keeps its mode, unless one is given', async () => {
    for (const [name, mode, given, expected] of [
      ['kept', 0o640, undefined, '640'],
      ['closed', 0o666, '0600', '600'],
      ['opened', 0o600, '0644', '644'],
    ] as const) {
      writeFileSync(at(name), 'old')
      chmodSync(at(name), mode)
      await writeTextFile(node, at(name), 'new', given === undefined ? {} : { mode: given })
      expect([name, readFileSync(at(name), 'utf8'), modeOf(name)]).toEqual([name, 'new', expected])
    }
    expect(readdirSync(home)).toHaveLength(3)
  })

  test('a reader that opened the old file reads the old text: it is replaced, not written into', async () => {
    writeFileSync(at('conf'), 'old')
    const before = statSync(at('conf')).ino
    await writeTextFile(node, at('conf'), 'new', { mode: '0600' })
    expect(statSync(at('conf')).ino).not.toBe(before)
  })

  test('links stay links, over several steps', async () => {
    writeFileSync(at('real'), 'old')
    symlinkSync('real', at('second'))
    symlinkSync(at('second'), at('first'))
    await writeTextFile(node, at('first'), 'new')
    expect(readFileSync(at('real'), 'utf8')).toBe('new')
    expect([lstatSync(at('first')).isSymbolicLink(), lstatSync(at('second')).isSymbolicLink()]).toEqual([
      true,
      true,
    ])
  })

  test('a directory is not written into', async () => {
    mkdirSync(at('conf'))
    for (const options of [{}, { mode: '0600' }])
      await expect(writeTextFile(node, at('conf'), 'new', options)).rejects.toMatchObject({
        code: 'remote-command-failed',
      })
    expect(readdirSync(at('conf'))).toEqual([])
  })

  test('what cannot be written leaves the old text and nothing beside it', async () => {
    await expect(writeTextFile(node, at('nowhere/conf'), 'new')).rejects.toMatchObject({
      code: 'remote-command-failed',
    })
    expect(readdirSync(home)).toEqual([])
  })
})

test.runIf(process.geteuid?.() === 0)('a file of another user stays hers', async () => {
  writeFileSync(at('conf'), 'old')
  const { chownSync } = await import('node:fs')
  chownSync(at('conf'), 12345, 12346)
  await writeTextFile(node, at('conf'), 'new', { mode: '0600' })
  const { uid, gid } = statSync(at('conf'))
  expect([uid, gid, modeOf('conf')]).toEqual([12345, 12346, '600'])
})
