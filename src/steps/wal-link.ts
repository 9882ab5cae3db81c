import { shellScript } from '../command.ts'
import type { StepContext } from '../engine/step.ts'
import { type Node, stateScript } from '../node/node.ts'

/**
 * pg_wal may lie on another disk, behind a link. Where a data directory holds nothing but such a link, to an empty folder, it
 * counts as empty, and the link is kept. `wal_link` in the state directory says, while the directory is being filled, where
 * WAL goes (that folder was found empty, so what stands in it is ours), and whether the link was there before.
 */
export const walLinkScript = `
only_wal_link() {
  [ "$(ls -A -- "$1" | grep -v '^lost+found$')" = pg_wal ] && [ -L "$1/pg_wal" ] && is_empty_folder "$1/pg_wal/"
}
is_empty_folder() { [ -d "$1" ] && [ -w "$1" ] && [ -z "$(ls -A -- "$1" | grep -v '^lost+found$')" ]; }
empty_wal_folder() {
  [ -s "$state/wal_link" ] || return 0
  wal=$(sed -n 1p "$state/wal_link")
  case $wal in /?*) [ ! -d "$wal" ] || find "$wal" -mindepth 1 -maxdepth 1 ! -name lost+found -exec rm -rf -- {} + ;; esac
}
`

/** For the moment when the directory `$2` is made our own: notes the link that stands in it. */
export const noteWalLinkScript = `
rm -f "$state/wal_link"
if only_wal_link "$2"; then printf '%s\\nprepared\\n' "$(readlink -f -- "$2/pg_wal")" > "$state/wal_link" || exit 74; fi
`

/** For taking it back: \`$2\` was emptied; its link returns, and so does the emptiness of the folder. */
export const restoreWalLinkScript = `
empty_wal_folder
if [ "$(sed -n 2p "$state/wal_link" 2>/dev/null)" = prepared ] && [ -d "$2" ] && [ ! -e "$2/pg_wal" ]; then
  ln -s -- "$wal" "$2/pg_wal" && rm -f "$state/wal_link"
fi
`

const findScript = `${walLinkScript}
if [ ! -s "$state/wal_link" ] && [ -n "$2" ] && is_empty_folder "$2"; then
  printf '%s\\nfound\\n' "$2" > "$state/wal_link" || exit 74
fi
empty_wal_folder
[ ! -s "$state/wal_link" ] || sed -n 1p "$state/wal_link"
`

/**
 * The folder that a copy's pg_wal is to be a link to, emptied of what an earlier try left there: that of a link which stood
 * in the directory; else, where the source's own pg_wal is a link, the same place, if there is an empty folder there.
 */
export async function claimWalFolder(ctx: StepContext, ofSource: string | null): Promise<string | undefined> {
  const command = stateScript(ctx.node, 'find the place of pg_wal', findScript, [ofSource ?? ''])
  return (await ctx.node.output(command, { timeoutMs: 600_000 })).trim() || undefined
}

/** Where the pg_wal of an instance really lies; null where it is a plain folder. */
export async function walFolderOf(node: Node, dataDirectory: string): Promise<string | null> {
  const script = '[ -L "$1/pg_wal" ] && readlink -f -- "$1/pg_wal"; :'
  return (await node.output(shellScript('look where pg_wal lies', script, [dataDirectory]))).trim() || null
}

/** The copy is complete: what stands in the folder is data from now on. */
export async function forgetWalLink(ctx: StepContext): Promise<void> {
  await ctx.node.output(stateScript(ctx.node, 'forget the place of pg_wal', 'rm -f "$state/wal_link"'))
}

/** Before the directory itself is emptied: takes back what {@link claimWalFolder} found by itself. */
export const forgetFoundWalScript = `${walLinkScript}
if [ "$(sed -n 2p "$state/wal_link" 2>/dev/null)" = found ]; then empty_wal_folder; rm -f "$state/wal_link"; fi
`
