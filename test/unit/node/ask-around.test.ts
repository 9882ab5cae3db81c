import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { NodeFacts } from '../../../src/cluster/facts.ts'
import { nodeName } from '../../../src/cluster/names.ts'
import { askAround, readAnswer } from '../../../src/node/ask-around.ts'
import { createNode } from '../../../src/node/node.ts'
import { emptyNode, foreign, inventoryOf, ours, recordOf, unreachableNode } from '../some-cluster.ts'
import { createShellTransport } from './shell-transport.ts'

const pg1 = nodeName('pg1')

describe('what a server says', () => {
  test.each([
    [`${ours}|3|0/5000148|~off`, { role: 'primary', timeline: 3, systemIdentifier: ours }],
    [`held~${ours}|12|0/5000148|~on~`, { role: 'standby', timeline: 12 }],
    ['psql: error: FATAL:  sorry, too many clients already', { role: 'unknown', said: /^sorry, too many/ }],
    ['held', { role: 'unknown', said: 'it takes connections and says nothing' }],
  ])('%s', (said, answer) => {
    expect(readAnswer(pg1, said)).toMatchObject({ from: 'pg1', ...answer })
  })

  test.each([
    '',
    'psql: error: connection to server at "10.0.0.11", port 5432 failed: Connection refused',
    'sh: 1: /usr/bin/psql: not found',
  ])('nobody: %s', (said) => {
    expect(readAnswer(pg1, said)).toBe(null)
  })
})

describe.runIf(process.platform === 'linux')('those who answer ask those who cannot be reached', () => {
  let folder: string
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'replctl-ask-'))
  })
  afterEach(() => rm(folder, { recursive: true }))

  const inventory = inventoryOf(['pg1', 'pg2', 'pg3'])
  /** As a node whose psql is such a program. */
  const asker = async (name: string, program: string): Promise<NodeFacts> => {
    const directory = join(folder, name)
    await mkdir(directory)
    await writeFile(join(directory, 'psql'), `#!${process.execPath}\n${program}\n`)
    await chmod(join(directory, 'psql'), 0o755)
    const binaries = { directory, major: 15, minor: 18, version: '15.18' }
    return emptyNode(name, { binaries, hasPassfile: true, record: recordOf('pg1', ['pg1', 'pg2', 'pg3']) })
  }
  const ask = async (...survey: NodeFacts[]) => {
    const transport = createShellTransport(folder)
    const nodes = new Map(inventory.nodes.map((one) => [one.name, createNode(one, 'shop', transport)]))
    return (await askAround(inventory, nodes, survey)).map(({ seenByOthers }) => seenByOthers)
  }
  const says = (...lines: string[]) => lines.map((line) => `console.log(${JSON.stringify(line)})`).join(';')

  test('whoever knows most is believed, and another cluster is nobody', async () => {
    const primary = await asker('pg1', says(`${ours}|4|0/5000148|`, 'off'))
    const denied = await asker('pg2', says('psql: error: FATAL:  no pg_hba.conf entry'))
    expect(await ask(primary, denied, unreachableNode('pg3'))).toEqual([
      undefined,
      undefined,
      { from: 'pg1', role: 'primary', timeline: 4, systemIdentifier: ours, said: '' },
    ])
    await rm(join(folder, 'pg1'), { recursive: true })
    const other = await asker('pg1', says(`${foreign}|4|0/5000148|`, 'off'))
    expect((await ask(other, denied, unreachableNode('pg3')))[2]).toBe(undefined)
  })

  test('a host that takes no connection has its short time; a server that is slow has longer', async () => {
    const hangs = await asker('pg1', 'setTimeout(() => {}, 60_000)')
    const begun = performance.now()
    expect((await ask(hangs, unreachableNode('pg2'), unreachableNode('pg3')))[2]).toBe(undefined)
    expect(performance.now() - begun).toBeLessThan(2_500)
    const sockets: Socket[] = []
    const server = createServer((socket) => void sockets.push(socket))
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    try {
      const { port } = server.address() as AddressInfo
      const connects = `require('node:net').connect(${port}, '127.0.0.1'); setTimeout(() => {}, 60_000)`
      await rm(join(folder, 'pg1'), { recursive: true })
      const held = await asker('pg1', connects)
      expect((await ask(held, unreachableNode('pg2'), unreachableNode('pg3')))[2]).toMatchObject({
        ...{ role: 'unknown', said: 'it takes connections and says nothing' },
      })
    } finally {
      for (const socket of sockets) socket.destroy()
      server.close()
    }
  })

  test('who has no passfile asks nobody', async () => {
    const primary = await asker('pg1', says(`${ours}|4|0/5000148|`, 'off'))
    expect(await ask({ ...primary, hasPassfile: false }, unreachableNode('pg3'))).toEqual([
      undefined,
      undefined,
    ])
  })
})
