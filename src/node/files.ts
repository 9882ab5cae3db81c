import { type Secret, shellScript } from '../command.ts'
import { ReplctlError } from '../errors.ts'
import { commandFailed, type Node } from './node.ts'
import { bytesOfText, textOfBytes } from './text-bytes.ts'

/**
 * Text of a file; null where there is none. What is no UTF-8 in it (a comment in Latin-1) comes in a form in which
 * {@link writeTextFile} writes the same bytes back.
 */
export async function readTextFile(node: Node, path: string): Promise<string | null> {
  const command = shellScript(`read ${path}`, 'if [ -e "$1" ]; then cat -- "$1"; else exit 66; fi', [path], {
    isQuick: true,
  })
  const result = await node.read(command)
  if (result.status === 66) return null
  if (result.status !== 0) throw commandFailed(node.name, command, result)
  // What could not be decoded, or this very character.
  return result.stdout.includes('\uFFFD') ? textOfBytes(await readBytes(node, path)) : result.stdout
}

async function readBytes(node: Node, path: string): Promise<Uint8Array> {
  const command = shellScript(`read the bytes of ${path}`, 'od -An -v -tx1 -- "$1"', [path])
  const result = await node.read(command)
  if (result.status !== 0) throw commandFailed(node.name, command, result)
  return Buffer.from(result.stdout.replaceAll(/\s/g, ''), 'hex')
}

/**
 * Replaces a file as a whole: temporary file beside it, fsync, rename. A reader sees the old text or the new one.
 * The owner of a file that is already there is kept, and its mode unless `mode` is given.
 * Links are followed, so that a linked configuration file stays a link.
 */
export async function writeTextFile(
  node: Node,
  path: string,
  text: string | Secret,
  options: { readonly mode?: string } = {},
): Promise<void> {
  const command = shellScript(
    `write ${path}`,
    `
umask 077
target=$1
while [ -L "$target" ]; do
  link=$(readlink "$target")
  case $link in /*) target=$link ;; *) target=$(dirname "$target")/$link ;; esac
done
[ ! -d "$target" ] || { echo "$target is a directory" >&2; exit 74; }
new="$target.replctl-new.$$"
trap 'rm -f "$new"' EXIT
copied=
# Where the mode is given and the file is ours, nothing of the old one is kept. Not every sh knows -O.
if [ -e "$target" ] && ! { [ -n "$2" ] && [ -O "$target" ]; } 2>/dev/null; then
  cp -p -- "$target" "$new" || exit 74
  copied=yes
fi
cat > "$new" || exit 74
if [ -n "$2" ]; then chmod "$2" "$new" || exit 74; elif [ -z "$copied" ]; then chmod 600 "$new" || exit 74; fi
sync "$new" 2>/dev/null || sync
mv -f -- "$new" "$target" || exit 74
trap - EXIT
sync "\${target%/*}/" 2>/dev/null || sync
`,
    [path, options.mode ?? ''],
    { stdin: typeof text === 'string' ? bytesOfText(text) : text, isQuick: true },
  )
  const result = await node.run(command)
  if (result.status !== 0) {
    const failed = commandFailed(node.name, command, result)
    throw /no space left/i.test(result.stderr)
      ? new ReplctlError('disk-full', `could not write ${path} on ${node.name}`, {
          detail: failed.detail,
          hint: 'Free some space on that file system, then run the command again.',
          node: node.name,
        })
      : failed
  }
}
