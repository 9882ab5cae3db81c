import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { NodeFacts } from '../../../src/cluster/facts.ts'
import type { NodeSettings } from '../../../src/cluster/inventory.ts'
import type { CopySize } from '../../../src/cluster/room.ts'
import type { Step, StepContext } from '../../../src/engine/step.ts'
import { createNode, type Node } from '../../../src/node/node.ts'
import type { SqlSession } from '../../../src/node/sql-session.ts'
import { requireReplaceableDataDirectory } from '../../../src/steps/replace-data-directory.ts'
import {
  requireClonableDataDirectory,
  requireDataDirectoryForPrimary,
} from '../../../src/steps/require-data-directory.ts'
import {
  requireDiskSpace,
  requireLocales,
  requireTablespaceFolders,
} from '../../../src/steps/require-environment.ts'
import { createShellTransport } from '../node/shell-transport.ts'
import { control, emptyNode, inventoryOf, postmaster, runningNode, stoppedNode } from '../some-cluster.ts'

let home: string
let data: string
let space: string

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'replctl-environment-'))
  data = join(home, 'data')
  space = join(home, 'space')
  await mkdir(data)
  await mkdir(space)
})
afterEach(() => rm(home, { recursive: true, force: true }))

interface Wish {
  readonly facts?: Partial<NodeFacts>
  readonly size?: CopySize
  /** Locales of the source's databases. */
  readonly locales?: readonly string[]
  /** What scripts say, where that is not to be what they find on this machine. */
  readonly says?: (script: string) => string
  readonly settings?: Record<string, Partial<NodeSettings>>
}

/** pg1 leads, with a tablespace; pg2 is to be cloned from it, below `home`. */
function check(step: (node: NodeSettings['name'], source: NodeSettings['name']) => Step, wish: Wish) {
  const inventory = inventoryOf(['pg1', 'pg2'], wish.settings)
  const [source, own] = inventory.nodes.map((settings) => ({
    ...settings,
    postgres: { ...settings.postgres, dataDir: data },
  }))
  const nodes = [source!, own!].map((settings) => createNode(settings, 'shop', createShellTransport(home)))
  const see = (node: Node, facts: NodeFacts) => {
    node.lastSurvey = { at: performance.now(), activity: 0, facts: Promise.resolve(facts) }
  }
  const tablespaces = [{ name: 'far', location: space }]
  see(nodes[0]!, runningNode('pg1', { tablespaces }, { postmaster: postmaster() }))
  see(nodes[1]!, emptyNode('pg2', { dataDirectoryState: 'empty', dataDirectoryInode: '7', ...wish.facts }))
  nodes[0]!.sql = async () => ({ json: async () => wish.locales ?? wish.size }) as unknown as SqlSession
  const { says } = wish
  if (says !== undefined) {
    nodes[1]!.read = async ({ script }) => ({ status: 0, signal: null, stdout: says(script), stderr: '' })
  }
  const ctx: StepContext = {
    ...{ node: nodes[1]!, on: (name) => nodes.find((node) => node.name === name)!, timeoutMs: 5_000 },
    ...{ signal: new AbortController().signal, isDryRun: false, isChecking: true, seenAt: new Map() },
    ...{ progress: () => undefined, warn: () => undefined },
  }
  return step(own!.name, source!.name).check(ctx)
}

/** The mark of a clone that replctl began in the directory of this inode. */
const begun = (): Partial<NodeFacts> => ({
  dataDirectoryState: 'not-an-instance',
  mark: {
    ...{ cluster: 'shop', node: 'pg2', dataDirectory: data, systemIdentifier: '', inode: '7' },
    phase: 'cloning',
  },
})

describe('room for a copy', () => {
  const huge = 2 ** 60

  test('is looked for in the data directory and in each tablespace folder', async () => {
    const small = { dataBytes: 1, tablespaces: [{ location: space, bytes: 1 }] }
    expect(await check(requireDiskSpace, { size: small })).toMatchObject({
      is: 'satisfied',
      because: expect.stringContaining(`${data}, ${space}`),
    })
    const large = { dataBytes: 1, tablespaces: [{ location: space, bytes: huge }] }
    expect(await check(requireDiskSpace, { size: large })).toMatchObject({
      is: 'refused',
      error: { code: 'disk-full', detail: expect.stringContaining(space) },
    })
  })

  test('also below a folder that is not there yet', async () => {
    await rm(space, { recursive: true })
    const size = { dataBytes: 1, tablespaces: [{ location: space, bytes: 1 }] }
    expect(await check(requireDiskSpace, { size })).toMatchObject({ is: 'satisfied' })
  })

  test('what a killed clone left is room for the next', async () => {
    const size = { dataBytes: 100 * 2 ** 20, tablespaces: [] }
    // 90 MiB are free; with 80 MiB that are to be removed first it is enough.
    const says = (script: string) =>
      `${script.includes('du -sk') ? 80 * 1024 : 0} /dev/sda1 999999 9999 ${90 * 1024} 91% /\n`
    expect(await check(requireDiskSpace, { size, says, facts: begun() })).toMatchObject({ is: 'satisfied' })
    const facts = { ...begun(), dataDirectoryInode: 'of another' }
    expect(await check(requireDiskSpace, { size, says, facts })).toMatchObject({
      is: 'refused',
      error: { detail: `169 MiB are needed and 90 MiB are free where ${data} is.` },
    })
  })
})

describe('room for a clone in the place of an old standby', () => {
  const size = { dataBytes: 100 * 2 ** 20, tablespaces: [] }
  /** 90 MiB are free, and 80 MiB are in the data directory; what is asked besides finds `moved` and `aside`. */
  const room =
    ({ moved = 'yes\n', aside = '' } = {}) =>
    (script: string) =>
      script.includes('can_move "$1"')
        ? moved
        : script.includes('for suffix')
          ? aside
          : `${script.includes('du -sk') ? 80 * 1024 : 0} /dev/sda1 999999 9999 ${90 * 1024} 91% /\n`
  const whole = (phase: 'cloning' | 'cloned' | 'done'): Partial<NodeFacts> => {
    const { mark } = begun()
    return { dataDirectoryState: 'instance', mark: { ...mark!, phase } }
  }
  const reclone = (name: NodeSettings['name'], source: NodeSettings['name']) =>
    requireDiskSpace(name, source, { isReclone: true })
  const resumed = (name: NodeSettings['name'], source: NodeSettings['name']) =>
    requireDiskSpace(name, source, { isReclone: true, isResumed: true })

  test('is there beside the old data, which stays until the new streams', async () => {
    const old = await check(reclone, { size, says: room(), facts: whole('done') })
    expect(old).toMatchObject({
      is: 'refused',
      error: {
        code: 'disk-full',
        detail: `169 MiB are needed and 90 MiB are free where ${data} is. The old data directory goes only after the new one streams.`,
        hint: expect.stringContaining('replctl remove-standby pg2 --purge, then replctl add-standby pg2'),
      },
    })
    const small = { ...size, dataBytes: 2 ** 20 }
    expect(await check(reclone, { size: small, says: room(), facts: whole('done') })).toMatchObject({
      is: 'satisfied',
      because: expect.stringContaining('65 MiB are needed'),
    })
  })

  test('or is made by emptying what cannot be moved', async () => {
    const says = room({ moved: '' })
    expect(await check(reclone, { size, says, facts: whole('done') })).toMatchObject({ is: 'satisfied' })
  })

  test.each<[string, typeof reclone, 'cloning' | 'cloned', string]>([
    ['a clone that was killed is what is replaced', reclone, 'cloning', 'satisfied'],
    ['also without a reclone', requireDiskSpace, 'cloning', 'satisfied'],
    ['a whole copy that never came to stream is replaced as well', reclone, 'cloned', 'refused'],
    ['but not by the operation that made it', resumed, 'cloned', 'satisfied'],
  ])('%s', async (_, step, phase, expected) => {
    expect(await check(step, { size, says: room(), facts: whole(phase) })).toMatchObject({ is: expected })
  })

  test('a clone that was killed once PG_VERSION had come is no copy that is there already', async () => {
    const larger = { ...size, dataBytes: 200 * 2 ** 20 }
    const facts = whole('cloning')
    expect(await check(requireDiskSpace, { size: larger, says: room(), facts })).toMatchObject({
      is: 'refused',
    })
  })
})

describe('lost+found, at the top of a file system, keeps initdb and pg_basebackup from filling it', () => {
  test.each<[string, (name: NodeSettings['name'], source: NodeSettings['name']) => Step]>([
    ['init primary', (name) => requireDataDirectoryForPrimary(name)],
    ['add-standby', requireClonableDataDirectory],
    ['add-standby --reclone', requireReplaceableDataDirectory],
  ])('as the data directory of %s', async (_command, step) => {
    expect(await check(step, {})).toMatchObject({ is: 'satisfied' })
    await mkdir(join(data, 'lost+found'))
    expect(await check(step, {})).toMatchObject({
      is: 'refused',
      error: {
        code: 'foreign-data-directory',
        message: `${data} on pg2 holds lost+found`,
        hint: expect.stringContaining(`${data}/data`),
      },
    })
  })

  test('as the folder that an empty data directory links to for WAL', async () => {
    const wal = join(home, 'wal')
    await mkdir(join(wal, 'lost+found'), { recursive: true })
    await symlink(wal, join(data, 'pg_wal'))
    expect(await check(requireClonableDataDirectory, {})).toMatchObject({
      is: 'refused',
      error: { message: `${wal} on pg2 holds lost+found`, hint: expect.stringContaining(`${wal}/pg_wal`) },
    })
  })

  test('a standby there is not emptied for a reclone that could not follow', async () => {
    await mkdir(join(data, 'lost+found'))
    const facts = stoppedNode('pg2', '0/3000000', {
      hasStandbySignal: true,
      control: control({ state: 'shut down in recovery' }),
    })
    const finding = await check(requireReplaceableDataDirectory, { facts })
    expect(finding).toMatchObject({
      is: 'refused',
      error: { message: expect.stringContaining('lost+found') },
    })
  })

  test('as a tablespace folder', async () => {
    const step = (name: NodeSettings['name'], source: NodeSettings['name']) =>
      requireTablespaceFolders(name, source, false)
    expect(await check(step, {})).toMatchObject({ is: 'satisfied' })
    await mkdir(join(space, 'lost+found'))
    expect(await check(step, {})).toMatchObject({
      is: 'refused',
      error: { code: 'tablespace-unmapped', detail: expect.stringContaining(`${space} is the top folder`) },
    })
  })
})

test('a standby with tablespaces is cloned anew by the command that sets those aside as well', async () => {
  await writeFile(join(space, 'PG_15_202209061'), '')
  const step = (name: NodeSettings['name'], source: NodeSettings['name']) =>
    requireTablespaceFolders(name, source, true)
  expect(await check(step, {})).toMatchObject({
    is: 'refused',
    error: { code: 'tablespace-unmapped', hint: expect.stringContaining('replctl rejoin pg2 --reclone') },
  })
})

describe('two nodes behind one address', () => {
  const step = (name: NodeSettings['name'], source: NodeSettings['name']) =>
    requireTablespaceFolders(name, source, false)
  const ssh = inventoryOf(['pg1']).nodes[0]!.ssh

  test('are one machine, where a tablespace cannot be copied to its own path', async () => {
    const settings = { pg1: { host: 'gateway' }, pg2: { host: 'Gateway' } }
    expect(await check(step, { settings })).toMatchObject({
      is: 'refused',
      error: { detail: `${space} is in use: both nodes are on one host.` },
    })
  })

  test('are two where each has an sshd of its own', async () => {
    const settings = {
      pg1: { host: 'gateway', ssh: { ...ssh, port: 2201 } },
      pg2: { host: 'gateway', ssh: { ...ssh, port: 2202 } },
    }
    expect(await check(step, { settings })).toMatchObject({ is: 'satisfied' })
  })
})

describe('the locales of the databases', () => {
  const step = (node: NodeSettings['name'], source: NodeSettings['name']) =>
    requireLocales(node, source, false)
  const locales = ['C.UTF-8', 'xx_NO.UTF-8']

  test('are tried on the new host before anything is copied, and one that it lacks is named', async () => {
    expect(await check(step, { locales: [] })).toMatchObject({ is: 'satisfied' })
    const lacks = await check(step, { locales })
    expect(lacks).toMatchObject({ is: 'refused', error: { code: 'locale-missing' } })
    expect(lacks).toMatchObject({ error: { message: 'pg2 lacks the locale xx_NO.UTF-8' } })
  })

  test('are not asked about where the copy is there already', async () => {
    const facts = { dataDirectoryState: 'instance' as const }
    expect(await check(step, { locales, facts })).toMatchObject({ is: 'satisfied' })
  })
})
