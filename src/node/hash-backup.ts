import { shellScript } from '../command.ts'
import type { BackupFile } from '../postgres/backup-metadata.ts'
import { isNoteOfBackup, manifestFile } from '../postgres/backup-metadata.ts'
import type { Node } from './node.ts'

/** Every name in the folder, or that was asked for, and the hash of every file that can be read; `-` where it cannot. */
const hashScript = `
LC_ALL=C; export LC_ALL
cd "$1" 2>/dev/null || exit 66
shift
[ $# -gt 0 ] || set -- * .[!.]*
for name; do
  [ -e "$name" ] || [ -L "$name" ] || continue
  if [ ! -f "$name" ] || [ -L "$name" ]; then echo "- $name"; continue; fi
  if command -v sha256sum >/dev/null 2>&1; then hash=$(sha256sum < "$name" 2>/dev/null)
  elif command -v shasum >/dev/null 2>&1; then hash=$(shasum -a 256 < "$name" 2>/dev/null)
  else hash=$(openssl dgst -sha256 -r < "$name" 2>/dev/null); fi
  hash=\${hash%% *}
  printf '%s %s\\n' "\${hash:--}" "$name"
  echo beat >&2
done
`

/** How long one file may take: 10 TB at 100 MB/s. */
const fileMs = 30 * 3_600_000

/** Reads every byte of a stored backup and says what is not as it was when its content was proved, naming the file. */
export async function readDamage(
  archive: Node,
  folder: string,
  files: readonly BackupFile[],
): Promise<readonly string[]> {
  const output = await archive.output(shellScript(`read ${folder}`, hashScript, [folder]), {
    timeoutMs: fileMs,
  })
  return compareHashes(output, files)
}

/** Reads the manifest alone, which is small: by it a chain of backups is joined, so a wrong one ruins all of it. */
export async function readManifestDamage(
  archive: Node,
  folder: string,
  files: readonly BackupFile[],
): Promise<readonly string[]> {
  const manifest = files.filter(({ name }) => name === manifestFile)
  if (manifest.length === 0) return []
  const command = shellScript(`read the manifest in ${folder}`, hashScript, [folder, manifestFile])
  return compareHashes(await archive.output(command, { timeoutMs: 600_000 }), manifest)
}

/** Compares what {@link hashScript} printed. */
export function compareHashes(output: string, files: readonly BackupFile[]): readonly string[] {
  const found = new Map(
    output.split('\n').flatMap((line) => {
      const at = line.indexOf(' ')
      return at < 0 ? [] : [[line.slice(at + 1), line.slice(0, at)] as const]
    }),
  )
  const wrong = files.flatMap(({ name, sha256 }) => {
    const hash = found.get(name)
    if (hash === undefined) return [`${name} is missing`]
    if (hash === '-') return [`${name} cannot be read`]
    return hash === sha256 ? [] : [`${name} is damaged: its content is not what was verified`]
  })
  const known = new Set(files.map(({ name }) => name))
  const extra = [...found.keys()].filter((name) => !known.has(name) && !isNoteOfBackup(name))
  return [...wrong, ...extra.map((name) => `${name} is not part of the backup`)]
}
