import { existsSync, readdirSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Inventory } from '../../../src/cluster/inventory.ts'
import type { Step, StepContext } from '../../../src/engine/step.ts'
import type { ReplctlError } from '../../../src/errors.ts'
import { createNode } from '../../../src/node/node.ts'
import { archiveOwed } from '../../../src/steps/archive-owed.ts'
import type { ClusterInput } from '../../../src/steps/cluster-input.ts'
import { createShellTransport } from '../node/shell-transport.ts'
import { inventoryOf, lsn } from '../some-cluster.ts'

let home: string
let status: string
let ctx: StepContext
let warnings: ReplctlError[]

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'replctl-owed-'))
  const data = join(home, "pg's data")
  status = join(data, 'pg_wal/archive_status')
  await mkdir(status, { recursive: true })
  await mkdir(join(home, '.replctl/shop'), { recursive: true })
  await writeFile(join(data, 'PG_VERSION'), '15\n')
  // Beside archive_status it would send what follows as well.
  await archiver(
    '[ -f "$1" ] && [ ! -e "$(dirname "$1")/archive_status" ] || exit 9; printf "%s\\n" "$2" >> "$HOME/pushed"',
  )
  const [settings] = inventoryOf(['pg1'], { pg1: {} }).nodes
  const postgres = { ...settings!.postgres, dataDir: data }
  const node = createNode({ ...settings!, postgres }, 'shop', createShellTransport(home))
  warnings = []
  ctx = {
    ...{ node, on: () => node, timeoutMs: 5_000, signal: new AbortController().signal },
    ...{ isDryRun: false, isChecking: false, seenAt: new Map() },
    ...{ progress: () => undefined, warn: (error) => warnings.push(error) },
  }
})
afterEach(() => rm(home, { recursive: true, force: true }))

const archiver = (script: string) =>
  writeFile(join(home, '.replctl/shop/archive-push'), `#!/bin/sh\n${script}\n`, { mode: 0o755 })
const segment = async (name: string, mark: 'ready' | 'done', exists = true) => {
  if (exists) await writeFile(join(status, '..', name), '')
  await writeFile(join(status, `${name}.${mark}`), '')
}
const pushed = async () => (await readFile(join(home, 'pushed'), 'utf8')).trim().split('\n')

function stepFor(fork: string | null, archive: object = { mode: 'push' }): Step | undefined {
  const inventory = { ...inventoryOf(['pg1']), archive } as Inventory
  return archiveOwed({ inventory } as ClusterInput, ctx.node.name, fork === null ? null : lsn(fork))[0]
}

describe('what a former primary had not archived', () => {
  test('is archived in order, and marked so', async () => {
    for (const n of [5, 3, 4]) await segment(`00000001000000000000000${n}`, n === 4 ? 'done' : 'ready')
    await segment('000000010000000000000002', 'ready', false)
    await segment('00000002.history', 'ready')
    const step = stepFor(null)!
    expect(await step.check(ctx)).toMatchObject({
      is: 'pending',
      because: '2 segments, 000000010000000000000003 to 000000010000000000000005',
    })
    await step.apply!(ctx)
    expect(warnings).toEqual([])
    expect(await pushed()).toEqual(['000000010000000000000003', '000000010000000000000005'])
    expect(existsSync(join(home, '.replctl/shop/owed'))).toBe(false)
    expect(readdirSync(status)).toContain('000000010000000000000005.done')
    expect(await step.check(ctx)).toMatchObject({ is: 'satisfied' })
  })

  test('ends before the segment of the fork, on whichever timeline', async () => {
    for (const name of [
      [1, 0, 'FE'],
      [1, 0, 'FF'],
      [2, 1, '00'],
      [3, 1, '01'],
      [1, 1, '00'],
    ]) {
      await segment(`0000000${name[0]}0000000${name[1]}000000${name[2]}`, 'ready')
    }
    // 16 MiB segments: 0x100 is the first one of log file 1.
    await stepFor('1/28')!.apply!(ctx)
    expect(await pushed()).toEqual(['0000000100000000000000FE', '0000000100000000000000FF'])
  })

  test('is archived as far as the archive takes it: one that it refuses keeps no other one out', async () => {
    for (const n of [3, 4, 5]) await segment(`00000001000000000000000${n}`, 'ready')
    await archiver('case $2 in *3) echo conflict >&2; exit 1 ;; esac; printf "%s\\n" "$2" >> "$HOME/pushed"')
    await stepFor(null)!.apply!(ctx)
    expect(await pushed()).toEqual(['000000010000000000000004', '000000010000000000000005'])
    expect(warnings).toMatchObject([{ code: 'archive-gap', detail: '000000010000000000000003: conflict' }])
  })

  test('that the archive refuses is a warning that names it', async () => {
    await segment('000000010000000000000003', 'ready')
    await archiver('echo "cannot be reached" >&2; exit 7')
    await stepFor(null)!.apply!(ctx)
    expect(warnings).toMatchObject([
      { code: 'archive-gap', detail: '000000010000000000000003: cannot be reached' },
    ])
    expect(readdirSync(status)).toContain('000000010000000000000003.ready')
  })

  test('is nobody’s business without an archive, and where WAL is streamed there', () => {
    expect(archiveOwed({ inventory: inventoryOf(['pg1']) } as ClusterInput, ctx.node.name, null)).toEqual([])
    expect(stepFor(null, { mode: 'stream' })).toBeUndefined()
  })
})
