import { capabilitiesOf } from './versions.ts'

/** `C.UTF-8` may be absent on some hosts (`locale -a`); `C` never is, but knows letters of ASCII only. */
export const characterTypes = ['C.UTF-8', 'C'] as const
export type CharacterType = (typeof characterTypes)[number]

export interface Initdb {
  readonly major: number
  /** Must be empty or absent. */
  readonly dataDirectory: string
  /** The superuser's name, `postgres` unless the operator uses another. */
  readonly superuser?: string | undefined
  /** What upper, lower and letter mean, below PostgreSQL 17. It must be the same on every node. */
  readonly characterType?: CharacterType | undefined
  /** A power of two from 1 to 1024 MiB; undefined: 16. */
  readonly walSegmentSizeBytes?: number | undefined
}

/**
 * The arguments of initdb. Nothing is taken from the host's locale: a standby on a host whose C library sorts another
 * way would read the primary's text indexes wrongly and silently. So the order is that of bytes, everywhere, and from
 * 17 on PostgreSQL's own C.UTF-8 says what a letter is; the C library is not asked at all.
 * @see https://www.postgresql.org/docs/current/app-initdb.html
 */
export function initdbArgs(options: Initdb): readonly string[] {
  const { dataDirectory, superuser = 'postgres', walSegmentSizeBytes } = options
  const segmentSize =
    walSegmentSizeBytes === undefined ? [] : [`--wal-segsize=${walSegmentSizeBytes / 2 ** 20}`]
  return [
    ...['-D', dataDirectory, '-U', superuser, '-E', 'UTF8', '--data-checksums'],
    ...['--auth-local=peer', '--auth-host=scram-sha-256'],
    ...localeArgs(options),
    ...segmentSize,
  ]
}

function localeArgs({ major, characterType = 'C.UTF-8' }: Initdb): string[] {
  return capabilitiesOf(major).builtinLocaleProvider
    ? ['--locale-provider=builtin', '--builtin-locale=C.UTF-8', '--locale=C']
    : ['--locale=C', `--lc-ctype=${characterType}`]
}
