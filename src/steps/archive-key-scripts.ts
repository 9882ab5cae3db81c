import { hasMadeNote } from '../node/archive-note.ts'
import { lockScript } from '../node/lock-script.ts'

const lockKeys = lockScript(7, '"$HOME/.ssh/.replctl.lock"', 30)

/**
 * Whether a line is the one of node MARK in the cluster whose system identifier is ID, or has KEY: another cluster may have the same
 * name, and the mark alone would take the archive away from it. Without ID the mark is all there is.
 */
const isTheNodes = `
  function isTheNodes(line,  mark, words, count) {
    mark = " " ENVIRON["MARK"]
    if (index(line, "restrict,command=") != 1 || substr(line, length(line) - length(mark) + 1) != mark) return 0
    count = split(line, words, " ")
    return ENVIRON["ID"] == "" || index(line, " \\047" ENVIRON["ID"] "\\047\\" ") > 0 ||
      (ENVIRON["KEY"] != "" && words[count - 1] == ENVIRON["KEY"])
  }`

/**
 * Makes the archive's folder, unless it was there before and is gone, and puts the node's line into authorized_keys, under a lock: nodes of several clusters may
 * come at the same time. Only the node's own line is replaced. Arguments behind the state directory: folder, line, mark, system identifier.
 */
export const prepareArchiveScript = `
set -- "$1" "$2" "$5" "$3" "$4"
[ -d "$2/$3/wal" ] || ! ${hasMadeNote} || exit 66
mkdir -p -- "$2" || exit 73
[ -w "$2" ] || { echo "$2 is not writable" >&2; exit 73; }
mkdir -p -- "$2/$3/wal" || exit 73
sync "$2" "$2/$3" 2>/dev/null || sync
${hasMadeNote} || { printf '%s\\n' "$2" > "$state/made-$3.new" && mv -f "$state/made-$3.new" "$state/made-$3"; } || exit 74
mkdir -p "$HOME/.ssh" || exit 74
keys="$HOME/.ssh/authorized_keys"
${lockKeys}new="$keys.replctl-new.$$"
trap 'rm -f "$new"' EXIT
[ -e "$keys" ] || : > "$keys" || exit 74
cp -p -- "$keys" "$new" || exit 74
key=\${4% *}
LINE=$4 MARK=$5 ID=$3 KEY=\${key##* } awk '${isTheNodes}
  isTheNodes($0) { next }
  { print }
  END { print ENVIRON["LINE"] }
' "$keys" > "$new" || exit 74
sync "$new" 2>/dev/null || sync
mv -f -- "$new" "$keys"
`

/** How many lines a node has. Arguments: its mark, the cluster's system identifier or nothing. */
export const countKeysScript = `
MARK=$1 ID=$2 awk '${isTheNodes}
  isTheNodes($0) { count++ }
  END { print count + 0 }
' "$HOME/.ssh/authorized_keys" 2>/dev/null
:
`

/** Takes them out. */
export const forgetKeyScript = `
keys="$HOME/.ssh/authorized_keys"
${lockKeys}new="$keys.replctl-new.$$"
trap 'rm -f "$new"' EXIT
cp -p -- "$keys" "$new" || exit 74
MARK=$1 ID=$2 awk '${isTheNodes}
  isTheNodes($0) { next }
  { print }
' "$keys" > "$new" || exit 74
sync "$new" 2>/dev/null || sync
mv -f -- "$new" "$keys"
`
