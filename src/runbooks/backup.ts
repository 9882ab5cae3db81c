import { archiveHost } from '../cluster/names.ts'
import { inOrder, type Plan } from '../engine/step.ts'
import { type ArchiveBackup, requireRoomForBackup, takeArchiveBackup } from '../steps/archive-backup.ts'
import { requireBackupPrograms } from '../steps/backup-programs.ts'
import type { ClusterInput } from '../steps/cluster-input.ts'
import { ensureHbaLines } from '../steps/ensure-hba-lines.ts'
import { ensurePassfile } from '../steps/ensure-replication-role.ts'
import { awaitBackupWal, proveArchiveBackup, publishArchiveBackup } from '../steps/prove-archive-backup.ts'

/**
 * Takes a base backup into the archive. pg_basebackup runs on the archive host; the instance that is copied only gets a
 * line in pg_hba.conf. The backup is listed when it was unpacked, compared with its manifest, and when its WAL is in
 * the archive; until then it lies under another name. One that fails is removed; one that was killed goes on.
 */
export function takeBackup(input: ClusterInput, backup: ArchiveBackup, programs: readonly string[]): Plan {
  const { source } = backup
  return inOrder([
    requireBackupPrograms(source.name, programs),
    requireRoomForBackup(backup),
    ensurePassfile(archiveHost, input.inventory.replication, source.name),
    ensureHbaLines(source.name, input),
    takeArchiveBackup(backup),
    proveArchiveBackup(backup),
    awaitBackupWal(backup),
    publishArchiveBackup(backup),
  ])
}
