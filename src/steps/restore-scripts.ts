import { tellingScript } from '../node/jobs.ts'

/** `chain_of DATA_DIRECTORY STATE_DIRECTORY` sets `$chain`: where a chain of backups is unpacked. */
export const chainPlaceScript = `
chain_of() { if [ -w "$(dirname -- "$1")" ]; then chain=$1.replctl-chain; else chain=$2/chain; fi; }
`

/**
 * Fetches a base backup straight from the archive host into a data directory, by the node's own restricted key, and has
 * PostgreSQL's own program compare the result with the manifest. Arguments: state directory (with the key), archive
 * host, port, user, seconds to connect, system identifier, folder of programs, `full`, `no-wal` or `none`, data
 * directory, work folder; then for each file of each backup: its backup, its name, the number of the backup in the chain, and where it goes
 * (below the backup's own folder if relative); after `--`, for a chain, OID=PLACE of each tablespace.
 */
export const fetchBackupScript = `
umask 077
LC_ALL=C; export LC_ALL
case $1 in /*) state=$1 ;; *) state="$HOME/$1" ;; esac
host=$2 port=$3 user=$4 patience=$5 system=$6 bin=$7 how=$8 data=$9
shift 9
work=$1; shift
${tellingScript}${chainPlaceScript}fetched() { du -sk "$data/" "$chain"; }
case $work in /*) ;; *) work="$HOME/$work" ;; esac
accepted=
for pair in gz:gzip lz4:lz4 zst:zstd; do
  command -v "\${pair#*:}" >/dev/null 2>&1 && accepted="$accepted \${pair%:*}"
done
ask() (
  cd "$state" || exit 5
  exec ssh -T -l "$user" -p "$port" -i archive_key \\
    -o IdentitiesOnly=yes -o BatchMode=yes -o PreferredAuthentications=publickey -o LogLevel=ERROR \\
    -o UserKnownHostsFile=archive_known_hosts -o GlobalKnownHostsFile=/dev/null \\
    -o StrictHostKeyChecking=yes -o UpdateHostKeys=no -o CheckHostIP=no \\
    -o ConnectTimeout="$patience" -o ServerAliveInterval=5 -o ServerAliveCountMax=6 \\
    -o ControlMaster=no -o ControlPath=none -o ClearAllForwardings=yes -o ForwardAgent=no -o ForwardX11=no \\
    -o PermitLocalCommand=no -o Compression=no \\
    -c aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes128-ctr,aes256-ctr,chacha20-poly1305@openssh.com \\
    -- "$host" "$*" </dev/null
)
unpack() {
  case $1 in
    none) cat ;;
    gz) gzip -d -c ;;
    lz4) lz4 -d -c -q ;;
    zst) zstd -d -c -q ;;
    *) return 2 ;;
  esac
}
# Past whatever a login shell's start-up files print; read takes one byte at a time from a pipe.
receive() {
  while IFS=' ' read -r mark suffix bytes && [ "$mark" != replctl-archive ]; do :; done
  [ "$mark" = replctl-archive ] || return 1
  case $1 in
    *.tar*) { unpack "$suffix" || echo "cannot unpack" >&3; } | tar -xpf - -C "$2" ;;
    *) unpack "$suffix" > "$2/$1" ;;
  esac
}
fetch() {
  wrong=$({ { ask backup "$system" "$1" "$2" $accepted 2>&4 || echo "the archive host answered with status $?" >&3; } | { receive "$2" "$3" 2>&4 || echo "cannot store it" >&3; }; } 3>&1 4>&2)
  if [ -n "$wrong" ]; then echo "$2 of backup $1: $wrong" >&2; exit 91; fi
}
# Until its recovery is set up it must not come up by itself, as a primary of long ago: access for others (the folder alone) is
# what every version of PostgreSQL refuses to start with.
chmod 0701 "$data" || exit 70
# pg_wal may be a link to another disk: tar would put a folder in its place.
if [ -L "$data/pg_wal" ]; then readlink "$data/pg_wal" > "$work/pg_wal_link" || exit 70; rm "$data/pg_wal" || exit 70; fi
relink() {
  [ -f "$work/pg_wal_link" ] || return 0
  mv "$data/pg_wal" "$data/pg_wal.unlinked" && ln -s "$(cat "$work/pg_wal_link")" "$data/pg_wal" || return 1
  for one in "$data"/pg_wal.unlinked/*; do
    [ ! -e "$one" ] || mv "$one" "$data/pg_wal/" || return 1
  done
  rmdir "$data/pg_wal.unlinked" && mkdir -p "$data/pg_wal/archive_status"
}
# The root of a file system has a folder that only root reads; pg_verifybackup would call it an error.
verify() {
  for at in "$data" "$data"/pg_tblspc/*; do
    if [ -d "$at/lost+found" ]; then at=\${at#"$data"}; at=\${at#/}; set -- "$@" -i "\${at:+$at/}lost+found"; fi
  done
  telling read_by "$bin/pg_verifybackup" -q -i replctl_tablespaces "$@" "$data"
}
last=0
chain=
if [ "$3" != - ]; then
  if [ -f "$work/chain_at" ]; then rm -rf "$(cat "$work/chain_at")" || exit 70; fi
  chain_of "$data" "$work"
  if [ -e "$chain" ]; then echo "$chain is in the way" >&2; exit 70; fi
  printf '%s' "$chain" > "$work/chain_at" && mkdir "$chain" || exit 70
fi
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  id=$1 file=$2 number=$3 target=$4; shift 4
  if [ "$number" = - ]; then into=$data; else into=$chain/$number; last=$number; fi
  mkdir -p "$into" || exit 70
  case $target in
    /*) ;;
    *) target="$into/$target" ;;
  esac
  case $file in
    base.tar* | backup_manifest | pg_wal.tar*) ;;
    *)
      mkdir -p "$target" || exit 70
      oid=\${file%%.tar*}
      rm -f "$into/pg_tblspc/$oid"
      ln -s "$target" "$into/pg_tblspc/$oid" || exit 70 ;;
  esac
  echo "fetching $file of $id"
  telling fetched fetch "$id" "$file" "$target" || exit
  case $file$number in base.tar*-) relink || exit 70 ;; esac
done
if [ "\${1-}" = -- ]; then
  shift
  for pair; do set -- "$@" -T "$(printf '%s' "$chain/$last/spaces/\${pair%%=*}" | sed 's/=/\\\\=/g')=$(printf '%s' "\${pair#*=}" | sed 's/=/\\\\=/g')"; shift; done
  set -- "$@" -o "$data"
  n=$last
  while [ "$n" -ge 0 ]; do set -- "$chain/$n" "$@"; n=$((n - 1)); done
  # What they are joined to gets a manifest of its own, which proves nothing of what went into it.
  n=0
  while [ "$n" -le "$last" ]; do
    echo "verifying link $n of the chain"
    telling read_by "$bin/pg_verifybackup" -q -n -i spaces "$chain/$n" || exit 92
    n=$((n + 1))
  done
  echo "combining"
  telling read_by "$bin/pg_combinebackup" --no-sync "$@" || exit 93
  relink || exit 70
  rm -rf "$chain" && rm -f "$work/chain_at"
fi
# As the server has it: for its owner alone, or its group too (initdb --allow-group-access). The last bit goes with its start.
if [ -n "$(find "$data/PG_VERSION" -perm -040)" ]; then chmod 0751 "$data"; else chmod 0701 "$data"; fi
echo "verifying"
case $how in
  full) verify || exit 92 ;;
  no-wal) verify -n || exit 92 ;;
  none) [ -f "$data/global/pg_control" ] && [ -f "$data/backup_label" ] || exit 92 ;;
esac
# The links are made; the server would make them again from the map, with the old paths.
rm -f "$data/tablespace_map"
for at in "$data" "$data/pg_wal/" "$data"/pg_tblspc/*/; do
  [ -d "$at" ] || continue
  sync -f "$at" 2>/dev/null || sync
done
`

/**
 * Makes the directory of a restore. Only an empty one will do; a link \`pg_wal\` to an empty folder may stand in it. Folders
 * of tablespaces are written down before they are filled: only those are emptied when the restore is taken back.
 */
export const makeRestoreDirectoryScript = `
umask 077
dir=$2; shift 2
if [ ! -d "$dir" ]; then mkdir -p -- "$dir" || exit 73; fi
for name in $(ls -A -- "$dir"); do
  case $name in
    lost+found) ;;
    pg_wal) [ -L "$dir/pg_wal" ] && [ -d "$dir/pg_wal/" ] && [ -z "$(ls -A -- "$dir/pg_wal/")" ] || exit 65 ;;
    *) exit 65 ;;
  esac
done
chmod 0700 "$dir" || exit 73
rm -f "$state/pg_wal_link"
: > "$state/tablespaces.new"
for at; do
  if [ ! -d "$at" ]; then mkdir -p -- "$at" || exit 73; fi
  [ -z "$(ls -A -- "$at" | grep -v '^lost+found$')" ] || { echo "$at is not empty" >&2; exit 65; }
  chmod 0700 "$at" || exit 73
  printf '%s\\n' "$at" >> "$state/tablespaces.new"
done
mv "$state/tablespaces.new" "$state/tablespaces"
`

/** Takes away what a restore has put there: contents of its tablespaces, then of its directory, a link pg_wal excepted. */
export const emptyRestoreScript = `
dir=$2
case $dir in /|'') exit 64 ;; esac
if [ -r "$state/tablespaces" ]; then
  while IFS= read -r at; do
    case $at in /?*) [ -d "$at" ] && find "$at/" -mindepth 1 -maxdepth 1 ! -name lost+found -exec rm -rf -- {} + ;; esac
  done < "$state/tablespaces"
fi
link=
if [ -f "$state/pg_wal_link" ]; then link=$(cat "$state/pg_wal_link"); elif [ -L "$dir/pg_wal" ]; then link=$(readlink "$dir/pg_wal"); fi
if [ -d "$dir" ]; then
  # As long as it recovers beside a node, it is closed.
  if [ -d "$dir/pg_tblspc" ]; then chmod u+w "$dir/pg_tblspc"; fi
  case $link in ''|/*) there=$link ;; *) there=$dir/$link ;; esac
  if [ -n "$there" ] && [ -d "$there" ]; then find "$there/" -mindepth 1 -maxdepth 1 ! -name lost+found -exec rm -rf -- {} +; fi
  find "$dir/" -mindepth 1 -maxdepth 1 ! -name lost+found -exec rm -rf -- {} +
  if [ -n "$link" ]; then ln -s "$link" "$dir/pg_wal"; fi
  chmod 0700 "$dir"
fi
if [ -f "$state/chain_at" ]; then rm -rf -- "$(cat "$state/chain_at")" && rm -f "$state/chain_at"; fi
`

/** What stands where an instance is to be restored: one word, and a path where it helps. */
export const lookAtTargetScript = `
dir=$1 mustBeBare=$2; shift 2
for at in "$dir" "$@"; do
  if [ "$mustBeBare" = yes ] && [ -e "$at/lost+found" ]; then printf 'root\\t%s\\n' "$at"; fi
done
at=$dir
while [ "$at" != / ] && [ -n "$at" ]; do
  at=$(dirname -- "$at")
  if [ -f "$at/PG_VERSION" ]; then printf 'inside\\t%s\\n' "$at"; fi
done
if [ -e "$dir" ]; then
  if [ ! -d "$dir" ] || [ ! -r "$dir" ] || [ ! -w "$dir" ]; then printf 'unusable\\t%s\\n' "$dir"
  elif [ -f "$dir/PG_VERSION" ]; then
    printf 'instance\\t%s\\n' "$dir"
    for link in "$dir"/pg_tblspc/*; do
      [ ! -L "$link" ] || printf 'space\\t%s\\n' "$(readlink "$link")"
    done
  else
    for name in $(ls -A -- "$dir"); do
      case $name in
        lost+found) ;;
        pg_wal) [ -L "$dir/pg_wal" ] && [ -d "$dir/pg_wal/" ] && [ -z "$(ls -A -- "$dir/pg_wal/")" ] || printf 'not-empty\\t%s\\n' "$dir/pg_wal" ;;
        *) printf 'not-empty\\t%s\\n' "$dir"; break ;;
      esac
    done
  fi
else
  at=$dir
  while [ ! -e "$at" ]; do at=$(dirname -- "$at"); done
  if [ ! -d "$at" ] || [ ! -w "$at" ]; then printf 'not-writable\\t%s\\n' "$at"; fi
fi
for space; do
  if [ ! -e "$space" ]; then
    at=$space
    while [ ! -e "$at" ]; do at=$(dirname -- "$at"); done
    [ -w "$at" ] || printf 'tablespace\\t%s cannot be made\\n' "$space"
  elif [ ! -d "$space" ] || [ -n "$(ls -A -- "$space" 2>/dev/null | grep -v '^lost+found$')" ]; then
    printf 'tablespace\\t%s is not empty\\n' "$space"
  fi
done
:
`
