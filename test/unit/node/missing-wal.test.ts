import { mkdir, mkdtemp, readFile, rm, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { NodeFacts } from '../../../src/cluster/facts.ts'
import type { ArchiveSettings } from '../../../src/cluster/inventory.ts'
import { ReplctlError } from '../../../src/errors.ts'
import {
  findMissingSegment,
  firstForeignSegment,
  readSegmentAges,
  type SegmentAge,
} from '../../../src/node/missing-wal.ts'
import { createNode, type Node } from '../../../src/node/node.ts'
import { archiveConnectionName } from '../../../src/postgres/archive.ts'
import { parseTimelineHistory } from '../../../src/postgres/timeline-history.ts'
import { control, inventoryOf, lsn, ours, stoppedNode } from '../some-cluster.ts'
import { createShellTransport } from './shell-transport.ts'

const mib = 1024 * 1024
const place = (number: number) => number.toString(16).toUpperCase().padStart(16, '0')

let home: string
let node: Node

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'replctl-missing-'))
  const [settings] = inventoryOf(['pg1']).nodes
  node = createNode(
    { ...settings!, postgres: { ...settings!.postgres, dataDir: join(home, "pg's data") } },
    'shop',
    createShellTransport(home),
  )
  for (const folder of ["pg's data/pg_wal/archive_status", '.replctl/shop']) {
    await mkdir(join(home, folder), { recursive: true })
  }
})
afterEach(() => rm(home, { recursive: true, force: true }))

test('the age of each segment is read from its file, of the newest one where two timelines have it', async () => {
  const files = [
    ['000000010000000000000003', 100],
    ['000000020000000000000003', 200],
    ['000000020000000000000004', 300],
    ['00000002.history', 400],
    ['000000010000000000000003.partial', 500],
  ] as const
  for (const [name, time] of files) {
    const path = join(home, "pg's data/pg_wal", name)
    await writeFile(path, 'x')
    await utimes(path, time, time)
  }
  expect(await readSegmentAges(node)).toEqual([
    [place(3), 200],
    [place(4), 300],
  ])
})

describe('the first segment that a node certainly needs from elsewhere', () => {
  const own = (...ages: (readonly [number, number])[]): SegmentAge[] =>
    ages.map(([number, time]) => [place(number), time])
  test.each([
    ['the one after its last', own([3, 100], [4, 200]), 5n],
    ['not one that is kept for reuse under a name to come', own([3, 100], [4, 200], [5, 50], [6, 60]), 5n],
    ['not one behind a gap', own([3, 100], [5, 200]), 4n],
    ['the one where it stands, which it does not have', own([5, 200]), 3n],
  ])('%s', (_, segments, first) => {
    expect(firstForeignSegment(segments, lsn('0/3000148'), 16 * mib)).toBe(first)
  })
})

describe('the question to the archive', () => {
  const archive = {
    ...{ address: 'backup1', port: 22, user: 'postgres', dir: '/archive' },
  } as ArchiveSettings
  const fetch = archiveConnectionName({ ...archive, host: archive.address, systemIdentifier: ours })
  const facts = (changes: Partial<NodeFacts> = {}): NodeFacts =>
    stoppedNode('pg1', '0/3000148', {
      ...{ control: control({}), archiveScripts: { push: null, fetch } },
      ...changes,
    })
  const history = parseTimelineHistory('1\t0/2000148\tx\n', 2)
  const ask = (of: NodeFacts, needs = 4n, on = node) =>
    findMissingSegment({ node: on, facts: of, archive, needs, kept: 9n, history })
  const answer = (status: number) =>
    writeFile(
      join(home, '.replctl/shop/archive-fetch'),
      `#!/bin/sh\necho "$*" >> '${home}/asked'\nexit ${status}\n`,
      { mode: 0o755 },
    )
  const asked = () => readFile(join(home, 'asked'), 'utf8').catch(() => '')

  test('is about one segment, and only "no such file" says that it is gone', async () => {
    await answer(1)
    expect(await ask(facts())).toBe('000000020000000000000004')
    expect(await asked()).toBe('--has 000000020000000000000004\n')
    for (const status of [0, 3, 5, 127, 255]) {
      await answer(status)
      expect(await ask(facts())).toBeNull()
    }
  })

  test('is not put where the upstream has the WAL, or where another archive would answer', async () => {
    await answer(1)
    expect(await ask(facts(), 9n)).toBeNull()
    expect(await ask(facts({ archiveScripts: { push: null, fetch: 'ssh-1f9d08a2' } }))).toBeNull()
    expect(await ask(facts({ archiveScripts: { push: null, fetch: null } }))).toBeNull()
    expect(await asked()).toBe('')
  })

  test('is not waited for for ever: who does not answer may have it', async () => {
    const fails = (error: ReplctlError): Node => ({ ...node, run: async () => Promise.reject(error) })
    expect(await ask(facts(), 4n, fails(new ReplctlError('timeout', 'slow')))).toBeNull()
    const lost = fails(new ReplctlError('lock-lost', 'lost'))
    await expect(ask(facts(), 4n, lost)).rejects.toMatchObject({ code: 'lock-lost' })
  })
})
