import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { requireStart } from '../../../src/cli/runs/archive-prune.ts'
import { createNode } from '../../../src/node/node.ts'
import { printBackupMetadata } from '../../../src/postgres/backup-metadata.ts'
import { pruneWal } from '../../../src/steps/expire-backups.ts'
import { createShellTransport } from '../node/shell-transport.ts'
import { someBackup, systemIdentifier } from '../some-backup.ts'
import { inventoryOf } from '../some-cluster.ts'

test('what is left of a removal that was cut off goes with the next expire, also where no backup is past retention', async () => {
  const home = mkdtempSync(join(tmpdir(), 'replctl-expire-'))
  const node = createNode(inventoryOf(['pg1']).nodes[0]!, 'shop', createShellTransport(home))
  const folder = join(home, systemIdentifier, 'backup')
  const good = someBackup('20261126T010000Z', { files: [] })
  mkdirSync(join(folder, good.id), { recursive: true })
  mkdirSync(join(home, systemIdentifier, 'wal'))
  mkdirSync(join(folder, '.removed-20261101T010000Z'))
  writeFileSync(join(folder, good.id, 'backup.json'), printBackupMetadata(good))
  const wish = { keepFull: 1, keepDays: undefined, nowMs: Date.now(), primary: null }
  const step = pruneWal({ archive: { dir: home } as never, systemIdentifier, wish }, () => undefined)
  const ctx = { node, on: () => node } as never
  expect(await step.check(ctx)).toMatchObject({ is: 'pending' })
  await step.apply!(ctx)
  expect(existsSync(join(folder, '.removed-20261101T010000Z'))).toBe(false)
  expect(existsSync(join(folder, good.id))).toBe(true)
  expect(await step.check(ctx)).toMatchObject({ is: 'satisfied' })
  rmSync(home, { recursive: true })
})

test('what holds up the pruning of WAL is named with what removes it', () => {
  const hintOf = (id: string) => {
    try {
      requireStart({ id, startLsn: null }, '/archive/7/backup')
    } catch (thrown) {
      return thrown as { hint: string; detail: string }
    }
    throw new Error('it was let through')
  }
  expect(hintOf('.incoming-20261126T010000Z').hint).toContain('replctl abort')
  expect(hintOf('20261126T010000Z').detail).toContain('/archive/7/backup/20261126T010000Z')
})
