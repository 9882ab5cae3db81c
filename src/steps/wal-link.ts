import { shellScript } from '../command.ts'
import type { StepContext } from '../engine/step.ts'
import { type Node, stateScript } from '../node/node.ts'

/**
 * pg_wal may lie on another disk, behind a link. Where a data directory holds nothing but such a link, to an empty folder, it
 * counts as empty, and the link is kept. `wal_link` in the state directory says, from when the directory is made our own, where
 * WAL goes, and whether the link was there before. What stands in that folder is removed only while the data directory `$2`
 * still links to it: two nodes of one machine may have been given the same folder.
 */
export const walLinkScript = `
only_wal_link() {
  [ "$(ls -A -- "$1" | grep -v '^lost+found$')" = pg_wal ] && [ -L "$1/pg_wal" ] && is_empty_folder "$1/pg_wal/"
}
is_empty_folder() { [ -d "$1" ] && [ -w "$1" ] && [ -z "$(ls -A -- "$1")" ]; }
empty_wal_folder() {
  wal=
  [ -s "$state/wal_link" ] || return 0
  wal=$(sed -n 1p "$state/wal_link")
  if [ -d "$wal" ] && [ -L "$1/pg_wal" ] && [ "$(readlink -f -- "$1/pg_wal")" = "$wal" ]; then
    find "$wal" -mindepth 1 -maxdepth 1 ! -name lost+found -exec rm -rf -- {} +
  fi
}
`

/** For the moment when the directory `$2` is made our own: notes the link that stands in it. */
export const noteWalLinkScript = `
rm -f "$state/wal_link"
if only_wal_link "$2"; then printf '%s\\nprepared\\n' "$(readlink -f -- "$2/pg_wal")" > "$state/wal_link" || exit 74; fi
`

/** For taking it back, when `$2` was emptied: its link returns. Before that: `empty_wal_folder "$2"`. */
export const restoreWalLinkScript = `
if [ "$(sed -n 2p "$state/wal_link" 2>/dev/null)" = prepared ] && [ -d "$2" ] && [ ! -e "$2/pg_wal" ]; then
  ln -s -- "$(sed -n 1p "$state/wal_link")" "$2/pg_wal" && rm -f "$state/wal_link"
fi
`

const claimScript = `${walLinkScript}
empty_wal_folder "$2"
if [ -z "$wal" ] && [ -n "$3" ] && is_empty_folder "$3"; then
  # What pg_wal leads to is compared with it later, so it must not be a link here.
  wal=$(readlink -f -- "$3") && [ -n "$wal" ] || exit 74
  printf '%s\\nfound\\n' "$wal" > "$state/wal_link" || exit 74
fi
[ -n "$wal" ] || exit 0
if is_empty_folder "$wal"; then printf '%s\\n' "$wal"; exit 0; fi
if [ "$(sed -n 2p "$state/wal_link")" = found ]; then rm -f "$state/wal_link"; exit 0; fi
echo "$wal, where pg_wal is to lie, is not empty" >&2
exit 65
`

/**
 * The folder that a copy's pg_wal is to be a link to, emptied of what an earlier try left there: that of a link which stood
 * in the directory; else the place where the source's own pg_wal lies, if there is an empty folder here. To be asked before
 * the data directory is emptied.
 */
export async function claimWalFolder(
  ctx: Pick<StepContext, 'node'>,
  dataDirectory: string,
  ofSource: string | null,
): Promise<string | undefined> {
  const args = [dataDirectory, ofSource ?? '']
  const command = stateScript(ctx.node, 'find the place of pg_wal', claimScript, args)
  return (await ctx.node.output(command, { timeoutMs: 600_000 })).trim() || undefined
}

/** Where the pg_wal of an instance really lies; null where it is a plain folder. */
export async function walFolderOf(node: Node, dataDirectory: string): Promise<string | null> {
  const script = '[ -L "$1/pg_wal" ] && readlink -f -- "$1/pg_wal"; :'
  return (await node.output(shellScript('look where pg_wal lies', script, [dataDirectory]))).trim() || null
}

/** Before the directory itself is emptied: takes back what {@link claimWalFolder} found by itself. */
export const forgetFoundWalScript = `${walLinkScript}
if [ "$(sed -n 2p "$state/wal_link" 2>/dev/null)" = found ]; then empty_wal_folder "$2"; rm -f "$state/wal_link"; fi
`
