import { capabilitiesOf } from './versions.ts'

export { type BaseBackupProgress, parseBaseBackupProgress } from './base-backup-progress.ts'
export { initdbArgs } from './initdb.ts'

/** How pg_basebackup packs what it sends, by what the server and the client were built with. */
export const baseBackupCompressions = ['none', 'lz4', 'zstd'] as const
export type BaseBackupCompression = (typeof baseBackupCompressions)[number]

export interface BaseBackup {
  /** Of pg_basebackup: at least the server's. */
  readonly clientMajor: number
  readonly serverMajor: number
  /** Must be empty or absent. */
  readonly dataDirectory: string
  /** Of the upstream, without its password; it becomes primary_conninfo, too. */
  readonly conninfo: string
  /** An existing slot for the WAL streamed meanwhile; undefined: a temporary one. */
  readonly slot?: string | undefined
  readonly compression?: BaseBackupCompression | undefined
  /** Skip the fsync of each file: then the caller must make the whole file system durable before the first start. */
  readonly noSync?: boolean | undefined
  /** Where tablespaces go, old path → new path; those not named keep theirs. */
  readonly tablespaces?: Readonly<Record<string, string>> | undefined
  /** A folder for pg_wal on another file system. */
  readonly walDirectory?: string | undefined
}

/**
 * The arguments of pg_basebackup for a clone that comes up as a standby: `-R` writes the signal file (or recovery.conf)
 * together with the data, so that not even an interrupted clone can come up as a second primary.
 * Never asks for a password (`-w`): it stands in the passfile that the conninfo names.
 * What `-R` writes must be replaced before the first start: in postgresql.auto.conf it would override replctl's own
 * files, and a newer pg_basebackup puts keywords into primary_conninfo (sslcertmode, gssdelegation, …) that an older
 * server's walreceiver refuses.
 * Compression in plain format exists on the server only, from 15 on, so both sides must be that new.
 * @see https://www.postgresql.org/docs/current/app-pgbasebackup.html
 */
export function baseBackupArgs(backup: BaseBackup): readonly string[] {
  const { dataDirectory, conninfo, slot, noSync = false, tablespaces = {}, walDirectory } = backup
  return [
    ...['-D', dataDirectory, '-Fp', '-Xs', '-P', '-v', '-R', '-w', '--checkpoint=fast'],
    ...(slot === undefined ? [] : ['-S', slot]),
    ...compressionArgs(backup),
    ...(noSync ? ['--no-sync'] : []),
    ...(walDirectory === undefined ? [] : [`--waldir=${walDirectory}`]),
    ...Object.entries(tablespaces).map(
      ([from, to]) => `--tablespace-mapping=${escapePath(from)}=${escapePath(to)}`,
    ),
    ...['-d', conninfo],
  ]
}

/** How the files of a base backup are packed in the archive. */
export const storedCompressions = ['none', 'gzip', 'lz4', 'zstd'] as const
export type StoredCompression = (typeof storedCompressions)[number]

export interface StoredBackup {
  readonly serverMajor: number
  /** Empty or absent. */
  readonly directory: string
  readonly conninfo: string
  readonly label: string
  readonly compression: StoredCompression
  /** The manifest of the backup to build on (17 and newer). */
  readonly incrementalFrom?: string | undefined
}

/**
 * The arguments of pg_basebackup for a backup that is kept: tar files, packed by the server where it can (15 and newer), so
 * that little travels, and complete in itself: the WAL from its start to its end is in it.
 */
export function storedBackupArgs(backup: StoredBackup): readonly string[] {
  const { directory, conninfo, label, compression, incrementalFrom } = backup
  const packed = capabilitiesOf(backup.serverMajor).serverCompression
    ? {
        none: [],
        gzip: ['--compress=server-gzip:1'],
        lz4: ['--compress=server-lz4'],
        zstd: ['--compress=server-zstd:1'],
      }
    : { none: [], gzip: ['--compress=1'], lz4: [], zstd: [] }
  return [
    ...['-D', directory, '-Ft', '-Xs', '-P', '-v', '-w', '--checkpoint=fast', '--no-sync', '-l', label],
    ...packed[compression],
    ...(incrementalFrom === undefined ? [] : [`--incremental=${incrementalFrom}`]),
    ...['-d', conninfo],
  ]
}

/**
 * How to pack a stored backup: as wished, else with the best that the server, which packs, and the archive host, which
 * unpacks, both have. Before PostgreSQL 15 pg_basebackup itself packs, and knows gzip alone.
 * @param configure of the server, as `pg_config --configure` prints it
 * @param programs that the archive host has, e.g. `['gzip', 'zstd']`
 */
export function chooseStoredCompression(
  wish: 'auto' | StoredCompression,
  serverMajor: number,
  configure: string,
  programs: readonly string[],
): StoredCompression {
  const canServer = capabilitiesOf(serverMajor).serverCompression
  const has = (name: StoredCompression) =>
    name === 'none' ||
    (programs.includes(name) && (name === 'gzip' || (canServer && configure.includes(`--with-${name}`))))
  const order: readonly StoredCompression[] = wish === 'auto' ? ['zstd', 'lz4', 'gzip'] : [wish, 'gzip']
  return wish === 'none' ? 'none' : (order.find(has) ?? 'none')
}

function compressionArgs({ clientMajor, serverMajor, compression = 'none' }: BaseBackup): string[] {
  const isPossible = [clientMajor, serverMajor].every((major) => capabilitiesOf(major).serverCompression)
  if (compression === 'none' || !isPossible) return []
  return [compression === 'zstd' ? '--compress=server-zstd:1' : '--compress=server-lz4']
}

const escapePath = (path: string) => path.replaceAll('=', '\\=')

/**
 * The best compression both sides were built with, from what `pg_config --configure` prints (also: the view pg_config).
 * zstd at its quickest, which sends and writes through the network stack least: 1.5 GB took 3.2 s with it, 4.1 s without and
 * 4.5 s with lz4 on 2 cores for both hosts, and a link of 1 Gbit/s is far below what it packs in a second.
 */
export function commonCompression(...configures: readonly string[]): BaseBackupCompression {
  const isBuiltWith = (name: string) => configures.every((text) => new RegExp(`--with-${name}\\b`).test(text))
  return configures.length === 0 ? 'none' : ((['zstd', 'lz4'] as const).find(isBuiltWith) ?? 'none')
}
