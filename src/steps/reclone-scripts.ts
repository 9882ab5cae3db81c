import { realFolderScript } from './real-folder.ts'
import { requireNotRunningScript } from './rejoin-scripts.ts'

/** What a data directory that is replaced, and a folder that its pg_wal links to, are called until the new one streams. */
export const asideSuffix = '.replctl-old'

/** And once its removal has begun: whatever is left of it, nobody puts that back. */
export const goneSuffix = `${asideSuffix}-gone`

/** Exit status of {@link moveAsideScript} where the data directory cannot be renamed; nothing was done then. */
export const cannotMove = 65

/** Whether a folder (of a link: what it leads to) is no mount point, and its parent is writable. */
export const canMoveScript = `${realFolderScript}
device() { stat -c %d -- "$1" 2>/dev/null || stat -f %d -- "$1"; }
can_move() {
  set -- "$(real_folder "$1")"
  [ -d "$1" ] && ! mountpoint -q -- "$1" 2>/dev/null && [ -w "$(dirname -- "$1")" ] &&
    [ "$(device "$1")" = "$(device "$(dirname -- "$1")")" ]
}
`

/**
 * Moves the data directory `$1` aside. Where pg_wal is a link, its folder goes along, and an empty directory with the same
 * link, to a new empty folder, takes the place: the new clone's WAL lies where the old one's did. A folder that cannot be
 * renamed (a mount point) keeps its content, and the new pg_wal is a plain folder. Where the data directory is a link itself, what
 * it leads to is moved, within its own disk, and an empty folder takes the place there.
 */
export const moveAsideScript = `${canMoveScript}
can_move "$1" || exit ${cannotMove}
named=$1
set -- "$(real_folder "$1")"
data=$1
${requireNotRunningScript}
old=$1${asideSuffix} wal=
rm -rf -- "$old" || exit 74
if [ -L "$1/pg_wal" ]; then
  wal=$(readlink -f -- "$1/pg_wal")
  # Already renamed by a run that was killed.
  wal=\${wal%${asideSuffix}}
  if [ ! -d "$wal${asideSuffix}" ] || [ "$(readlink -f -- "$1/pg_wal")" = "$wal" ]; then
    rm -rf -- "$wal${asideSuffix}"
    mv -- "$wal" "$wal${asideSuffix}" 2>/dev/null || wal=
  fi
  if [ -n "$wal" ]; then
    ln -sfn -- "$wal${asideSuffix}" "$1/pg_wal" && mkdir -p -m 0700 -- "$wal" || exit 74
  fi
fi
if ! mv -- "$1" "$old"; then
  if [ -n "$wal" ]; then rmdir -- "$wal" && mv -- "$wal${asideSuffix}" "$wal" && ln -sfn -- "$wal" "$1/pg_wal"; fi
  exit 74
fi
if [ -n "$wal" ] || [ -L "$named" ]; then mkdir -m 0700 -- "$1" || exit 74; fi
[ -z "$wal" ] || ln -s -- "$wal" "$1/pg_wal"
`

/** Takes {@link moveAsideScript} back, where nothing stands in the place but what it left there. */
export const putAsideBackScript = `${realFolderScript}
set -- "$(real_folder "$1")"
old=$1${asideSuffix}
[ -d "$old" ] || exit 0
if [ -L "$1/pg_wal" ] && [ "$(ls -A -- "$1")" = pg_wal ]; then rm -f -- "$1/pg_wal"; fi
rmdir -- "$1" 2>/dev/null
[ ! -e "$1" ] || exit 0
mv -- "$old" "$1" || exit 74
[ -L "$1/pg_wal" ] || exit 0
aside=$(readlink -f -- "$1/pg_wal")
case $aside in *${asideSuffix}) ;; *) exit 0 ;; esac
wal=\${aside%${asideSuffix}}
rmdir -- "$wal" 2>/dev/null
[ ! -e "$wal" ] || exit 0
mv -- "$aside" "$wal" && ln -sfn -- "$wal" "$1/pg_wal"
`

/** Deletes what of the data directory `$1` was moved aside, the WAL behind its link too, and what a run that was killed left of it. */
export const deleteAsideScript = `${realFolderScript}
delete() {
  if [ -L "$1/pg_wal" ]; then
    aside=$(readlink -f -- "$1/pg_wal")
    case $aside in /?*${asideSuffix}) rm -rf -- "$aside" || exit 74 ;; esac
  fi
  rm -rf -- "$1" || exit 74
}
set -- "$(real_folder "$1")"
case $1 in /*[!/]*) ;; *) exit 64 ;; esac
delete "$1${goneSuffix}"
if [ -e "$1${asideSuffix}" ]; then
  mv -- "$1${asideSuffix}" "$1${goneSuffix}" || exit 74
  delete "$1${goneSuffix}"
fi
:
`
