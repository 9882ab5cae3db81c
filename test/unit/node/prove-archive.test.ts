import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { Inventory } from '../../../src/cluster/inventory.ts'
import type { Problem } from '../../../src/cluster/problem.ts'
import { createNode, type Node } from '../../../src/node/node.ts'
import { proveArchive } from '../../../src/node/prove-archive.ts'
import { inventoryOf, runningNode, setting } from '../some-cluster.ts'
import { createShellTransport } from './shell-transport.ts'

// The script itself, under this machine's sh; the server and archive-fetch are stand-ins.

let home: string
let state: string
let node: Node
const segment = '000000010000000000000005'

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'replctl-prove-'))
  state = join(home, '.replctl/shop')
  await mkdir(state, { recursive: true })
  await mkdir(join(home, 'data/pg_wal'), { recursive: true })
  await writeFile(join(home, 'data/pg_wal', segment), 'as it was')
  const [settings] = inventoryOf(['pg1']).nodes
  const postgres = { ...settings!.postgres, dataDir: join(home, 'data') }
  node = createNode({ ...settings!, postgres }, 'shop', createShellTransport(home))
})
afterEach(() => rm(home, { recursive: true, force: true }))

/** Writes beside its target under one name for all, as the real one does. */
const fetchScript = `#!/bin/sh
temporary=\${2%/*}/replctl-fetch.tmp
rm -f "$temporary"
for part in 'as it' ' was'; do printf %s "$part" >> "$temporary"; sleep 0.2; done
mv -f "$temporary" "$2"
`

async function prove(archive: object = { mode: 'stream' }, settings = {}) {
  const problems: Problem[] = []
  const proof = await proveArchive({
    ...{
      node,
      sql: { json: async () => ({ lsn: '0/6000000', timeline: '00000001', size: 2 ** 24 }) } as never,
    },
    ...{ inventory: { ...inventoryOf(['pg1']), archive } as Inventory },
    ...{
      facts: runningNode('pg1', { settings }),
      timeoutMs: 10_000,
      signal: new AbortController().signal,
      problems,
    },
  })
  return { proof, problems }
}

test('several who prove the archive at the same time do not disturb each other, and leave nothing', async () => {
  await writeFile(join(state, 'archive-fetch'), fetchScript, { mode: 0o755 })
  const all = await Promise.all([prove(), prove(), prove()])
  for (const { proof, problems } of all) {
    expect(problems).toEqual([])
    expect(proof).toMatchObject({ ok: true, segment })
  }
  expect(await readdir(state)).toEqual(['archive-fetch'])
})

test('a segment that comes back with other content is no proof', async () => {
  await writeFile(join(state, 'archive-fetch'), fetchScript.replace(' was', ' is'), { mode: 0o755 })
  const { proof, problems } = await prove()
  expect(proof?.ok).toBe(false)
  expect(problems.map(({ code }) => code)).toEqual(['archive-failing'])
})

test('where nothing is archived, or into another archive than the inventory’s, that is told instead of waited for', async () => {
  const { proof, problems } = await prove({ mode: 'push' }, { archive_mode: setting('off') })
  expect(proof).toEqual({ ok: false, segment: null, latency_ms: null })
  expect(problems).toMatchObject([{ code: 'archive-failing', message: 'pg1 does not archive its WAL' }])
})
