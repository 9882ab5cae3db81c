import { walLinkScript } from './wal-link.ts'
import { workLock } from './work-lock.ts'

/**
 * Deletes the data directory `$2` with what of it lies elsewhere, and nothing that may be somebody else's: of tablespaces what
 * its links lead to, and (`$4` is `begun`: a clone that did not come to its end, whose links come last) the folders that it
 * claimed when they were empty, each time only what PostgreSQL `$3` makes there; of a folder behind the link pg_wal only
 * WAL, and only where `wal_link` says that it was given to this node. From `$5` on: tablespaces of another node of this machine,
 * which a copied data directory may link to. A link that stood there before replctl came stays, and so does its folder.
 * Where the data directory is a link itself, what it leads to is emptied, and both stay.
 * What stays and is to be told is printed: `link` or `files`, and the folder.
 */
export const purgeScript = `${workLock}${walLinkScript}
data=$2 major=$3 begun=$4; shift 4
case $data in /*[!/]*) ;; *) exit 64 ;; esac
is_used() {
  at=$1; shift
  for used; do [ "$at" != "$used" ] || return 0; done
  return 1
}
empty_space() { case $1 in /?*) is_used "$@" || rm -rf -- "$1/PG_$major"_* || exit 74 ;; esac; }
for link in "$data"/pg_tblspc/*; do
  [ ! -L "$link" ] || empty_space "$(readlink -- "$link")" "$@"
done
if [ "$begun" = begun ] && [ -r "$state/tablespaces" ]; then
  while IFS= read -r space; do empty_space "$space" "$@"; done < "$state/tablespaces"
fi
kept=lost+found
if [ -L "$data/pg_wal" ]; then
  wal=$(readlink -f -- "$data/pg_wal")
  if [ -d "$wal" ] && [ "$(sed -n 1p "$state/wal_link" 2>/dev/null)" = "$wal" ]; then
    one='[0-9A-F]' eight= segment=
    for n in 1 2 3 4 5 6 7 8; do eight=$eight$one; done
    segment=$eight$eight$eight
    find "$wal" -mindepth 1 -maxdepth 1 \\( \\
      -type d \\( -name archive_status -o -name summaries \\) -o \\
      -type f \\( -name "$segment" -o -name "$segment.*" -o -name "$eight.history*" -o -name 'xlogtemp.*' -o \\
        -name RECOVERYXLOG -o -name RECOVERYHISTORY \\) \\) -exec rm -rf -- {} + || exit 74
    if ! is_empty_folder "$wal"; then printf 'files\\t%s\\n' "$wal"
    elif [ "$(sed -n 2p "$state/wal_link")" = prepared ]; then kept=pg_wal
    fi
  elif [ -d "$wal" ]; then printf 'link\\t%s\\n' "$wal"
  fi
fi
if [ -d "$data" ]; then
  find "$data/" -mindepth 1 -maxdepth 1 ! -name lost+found ! -name "$kept" -exec rm -rf -- {} + || exit 74
fi
# The mark first: while it is there, all of this is done again.
rm -f "$state/node.json" && rm -f "$state/wal_link" "$state/tablespaces" || exit 74
rmdir -- "$data" 2>/dev/null
:
`
