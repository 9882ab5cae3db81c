import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { verifyAll } from '../../../../src/cli/runs/backup-verify.ts'
import type { Command } from '../../../../src/command.ts'
import { createNode } from '../../../../src/node/node.ts'
import { printBackupMetadata } from '../../../../src/postgres/backup-metadata.ts'
import { createShellTransport } from '../../node/shell-transport.ts'
import { someBackup, systemIdentifier } from '../../some-backup.ts'
import { inventoryOf } from '../../some-cluster.ts'

const ids = ['20261126T061500Z', '20261127T061500Z']
const folderOf = (id: string) => join(dir, systemIdentifier, 'backup', id)
let dir: string

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'replctl-verify-'))
  await mkdir(join(dir, systemIdentifier, 'wal'), { recursive: true })
  for (const id of ids) {
    await mkdir(folderOf(id), { recursive: true })
    await writeFile(join(folderOf(id), 'backup.json'), printBackupMetadata(someBackup(id)))
    await writeFile(join(folderOf(id), 'base.tar.zst'), 'not what was verified')
  }
})
afterEach(() => rm(dir, { recursive: true, force: true }))

/** `before` is called with each command that the archive host is about to run. */
async function verify(before: (command: Command) => Promise<void> = async () => undefined) {
  const shell = createShellTransport(dir)
  const transport: typeof shell = {
    ...shell,
    run: async (command, options) => {
      await before(command)
      return await shell.run(command, options)
    },
  }
  const host = createNode(inventoryOf(['pg1']).nodes[0]!, 'shop', transport)
  return await verifyAll({ host, settings: { dir } as never }, systemIdentifier, ids, false)
}

test('a backup that retention removes meanwhile is nobody’s trouble, and the others are read', async () => {
  const { backups, problems } = await verify(async ({ title }) => {
    if (title === `read ${folderOf(ids[0]!)}`) await rm(folderOf(ids[0]!), { recursive: true })
  })
  expect(backups.map(({ id, verified }) => [id, verified])).toEqual([[ids[1], false]])
  expect(problems.filter(({ message }) => message.includes(ids[0]!))).toEqual([])
  expect(JSON.stringify(problems)).toContain('base.tar.zst is damaged')
})

test('damage is told also where it cannot be written down', async () => {
  for (const id of ids) await mkdir(join(folderOf(id), 'check.json'))
  const { backups, problems } = await verify()
  expect(backups.map(({ verified }) => verified)).toEqual([false, false])
  expect(problems.filter(({ code }) => code !== 'backup-damaged')).toHaveLength(2)
  expect(JSON.stringify(problems)).toContain('base.tar.zst is damaged')
})
