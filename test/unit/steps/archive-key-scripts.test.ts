import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { shellScript } from '../../../src/command.ts'
import { createNode, type Node, stateScript } from '../../../src/node/node.ts'
import { authorizedKeysLine, ensureAuthorizedKeysLine } from '../../../src/postgres/archive.ts'
import {
  countKeysScript,
  forgetKeyScript,
  prepareArchiveScript,
} from '../../../src/steps/archive-key-scripts.ts'
import { createShellTransport } from '../node/shell-transport.ts'
import { inventoryOf } from '../some-cluster.ts'

// The scripts themselves, under this machine's sh.

let home: string
let host: Node
let keysPath: string
const [production, staging] = ['7300000000000000001', '7300000000000000002']

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'replctl-keys-'))
  keysPath = join(home, '.ssh/authorized_keys')
  host = createNode(inventoryOf(['pg1']).nodes[0]!, 'shop', createShellTransport(home))
})
afterEach(() => rm(home, { recursive: true, force: true }))

const lineOf = (systemIdentifier: string, key: string, node = 'pg1') =>
  authorizedKeysLine({
    ...{ cluster: 'shop', node, systemIdentifier, dir: "/a rch'ive" },
    ...{ receiverPath: '/home/pg/.replctl/shop/archive-receive', publicKey: `ssh-ed25519 ${key} x` },
  })
const letIn = (line: string, systemIdentifier: string, node = 'pg1') =>
  host.output(
    stateScript(host, 'prepare', prepareArchiveScript, [
      ...[join(home, 'archive'), line, `replctl:shop:${node}`, systemIdentifier],
    ]),
  )
const keys = async () => (await readFile(keysPath, 'utf8')).trim().split('\n')
const script = (text: string, systemIdentifier: string) =>
  host.output(shellScript('keys', text, ['replctl:shop:pg1', systemIdentifier]))

test('a node’s line is replaced when its key, or its cluster, was made anew; foreign lines stay', async () => {
  await mkdir(join(home, '.ssh'))
  const foreign = 'ssh-ed25519 FFFF replctl:shop:pg1'
  await writeFile(keysPath, `${foreign}\n`)
  for (const [key, identifier] of [
    ['AAAA', production],
    ['BBBB', production],
    ['BBBB', staging],
  ] as const) {
    const line = lineOf(identifier, key)
    const wished = ensureAuthorizedKeysLine(await readFile(keysPath, 'utf8'), line)
    await letIn(line, identifier)
    expect(await keys()).toEqual([foreign, line])
    // Who asks whether it is in sees it as it was put there.
    expect(await readFile(keysPath, 'utf8')).toBe(wished)
  }
})

test('two clusters of one name leave each other’s nodes in, whichever comes first', async () => {
  const lines = [lineOf(production, 'AAAA'), lineOf(staging, 'BBBB')]
  for (const [line, identifier] of [
    [lines[0]!, production],
    [lines[1]!, staging],
    [lines[0]!, production],
  ] as const) {
    await letIn(line, identifier)
  }
  await letIn(lineOf(production, 'CCCC', 'pg10'), production, 'pg10')
  expect((await keys()).toSorted()).toEqual([...lines, lineOf(production, 'CCCC', 'pg10')].toSorted())
  expect((await script(countKeysScript, staging)).trim()).toBe('1')
  await script(forgetKeyScript, staging)
  expect(await keys()).not.toContain(lines[1])
  expect(await keys()).toContain(lines[0])
  expect((await script(countKeysScript, staging)).trim()).toBe('0')
})
