import type { ArchiveMeasure } from '../cluster/archive-state.ts'
import { shellScript } from '../command.ts'
import { commandFailed, type Node } from './node.ts'

/**
 * How large an archive is, how fast it grows and what room it has, in one look. An empty system identifier means one that
 * is not known: then only the room is told.
 */
export async function measureArchive(
  archive: Node,
  dir: string,
  systemIdentifier: string,
): Promise<ArchiveMeasure> {
  const command = shellScript(`measure ${dir}`, measureScript, [dir, systemIdentifier])
  const result = await archive.run(command, { timeoutMs: 4_000 })
  if (result.status !== 0) throw commandFailed(archive.settings.host, command, result)
  const words = new Map(
    result.stdout.split('\n').map((line) => [line.split(' ')[0] ?? '', line.split(' ').slice(1).map(Number)]),
  )
  const [total, used, free] = (words.get('disk') ?? []).map((kibibytes) => kibibytes * 1024)
  const [files = 0, bytes = 0, recent = 0, oldest = 0, newest = 0] = words.get('wal') ?? []
  const seconds = Math.min(86_400, oldest)
  return {
    isThere: words.has('wal'),
    isWritable: words.has('writable'),
    files,
    sizeBytes: bytes,
    newestSeconds: files === 0 ? null : Math.max(0, newest),
    // An archive that has just begun says nothing of a day.
    bytesPerDay: seconds < 600 ? null : Math.round((recent / seconds) * 86_400),
    totalBytes: total ?? null,
    usedBytes: used ?? null,
    freeBytes: free ?? null,
  }
}

const measureScript = `
LC_ALL=C; export LC_ALL
at=$1
while [ ! -e "$at" ]; do at=$(dirname -- "$at"); done
if [ -n "$2" ] && [ -d "$1/$2/wal" ]; then at=$1/$2/wal; fi
cd "$at" || exit 70
df -Pk . | awk 'NR == 2 { print "disk", $2, $3, $4 }'
[ -w . ] && echo writable
[ "$at" = "$1/$2/wal" ] || exit 0
if stat -c %s . >/dev/null 2>&1; then
  list() { find . -maxdepth 1 -type f -exec stat -c '%s %Y' {} +; }
else
  list() { find . -maxdepth 1 -type f -exec stat -f '%z %m' {} +; }
fi
list | awk -v now="$(date +%s)" '
  { files++; bytes += $1; age = now - $2; if (age < 86400) recent += $1; if (age > oldest) oldest = age; if (newest == "" || age < newest) newest = age }
  END { printf "wal %d %.0f %.0f %d %d\\n", files, bytes, recent, oldest, newest }'
`
