import type { BackupCatalog, FoundBackup } from '../../src/cluster/backup-catalog.ts'
import type { BackupMetadata } from '../../src/postgres/backup-metadata.ts'
import type { Lsn, TimelineId } from '../../src/postgres/lsn.ts'

export const systemIdentifier = '7412345678901234567'

/** A good full backup of timeline 1, from 0/2000028 to 0/2000100. */
export function someBackup(id: string, part: Partial<BackupMetadata> = {}): BackupMetadata {
  return {
    ...{ format: 1, id, cluster: 'shop', systemIdentifier, kind: 'full', parent: null },
    ...{ label: 'nightly', source: 'pg2', postgresVersion: '15.18', major: 15 },
    ...{ startedAt: '2026-11-26T06:15:00.000Z', finishedAt: '2026-11-26T06:15:10.000Z' },
    ...{ timeline: 1 as TimelineId, startLsn: '0/2000028' as Lsn, stopLsn: '0/2000100' as Lsn },
    ...{ walSegmentSizeBytes: 16 * 2 ** 20, tablespaces: [], dataBytes: 20_000_000 },
    files: [
      { name: 'backup_manifest', bytes: 50, sha256: 'a'.repeat(64) },
      { name: 'base.tar.zst', bytes: 1_000, sha256: 'b'.repeat(64) },
    ],
    ...{ verifiedBy: 'pg_verifybackup', verifiedAt: '2026-11-26T06:15:20.000Z' },
    ...part,
  }
}

/** The folder of a backup, with what belongs into it. */
export function foundBackup(metadata: BackupMetadata, part: Partial<FoundBackup> = {}): FoundBackup {
  const files = new Map<string, number | null>(metadata.files.map((file) => [file.name, file.bytes]))
  return {
    id: metadata.id,
    metadata,
    fault: null,
    files: files.set('backup.json', 900),
    check: null,
    ...part,
  }
}

/** Segments `from` to `to` of a timeline, 16 MB each, below 4 GB. */
export function segments(timeline: number, from: number, to: number): string[] {
  const hex = (value: number) => value.toString(16).toUpperCase().padStart(8, '0')
  return Array.from({ length: to - from + 1 }, (_, index) => `${hex(timeline)}00000000${hex(from + index)}`)
}

export function someCatalog(
  backups: readonly (BackupMetadata | FoundBackup)[],
  part: Partial<BackupCatalog> = {},
): BackupCatalog {
  return {
    systemIdentifier,
    backups: backups.map((one) => ('format' in one ? foundBackup(one) : one)),
    incoming: [],
    segments: new Set(segments(1, 1, 9)),
    partials: new Set(),
    histories: new Map(),
    ...part,
  }
}
