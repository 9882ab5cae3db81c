import { expect, test } from 'vitest'
import { type ArchiveMeasure, observeArchive } from '../../../src/cluster/archive-state.ts'
import type { Inventory } from '../../../src/cluster/inventory.ts'
import { archiveLine } from '../../../src/report/archive.ts'
import { createPaint } from '../../../src/report/paint.ts'
import { inventoryOf, ours } from '../some-cluster.ts'

const measure: ArchiveMeasure = {
  ...{ isThere: true, isWritable: true, files: 10, sizeBytes: 1000, newestSeconds: 30, bytesPerDay: null },
  ...{ totalBytes: 2 ** 40, usedBytes: 2 ** 39, freeBytes: 2 ** 39 },
}

test('where no primary says how far it is, an archive with files is not called empty', () => {
  const inventory = {
    ...inventoryOf(['pg1']),
    archive: { host: 'backup1', dir: '/a', mode: 'push', maxBackupAgeMs: null },
  } as unknown as Inventory
  const lineOf = (measured: ArchiveMeasure) =>
    archiveLine(
      observeArchive({
        ...{ inventory, primary: undefined, systemIdentifier: ours, catalog: null, nowMs: 0 },
        measured,
      }).state,
      createPaint(0),
    )
  expect(lineOf(measure)).toBe(
    'archive backup1:/a: lag not known, last file 30 s ago, no backup, 512 GiB free\n',
  )
  expect(lineOf({ ...measure, files: 0, newestSeconds: null })).toContain(': nothing archived yet, ')
})
