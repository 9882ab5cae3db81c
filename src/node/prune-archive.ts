import { shellScript } from '../command.ts'
import { ReplctlError } from '../errors.ts'
import { parseWalFileName } from '../postgres/wal-file.ts'
import { commandFailed, type Node } from './node.ts'

export interface PruneWish {
  /** `archive.dir` of the inventory. */
  readonly dir: string
  readonly systemIdentifier: string
  /**
   * The first segment that is still needed, e.g. `000000020000000A00000003`. Only its place counts, not its timeline: what
   * lies before it goes on every timeline, what lies at or after it stays on every one, as with pg_archivecleanup.
   */
  readonly before: string
  /** Says what would go; removes nothing. */
  readonly isDryRun?: boolean
}

/** What was removed, or would be. */
export interface PrunedArchive {
  readonly files: number
  readonly bytes: number
  /** The oldest and the newest of them, by place; null where there was nothing. */
  readonly first: string | null
  readonly last: string | null
}

/**
 * Removes WAL that lies before the first segment that is still needed: segments, partial ones and backup labels, of any
 * compression. History files stay: they are small, and every later timeline is read by them. The oldest go first, so
 * that a run that dies leaves no gap behind.
 * @throws {ReplctlError} `archive-failing` if there is no such archive
 */
export async function pruneArchive(archive: Node, wish: PruneWish): Promise<PrunedArchive> {
  parseWalFileName(wish.before)
  if (!/^[0-9]{1,20}$/.test(wish.systemIdentifier))
    throw new RangeError(`not a system identifier: ${wish.systemIdentifier}`)
  const command = shellScript(`remove WAL before ${wish.before}`, pruneScript, [
    ...[wish.dir, wish.systemIdentifier, wish.before.slice(8, 24), wish.isDryRun === true ? 'dry' : 'run'],
  ])
  const result = await archive.run(command, { timeoutMs: 600_000 })
  if (result.status === 66) {
    throw new ReplctlError('archive-failing', `there is no archive of this cluster in ${wish.dir}`, {
      detail: `${wish.dir}/${wish.systemIdentifier}/wal is missing on ${archive.settings.host}.`,
      hint: 'Is its file system mounted there?',
      node: archive.name,
    })
  }
  if (result.status !== 0) throw commandFailed(archive.settings.host, command, result)
  const [files = '', bytes = '', first = '-', last = '-'] = result.stdout.trim().split(' ')
  return {
    files: Number(files),
    bytes: Number(bytes),
    first: first === '-' ? null : first,
    last: last === '-' ? null : last,
  }
}

/**
 * Only names that are WAL files' count; whatever else lies there is not ours. A line of `list` is "PLACE SIZE NAME".
 */
const pruneScript = `
cd "$1/$2/wal" 2>/dev/null || exit 66
list() {
  LC_ALL=C ls -ln | LC_ALL=C awk -v cutoff="$1" '
    NF == 9 && /^-/ {
      name = $9
      sub(/\\.(gz|lz4|zst)$/, "", name)
      stem = name
      if (!sub(/\\.partial$/, "", stem)) sub(/\\.[0-9A-F]+\\.backup$/, "", stem)
      if (length(stem) != 24 || stem ~ /[^0-9A-F]/) next
      # Compared as text: a number of 16 digits would lose its last ones.
      place = substr(stem, 9)
      if (("x" place) < ("x" cutoff)) print place, $5, $9
    }' | LC_ALL=C sort
}
list "$3" | LC_ALL=C awk '
  { count++; bytes += $2; if (count == 1) first = $3; last = $3 }
  END { printf "%d %.0f %s %s\\n", count, bytes, count ? first : "-", count ? last : "-" }'
[ "$4" = run ] || exit 0
list "$3" | LC_ALL=C awk '{ print "./" $3 }' | xargs rm -f --
`
