import { shellScript } from '../command.ts'
import { ReplctlError } from '../errors.ts'
import type { ArchiveContent } from '../postgres/archive-content.ts'
import { readArchiveLines } from '../postgres/archive-content.ts'
import { type Lsn, parseLsn } from '../postgres/lsn.ts'
import { commandFailed, type Node } from './node.ts'

export interface ArchivePlace {
  /** `archive.dir` of the inventory. */
  readonly dir: string
  readonly systemIdentifier: string
}

/** Of how many compressed segments, the newest, the header is read unless all are asked for: each costs a process. */
const headersOfCompressed = 1000

/** How long the archive host may say nothing at all. */
const silenceMs = 120_000

/**
 * Reads what lies in an archive: names, sizes and the first bytes of every file by one script, its output taken as it comes.
 * `isDeep`: every compressed file is unpacked to its end, and every copy hashed where there are two. `whole`: segments, without
 * suffixes, that are unpacked to their end in any case. `segmentSizeBytes`: what the server says, where no header can be read.
 * @throws {ReplctlError} `archive-failing` if there is no such archive
 */
export async function readArchive(
  archive: Node,
  place: ArchivePlace,
  options: {
    readonly isDeep?: boolean
    readonly whole?: readonly string[]
    readonly segmentSizeBytes?: number | undefined
  } = {},
): Promise<ArchiveContent> {
  const mode = options.isDeep === true ? 'deep' : String(headersOfCompressed)
  const command = shellScript(`read ${place.dir}`, readScript, [place.dir, place.systemIdentifier, mode])
  const running = await archive.start(command)
  // How it ends tells what there is to tell.
  if (options.whole !== undefined) running.write(options.whole.join(' ')).catch(() => undefined)
  running.endInput()
  const reader = readArchiveLines(place.systemIdentifier, options.segmentSizeBytes)
  let [rest, said, lastAt] = ['', '', performance.now()]
  running.onStdout((chunk) => {
    lastAt = performance.now()
    const lines = (rest + chunk).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) reader.add(line)
  })
  running.onStderr((chunk) => {
    said = (said + chunk).slice(-2000)
  })
  const watch = setInterval(() => {
    if (performance.now() - lastAt > silenceMs) running.kill()
  }, 1000)
  try {
    const { status, signal } = await running.finished
    if (status === 66) throw noArchive(archive, place.dir, `${place.dir}/${place.systemIdentifier}/wal`)
    if (status !== 0 || !reader.isComplete()) {
      throw commandFailed(archive.settings.host, command, { status, signal, stdout: '', stderr: said })
    }
    return reader.content()
  } finally {
    clearInterval(watch)
  }
}

/** The system identifiers of the clusters that an archive directory holds. */
export async function archivedClusters(archive: Node, dir: string): Promise<readonly string[]> {
  const script =
    'cd "$1" 2>/dev/null || exit 0; for one in [0-9]*; do [ -d "$one/wal" ] && echo "$one"; done; :'
  const output = await archive.output(shellScript(`look into ${dir}`, script, [dir]))
  return output.split('\n').filter((name) => /^[0-9]{1,20}$/.test(name))
}

/**
 * An archive of which nothing can be seen may lie on a disk that is not mounted: that is not one without backups. `systemIdentifier`:
 * null where nobody could say it.
 * @throws {ReplctlError} `archive-failing` if there is no such archive
 */
export async function requireArchive(
  archive: Node,
  dir: string,
  systemIdentifier: string | null,
): Promise<void> {
  const folder = systemIdentifier === null ? dir : `${dir}/${systemIdentifier}/wal`
  const command = shellScript(`look for ${folder}`, '[ -d "$1" ] && [ -x "$1" ] && echo there; :', [folder])
  if ((await archive.output(command)).trim() !== 'there') throw noArchive(archive, dir, folder)
}

export interface ArchivedBackup {
  readonly id: string
  /** Null where it is being taken, was interrupted, or cannot be read. */
  readonly startLsn: Lsn | null
}

/** The base backups in an archive, with the WAL that each begins with. */
export async function readBackupStarts(
  archive: Node,
  place: ArchivePlace,
): Promise<readonly ArchivedBackup[]> {
  const script = `
cd "$1/$2/backup" 2>/dev/null || exit 0
for at in * .incoming-*; do
  [ -d "$at" ] || continue
  printf '%s %s\\n' "$at" "$(sed -n 's|.*"startLsn": *"\\([0-9A-F/]*\\)".*|\\1|p' "$at/backup.json" 2>/dev/null | head -n 1)"
done
`
  const command = shellScript('look at the backups', script, [place.dir, place.systemIdentifier])
  const output = await archive.output(command)
  return output.split('\n').flatMap((line) => {
    const match = /^(\S+) (\S*)$/.exec(line)
    if (match === null) return []
    return [{ id: match[1] ?? '', startLsn: match[2] === '' ? null : parseLsn(match[2] ?? '') }]
  })
}

function noArchive(archive: Node, dir: string, missing: string): ReplctlError {
  return new ReplctlError('archive-failing', `there is no archive of this cluster in ${dir}`, {
    detail: `${missing} is missing on ${archive.settings.host}, or may not be entered.`,
    hint: 'Is its file system mounted there? "replctl add-standby" and "replctl init primary" set the archive up.',
    node: archive.name,
  })
}

/**
 * Lines: `disk TOTAL USED FREE` in KiB; `f SIZE MTIME NAME`, sorted by name; `h NAME LINE` of history files; `i SIZE MTIME
 * NAME` of pushes under way; `x NAME 48 bytes` as they are stored; `u NAME` that cannot be read; `c NAME STATUS SIZE 40 bytes` unpacked (SIZE is - unless
 * read to the end); `two NAME SHA NAME SHA` of a file that is there twice; `end`.
 * First bytes are read by one `head` for 200 files: a process for each would take a second for 500. Where one of them cannot be read,
 * or was given another name meanwhile, those 200 are read one by one.
 */
const readScript = `
LC_ALL=C; export LC_ALL
PATH=$PATH:/usr/local/bin:/opt/homebrew/bin
cd "$1/$2/wal" 2>/dev/null || exit 66
mode=$3
whole=$(cat)
if stat -c %s . >/dev/null 2>&1; then
  list() { find "$1" -maxdepth 1 -type f -exec stat -c '%s %Y %n' {} +; }
else
  list() { find "$1" -maxdepth 1 -type f -exec stat -f '%z %m %N' {} +; }
fi
unpack() {
  case $1 in
    *.gz) gzip -d -c < "$1" ;;
    *.lz4) lz4 -d -c -q < "$1" ;;
    *.zst) zstd -d -c -q < "$1" ;;
    *) cat < "$1" ;;
  esac
}
hash() {
  if command -v sha256sum >/dev/null 2>&1; then sha256sum; else shasum -a 256; fi
}
df -Pk . | awk 'NR == 2 { print "disk", $2, $3, $4 }'
list . | sed 's| [.]/| |' | sort -k 3 | sed 's/^/f /'
[ -d .incoming ] && list .incoming | sed -e 's| [.]incoming/| |' -e 's/^/i /'
for name in *.history; do
  [ -f "$name" ] && sed "s/^/h $name /" "$name"
done
segments() {
  list . | sed 's| [.]/| |' | awk -v all="$1" '
    $1 >= 48 && NF == 3 {
      stem = $3
      isPacked = sub(/[.](gz|lz4|zst)$/, "", stem)
      sub(/[.]partial$/, "", stem)
      if (length(stem) == 24 && stem !~ /[^0-9A-F]/ && (all || isPacked)) print $3
    }' | sort
}
segments 1 | xargs -n 200 sh -c '
  [ $# -gt 0 ] || exit 0
  heads() {
    { printf "%s\\n" "$@"; echo --; head -q -c 48 -- "$@" 2>/dev/null | od -A n -v -t x1; } | awk "
      !isHead && /^--/ { isHead = 1; next }
      !isHead { name[++count] = \\$0; next }
      { hex = hex \\$0; if (++lines % 3 == 0) { head[++found] = hex; hex = \\"\\" } }
      END { if (count != found) exit 1; for (n = 1; n <= count; n++) print \\"x\\", name[n] head[n] }"
  }
  heads "$@" || for name; do
    heads "$name" || ! [ -e "$name" ] || printf "u %s\\n" "$name"
  done' sh
unpack_whole() {
  while read -r name; do
    printf 'c %s' "$name"
    { { unpack "$name" 2>/dev/null || echo ' bad' >&3; } | {
      head=$(dd bs=40 count=1 2>/dev/null | od -A n -v -t x1 | tr -d '\\n')
      printf ' %s %s' "$(($(wc -c) + 40))" "$head"
    }; } 3>&1
    echo
  done
}
if [ "$mode" = deep ]; then
  segments 0 | unpack_whole
else
  segments 0 | tail -n "$mode" | while read -r name; do
    printf 'c %s - %s\\n' "$name" "$(unpack "$name" 2>/dev/null | dd bs=40 count=1 2>/dev/null | od -A n -v -t x1 | tr -d '\\n')"
  done
  # There may be more names than fit into an argument.
  [ -z "$whole" ] || { printf '%s\\n' $whole --; segments 0; } | awk '
    !isAsked && /^--/ { isAsked = 1; next }
    !isAsked { wanted[$0] = 1; next }
    substr($0, 1, 24) in wanted && !/partial/' | unpack_whole
fi
segments 1 | sed 's/[.][glz][zs4]*t*$//' | sort | uniq -d | while read -r name; do
  printf 'two'
  for one in "$name" "$name.gz" "$name.lz4" "$name.zst"; do
    if [ -f "$one" ]; then sum=$(unpack "$one" 2>/dev/null | hash); printf ' %s %s' "$one" "\${sum%% *}"; fi
  done
  echo
done
echo end
`
