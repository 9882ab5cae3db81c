import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { catalogsOf } from '../../../src/cli/archive-session.ts'
import type { Survey } from '../../../src/cluster/facts.ts'
import { createNode } from '../../../src/node/node.ts'
import { printBackupMetadata } from '../../../src/postgres/backup-metadata.ts'
import { createShellTransport } from '../node/shell-transport.ts'
import { someBackup, systemIdentifier } from '../some-backup.ts'
import { inventoryOf, runningNode, unreachableNode } from '../some-cluster.ts'

const inventory = inventoryOf(['pg1'])
let home: string
let dir: string
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'replctl-session-'))
  dir = join(home, 'archive')
})
afterEach(() => rm(home, { recursive: true, force: true }))

/** The identifiers of the catalogs that are read. */
async function found(survey: Survey): Promise<readonly string[]> {
  const host = createNode(inventory.nodes[0]!, 'shop', createShellTransport(home))
  const catalogs = await catalogsOf({ inventory }, { host, settings: { dir } as never }, survey)
  return catalogs.map((one) => one.systemIdentifier)
}

test('an archive that is not there, as when its disk is not mounted, is not one without backups', async () => {
  for (const survey of [[runningNode('pg1', {})], [unreachableNode('pg1')]]) {
    await expect(found(survey)).rejects.toMatchObject({ code: 'archive-failing' })
  }
  // The bare mount point.
  await mkdir(dir)
  await expect(found([runningNode('pg1', {})])).rejects.toMatchObject({ code: 'archive-failing' })
})

test('an archive without backups is one, and another cluster beside it is left out', async () => {
  await mkdir(join(dir, systemIdentifier, 'wal'), { recursive: true })
  await mkdir(join(dir, '7', 'wal'), { recursive: true })
  expect(await found([runningNode('pg1', {})])).toEqual([systemIdentifier])
  expect(await found([unreachableNode('pg1')])).toEqual([])
  const backup = join(dir, '7', 'backup', '20261126T061500Z')
  await mkdir(backup, { recursive: true })
  await writeFile(join(backup, 'backup.json'), printBackupMetadata(someBackup('20261126T061500Z')))
  expect(await found([unreachableNode('pg1')])).toEqual(['7'])
})
