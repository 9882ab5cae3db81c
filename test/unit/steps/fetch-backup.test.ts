import { existsSync, readFileSync } from 'node:fs'
import { chmod, mkdir, mkdtemp, realpath, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { shellScript } from '../../../src/command.ts'
import type { StepContext } from '../../../src/engine/step.ts'
import { ReplctlError } from '../../../src/errors.ts'
import { followJob } from '../../../src/node/follow-job.ts'
import { lookAtJob, startJob } from '../../../src/node/jobs.ts'
import { createNode, type Node } from '../../../src/node/node.ts'
import { restoreJob } from '../../../src/steps/end-restore.ts'
import { ensureRestoreDirectory } from '../../../src/steps/ensure-restore-directory.ts'
import { fetchBackup } from '../../../src/steps/fetch-backup.ts'
import { notFree } from '../../../src/steps/require-restore-place.ts'
import type { Restore } from '../../../src/steps/restore-record.ts'
import { fetchBackupScript, lookAtTargetScript } from '../../../src/steps/restore-scripts.ts'
import { createShellTransport } from '../node/shell-transport.ts'
import { someBackup } from '../some-backup.ts'
import { inventoryOf } from '../some-cluster.ts'

let home: string
let node: Node
let bin: string
const inHome = (name: string) => join(home, name)

/** Stands for a program; what it is called with goes into the file `calls`. */
async function program(name: string, body: string): Promise<void> {
  await writeFile(join(bin, name), `#!/bin/sh\necho "${name} $*" >> '${inHome('calls')}'\n${body}\n`)
  await chmod(join(bin, name), 0o755)
}

beforeEach(async () => {
  home = await realpath(await mkdtemp(join(tmpdir(), 'replctl-fetch-')))
  bin = inHome('bin')
  node = createNode(inventoryOf(['pg1']).nodes[0]!, 'shop', createShellTransport(home))
  await mkdir(bin)
  // What the archive host sends: a mark, then the file; for base.tar one that holds PG_VERSION.
  await program(
    'ssh',
    `for asked; do :; done
set -- $asked
printf 'replctl-archive none 0\n'
case $4 in
base.tar) cd '${home}' && echo 17 > PG_VERSION && tar -cf - PG_VERSION ;;
*) echo "$3" ;;
esac`,
  )
  await program('pg_combinebackup', `while [ $# -gt 1 ]; do shift; done; cp '${inHome('PG_VERSION')}' "$1/"`)
})
afterEach(() => rm(home, { recursive: true, force: true }))

/** Fetches a full backup A with B and C that build on it. */
function fetchChain(data?: string, ...mappings: readonly string[]) {
  const files = ['A', 'B', 'C'].flatMap((id, index) =>
    ['base.tar', 'backup_manifest'].flatMap((file) => [id, file, String(index), '.']),
  )
  return fetchFiles([...files, '--', ...mappings], data)
}

async function fetchFiles(files: readonly string[], data = 'data') {
  for (const name of [data, 'work']) await mkdir(inHome(name), { recursive: true })
  const script = `PATH='${bin}':$PATH\n${fetchBackupScript}`
  const args = [
    home,
    'backup1',
    '22',
    'postgres',
    '5',
    '7',
    bin,
    'full',
    inHome(data),
    inHome('work'),
    ...files,
  ]
  const { status } = await node.run(shellScript('fetch', script, args))
  return { status, calls: existsSync(inHome('calls')) ? readFileSync(inHome('calls'), 'utf8') : '' }
}

test('P-36: each link of a chain is verified against its own manifest before they are joined', async () => {
  await program('pg_verifybackup', ':')
  const { status, calls } = await fetchChain()
  const after = calls.split('\n').filter((line) => line.startsWith('pg_'))
  expect(after.map((line) => line.replaceAll(home, ''))).toEqual([
    ...[0, 1, 2].map((link) => `pg_verifybackup -q -n -i spaces /data.replctl-chain/${link}`),
    `pg_combinebackup --no-sync ${[0, 1, 2].map((link) => `/data.replctl-chain/${link}`).join(' ')} -o /data`,
    'pg_verifybackup -q -i replctl_tablespaces /data',
  ])
  expect(status).toBe(0)
  expect(existsSync(inHome('data.replctl-chain'))).toBe(false)
})

test('paths of tablespaces may hold "=": pg_combinebackup takes the first one that is not escaped for the end of the old path', async () => {
  await program('pg_verifybackup', ':')
  const { status, calls } = await fetchChain('env=prod', '16400=/srv/env=prod/a b', '16401=/plain')
  expect(status).toBe(0)
  const spaces = `${home}/env\\=prod.replctl-chain/2/spaces`
  expect(calls).toContain(
    ` -T ${spaces}/16400=/srv/env\\=prod/a b -T ${spaces}/16401=/plain -o ${home}/env=prod\n`,
  )
})

test('what lies where a chain is to be unpacked, and is not known to be of an earlier try, stays', async () => {
  await program('pg_verifybackup', ':')
  await mkdir(inHome('data.replctl-chain/mine'), { recursive: true })
  expect((await fetchChain()).status).toBe(70)
  expect(existsSync(inHome('data.replctl-chain/mine'))).toBe(true)
})

test('P-36: a link that is not what was kept ends the restore, and nothing is joined', async () => {
  await program('pg_verifybackup', `case $* in *chain/1) exit 1 ;; esac`)
  const { status, calls } = await fetchChain()
  expect(status).toBe(92)
  expect(calls).not.toContain('pg_combinebackup')
  expect(existsSync(inHome('data/PG_VERSION'))).toBe(false)
})

const [signal, progress] = [new AbortController().signal, () => undefined]
const context = () =>
  ({ node, on: () => node, signal, timeoutMs: 20_000, progress, seenAt: new Map() }) as unknown as StepContext
const backup = someBackup('20261126T061500Z')
function restoreTo(dataDir: string): Restore {
  const settings = node.settings
  const choice = { systemIdentifier: '7', backup, chain: [backup], timeline: 1, lastSegment: null }
  return {
    ...{ node: { ...settings, postgres: { ...settings.postgres, dataDir } }, at: node.name, choice },
    ...{ target: { kind: 'latest' }, isMember: true, archive: {} as never },
  }
}

/** A copy that ended well while no replctl looked. */
async function copyThatEnded(): Promise<void> {
  await startJob(node, restoreJob, 'echo fetching; echo verifying', [])
  await followJob({
    ...{ node, name: restoreJob, what: 'the copy', patienceMs: 20_000, signal, tell: progress },
    progress: () => ({ message: '' }),
    failed: () => new ReplctlError('restore-failed', 'it failed'),
  })
}

test('a copy that came to its end while nobody looked is gone on with: what is verified is never emptied', async () => {
  await copyThatEnded()
  await fetchBackup(restoreTo('/nowhere')).apply!(context())
  expect(JSON.parse(readFileSync(inHome('.replctl/shop/restore.json'), 'utf8'))).toMatchObject({
    ...{ backup: backup.id, phase: 'fetched' },
  })
})

test('but a restore that begins anew is not taken for fetched because an earlier one had come to that', async () => {
  const settings = inventoryOf(['pg1']).nodes[0]!
  const postgres = { ...settings.postgres, dataDir: inHome('new') }
  node = createNode({ ...settings, postgres }, 'shop', createShellTransport(home))
  await copyThatEnded()
  await ensureRestoreDirectory(restoreTo(inHome('new'))).apply!(context())
  expect(existsSync(inHome('new'))).toBe(true)
  expect(await lookAtJob(node, restoreJob)).toMatchObject({ isRunning: false, status: null })
})

test('the root of a file system will do: its lost+found is no part of the backup', async () => {
  await program('pg_verifybackup', ':')
  await mkdir(inHome('data/lost+found'), { recursive: true })
  await mkdir(inHome('space/lost+found'), { recursive: true })
  await mkdir(inHome('data/pg_tblspc'))
  await symlink(inHome('space'), inHome('data/pg_tblspc/16384'))
  const { status, calls } = await fetchFiles(['A', 'base.tar', '-', '.'])
  expect([
    status,
    calls
      .split('\n')
      .find((line) => line.startsWith('pg_'))
      ?.replaceAll(home, ''),
  ]).toEqual([
    0,
    'pg_verifybackup -q -i replctl_tablespaces -i lost+found -i pg_tblspc/16384/lost+found /data',
  ])
})

test('but not for a chain, which pg_combinebackup joins only in what is empty: that is said beforehand', async () => {
  await mkdir(inHome('data/lost+found'), { recursive: true })
  const look = (mustBeBare: string) =>
    node.output(shellScript('look', lookAtTargetScript, [inHome('data'), mustBeBare]))
  expect([await look('yes'), await look('no')]).toEqual([`root\t${inHome('data')}\n`, ''])
})

test('an instance in the way is moved aside with its tablespaces: WAL may make a younger one again, over its files', async () => {
  await mkdir(inHome('data/pg_tblspc'), { recursive: true })
  await writeFile(inHome('data/PG_VERSION'), '15\n')
  await symlink('/data/fast', inHome('data/pg_tblspc/16400'))
  const found = await node.output(shellScript('look', lookAtTargetScript, [inHome('data'), 'no']))
  const hintFor = (isMember: boolean) =>
    notFree({ node: { name: 'pg1' }, isMember } as Restore, '/data/pg', found.trim().split('\n')).hint
  expect(hintFor(true)).toBe(
    'If it is of no use any more, move it aside yourself, with its tablespaces: mv /data/pg /data/pg.old; mv /data/fast /data/fast.old',
  )
  // One that stands apart has tablespaces of its own.
  expect(hintFor(false)).toBe('If it is of no use any more, move it aside yourself: mv /data/pg /data/pg.old')
})
