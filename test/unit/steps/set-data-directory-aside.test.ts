import { existsSync, readdirSync, readlinkSync, realpathSync } from 'node:fs'
import { chmod, mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { StepContext } from '../../../src/engine/step.ts'
import { ReplctlError } from '../../../src/errors.ts'
import { lookAtJob, startJob, stopJob } from '../../../src/node/jobs.ts'
import { createNode, type Node, stateScript } from '../../../src/node/node.ts'
import type { SqlSession } from '../../../src/node/sql-session.ts'
import {
  endEarlierRejoin,
  endRejoin,
  endRejoinElsewhere,
  removeDirectoryAside,
} from '../../../src/steps/end-rejoin.ts'
import { rewindJob } from '../../../src/steps/rewind-data-directory.ts'
import {
  putBackScript,
  setAsideScript,
  setDataDirectoryAside,
} from '../../../src/steps/set-data-directory-aside.ts'
import { createShellTransport } from '../node/shell-transport.ts'
import { inventoryOf, ours, runningNode } from '../some-cluster.ts'

// On files of this machine: what is to be proved is which of them are where afterwards.

const suffix = '.replctl-before-20260101T000000Z'
let home: string
let data: string
let node: Node

beforeEach(async () => {
  home = realpathSync(await mkdtemp(join(tmpdir(), 'replctl-set-aside-')))
  data = join(home, "pg's data")
  for (const folder of [join(data, 'pg_tblspc'), join(home, '.replctl/shop'), join(home, 'bin')]) {
    await mkdir(folder, { recursive: true })
  }
  await writeFile(join(data, 'PG_VERSION'), '15\n')
  await writeFile(
    join(home, 'bin/pg_controldata'),
    `#!/bin/sh\necho "Database system identifier:           ${ours}"\n`,
  )
  await chmod(join(home, 'bin/pg_controldata'), 0o755)
  node = createNode(inventoryOf(['pg1']).nodes[0]!, 'shop', createShellTransport(home))
})
afterEach(() => rm(home, { recursive: true, force: true }))

async function tablespace(oid: string): Promise<string> {
  const place = join(home, `space ${oid}`)
  await mkdir(join(place, 'PG_15_202209061'), { recursive: true })
  await symlink(place, join(data, 'pg_tblspc', oid))
  return place
}
async function linkedWal(): Promise<string> {
  const place = join(home, 'fast disk/wal')
  await mkdir(place, { recursive: true })
  await writeFile(join(place, '000000010000000000000001'), 'x')
  await symlink(place, join(data, 'pg_wal'))
  return place
}
const setAside = (place = data) =>
  node.run(stateScript(node, 'move aside', setAsideScript, [join(home, 'bin'), place, ours, suffix]))
const putBack = (place = data) => node.run(stateScript(node, 'put back', putBackScript, [place, suffix]))

test('what its tablespaces and a linked pg_wal hold goes along, blanks in their paths or not, and comes back', async () => {
  const [space, wal] = [await tablespace('16400'), await linkedWal()]
  expect(await setAside()).toMatchObject({ status: 0, stderr: '' })
  expect([existsSync(data), readdirSync(space), readdirSync(wal)]).toEqual([false, [], []])
  expect(readlinkSync(join(`${data}${suffix}`, 'pg_tblspc/16400'))).toBe(`${space}${suffix}`)
  expect(await putBack()).toMatchObject({ status: 0 })
  expect(readdirSync(space)).toEqual(['PG_15_202209061'])
  expect(readdirSync(wal)).toEqual(['000000010000000000000001'])
  expect([readlinkSync(join(data, 'pg_tblspc/16400')), readlinkSync(join(data, 'pg_wal'))]).toEqual([
    space,
    wal,
  ])
  expect(readdirSync(home).toSorted()).toEqual([
    ...['.replctl', 'bin', 'fast disk', "pg's data", 'space 16400'],
  ])
})

test('where one tablespace cannot be renamed none is moved', async () => {
  const space = await tablespace('16400')
  // A mount point, as a tablespace on a disk of its own is.
  await symlink('/proc', join(data, 'pg_tblspc/16401'))
  expect(await setAside()).toMatchObject({
    status: 65,
    stderr: '/proc is a mount point, or its parent is not writable\n',
  })
  expect([readlinkSync(join(data, 'pg_tblspc/16400')), readdirSync(space)]).toEqual([
    space,
    ['PG_15_202209061'],
  ])
  expect(existsSync(`${space}${suffix}`)).toBe(false)
})

test('a tablespace folder that is a link to another disk cannot be renamed there: nothing is moved', async () => {
  const place = join(home, 'far space')
  await symlink('/proc', place)
  await symlink(place, join(data, 'pg_tblspc/16401'))
  expect(await setAside()).toMatchObject({
    status: 65,
    stderr: `${place} is a link to another disk, or its parent is not writable\n`,
  })
  expect(existsSync(join(data, 'PG_VERSION'))).toBe(true)
})

test('a data directory that is a link stays one: what it leads to is moved on its own disk, and comes back', async () => {
  const link = join(home, 'link')
  await symlink(data, link)
  expect(await setAside(link)).toMatchObject({ status: 0, stderr: '' })
  expect([readlinkSync(link), readdirSync(link)]).toEqual([data, []])
  expect(await readFile(join(`${data}${suffix}`, 'PG_VERSION'), 'utf8')).toBe('15\n')
  // Once more, as after a kill.
  expect(await setAside(link)).toMatchObject({ status: 0 })
  expect(await putBack(link)).toMatchObject({ status: 0 })
  expect([readlinkSync(link), await readFile(join(link, 'PG_VERSION'), 'utf8')]).toEqual([data, '15\n'])
  expect(readdirSync(home).toSorted()).toEqual(['.replctl', 'bin', 'link', "pg's data"])
})

test('what was moved before the data directory itself could not be is put back', async () => {
  const [first, second] = [await tablespace('16400'), await tablespace('16401')]
  const wal = await linkedWal()
  // Killed between the move of a part and its link, or the disk was full.
  await mkdir(`${first}${suffix}`)
  await rm(join(first, 'PG_15_202209061'), { recursive: true })
  await mkdir(join(`${first}${suffix}`, 'PG_15_202209061'))
  await mkdir(join(`${second}${suffix}`, 'PG_15_202209061'), { recursive: true })
  await rm(join(second, 'PG_15_202209061'), { recursive: true })
  await rm(join(data, 'pg_tblspc/16401'))
  await symlink(`${second}${suffix}`, join(data, 'pg_tblspc/16401'))
  await mkdir(`${wal}${suffix}`)
  await writeFile(join(`${wal}${suffix}`, 'old'), 'x')
  await rm(wal, { recursive: true })
  expect(await putBack()).toMatchObject({ status: 0 })
  expect([readdirSync(first), readdirSync(second), readdirSync(wal)]).toEqual([
    ...[['PG_15_202209061'], ['PG_15_202209061'], ['old']],
  ])
  expect(['16400', '16401'].map((oid) => readlinkSync(join(data, 'pg_tblspc', oid)))).toEqual([first, second])
  expect(readdirSync(home).filter((name) => name.includes('replctl-before'))).toEqual([])
  expect(await readFile(join(data, 'PG_VERSION'), 'utf8')).toBe('15\n')
})

test('a clone that stands there is not touched by putting back', async () => {
  await mkdir(`${data}${suffix}`)
  expect(await putBack()).toMatchObject({ status: 65 })
  expect(existsSync(`${data}${suffix}`)).toBe(true)
})

/** A node of this machine's files, and a primary that answers. */
function pair() {
  const { nodes } = inventoryOf(['pg1', 'pg2'])
  const [own, leads] = nodes.map(
    (settings): Node => ({
      ...createNode(
        { ...settings, postgres: { ...settings.postgres, dataDir: data } },
        'shop',
        createShellTransport(home),
      ),
      sql: async () => ({}) as SqlSession,
    }),
  ) as [Node, Node]
  leads.lastSurvey = {
    ...{ at: Number.MAX_VALUE, activity: 0 },
    facts: Promise.resolve(runningNode('pg2', {})),
  }
  const ctx: StepContext = {
    ...{ node: own, on: (name) => (name === 'pg1' ? own : leads), timeoutMs: 5_000 },
    ...{ signal: new AbortController().signal, isDryRun: false, isChecking: true, seenAt: new Map() },
    ...{ progress: () => undefined, warn: () => undefined },
  }
  return { own, leads, ctx }
}

test('a pg_rewind that an interrupted run left at work is ended before the directory goes, and that it was begun is not forgotten', async () => {
  const { own, leads, ctx } = pair()
  const begun = { method: 'rewind', source: 'pg2', phase: 'rewinding', forkLsn: null, aside: null }
  await writeFile(join(home, '.replctl/shop/rejoin.json'), JSON.stringify(begun))
  await startJob(own, rewindJob, 'sleep 60', [])
  const step = setDataDirectoryAside({
    ...{ node: own.settings, primary: leads.name, forkLsn: null, discardedBytes: null, isRedundant: true },
  })
  try {
    // Whatever comes after that: there is no pg_control in this directory.
    await expect(step.apply!(ctx)).rejects.toThrow()
    expect(await lookAtJob(own, rewindJob)).toMatchObject({ isRunning: false })
    expect(JSON.parse(await readFile(join(home, '.replctl/shop/rejoin.json'), 'utf8'))).toEqual(begun)
  } finally {
    await stopJob(own, rewindJob)
  }
})

test('interrupted while the old directory is removed, a rejoin is over: only that is left to do', async () => {
  const { own, ctx } = pair()
  const aside = `${data}${suffix}`
  await mkdir(join(aside, 'base'), { recursive: true })
  const rejoin = { method: 'reclone', source: 'pg2', phase: 'recloning', aside, isRedundant: true }
  await writeFile(join(home, '.replctl/shop/rejoin.json'), JSON.stringify(rejoin))
  const step = removeDirectoryAside(own.name)
  const cut: Node = {
    ...own,
    output: async (command, options) => {
      if (command.title.startsWith(`remove ${aside}`)) throw new ReplctlError('connection-lost', 'cut')
      return await own.output(command, options)
    },
  }
  const over = { ...ctx, node: cut, on: () => cut }
  expect(await step.check(over)).toMatchObject({ is: 'pending' })
  await expect(step.apply!(over)).rejects.toMatchObject({ code: 'connection-lost' })
  expect(JSON.parse(await readFile(join(home, '.replctl/shop/rejoin.json'), 'utf8'))).toMatchObject({
    ...{ method: 'reclone', phase: 'whole', aside: null },
  })
  own.lastSurvey = null
  expect(await step.check(ctx)).toEqual({ is: 'pending', because: `left over: ${aside}` })
  await step.apply!(ctx)
  own.lastSurvey = null
  expect([await step.check(ctx), existsSync(aside)]).toEqual([
    { is: 'satisfied', because: 'there is none' },
    false,
  ])
})

test('what holds what is nowhere else is never put down for removal', async () => {
  const { own, ctx } = pair()
  const aside = `${data}${suffix}`
  await mkdir(aside)
  const rejoin = { method: 'reclone', source: 'pg2', phase: 'recloning', aside, isRedundant: false }
  await writeFile(join(home, '.replctl/shop/rejoin.json'), JSON.stringify(rejoin))
  await removeDirectoryAside(own.name).apply!(ctx)
  await endRejoin(own.name).apply!(ctx)
  expect(existsSync(aside)).toBe(true)
  expect(readdirSync(join(home, '.replctl/shop'))).toEqual([])
})

describe('a mark that a rejoin of an earlier life left', () => {
  const state = () => join(home, '.replctl/shop')
  const aside = () => `${data}${suffix}`
  const left = (rejoin: object) => writeFile(join(state(), 'rejoin.json'), JSON.stringify(rejoin))
  const reclone = (isRedundant: boolean) => ({
    ...{ method: 'reclone', source: 'pg2', phase: 'recloning', at: '2026-03-01T12:00:00Z' },
    ...{ aside: aside(), isRedundant },
  })
  /** As a clone that streams is marked, whoever built it. */
  const built = async () => {
    const inode = String((await stat(data)).ino)
    const mark = { cluster: 'shop', node: 'pg1', dataDirectory: data, systemIdentifier: ours, inode }
    await writeFile(join(state(), 'node.json'), JSON.stringify({ ...mark, phase: 'done' }))
  }

  test('is ended before another rejoin begins: its old directory is put down for removal, and goes with the next', async () => {
    const { own, ctx } = pair()
    await mkdir(aside())
    await left(reclone(true))
    await built()
    expect(await endEarlierRejoin(own.name).check(ctx)).toMatchObject({ is: 'pending' })
    await endEarlierRejoin(own.name).apply!(ctx)
    own.lastSurvey = null
    expect(await endEarlierRejoin(own.name).check(ctx)).toMatchObject({ is: 'satisfied' })
    expect(await removeDirectoryAside(own.name).check(ctx)).toMatchObject({
      because: `left over: ${aside()}`,
    })
    await removeDirectoryAside(own.name).apply!(ctx)
    expect([existsSync(aside()), readdirSync(state()).toSorted()]).toEqual([false, ['node.json', 'work']])
  })

  test('whose old directory holds what is nowhere else is told, and that stays', async () => {
    const { own, ctx } = pair()
    await mkdir(aside())
    await left(reclone(false))
    await built()
    const warned: string[] = []
    await endEarlierRejoin(own.name).apply!({ ...ctx, warn: (error) => void warned.push(`${error.detail}`) })
    expect(warned).toEqual([expect.stringContaining(aside())])
    expect([existsSync(aside()), existsSync(join(state(), 'rejoin.json'))]).toEqual([true, false])
  })

  test('goes on where nothing was built since', async () => {
    const { own, ctx } = pair()
    await mkdir(aside())
    await left(reclone(true))
    expect(await endEarlierRejoin(own.name).check(ctx)).toMatchObject({ because: 'it goes on' })
  })

  test('of a rewind goes once the node streams, with the files that were kept for it', async () => {
    const { own, ctx } = pair()
    await left({ method: 'rewind', source: 'pg2', phase: 'rewound', aside: null })
    await mkdir(join(state(), 'rejoin-kept/files'), { recursive: true })
    const step = removeDirectoryAside(own.name)
    expect(await step.check(ctx)).toMatchObject({ is: 'pending' })
    await step.apply!(ctx)
    expect(readdirSync(state())).toContain('rejoin.json')
    await endRejoin(own.name).apply!(ctx)
    expect(readdirSync(state())).toEqual([])
  })

  test('is kept while what it discarded is told by the one that takes its place', async () => {
    const { own, ctx } = pair()
    await mkdir(aside())
    await left(reclone(true))
    await built()
    const step = endEarlierRejoin(own.name, { isUntold: true })
    expect(await step.check(ctx)).toMatchObject({ is: 'pending' })
    await step.apply!(ctx)
    own.lastSurvey = null
    expect(await step.check(ctx)).toMatchObject({ is: 'satisfied' })
    expect(JSON.parse(await readFile(join(state(), 'rejoin.json'), 'utf8'))).toMatchObject({ phase: 'whole' })
    expect(await removeDirectoryAside(own.name).check(ctx)).toMatchObject({
      because: `left over: ${aside()}`,
    })
  })

  test('that did not come to tell what it discarded: whoever ends it tells', async () => {
    const { own, ctx } = pair()
    const salvage = {
      version: 1,
      node: 'pg1',
      forkLsn: '0/4000000',
      transactions: 2,
      rows: 3,
      dir: '/salvage',
    }
    await mkdir(join(state(), 'salvage/one'), { recursive: true })
    await writeFile(join(state(), 'salvage/one/salvage.json'), JSON.stringify(salvage))
    await left({ method: 'rewind', source: 'pg2', phase: 'whole', aside: null, forkLsn: '0/4000000' })
    const step = endRejoinElsewhere(own.name)
    expect(await step.check(ctx)).toMatchObject({ is: 'pending' })
    const warned: string[] = []
    await step.apply!({ ...ctx, warn: (error) => void warned.push(`${error.code}: ${error.detail}`) })
    expect(warned).toEqual([expect.stringMatching(/^salvage-untold: 2 transaction.*3 row.*\/salvage/)])
    expect(existsSync(join(state(), 'rejoin.json'))).toBe(false)
  })
})
