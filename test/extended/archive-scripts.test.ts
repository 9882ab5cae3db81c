import { spawnSync } from 'node:child_process'
import {
  existsSync,
  linkSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import {
  archiveCommandLine,
  archiveStatus,
  parseArchiveCheck,
  restoreCommandLine,
  standbyRestoreCommandLine,
} from '../../src/postgres/archive.ts'
import {
  ArchiveKit,
  type ArchiveNode,
  killQuietly,
  type NodeOptions,
  sha256,
  shells,
} from '../kit/archive-kit.ts'
import { awaitCondition } from '../kit/await-condition.ts'
import { LocalInstance } from '../kit/local-instance.ts'

/** Small ones are quicker to pack and to send, and say as much. */
const segmentSize = 4 * 1024 * 1024
const foreignIdentifier = '7000000000000000001'
const packings = ['none', 'gzip', 'lz4', 'zstd'] as const
const suffixes = { none: '', gzip: '.gz', lz4: '.lz4', zstd: '.zst' } as const
const slow = { timeoutMs: 120_000 }
const warmSegments = 30
/** Compression of what is archived, and of what is pushed next under the same name. */
const pairs = [
  ['none', 'none'],
  ['none', 'zstd'],
  ['zstd', 'none'],
  ['gzip', 'lz4'],
  ['lz4', 'gzip'],
] as const

let kit: ArchiveKit
let instance: LocalInstance
let systemIdentifier: string
/** Finished segments of a real server, in order. */
let segments: readonly string[]

beforeAll(async () => {
  kit = await ArchiveKit.start()
  instance = new LocalInstance(kit, 'primary')
  await instance.init(['--wal-segsize=4'])
  systemIdentifier = await instance.systemIdentifier()
  // An empty archive_command keeps every segment until it is archived.
  await instance.start({ archive_mode: 'on', archive_command: '', max_wal_size: '10GB' })
  await instance.sql('CREATE TABLE filler (id bigint, word text)')
  const fill = 'INSERT INTO filler SELECT n, md5(n::text) FROM generate_series(1, 20000) n'
  await awaitCondition(
    `${warmSegments} segments`,
    async () => {
      await instance.sql(fill)
      await instance.sql('SELECT pg_switch_wal()')
      return finishedSegments().length > warmSegments
    },
    { timeoutMs: 300_000 },
  )
  segments = finishedSegments()
  const alone = kit.directory('alone')
  for (const segment of segments) linkSync(join(instance.walDir, segment), join(alone, segment))
})

afterAll(async () => {
  await instance?.stop('immediate')
  await kit?.stop()
})

const finishedSegments = (): readonly string[] =>
  readdirSync(join(instance.walDir, 'archive_status'))
    .filter((name) => /^[0-9A-F]{24}\.ready$/.test(name))
    .map((name) => name.replace('.ready', ''))
    .sort()

/** Where no `.ready` says that more follows: a push of this one is a push of this one. */
const pathOf = (segment: string): string => join(kit.root, 'alone', segment)
const contentOf = (segment: string): Buffer => readFileSync(pathOf(segment))

/** A segment of the same name, size and header with another content, as a second primary would write it. */
function otherContent(segment: string, text = 'a second primary was here'): string {
  const data = contentOf(segment)
  data.write(text, 1024 * 1024)
  return kit.write(`other-${sha256(text).slice(0, 8)}-${segment}`, data)
}

/** Each test starts with an archive of its own. */
async function freshNode(options: Partial<NodeOptions> = {}): Promise<ArchiveNode> {
  const node = await kit.addNode({ systemIdentifier, ...options })
  rmSync(node.walDir, { recursive: true, force: true })
  kit.directory('archive', node.systemIdentifier, 'wal')
  return node
}

/** What a later reader gets. */
async function fetched(node: ArchiveNode, name: string): Promise<Buffer> {
  const target = join(kit.root, 'fetched')
  rmSync(target, { force: true })
  const { status, stderr } = await node.fetch(name, target)
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
  return readFileSync(target)
}

describe.each(shells)('with %s', (shell) => {
  test.each(packings)('a segment packed as %s comes back as it was', async (compression) => {
    const node = await freshNode({ shell, compression })
    const segment = segments[0]!
    expect(await node.push(pathOf(segment), segment)).toEqual({
      status: 0,
      signal: null,
      stdout: '',
      stderr: '',
    })
    expect(node.archived()).toEqual([segment + suffixes[compression]])
    expect(sha256(await fetched(node, segment))).toBe(sha256(contentOf(segment)))
    expect(node.incoming()).toEqual([])
  })

  test('the same content again is a success with a warning, other content a conflict that changes nothing', async () => {
    const node = await freshNode({ shell, compression: 'none' })
    const segment = segments[0]!
    for (const [first, second] of pairs) {
      const [one, two] = [
        await freshNode({ shell, compression: first }),
        await kit.addNode({ shell, systemIdentifier, compression: second }),
      ]
      expect((await one.push(pathOf(segment), segment)).status).toBe(0)
      const archived = join(node.walDir, segment + suffixes[first])
      const before = { hash: sha256(readFileSync(archived)), mtime: statSync(archived).mtimeMs }

      const again = await two.push(pathOf(segment), segment)
      expect(again.status).toBe(0)
      expect(again.stderr).toContain('was already archived, with the same content')

      const other = otherContent(segment)
      const conflict = await two.push(other, segment)
      expect(conflict.status).toBe(archiveStatus.conflict)
      expect(conflict.stderr).toContain(sha256(contentOf(segment)))
      expect(conflict.stderr).toContain(sha256(readFileSync(other)))
      expect(conflict.stderr).toMatch(/second primary.*without a new timeline/)
      expect(readFileSync(join(two.stateDirectory, 'archive_error'), 'utf8')).toMatch(
        new RegExp(`^3 ${segment}\n.*conflict`),
      )

      expect(two.archived()).toEqual([segment + suffixes[first]])
      expect({ hash: sha256(readFileSync(archived)), mtime: statSync(archived).mtimeMs }).toEqual(before)
      expect(two.incoming()).toEqual([])
      expect((await two.push(pathOf(segments[1]!), segments[1]!)).status).toBe(0)
      expect(existsSync(join(two.stateDirectory, 'archive_error'))).toBe(false)
    }
  })

  test('history, backup label and partial segment are kept; a partial one is not handed out for the full name', async () => {
    const node = await freshNode({ shell })
    const segment = segments[0]!
    const history = kit.write('00000002.history', '1\t0/3000148\tno recovery target specified\n')
    const label = kit.write('label', 'START WAL LOCATION: 0/2000028\n')
    const labelName = `${segment}.00000028.backup`
    expect((await node.push(history, '00000002.history')).status).toBe(0)
    expect((await node.push(label, labelName)).status).toBe(0)
    expect((await node.push(pathOf(segment), `${segment}.partial`)).status).toBe(0)
    expect(node.archived()).toEqual([labelName, `${segment}.partial.zst`, '00000002.history'])
    expect((await fetched(node, '00000002.history')).toString()).toContain('no recovery target')
    const target = join(kit.root, 'absent')
    for (const name of [segment, '00000003.history']) {
      expect(await node.fetch(name, target)).toEqual({ status: 1, signal: null, stdout: '', stderr: '' })
    }
    expect(existsSync(target)).toBe(false)
    const other = kit.write('other.history', '1\t0/4000000\tno recovery target specified\n')
    expect((await node.push(other, '00000002.history')).status).toBe(archiveStatus.conflict)
  })

  test('a partial segment that differs from the one there is kept beside the archive: nobody restores it, and the rest goes on', async () => {
    const node = await freshNode({ shell, compression: 'none' })
    const [segment, next] = [segments[0]!, segments[1]!]
    const partial = `${segment}.partial`
    expect((await node.push(pathOf(segment), partial)).status).toBe(0)
    for (const compression of ['none', 'zstd'] as const) {
      const other = await kit.addNode({ shell, systemIdentifier, compression, name: 'pg3' })
      for (let turn = 0; turn < 2; turn++) {
        const pushed = await other.push(otherContent(segment), partial)
        expect(pushed.status).toBe(0)
        expect(pushed.stderr).toContain(`warning: ${partial} is already archived with other content`)
      }
      expect((await other.push(pathOf(next), next)).status).toBe(0)
    }
    expect(sha256(readFileSync(join(node.walDir, partial)))).toBe(sha256(contentOf(segment)))
    const diverged = readdirSync(join(node.walDir, '..', 'diverged'))
    const hash = sha256(readFileSync(otherContent(segment))).slice(0, 16)
    expect(diverged.toSorted()).toEqual([`${partial}.${hash}`, `${partial}.${hash}.zst`])
    expect(node.incoming()).toEqual([])
    rmSync(join(node.walDir, '..', 'diverged'), { recursive: true })
  })

  test('what was streamed of the segment under way is given to a server that replays, never in place of more', async () => {
    const node = await freshNode({ shell, name: 'streamed' })
    const segment = segments[0]!
    const whole = contentOf(segment)
    const part = (bytes: number, behind = 0) =>
      Buffer.concat([whole.subarray(0, bytes), Buffer.alloc(segmentSize - bytes, behind)])
    const data = kit.directory(`streamed-${shell}`)
    const wal = kit.directory(`streamed-${shell}`, 'pg_wal')
    const own = join(wal, segment)
    const restored = join(wal, 'RECOVERYXLOG')
    const replay = async () => (await node.fetch(segment, 'pg_wal/RECOVERYXLOG', { cwd: data })).status
    const compare = async () => {
      const { status, stdout } = await kit.run(node.fetchPath, ['--compare', segment, wal])
      return `${status} ${stdout.trim()}`
    }
    kit.write(join(node.walDir, `${segment}.partial`), part(300_001))
    kit.write(join(data, 'standby.signal'), '')

    expect((await node.fetch(segment, join(kit.root, 'absent'))).status).toBe(1)
    expect(await compare()).toBe('0 ahead')
    expect(await replay()).toBe(0)
    expect(sha256(readFileSync(restored))).toBe(sha256(part(300_001)))
    // As PostgreSQL keeps it. It is marked as finished, and is none.
    kit.write(own, readFileSync(restored))
    kit.directory(`streamed-${shell}`, 'pg_wal', 'archive_status')
    kit.write(join(wal, 'archive_status', `${segment}.done`), '')
    rmSync(restored)
    expect(await compare()).toBe('0 level')
    expect(await replay()).toBe(1)
    kit.write(join(node.walDir, `${segment}.partial`), part(400_001))
    expect(await compare()).toBe('0 ahead')
    expect(await replay()).toBe(0)
    rmSync(join(wal, 'archive_status', `${segment}.done`))

    // The server has more, or less and what an older segment left behind it.
    kit.write(own, part(500_001, 7))
    expect(await compare()).toBe('0 level')
    expect(await replay()).toBe(1)
    kit.write(own, part(200_001, 7))
    expect(await compare()).toBe('0 ahead')
    expect(await replay()).toBe(0)
    expect(sha256(readFileSync(restored))).toBe(sha256(part(400_001)))

    // Behind the point where a newer timeline began it is nobody's WAL any more.
    kit.write(join(node.walDir, '00000002.history'), '1\t0/3000148\tno recovery target specified\n')
    expect(await replay()).toBe(1)
    expect(await compare()).toBe('0 level')
    // The finished segment is what it always was.
    kit.write(join(node.walDir, segment), whole)
    expect(await compare()).toBe('0 ahead')
    expect(await replay()).toBe(0)
    expect(sha256(readFileSync(restored))).toBe(sha256(whole))
    expect(existsSync(join(node.stateDirectory, 'fetched_partial'))).toBe(false)
  })

  test('what is not the segment it claims to be is refused before anything is sent', async () => {
    const node = await freshNode({ shell })
    const [segment, next] = [segments[0]!, segments[1]!]
    const good = contentOf(segment)
    const foreign = Buffer.from(good)
    foreign.writeBigUInt64LE(BigInt(foreignIdentifier), 24)
    const shortHeader = Buffer.from(good)
    shortHeader.writeUInt16LE(shortHeader.readUInt16LE(2) & ~2, 2)
    const cases: readonly (readonly [Uint8Array, string, RegExp])[] = [
      [Buffer.alloc(0), segment, /is empty/],
      [
        good.subarray(0, segmentSize - 1),
        segment,
        new RegExp(`${segmentSize - 1} bytes, its header says ${segmentSize}`),
      ],
      [Buffer.concat([good, Buffer.alloc(1)]), segment, new RegExp(`${segmentSize + 1} bytes`)],
      [good.subarray(0, 20), segment, /shorter than a page header/],
      [Buffer.alloc(segmentSize), segment, /does not begin with a WAL page/],
      [shortHeader, segment, /no long header/],
      [foreign, segment, /belongs to another cluster/],
      [good, next, /which is another segment/],
    ]
    for (const [content, name, reason] of cases) {
      const pushed = await node.push(kit.write('doubtful', content), name)
      expect(pushed.stderr).toMatch(reason)
      expect(pushed.status).toBe(archiveStatus.wrongFile)
    }
    expect((await node.push(join(kit.root, 'nowhere'), segment)).status).toBe(archiveStatus.wrongFile)
    expect(node.archived()).toEqual([])
  })

  test('the archive host checks for itself what arrives', async () => {
    const node = await freshNode({ shell })
    const segment = segments[0]!
    const good = contentOf(segment)
    const foreign = Buffer.from(good)
    foreign.writeBigUInt64LE(BigInt(foreignIdentifier), 24)
    const packed = gzipSync(good, { level: 1 })
    const push = (
      name: string,
      data: Uint8Array,
      suffix = 'none',
      bytes = data.length,
      hash = sha256(data),
    ) => node.receive(`push ${systemIdentifier} ${name} ${bytes} ${hash} ${suffix}`, data)
    expect((await push(segment, good, 'none', good.length + 1)).status).toBe(archiveStatus.damaged)
    expect((await push(segment, good.subarray(0, 1000), 'none', good.length)).status).toBe(
      archiveStatus.damaged,
    )
    expect((await push(segment, good, 'none', good.length, sha256('x'))).status).toBe(archiveStatus.damaged)
    expect((await push(segment, packed.subarray(0, packed.length - 4), 'gz')).status).toBe(
      archiveStatus.refused,
    )
    expect((await push(segment, good, 'gz')).status).toBe(archiveStatus.refused)
    const elsewhere = await push(segment, foreign)
    expect(elsewhere.stderr).toContain('belongs to another cluster')
    expect(elsewhere.status).toBe(archiveStatus.refused)
    expect(node.archived()).toEqual([])
    expect(node.incoming()).toEqual([])
    expect((await push(segment, packed, 'gz')).status).toBe(0)
    expect((await node.receive(`has ${systemIdentifier} ${segment}`)).stdout).toBe(
      `replctl-archive gz ${packed.length}\n`,
    )
    expect((await node.receive(`has ${systemIdentifier} ${segments[1]}`)).status).toBe(1)
    const plain = await node.receive(`get ${systemIdentifier} ${segment}`)
    const heading = 'replctl-archive none -\n'
    expect(plain.stdout.slice(0, heading.length)).toBe(heading)
    expect(sha256(Buffer.from(plain.stdout.slice(heading.length), 'latin1'))).toBe(sha256(good))
  })

  test('a file for WAL that its timeline never came to is not archived, and keeps nothing waiting', async () => {
    const node = await freshNode({ shell })
    const wal = kit.directory(`never-${shell}`)
    const [first, next] = [segments[0]!, segments[1]!]
    const begin = (segment: string) => {
      const offset = Number.parseInt(segment.slice(16), 16) * segmentSize
      return `${Number.parseInt(segment.slice(8, 16), 16).toString(16).toUpperCase()}/${offset.toString(16).toUpperCase()}`
    }
    // Kept from an older segment, as PostgreSQL recycles them, and made of zeros, as it makes them.
    const contents = [contentOf(first), Buffer.alloc(segmentSize)]
    const path = join(wal, next)
    for (const content of contents) {
      writeFileSync(path, content)
      for (const [history, status] of [
        ['', archiveStatus.wrongFile],
        [`1\t${begin(segments[2]!)}\tleft after it`, archiveStatus.wrongFile],
        [`7\t${begin(first)}\tof another timeline`, archiveStatus.wrongFile],
        [`1\t${begin(next)}\tleft where it begins`, archiveStatus.done],
        [`1\t${begin(first)}\tleft before it\n\n2\t${begin(segments[2]!)}\tlater`, archiveStatus.done],
      ] as const) {
        writeFileSync(join(wal, '00000003.history'), `${history}\n`)
        const pushed = await node.push(path, next)
        expect({ history, status: pushed.status }).toEqual({ history, status })
        if (status === archiveStatus.done) expect(pushed.stderr).toMatch(/holds nothing to archive/)
      }
    }
    expect(node.archived()).toEqual([])
    // One that holds what its name says is archived, whatever a history says.
    writeFileSync(path, contentOf(next))
    expect((await node.push(path, next)).status).toBe(archiveStatus.done)
    expect(node.archived().map((file) => file.slice(0, 24))).toEqual([next])
  })

  test('requests that are not exactly one of the verbs are refused', async () => {
    const node = await freshNode({ shell })
    const segment = segments[0]!
    const hash = sha256('x')
    const requests = [
      '',
      'sh',
      'id; id',
      'push',
      `push ${systemIdentifier} ${segment} 1 ${hash}`,
      `push ${systemIdentifier} ${segment} 1 ${hash} none none`,
      `push ${systemIdentifier} ${segment} 0 ${hash} none`,
      `push ${systemIdentifier} ${segment} -1 ${hash} none`,
      `push ${systemIdentifier} ${segment} 1 ${hash}0 none`,
      `push ${systemIdentifier} ${segment} 1 ${hash.toUpperCase()}X none`,
      `push ${systemIdentifier} ${segment} 1 ${hash} ../x`,
      `push ${systemIdentifier} ../${segment} 1 ${hash} none`,
      `push ${systemIdentifier} ${segment.toLowerCase().replace(/0/g, 'a')} 1 ${hash} none`,
      `push ${systemIdentifier} ${segment}0 1 ${hash} none`,
      `push ${foreignIdentifier} ${segment} 1 ${hash} none`,
      `batch ${systemIdentifier}`,
      `batch ${systemIdentifier} 0`,
      `batch ${systemIdentifier} 1000`,
      `batch ${foreignIdentifier} 1`,
      `get ${foreignIdentifier} ${segment}`,
      `get ${systemIdentifier} ../../etc/passwd`,
      `get ${systemIdentifier} .incoming`,
      `get ${systemIdentifier} *`,
      `get ${systemIdentifier}`,
      `has ${systemIdentifier} ${segment} more`,
      `has ${systemIdentifier} $(id)`,
      `has ${systemIdentifier} ${segment}.backup`,
      `has ${systemIdentifier} ${segment}.history`,
      `has ${systemIdentifier} 00000002.partial`,
    ]
    for (const request of requests) {
      const { status, stdout } = await node.receive(request)
      expect({ request, status, stdout }).toEqual({ request, status: archiveStatus.refused, stdout: '' })
    }
    const [data, hash1] = [contentOf(segment), sha256(contentOf(segment))]
    const frame = (line: string) => Buffer.concat([Buffer.from(`${line}\n`), data])
    const batches: readonly (readonly [number, string])[] = [
      [archiveStatus.refused, `../${segment} ${data.length} ${hash1} none`],
      [archiveStatus.refused, `${segment}.history ${data.length} ${hash1} none`],
      [archiveStatus.refused, `${segment} ${data.length} ${hash1} ../../x`],
      [archiveStatus.refused, `${segment} -1 ${hash1} none`],
      [archiveStatus.refused, `${segments[1]} ${data.length} ${hash1} none`],
      [archiveStatus.damaged, `${segment} ${data.length} ${hash} none`],
    ]
    for (const [wanted, line] of batches) {
      const { status, stdout } = await node.receive(`batch ${systemIdentifier} 1`, frame(line))
      expect({ line, status, stdout }).toEqual({ line, status: wanted, stdout: '' })
    }
    const truncated = [
      ['gz', gzipSync(data)],
      ['zst', spawnSync('zstd', ['-1', '-q', '-c'], { input: data, maxBuffer: 1 << 28 }).stdout],
      ['lz4', spawnSync('lz4', ['-1', '-q', '-c'], { input: data, maxBuffer: 1 << 28 }).stdout],
    ] as const
    for (const [suffix, packed] of truncated) {
      const short = packed.subarray(0, packed.length - 100)
      const request = `${segment} ${short.length} ${sha256(short)} ${suffix}\n`
      const { status, stdout } = await node.receive(
        `batch ${systemIdentifier} 1`,
        Buffer.concat([Buffer.from(request), short]),
      )
      expect({ suffix, status, stdout }).toEqual({ suffix, status: archiveStatus.refused, stdout: '' })
    }
    expect(node.archived()).toEqual([])
    expect(node.incoming()).toEqual([])
    const good = frame(`${segment} ${data.length} ${hash1} none`)
    expect(await node.receive(`batch ${systemIdentifier} 1`, good)).toMatchObject({
      status: 0,
      stdout: `replctl-archive done ${segment}\n`,
    })
    expect(node.archived()).toEqual([segment])
    expect(sha256(await fetched(node, segment))).toBe(hash1)
  })

  test('an archive host that cannot be reached ends in time, with a status below 126', async () => {
    const node = await freshNode({ shell, name: 'lonely', port: kit.port - 1 })
    const segment = segments[0]!
    const pushed = await node.push(pathOf(segment), segment)
    expect(pushed.status).toBe(archiveStatus.unreachable)
    expect(pushed.stderr).toContain('cannot be reached')
    const target = join(kit.root, 'absent')
    expect((await node.fetch(segment, target)).status).toBe(archiveStatus.unreachable)
    const soonAfter = await node.fetch(segment, target)
    expect(soonAfter.status).toBe(archiveStatus.unreachable)
    expect(soonAfter.stderr).toMatch(/could not be reached \d s ago/)
  })

  test('a file archived damaged is not handed out', async () => {
    const node = await freshNode({ shell, compression: 'zstd' })
    const segment = segments[0]!
    expect((await node.push(pathOf(segment), segment)).status).toBe(0)
    const archived = join(node.walDir, `${segment}.zst`)
    const whole = readFileSync(archived)
    writeFileSync(archived, whole.subarray(0, whole.length / 2))
    const target = join(kit.root, 'damaged')
    expect((await node.fetch(segment, target)).status).toBe(archiveStatus.damaged)
    rmSync(archived)
    kit.write(join(node.walDir, segment), contentOf(segments[1]!))
    const swapped = await node.fetch(segment, target)
    expect(swapped.status).toBe(archiveStatus.wrongFile)
    expect(swapped.stderr).toContain('another segment')
    kit.write(join(node.walDir, segment), contentOf(segment))
    kit.write(join(node.walDir, `${segment}.gz`), gzipSync(readFileSync(otherContent(segment)), { level: 1 }))
    const two = await node.fetch(segment, target)
    expect(two.status).toBe(archiveStatus.conflict)
    expect(two.stderr).toContain('differ')
    expect(existsSync(target)).toBe(false)
  })
})

describe('the transfer', () => {
  test('a push killed at any moment leaves nothing under the final name, and the next one succeeds (P-30)', async () => {
    const cold = await freshNode({ name: 'killed', compression: 'none' })
    const startedAt = performance.now()
    await cold.push(pathOf(segments[1]!), segments[1]!)
    const wholeMs = performance.now() - startedAt
    const segment = segments[0]!
    const whole = sha256(contentOf(segment))
    let [unpublished, published] = [0, 0]
    for (let round = 0; round < 20; round++) {
      // Once with a connection that is warm, once with one that is made.
      if (round % 2 === 1) await cold.disconnect()
      const node = await freshNode({ name: 'killed', compression: 'none' })
      const child = kit.spawn(node.pushPath, [pathOf(segment), segment])
      await delay(Math.random() * wholeMs * 1.3)
      killQuietly(-child.pid!)
      // One that is dead and not yet reaped still looks alive to the next push, which then leaves its files to it.
      await awaitCondition(
        'the killed push is gone',
        () => child.signalCode !== null || child.exitCode !== null,
      )
      // Whenever it is asked for, there is all of it or nothing.
      await awaitCondition('the receiver has noticed', () => node.incoming().length === 0)
      if (node.archived().length === 0) unpublished++
      else published++
      if (node.archived().length > 0) expect(sha256(await fetched(node, segment))).toBe(whole)
      expect((await node.push(pathOf(segment), segment)).status).toBe(0)
      expect(node.archived()).toEqual([segment])
      expect(sha256(await fetched(node, segment))).toBe(whole)
      expect(readdirSync(node.stateDirectory).filter((name) => name.startsWith('push.'))).toEqual([])
    }
    console.log(`killed pushes: ${unpublished} archived nothing, ${published} had archived all`)
    expect(unpublished).toBeGreaterThan(0)
  })

  test('a receiver killed with SIGKILL leaves a temporary file that the next push removes', async () => {
    const node = await freshNode({ compression: 'none' })
    const segment = segments[0]!
    const data = contentOf(segment)
    const child = kit.spawn(node.receiverPath, [kit.archiveDir, systemIdentifier], {
      env: {
        SSH_ORIGINAL_COMMAND: `push ${systemIdentifier} ${segment} ${data.length} ${sha256(data)} none`,
      },
    })
    child.stdin!.write(data.subarray(0, 1_000_000))
    await awaitCondition('a temporary file', () => node.incoming().length === 1)
    killQuietly(-child.pid!)
    await new Promise((resolve) => child.once('close', resolve))
    expect(node.archived()).toEqual([])
    expect(node.incoming()).toHaveLength(1)
    expect((await node.push(pathOf(segments[1]!), segments[1]!)).status).toBe(0)
    expect(node.incoming()).toEqual([])
  })

  test('a push that is under way keeps its temporary file', async () => {
    const node = await freshNode({ compression: 'none' })
    const segment = segments[0]!
    const data = contentOf(segment)
    const slow = kit.spawn(node.receiverPath, [kit.archiveDir, systemIdentifier], {
      env: {
        SSH_ORIGINAL_COMMAND: `push ${systemIdentifier} ${segment} ${data.length} ${sha256(data)} none`,
      },
    })
    slow.stdin!.write(data.subarray(0, 1_000_000))
    await awaitCondition('a temporary file', () => node.incoming().length === 1)
    expect((await node.push(pathOf(segments[1]!), segments[1]!)).status).toBe(0)
    const ended = new Promise((resolve) => slow.once('close', resolve))
    slow.stdin!.end(data.subarray(1_000_000))
    expect(await ended).toBe(0)
    expect(node.archived()).toEqual([segment, segments[1]])
  })

  test('a full disk fails the push and leaves nothing; with room again it succeeds', async ({ skip }) => {
    const node = await freshNode({ compression: 'none' })
    const size = `size=${Math.round(segmentSize * 1.5)},mode=777`
    const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', size, 'tmpfs', node.walDir])
    if (mounted.status !== 0) skip('cannot mount a tmpfs')
    try {
      const [first, second] = [segments[0]!, segments[1]!]
      expect((await node.push(pathOf(first), first)).status).toBe(0)
      const full = await node.push(pathOf(second), second)
      expect(full.status).toBe(archiveStatus.archiveHostFailed)
      expect(full.stderr).toContain('No space left on device')
      expect(node.archived()).toEqual([first])
      expect(node.incoming()).toEqual([])
      rmSync(join(node.walDir, first))
      expect((await node.push(pathOf(second), second)).status).toBe(0)
      expect(node.archived()).toEqual([second])
    } finally {
      spawnSync('umount', ['-l', node.walDir])
    }
  })

  test('a full disk on the node does not stop its archiving', async ({ skip }) => {
    const node = await freshNode({ name: 'full', compression: 'zstd' })
    const segment = segments[0]!
    await node.push(pathOf(segment), segment)
    await node.disconnect()
    const kept = readdirSync(node.stateDirectory).map(
      (name) =>
        [
          name,
          readFileSync(join(node.stateDirectory, name)),
          statSync(join(node.stateDirectory, name)).mode,
        ] as const,
    )
    const mounted = spawnSync('mount', [
      '-t',
      'tmpfs',
      '-o',
      'size=1m,mode=777',
      'tmpfs',
      node.stateDirectory,
    ])
    if (mounted.status !== 0) skip('cannot mount a tmpfs')
    try {
      for (const [name, content, mode] of kept) kit.write(join(node.stateDirectory, name), content, mode)
      const ballast = spawnSync('dd', [
        'if=/dev/zero',
        `of=${join(node.stateDirectory, 'ballast')}`,
        'bs=4096',
      ])
      expect(ballast.stderr.toString()).toContain('No space left on device')
      const next = segments[4]!
      const pushed = await node.push(pathOf(next), next)
      expect(pushed.status).toBe(0)
      expect(pushed.stderr).toContain('archived without compression')
      expect(node.archived()).toContain(next)
    } finally {
      for (const pid of kit.connections(node.stateDirectory)) killQuietly(pid)
      spawnSync('umount', ['-l', node.stateDirectory])
    }
  })

  test('an archive directory that is not there is never made anew: it may be an unmounted disk', async () => {
    const node = await freshNode()
    rmSync(node.walDir, { recursive: true })
    const pushed = await node.push(pathOf(segments[0]!), segments[0]!)
    expect(pushed.status).toBe(archiveStatus.archiveHostFailed)
    expect(pushed.stderr).toContain('is its file system mounted?')
    expect(existsSync(node.walDir)).toBe(false)
    kit.directory('archive', systemIdentifier, 'wal')
  })

  test.each([
    ['with flock', (script: string) => script],
    [
      'without flock',
      (script: string) => script.replaceAll('command -v flock', 'command -v no-such-program'),
    ],
  ])(
    'pushes of two contents at once: one content is archived, the other is a conflict (%s)',
    async (_, edit) => {
      const segment = segments[0]!
      const contents = [pathOf(segment), otherContent(segment)]
      // Without flock only pushes with the same suffix are kept apart.
      const compressions = edit('command -v flock').includes('flock') ? packings : (['zstd'] as const)
      for (let round = 0; round < 5; round++) {
        await freshNode()
        const nodes = await Promise.all(
          contents.map((_, index) =>
            kit.addNode({
              name: `racer${index}`,
              systemIdentifier,
              edit,
              compression: compressions[(round + index) % compressions.length]!,
            }),
          ),
        )
        const outcomes = await Promise.all(
          [0, 1, 0, 1].map((content) => nodes[content]!.push(contents[content]!, segment)),
        )
        const statuses = outcomes.map((outcome) => outcome.status)
        expect(nodes[0]!.archived()).toHaveLength(1)
        const archived = sha256(await fetched(nodes[0]!, segment))
        const winner = contents.findIndex((file) => sha256(readFileSync(file)) === archived)
        expect(statuses).toEqual(
          [0, 1, 0, 1].map((content) => (content === winner ? 0 : archiveStatus.conflict)),
        )
      }
    },
  )

  test('the file is durable before it is published, and its name before success is reported', async ({
    skip,
  }) => {
    if (spawnSync('strace', ['-V']).status !== 0) skip('strace is not installed')
    const segment = segments[0]!
    const data = contentOf(segment)
    for (const shell of shells) {
      const node = await freshNode({ shell, compression: 'none' })
      const trace = kit.write('trace', '')
      const filter = 'trace=openat,fsync,fdatasync,sync,syncfs,linkat,link,write'
      const request = `push ${systemIdentifier} ${segment} ${data.length} ${sha256(data)} none`
      const args = [
        '-f',
        '-y',
        '-s',
        '0',
        '-e',
        filter,
        '-o',
        trace,
        node.receiverPath,
        kit.archiveDir,
        systemIdentifier,
      ]
      const env = { SSH_ORIGINAL_COMMAND: request }
      expect((await kit.run('strace', args, { env, stdin: data })).status).toBe(0)
      const calls = finishedCalls(readFileSync(trace, 'utf8'))
      const lastWrite = calls.findLastIndex((call) => /^write\(\d+<[^>]*\.incoming\/[^>]*\.push>/.test(call))
      const fileSync = calls.findIndex((call) => /^fsync\(\d+<[^>]*\.incoming\/[^>]*\.push>.* = 0/.test(call))
      const link = calls.findIndex((call) => /^link(at)?\(.*\.incoming\/.* = 0/.test(call))
      const directorySync = calls.findIndex((call) => /^fsync\(\d+<[^>]*\/wal>.* = 0/.test(call))
      expect(lastWrite).toBeGreaterThan(0)
      expect(fileSync).toBeGreaterThan(lastWrite)
      expect(link).toBeGreaterThan(fileSync)
      expect(directorySync).toBeGreaterThan(link)
    }
  })
})

describe('what follows is sent ahead', () => {
  /** A data directory with these segments ready, as PostgreSQL's archiver finds it. */
  function ready(names: readonly string[]) {
    const data = kit.directory(`data-${Math.random().toString(36).slice(2)}`)
    const wal = kit.directory(`${data.slice(kit.root.length)}/pg_wal`)
    const status = kit.directory(`${wal.slice(kit.root.length)}/archive_status`)
    for (const name of names) {
      kit.write(join(wal, name), contentOf(name))
      kit.write(join(status, `${name}.ready`), '')
    }
    return { data, wal, status }
  }
  /** Asks for one file as PostgreSQL does, and takes it as archived if that succeeds. */
  async function archiveOne(node: ArchiveNode, { data, status }: ReturnType<typeof ready>, name: string) {
    const done = await kit.run(node.pushPath, [`pg_wal/${name}`, name], { cwd: data })
    if (done.status === 0) rmSync(join(status, `${name}.ready`), { force: true })
    return done
  }
  const notes = (node: ArchiveNode) =>
    existsSync(join(node.stateDirectory, 'sent')) ? readdirSync(join(node.stateDirectory, 'sent')) : []
  const isIdle = (node: ArchiveNode) =>
    !readdirSync(node.stateDirectory).some((name) => name.startsWith('ahead.names'))
  const idle = (node: ArchiveNode) => awaitCondition('nothing is sent ahead', () => isIdle(node), slow)

  test.each(shells)('with %s: each success means that this very file is in the archive', async (shell) => {
    for (const compression of ['auto', 'none'] as const) {
      const node = await freshNode({ name: 'ahead', shell, compression })
      const names = segments.slice(0, 14)
      const server = ready(names)
      let sentAhead = 0
      for (const name of names) {
        const wasNoted = notes(node).includes(name)
        // A batch that carries the same file may be quicker: then there is a warning, too.
        expect({ name, status: (await archiveOne(node, server, name)).status }).toEqual({ name, status: 0 })
        expect(node.archived().map((file) => file.slice(0, 24))).toContain(name)
        if (wasNoted) sentAhead++
        if (name === names[0]) await awaitCondition('notes', () => notes(node).length > 0, slow)
      }
      await idle(node)
      expect(sentAhead).toBeGreaterThan(0)
      expect(node.incoming()).toEqual([])
      for (const name of [names[0]!, names[5]!, names[13]!])
        expect(sha256(await fetched(node, name))).toBe(sha256(contentOf(name)))
    }
  })

  test('a note never lies: a file that took the place of the one that was sent is compared anew', async () => {
    const node = await freshNode({ name: 'ahead-lie', compression: 'none' })
    const names = segments.slice(0, 8)
    const server = ready(names)
    expect((await archiveOne(node, server, names[0]!)).status).toBe(0)
    await awaitCondition(
      'notes',
      () => notes(node).includes(names[1]!) && notes(node).includes(names[2]!),
      slow,
    )
    await idle(node)
    const path = join(server.wal, names[1]!)
    const { atime, mtime } = statSync(path)
    // The same inode, size and time of modification: only the time of change says it.
    writeFileSync(path, readFileSync(otherContent(names[1]!)), { flag: 'r+' })
    utimesSync(path, atime, mtime)
    const conflict = await archiveOne(node, server, names[1]!)
    expect(conflict.status).toBe(archiveStatus.conflict)
    expect(sha256(await fetched(node, names[1]!))).toBe(sha256(contentOf(names[1]!)))
    // A note of another archive host or cluster counts for nothing.
    const note = join(node.stateDirectory, 'sent', names[2]!)
    writeFileSync(note, readFileSync(note, 'utf8').replace(/^ssh-/, 'ssh-0'))
    rmSync(join(node.walDir, names[2]!))
    expect((await archiveOne(node, server, names[2]!)).status).toBe(0)
    expect(node.archived()).toContain(names[2])
  })

  test('a segment that is not what its name says is not sent ahead, and its own push says why', async () => {
    for (const compression of ['auto', 'none'] as const) {
      const node = await freshNode({ name: 'ahead-wrong', compression })
      const names = segments.slice(0, 6)
      const server = ready(names)
      writeFileSync(join(server.wal, names[2]!), contentOf(segments[9]!))
      expect((await archiveOne(node, server, names[0]!)).status).toBe(0)
      await idle(node)
      expect((await archiveOne(node, server, names[1]!)).status).toBe(0)
      await idle(node)
      const wrong = await archiveOne(node, server, names[2]!)
      expect(wrong.stderr).toMatch(/which is another segment/)
      expect(wrong.status).toBe(archiveStatus.wrongFile)
      expect(node.archived().filter((file) => file.startsWith(names[2]!))).toEqual([])
    }
  })

  test('killed while it sends ahead, it leaves nothing that is in the way', async () => {
    const node = await freshNode({ name: 'ahead-kill', compression: 'none' })
    const names = segments.slice(0, 12)
    const server = ready(names)
    for (const name of names) {
      expect((await archiveOne(node, server, name)).status).toBe(0)
      for (const pid of processesOf(`${node.pushPath} --ahead`)) killQuietly(pid)
    }
    await awaitCondition(
      'the receivers have noticed',
      async () => {
        await archiveOne(node, server, names.at(-1)!)
        return node.incoming().length === 0
      },
      slow,
    )
    for (const name of names) expect(sha256(await fetched(node, name))).toBe(sha256(contentOf(name)))
  })

  test('an archive host that cannot be reached is not tried ahead, and PostgreSQL hears of it', async () => {
    const node = await freshNode({ name: 'ahead-off', compression: 'none' })
    const names = segments.slice(0, 6)
    const server = ready(names)
    await node.disconnect()
    await kit.stopSshd()
    try {
      expect((await archiveOne(node, server, names[0]!)).status).toBe(archiveStatus.unreachable)
      expect(processesOf(`${node.pushPath} --ahead`)).toEqual([])
    } finally {
      await kit.startSshd()
    }
    for (const name of names) expect((await archiveOne(node, server, name)).status).toBe(0)
    expect(existsSync(join(node.stateDirectory, 'archive_error'))).toBe(false)
  })
})

describe('the connection', () => {
  test(`${warmSegments} segments go over one warm connection, which holds nothing of PostgreSQL's open`, async () => {
    const rates: string[] = []
    for (const compression of ['auto', 'none'] as const) {
      const node = await freshNode({ name: 'warm', compression })
      await node.push(pathOf(segments[0]!), segments[0]!)
      const logins = countLogins()
      const startedAt = performance.now()
      for (const segment of segments.slice(1, warmSegments + 1)) {
        const { status, stderr } = await node.push(pathOf(segment), segment)
        expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
      }
      rates.push(`${compression} ${((warmSegments * 1000) / (performance.now() - startedAt)).toFixed(1)}`)
      expect(countLogins()).toBe(logins)
      expect(node.archived()).toHaveLength(warmSegments + 1)
      await node.disconnect()
    }
    console.log(`segments/s over one warm connection: ${rates.join(', ')}`)
  })

  test('a connection that broke, or a socket nobody serves, costs one failed push at most', async () => {
    const node = await freshNode({ compression: 'none' })
    await node.disconnect()
    await node.push(pathOf(segments[0]!), segments[0]!)
    await kit.stopSshd()
    expect((await node.push(pathOf(segments[1]!), segments[1]!)).status).toBe(archiveStatus.unreachable)
    await kit.startSshd()
    expect((await node.push(pathOf(segments[1]!), segments[1]!)).status).toBe(0)
    const socket = readdirSync(node.stateDirectory).find((name) => /^ssh-[0-9a-f]{8}$/.test(name))!
    for (const pid of kit.connections(node.stateDirectory)) killQuietly(pid)
    expect(existsSync(join(node.stateDirectory, socket))).toBe(true)
    expect((await node.push(pathOf(segments[2]!), segments[2]!)).status).toBe(0)
  })

  test('a change of the archive directory takes effect at once, whatever connection is still open', async () => {
    const before = await freshNode({ name: 'moved', compression: 'none' })
    expect((await before.push(pathOf(segments[0]!), segments[0]!)).status).toBe(0)
    expect(kit.connections(before.stateDirectory)).toHaveLength(1)
    const wal = kit.directory('elsewhere', systemIdentifier, 'wal')
    const dir = join(kit.root, 'elsewhere')
    const after = await kit.addNode({ systemIdentifier, name: 'moved', compression: 'none', dir })
    expect((await after.push(pathOf(segments[1]!), segments[1]!)).status).toBe(0)
    expect(readdirSync(wal)).toContain(segments[1])
    expect(before.archived()).toEqual([segments[0]])
    expect((await after.fetch(segments[0]!, join(kit.root, 'fetched'))).status).toBe(archiveStatus.missing)
  })

  test('a state directory with a long name has a warm connection, too', async () => {
    const node = await freshNode({ name: 'deep', place: 'long/'.repeat(30), compression: 'none' })
    const pushes = [0, 1].map((index) => () => node.push(pathOf(segments[index]!), segments[index]!))
    for (const push of pushes) expect(await push()).toMatchObject({ status: 0, stderr: '' })
    expect(kit.connections(node.stateDirectory)).toHaveLength(1)
  })

  test('what a login shell prints by itself does no harm', async () => {
    const node = await freshNode({ name: 'noisy', compression: 'auto' })
    kit.write(
      node.receiverPath,
      readFileSync(node.receiverPath, 'utf8').replace('\n', '\necho Welcome to this host\n'),
      0o700,
    )
    expect(await node.push(pathOf(segments[0]!), segments[0]!)).toMatchObject({ status: 0, stderr: '' })
    expect(node.archived()).toEqual([`${segments[0]}.zst`])
    expect(sha256(await fetched(node, segments[0]!))).toBe(sha256(contentOf(segments[0]!)))
    await freshNode()
  })

  test('a check sends nothing and says what the archive host can store, or why it cannot be asked', async () => {
    const node = await freshNode({ name: 'checks' })
    const checked = await kit.run(node.pushPath, ['--check'])
    expect(checked).toMatchObject({ status: 0, stderr: '' })
    expect(parseArchiveCheck(checked.stdout)).toEqual(['none', 'gz', 'lz4', 'zst'])
    rmSync(node.walDir, { recursive: true })
    const failed = await kit.run(node.pushPath, ['--check'])
    expect(failed).toMatchObject({ status: archiveStatus.archiveHostFailed, stdout: '' })
    expect(failed.stderr).toContain('is its file system mounted?')
    expect(existsSync(join(node.stateDirectory, 'archive_error'))).toBe(false)
  })

  test('what the receiver can unpack is asked once', async () => {
    const node = await freshNode({ name: 'asks', compression: 'auto' })
    const segment = segments[0]!
    await node.push(pathOf(segment), segment)
    expect(readFileSync(join(node.stateDirectory, 'archive_receiver'), 'utf8')).toMatch(
      / none gz lz4 zst batch\n$/,
    )
    expect(node.archived()).toEqual([`${segment}.zst`])
  })

  test('auto takes lz4 where a host has no zstd, nothing where it has neither, and never gzip', async () => {
    const without =
      (...programs: readonly string[]) =>
      (script: string) =>
        programs.reduce(
          (text, program) => text.replaceAll(`command -v ${program} `, 'command -v no-such '),
          script,
        )
    const expected = { zstd: '.lz4', 'zstd lz4': '' }
    for (const [missing, suffix] of Object.entries(expected)) {
      const node = await freshNode({
        name: `no-${missing.replace(' ', '-')}`,
        compression: 'auto',
        edit: without(...missing.split(' ')),
      })
      expect((await node.push(pathOf(segments[0]!), segments[0]!)).status).toBe(0)
      expect(node.archived()).toEqual([segments[0] + suffix])
    }
  })

  test('a receiver that lost its program for the asked compression gets the segment unpacked', async () => {
    const edit = (script: string) => script.replaceAll('command -v zstd ', 'command -v no-such ')
    const node = await freshNode({ name: 'lost', compression: 'zstd', edit })
    const pushed = await node.push(pathOf(segments[0]!), segments[0]!)
    expect(pushed.status).toBe(0)
    expect(pushed.stderr).toContain('archived without compression')
    expect(node.archived()).toEqual([segments[0]])
    await freshNode()
  })
})

describe('the key', () => {
  test('opens neither a shell, nor a terminal, nor a file transfer, nor a tunnel', async () => {
    const node = await freshNode()
    const before = readdirSync(kit.root)
    for (const request of ['id', 'sh -c id', `touch ${kit.root}/escaped`, 'scp -t /tmp']) {
      const { status, stdout } = await node.ssh(['127.0.0.1', request])
      expect({ status, stdout }).toEqual({ status: archiveStatus.refused, stdout: '' })
    }
    expect((await node.ssh(['127.0.0.1'])).status).toBe(archiveStatus.refused)
    expect((await node.ssh(['-tt', '127.0.0.1', 'id'])).stdout).not.toContain('uid=')
    expect((await node.ssh(['-s', '127.0.0.1', 'sftp'])).status).not.toBe(0)
    const tunnel = await node.ssh(['-W', `127.0.0.1:${kit.port}`, '127.0.0.1'])
    expect(tunnel.status).not.toBe(0)
    expect(tunnel.stdout).not.toContain('SSH-2.0')
    expect(readdirSync(kit.root)).toEqual(before)
  })

  test('reaches one cluster only', async () => {
    const node = await freshNode()
    const other = await kit.addNode({ name: 'other', systemIdentifier: foreignIdentifier })
    kit.write(join(other.walDir, segments[0]!), 'secret')
    for (const verb of ['get', 'has']) {
      const answer = await node.ssh(['127.0.0.1', `${verb} ${foreignIdentifier} ${segments[0]}`])
      expect(answer).toMatchObject({ status: archiveStatus.refused, stdout: '' })
    }
    const foreign = await other.push(pathOf(segments[1]!), segments[1]!)
    expect(foreign.status).toBe(archiveStatus.wrongFile)
    expect(other.archived()).toEqual([segments[0]])
  })

  test('an archive host with another host key is not spoken to', async () => {
    const node = await freshNode({ name: 'wary' })
    await kit.generateKey(join(kit.root, 'impostor'))
    const key = readFileSync(join(kit.root, 'impostor.pub'), 'utf8')
    kit.write(join(node.stateDirectory, 'archive_known_hosts'), `[127.0.0.1]:${kit.port} ${key}`)
    const pushed = await node.push(pathOf(segments[0]!), segments[0]!)
    expect(pushed.status).toBe(archiveStatus.unreachable)
    expect(pushed.stderr).toMatch(/host key/i)
  })
})

describe('with a server', () => {
  const odd = `it's 100% "odd" $HOME`
  let primary: LocalInstance
  let identifier: string

  beforeAll(async () => {
    primary = new LocalInstance(kit, 'served')
    await primary.init()
    identifier = await primary.systemIdentifier()
  })
  afterEach(() => primary.stop('immediate'))

  const isArchived = (node: ArchiveNode, segment: string) =>
    awaitCondition(`${segment} is archived`, () => node.archived().includes(`${segment}.zst`), {
      timeoutMs: 90_000,
    })

  test('a standby lives from the archive alone and is promoted; a restore waits while it cannot be reached', async () => {
    const node = await freshNode({ name: 'served-node', systemIdentifier: identifier, place: odd })
    const archiving = { archive_mode: 'on', archive_command: archiveCommandLine(node.pushPath) }
    const restoring = {
      restore_command: standbyRestoreCommandLine(node.fetchPath),
      wal_retrieve_retry_interval: '200ms',
    }
    await primary.start(archiving)
    await primary.sql('CREATE TABLE kept AS SELECT generate_series(1, 1000) AS id')
    const standby = new LocalInstance(kit, 'standby')
    const restore = new LocalInstance(kit, 'restore')
    try {
      await standby.copyOf(primary)
      await restore.copyOf(primary)
      await primary.sql('INSERT INTO kept SELECT generate_series(1001, 2000)')
      const last = await primary.sql('SELECT pg_walfile_name(pg_switch_wal())')
      await isArchived(node, last)

      kit.write(join(standby.dataDir, 'standby.signal'), '')
      await standby.start({ ...restoring, ...archiving })
      const countIn = (instance: LocalInstance) => instance.sql('SELECT count(*) FROM kept')
      await awaitCondition('the standby has replayed', async () => (await countIn(standby)) === '2000')
      await primary.stop()
      await standby.promote()
      await standby.sql('INSERT INTO kept SELECT generate_series(2001, 3000)')
      const next = await standby.sql('SELECT pg_walfile_name(pg_switch_wal())')
      expect(next.slice(0, 8)).toBe('00000002')
      await isArchived(node, next)
      expect(node.archived()).toContain('00000002.history')
      expect(await standby.sql('SELECT failed_count FROM pg_stat_archiver')).toBe('0')
      expect(readFileSync(standby.logFile, 'utf8')).not.toContain('archive-fetch:')

      await kit.stopSshd()
      await node.disconnect()
      kit.write(join(restore.dataDir, 'recovery.signal'), '')
      const restore_command = restoreCommandLine(node.fetchPath)
      await restore.start({ ...restoring, restore_command, archive_mode: 'off' }, false)
      const log = () => readFileSync(restore.logFile, 'utf8')
      await awaitCondition('the restore waits', () => log().split('recovery waits for').length > 2)
      expect(log()).not.toContain('archive recovery complete')
      await kit.startSshd()
      const isOpen = async () => (await restore.sql('SELECT pg_is_in_recovery()')) === 'f'
      await awaitCondition('the restore has ended', isOpen)
      expect(await countIn(restore)).toBe('3000')
      expect(readdirSync(restore.walDir).filter((name) => name.includes('replctl'))).toEqual([])
    } finally {
      await standby.stop('immediate')
      await restore.stop('immediate')
    }
  })

  test('a standby is promoted while its archive cannot be reached, on whichever timeline', async () => {
    const node = await freshNode({ name: 'cut-off', systemIdentifier: identifier, port: kit.port - 1 })
    const settings = {
      restore_command: standbyRestoreCommandLine(node.fetchPath),
      wal_retrieve_retry_interval: '200ms',
      archive_mode: 'off',
      primary_conninfo: `host=${primary.directory} user=postgres`,
    }
    await primary.start()
    const standby = new LocalInstance(kit, 'cut-off')
    try {
      await standby.copyOf(primary)
      for (const timeline of [2, 3]) {
        kit.write(join(standby.dataDir, 'standby.signal'), '')
        await standby.start(settings)
        await standby.promote()
        expect(await standby.sql('SELECT pg_is_in_recovery()')).toBe('f')
        await standby.sql('CHECKPOINT')
        expect(await standby.sql('SELECT timeline_id FROM pg_control_checkpoint()')).toBe(String(timeline))
        await standby.stop('fast')
      }
    } finally {
      await standby.stop('immediate')
    }
  })

  test('a finished segment that lies in pg_wal is read there, one that may be half written is not', async () => {
    const node = await freshNode({ name: 'own' })
    const [segment, other] = [segments[0]!, segments[1]!]
    const data = kit.directory('own-data')
    const status = kit.directory('own-data/pg_wal/archive_status')
    expect((await node.push(pathOf(segment), segment)).status).toBe(0)
    const fetch = async () => {
      const done = await node.fetch(segment, 'pg_wal/RECOVERYXLOG', { cwd: data })
      return [done.status, existsSync(join(data, 'pg_wal/RECOVERYXLOG'))]
    }
    kit.write(`own-data/pg_wal/${segment}`, contentOf(segment))
    expect(await fetch()).toEqual([0, true])
    rmSync(join(data, 'pg_wal/RECOVERYXLOG'))
    kit.write(join(status, `${segment}.done`), '')
    expect(await fetch()).toEqual([archiveStatus.missing, false])
    // Its name says so, its header does not: a file that was recycled.
    kit.write(`own-data/pg_wal/${segment}`, contentOf(other))
    expect(await fetch()).toEqual([0, true])
  })

  test('a server that stops does not wait for a restore_command that waits for its archive', async () => {
    const node = await freshNode({ name: 'unreached', systemIdentifier: identifier, port: kit.port - 1 })
    const restore = new LocalInstance(kit, 'stopped')
    await primary.start()
    await restore.copyOf(primary)
    kit.write(join(restore.dataDir, 'recovery.signal'), '')
    await restore.start({ restore_command: restoreCommandLine(node.fetchPath) }, false)
    await awaitCondition('the restore waits', () =>
      readFileSync(restore.logFile, 'utf8').includes('recovery waits for'),
    )
    const startedAt = performance.now()
    await restore.stop('fast')
    expect(performance.now() - startedAt).toBeLessThan(4000)
    expect(existsSync(join(restore.dataDir, 'postmaster.pid'))).toBe(false)
    expect(readdirSync(node.stateDirectory).filter((name) => name.startsWith('fetch.'))).toEqual([])
  })

  test('whether a failure may be reported depends on the recovery: on a standby it may, also up to version 11', async () => {
    const node = await freshNode({ name: 'older', port: kit.port - 1 })
    const dataDirectory = kit.directory('older-data')
    kit.directory('older-data', 'pg_wal')
    const ask = (timeoutMs: number) =>
      node.fetch(segments[0]!, 'pg_wal/RECOVERYXLOG', { cwd: dataDirectory, timeoutMs })
    expect((await ask(10_000)).status).toBe(archiveStatus.unreachable)
    kit.write(join(dataDirectory, 'recovery.signal'), '')
    expect((await ask(1500)).signal).toBe('SIGKILL')
    rmSync(join(dataDirectory, 'recovery.signal'))
    kit.write(join(dataDirectory, 'recovery.conf'), "#standby_mode = 'on'\nrestore_command = 'x'\n")
    expect((await ask(1500)).signal).toBe('SIGKILL')
    kit.write(join(dataDirectory, 'recovery.conf'), "standby_mode = 'on'\n")
    expect((await ask(10_000)).status).toBe(archiveStatus.unreachable)
    rmSync(join(dataDirectory, 'recovery.conf'))
    kit.write(join(dataDirectory, 'standby.signal'), '')
    expect((await ask(10_000)).status).toBe(archiveStatus.unreachable)
  })
})

function countLogins(): number {
  return readFileSync(join(kit.root, 'sshd.log'), 'utf8').split('Accepted publickey').length - 1
}

/** Calls of a trace in the order in which they returned; strace splits those that others came between. */
function finishedCalls(trace: string): readonly string[] {
  const begun = new Map<string, string>()
  return trace.split('\n').flatMap((line) => {
    const [, pid = '', call = ''] = /^(\d+)\s+(.*)$/.exec(line) ?? []
    const unfinished = /^(.*?) <unfinished \.\.\.>$/.exec(call)
    if (unfinished) begun.set(pid, unfinished[1]!)
    const resumed = /^<\.\.\. \w+ resumed>(.*)$/.exec(call)
    if (resumed) return [`${begun.get(pid) ?? ''}${resumed[1]}`]
    return unfinished ? [] : [call]
  })
}

function processesOf(words: string): readonly number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ').includes(words)
      } catch {
        return false
      }
    })
}
