import { mkdir, mkdtemp, rm, truncate, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { type ArchiveExpectation, judgeArchive } from '../../../src/cluster/judge-archive.ts'
import { createNode, type Node } from '../../../src/node/node.ts'
import { archivedClusters, readArchive, readBackupStarts } from '../../../src/node/read-archive.ts'
import { walFileNameOf, walFileStart } from '../../../src/postgres/wal-file.ts'
import { inventoryOf } from '../some-cluster.ts'
import { createShellTransport } from './shell-transport.ts'

// The script itself, under this machine's sh, on files that begin as WAL segments of 1 MB do.

const size = 2 ** 20
const systemIdentifier = '7300000000000000001'
const now = 1_800_000_000

// Dozens of processes each.
vi.setConfig({ testTimeout: 60_000 })

let dir: string
let wal: string
let archive: Node

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'replctl-read-'))
  wal = join(dir, systemIdentifier, 'wal')
  await mkdir(join(wal, '.incoming'), { recursive: true })
  archive = createNode(inventoryOf(['pg1']).nodes[0]!, 'shop', createShellTransport(dir))
})
afterEach(() => rm(dir, { recursive: true, force: true }))

interface Changes {
  readonly pageTimeline?: number
  readonly owner?: string
  readonly at?: string
}

/** A segment as its first page says it is. */
function segment(name: string, { pageTimeline, owner = systemIdentifier, at = name }: Changes = {}): Buffer {
  const data = Buffer.alloc(size)
  const [high, low] = walFileStart(at, size).split('/')
  data.writeUInt16LE(0xd110, 0)
  data.writeUInt16LE(2, 2)
  data.writeUInt32LE(pageTimeline ?? Number.parseInt(name.slice(0, 8), 16), 4)
  data.writeBigUInt64LE((BigInt(`0x${high}`) << 32n) | BigInt(`0x${low}`), 8)
  data.writeBigUInt64LE(BigInt(owner), 24)
  data.writeUInt32LE(size, 32)
  data.writeUInt32LE(8192, 36)
  return data
}

const nameOf = (timeline: number, number: number) => walFileNameOf(timeline, BigInt(number), size)
const put = (name: string, data: Uint8Array | string) => writeFile(join(wal, name), data)
const putSegment = (timeline: number, number: number, changes?: Changes) =>
  put(nameOf(timeline, number), segment(nameOf(timeline, number), changes))
const putPacked = (timeline: number, number: number) =>
  put(`${nameOf(timeline, number)}.gz`, gzipSync(segment(nameOf(timeline, number))))

/** Timeline 1 up to its end in segment 5, timeline 2 from there on, as a promotion leaves them. */
async function putTwoTimelines() {
  for (const number of [1, 2, 4]) await putSegment(1, number)
  await putPacked(1, 3)
  await put(`${nameOf(1, 5)}.partial`, segment(nameOf(1, 5)))
  await put('00000002.history', '1\t0/512345\tno recovery target specified\n')
  await put(`${nameOf(1, 2)}.00000028.backup`, 'START WAL LOCATION: 0/200028\n')
  await putSegment(2, 5, { pageTimeline: 1 })
  await putPacked(2, 6)
}

const expected: ArchiveExpectation = {
  timeline: 2,
  segmentSizeBytes: size,
  lastArchived: nameOf(2, 6),
  history: '1\t0/512345\tno recovery target specified\n',
}

interface CheckOptions {
  readonly isDeep?: boolean
  readonly segmentSizeBytes?: number
  readonly expected?: ArchiveExpectation | null
}

async function check(options: CheckOptions = {}) {
  const content = await readArchive(archive, { dir, systemIdentifier }, options)
  const verdict = judgeArchive(content, options.expected === undefined ? expected : options.expected, now)
  return { content, verdict, told: verdict.problems.map((one) => `${one.code}: ${one.message}`) }
}

test.each([false, true])('a whole archive is whole, across a promotion (deep: %s)', async (isDeep) => {
  await putTwoTimelines()
  await put('README', 'not ours')
  await put('a b', '')
  const { content, verdict, told } = await check({ isDeep })
  expect(told).toEqual([])
  expect(content).toMatchObject({
    segmentSizeBytes: size,
    timelines: [
      { timeline: 1, first: nameOf(1, 1), last: nameOf(1, 4), count: 4, gaps: [] },
      { timeline: 2, first: nameOf(2, 5), last: nameOf(2, 6), count: 2, gaps: [] },
    ],
    partials: [`${nameOf(1, 5)}.partial`],
    foreign: ['README', 'a b'],
    files: 9,
    headersRead: 7,
    unpacked: isDeep ? 2 : 0,
  })
  expect(content.disk?.freeBytes).toBeGreaterThan(0)
  expect(verdict).toMatchObject({ restorableFrom: nameOf(1, 1), restorableTo: nameOf(2, 6) })
})

describe('what is wrong is named', () => {
  beforeEach(putTwoTimelines)

  test('a gap, also at the end of a timeline that was left, and after what the primary has archived', async () => {
    await rm(join(wal, nameOf(1, 2)))
    await rm(join(wal, nameOf(1, 4)))
    const { verdict, told } = await check({ expected: { ...expected, lastArchived: nameOf(2, 8) } })
    expect(told).toEqual([
      `archive-gap: ${nameOf(1, 2)} is missing from the archive`,
      `archive-gap: ${nameOf(1, 4)} is missing from the archive`,
      `archive-gap: ${nameOf(2, 7)} to ${nameOf(2, 8)} (2 segments) are missing from the archive`,
    ])
    expect(verdict.restorableFrom).toBeNull()
  })

  test('the first segment of a new timeline, and its history file', async () => {
    await rm(join(wal, nameOf(2, 5)))
    expect((await check()).told).toEqual([`archive-gap: ${nameOf(2, 5)} is missing from the archive`])
    expect((await check()).verdict.restorableFrom).toBe(nameOf(2, 6))
    await putSegment(2, 5, { pageTimeline: 1 })
    await rm(join(wal, '00000002.history'))
    expect((await check()).told).toEqual(['archive-gap: 00000002.history is missing from the archive'])
  })

  test('another history of the primary’s own timeline: two nodes were promoted to it', async () => {
    const history = '1\t0/4FFF00\tno recovery target specified\n'
    expect((await check({ expected: { ...expected, history } })).told).toEqual([
      'archive-conflict: 00000002.history in the archive is not that of the primary',
    ])
  })

  test('what lies there of a timeline after the primary’s is a warning: the primary’s own line is what counts', async () => {
    const leading = { timeline: 1, segmentSizeBytes: size, lastArchived: nameOf(1, 4), history: null }
    const { verdict, told } = await check({ expected: leading })
    expect(told).toEqual(['wrong-timeline: the archive knows timeline 2, and the primary is on 1'])
    expect(verdict.problems[0]?.severity).toBe('warning')
    expect([verdict.restorableFrom, verdict.restorableTo]).toEqual([nameOf(1, 1), nameOf(1, 4)])
    await rm(join(wal, `${nameOf(1, 3)}.gz`))
    expect((await check({ expected: leading })).told).toContain(
      `archive-gap: ${nameOf(1, 3)} is missing from the archive`,
    )
    // Without a primary the newest one counts.
    expect((await check({ expected: null })).verdict.restorableTo).toBe(nameOf(2, 6))
  })

  test('all WAL gone, of which the primary says that it was archived', async () => {
    for (const timeline of [1, 2]) {
      for (const number of [1, 2, 3, 4, 5, 6]) {
        for (const suffix of ['', '.gz', '.partial']) {
          await rm(join(wal, `${nameOf(timeline, number)}${suffix}`), { force: true })
        }
      }
    }
    expect((await check()).told).toEqual([`archive-gap: ${nameOf(2, 6)} is missing from the archive`])
    await rm(join(wal, '00000002.history'))
    const { verdict, told } = await check()
    expect(told).toEqual([
      'archive-gap: 00000002.history is missing from the archive',
      `archive-gap: ${nameOf(2, 6)} is missing from the archive`,
    ])
    expect(verdict.restorableFrom).toBeNull()
    // Nothing was archived yet: nothing is missed, but the history file is.
    const fresh = { ...expected, lastArchived: null }
    expect((await check({ expected: fresh })).told).toEqual([
      'archive-gap: 00000002.history is missing from the archive',
    ])
  })

  test('what lies only behind the point where its timeline was left is not the beginning of the way', async () => {
    // After a restore into the past and an expiry up to the first backup of timeline 2, in segment 6.
    for (const name of [nameOf(1, 1), nameOf(1, 2), `${nameOf(1, 3)}.gz`, nameOf(1, 4), nameOf(2, 5)]) {
      await rm(join(wal, name))
    }
    for (const number of [6, 7, 8]) await putSegment(1, number)
    const { verdict, told } = await check()
    expect(told).toEqual([])
    expect(verdict.restorableFrom).toBe(nameOf(2, 6))
  })

  test('streamed WAL is missed up to the segment under way', async () => {
    const streamed = { ...expected, lastArchived: null }
    await put(`${nameOf(2, 8)}.partial`, segment(nameOf(2, 8)))
    expect((await check({ expected: streamed })).told).toEqual([
      `archive-gap: ${nameOf(2, 7)} is missing from the archive`,
    ])
    await putSegment(2, 7)
    expect((await check({ expected: streamed })).told).toEqual([])
    // The first segment of all is under way: nothing can be missed yet.
    await rm(wal, { recursive: true })
    await mkdir(wal)
    await put(`${nameOf(1, 3)}.partial`, segment(nameOf(1, 3)))
    expect((await check({ expected: { ...streamed, timeline: 1, history: null } })).told).toEqual([])
  })

  test('an archive that was pruned begins where it begins', async () => {
    await rm(join(wal, nameOf(1, 1)))
    await rm(join(wal, nameOf(1, 2)))
    const { verdict, told } = await check()
    expect(told).toEqual([])
    expect(verdict.restorableFrom).toBe(nameOf(1, 3))
  })

  test('empty, short, of another cluster, another segment, no WAL at all', async () => {
    await truncate(join(wal, nameOf(1, 1)), 0)
    await truncate(join(wal, nameOf(1, 2)), size / 2)
    await putSegment(1, 4, { owner: '42' })
    await putSegment(2, 5, { at: nameOf(2, 9) })
    await put(`${nameOf(2, 6)}.gz`, 'this is no gzip file, and long enough to be looked at, or is it')
    const { content } = await check()
    expect(new Map(content.faults.map(({ file, what }) => [file, what]))).toEqual(
      new Map([
        [nameOf(1, 1), 'it is empty'],
        [nameOf(1, 2), `it has ${size / 2} bytes, a segment of this cluster has ${size}`],
        [nameOf(1, 4), 'it belongs to another cluster (system identifier 42)'],
        [nameOf(2, 5), 'its header says it begins at 0/900000, which is another segment'],
        [`${nameOf(2, 6)}.gz`, 'it is no .gz file'],
      ]),
    )
  })

  test('what cannot be read, and nothing else for its sake', async () => {
    const [lost, packed] = [nameOf(1, 2), `${nameOf(2, 6)}.gz`]
    await mkdir(join(dir, 'bin'))
    // As head does with a file that it cannot open, or that its disk does not give.
    const head = `#!/bin/sh
[ "$1" = -q ] || exec /usr/bin/head "$@"
shift 4; for name; do case $name in ${lost}|${packed}) ;; *) /usr/bin/head -c 48 -- "$name" ;; esac; done\n`
    await writeFile(join(dir, 'bin', 'head'), head, { mode: 0o755 })
    const path = `${join(dir, 'bin')}:/usr/local/bin:/usr/bin:/bin`
    archive = createNode(inventoryOf(['pg1']).nodes[0]!, 'shop', createShellTransport(dir, ['/bin/sh'], path))
    await rm(join(wal, nameOf(1, 4)))
    const { content, told } = await check()
    expect(told).toEqual([
      `archive-damaged: ${lost} is damaged: it cannot be read`,
      `archive-damaged: ${packed} is damaged: it cannot be read`,
      `archive-gap: ${nameOf(1, 4)} is missing from the archive`,
    ])
    expect(content.headersRead).toBeGreaterThan(3)
  })

  test('a gap, also where no header can be read at all', async () => {
    for (const number of [1, 2, 4]) await truncate(join(wal, nameOf(1, number)), 40)
    await rm(join(wal, `${nameOf(1, 3)}.gz`))
    await rm(join(wal, `${nameOf(1, 5)}.partial`))
    for (const name of [nameOf(2, 5), `${nameOf(2, 6)}.gz`, '00000002.history']) await rm(join(wal, name))
    const leading = { timeline: 1, segmentSizeBytes: size, lastArchived: null, history: null }
    const seen = async () => (await check({ expected: leading, segmentSizeBytes: size })).told
    expect(await seen()).toContain(`archive-gap: ${nameOf(1, 3)} is missing from the archive`)
  })

  test('the end of the archive, or all of it, also when a label or the end of a timeline was archived last', async () => {
    const label = { ...expected, lastArchived: `${nameOf(2, 6)}.00000028.backup` }
    expect((await check({ expected: label })).told).toEqual([])
    // The backup began there; what came after it counts as well.
    const early = { ...expected, lastArchived: `${nameOf(2, 5)}.00000028.backup` }
    expect((await check({ expected: early })).verdict.restorableTo).toBe(nameOf(2, 6))
    await rm(join(wal, `${nameOf(2, 6)}.gz`))
    const gap = (name: string) => [`archive-gap: ${name} is missing from the archive`]
    expect((await check({ expected: label })).told).toEqual(gap(nameOf(2, 6)))
    const promoted = [
      { ...expected, lastArchived: `${nameOf(1, 5)}.partial` },
      { ...expected, lastArchived: '00000002.history' },
    ]
    await rm(join(wal, nameOf(2, 5)))
    for (const one of promoted) expect((await check({ expected: one })).told).toEqual([])
    await rm(join(wal, nameOf(1, 4)))
    for (const one of promoted) expect((await check({ expected: one })).told).toEqual(gap(nameOf(1, 4)))
    await rm(wal, { recursive: true })
    await mkdir(wal)
    await put('00000002.history', expected.history ?? '')
    for (const one of promoted) expect((await check({ expected: one })).told).toEqual(gap(nameOf(1, 4)))
    expect((await check({ expected: label })).told).toEqual(gap(nameOf(2, 6)))
  })

  test('a compressed segment whose end is damaged, once it is unpacked to its end', async () => {
    const packed = gzipSync(
      Buffer.concat([segment(nameOf(1, 3)).subarray(0, size - 999), Buffer.alloc(999, 7)]),
    )
    packed[packed.length - 6] = (packed[packed.length - 6] ?? 0) ^ 0xff
    await put(`${nameOf(1, 3)}.gz`, packed)
    expect((await check()).told).toEqual([])
    expect((await check({ isDeep: true })).told).toEqual([
      `archive-damaged: ${nameOf(1, 3)}.gz is damaged: it cannot be unpacked to its end`,
    ])
  })

  test('segments that are asked for whole are unpacked to their end, whatever else is not', async () => {
    for (const number of [3, 4]) {
      const packed = gzipSync(segment(nameOf(1, number)))
      await put(`${nameOf(1, number)}.gz`, packed.subarray(0, packed.length - 20))
    }
    const many = Array.from({ length: 8_000 }, (_, number) => nameOf(7, number))
    const content = await readArchive(
      archive,
      { dir, systemIdentifier },
      { whole: [...many, nameOf(1, 2), nameOf(1, 4)] },
    )
    expect(content.faults).toEqual([{ file: `${nameOf(1, 4)}.gz`, what: 'it cannot be unpacked to its end' }])
  })

  test('two copies that differ; equal ones are none', async () => {
    await put(`${nameOf(1, 2)}.gz`, gzipSync(segment(nameOf(1, 2))))
    expect((await check()).told).toEqual([])
    await put(`${nameOf(1, 2)}.gz`, gzipSync(segment(nameOf(1, 2), { pageTimeline: 9 })))
    expect((await check()).told).toContain(`archive-conflict: ${nameOf(1, 2)} and ${nameOf(1, 2)}.gz differ`)
  })

  test('what killed pushes left, as a warning', async () => {
    const left = join(wal, '.incoming', 'x.none.1.push')
    await writeFile(left, '')
    await utimes(left, now - 60, now - 60)
    expect((await check()).told).toEqual([])
    await utimes(left, now - 9999, now - 9999)
    const { verdict } = await check()
    expect(verdict.problems).toMatchObject([{ code: 'archive-leftovers', severity: 'warning' }])
  })

  test('an archive that is not there', async () => {
    const wish = { dir, systemIdentifier: '42' }
    await expect(readArchive(archive, wish)).rejects.toMatchObject({ code: 'archive-failing' })
    expect(await archivedClusters(archive, dir)).toEqual([systemIdentifier])
  })
})

test('an archive that is empty, or whose primary does not answer, is judged by what lies there', async () => {
  expect((await check({ expected: null })).told).toEqual([])
  await putSegment(1, 1)
  await putSegment(1, 3)
  expect((await check({ expected: null })).told).toEqual([
    `archive-gap: ${nameOf(1, 2)} is missing from the archive`,
  ])
})

test('backups say from where on they need WAL', async () => {
  const backups = join(dir, systemIdentifier, 'backup')
  for (const id of ['20260101T000000Z', '.incoming-20260102T000000Z']) {
    await mkdir(join(backups, id), { recursive: true })
  }
  const text = JSON.stringify({ startLsn: '0/200028', stopLsn: '0/200100' }, null, 2)
  await writeFile(join(backups, '20260101T000000Z', 'backup.json'), text)
  expect(await readBackupStarts(archive, { dir, systemIdentifier })).toEqual([
    { id: '20260101T000000Z', startLsn: '0/200028' },
    { id: '.incoming-20260102T000000Z', startLsn: null },
  ])
})
