import { stateVariableScript } from './node.ts'

/**
 * One POSIX sh script that gathers everything the survey needs of a host, in one round trip. It only reads.
 * Sections begin with `@@name` and end with `@@`; arguments: state directory, data directory, bin directory ('' = detect), and
 * `quick` to leave out what does not change within one command (programs, clock, disk), or `brief` where every moment
 * counts: only the programs of the data directory's version are named, and clock, disk and inode are left out. `room` is
 * the same with the disk, `quickest` is `quick` without the inode. Steps look often, so small files are read by the shell itself: each process that is not started saves milliseconds.
 * The programs are searched where Debian, PGDG's RPMs and Homebrew put them, then in PATH.
 */
export const factsScript = `
data=$2 bin=$3 quick=$4 has_inode=yes${stateVariableScript}case $quick in
brief|room) has_inode= ;;
quickest) has_inode= quick=quick ;;
esac
section() { printf '@@%s\\n' "$1"; }
done_() { printf '\\n@@\\n'; }
print_file() {
  while IFS= read -r line || [ -n "$line" ]; do printf '%s\\n' "$line"; done < "$1"
}
show() { section "$1"; [ -r "$2" ] && print_file "$2"; done_; }
section home; printf '%s\\n' "$HOME"; done_
if [ "$quick" != quick ]; then
  section host
  if [ -r /proc/sys/kernel/hostname ]; then print_file /proc/sys/kernel/hostname; else uname -n; fi
  done_
fi
if [ -z "$quick" ]; then section clock; date +%s%3N 2>/dev/null; done_; fi
kind=missing inode=
if [ -d "$data" ]; then
  if [ -n "$has_inode" ]; then inode=$(ls -di -- "$data/"); inode=\${inode%% /*}; inode=\${inode##* }; fi
  if [ -f "$data/PG_VERSION" ]; then kind=instance
  elif ! [ -r "$data" ] || [ -n "$(ls -A -- "$data" | grep -v '^lost+found$')" ]; then
    kind=not-an-instance
    # Nothing but a link to where WAL is to lie, on another disk.
    if [ -L "$data/pg_wal" ] && [ "$(ls -A -- "$data" | grep -v '^lost+found$')" = pg_wal ] &&
      [ -d "$data/pg_wal/" ] && [ -z "$(ls -A -- "$data/pg_wal/" | grep -v '^lost+found$')" ]; then kind=empty; fi
  else kind=empty; fi
elif [ -e "$data" ]; then kind=not-an-instance
fi
section directory; printf '%s\\n' "$kind"; done_
section inode; printf '%s\\n' "$inode"; done_
show version "$data/PG_VERSION"
major=
[ -r "$data/PG_VERSION" ] && read -r major < "$data/PG_VERSION"
use=$bin
if [ -z "$use" ] && [ -n "$major" ]; then
  for dir in "/usr/lib/postgresql/$major/bin" "/usr/pgsql-$major/bin" "/opt/homebrew/opt/postgresql@$major/bin" \\
      "/usr/local/opt/postgresql@$major/bin"; do
    if [ -x "$dir/pg_controldata" ]; then use=$dir; break; fi
  done
fi
if { [ "$quick" = brief ] || [ "$quick" = room ]; } && [ -n "$major" ] && [ -n "$use" ]; then
  section installed; printf '%s\\tpostgres (PostgreSQL) %s\\n' "$use" "$major"; done_
elif [ "$quick" != quick ]; then
section installed
seen=:
ifs=$IFS
IFS=:; set -- $PATH
IFS=$ifs
for dir in "$bin" /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin \\
    /usr/local/opt/postgresql*/bin /usr/local/pgsql/bin /usr/lib/postgresql*/bin "$@"; do
  if [ -n "$bin" ] && [ "$dir" != "$bin" ]; then continue; fi
  case $seen in *":$dir:"*) continue ;; esac
  seen="$seen$dir:"
  [ -x "$dir/postgres" ] || continue
  printf '%s\\t%s\\n' "$dir" "$("$dir/postgres" --version 2>/dev/null)"
done
done_
fi
if [ -z "$quick" ] || [ "$quick" = room ]; then
section disk
at=$data
while [ ! -d "$at" ]; do at=$(dirname "$at"); done
df -Pk -- "$at" "$data/pg_wal/" 2>/dev/null
done_
fi
if [ -z "$use" ] && [ "$kind" = instance ]; then
  use=$(command -v pg_controldata 2>/dev/null); use=\${use%/*}
fi
section control
[ "$kind" = instance ] && [ -x "$use/pg_controldata" ] && "$use/pg_controldata" "$data" 2>/dev/null
done_
config=$data
if [ ! -f "$data/postgresql.conf" ] || [ -d /etc/postgresql ]; then
  for file in /etc/postgresql/*/*/postgresql.conf; do
    [ -f "$file" ] || continue
    at=$(sed -n "s/^[[:space:]]*data_directory[[:space:]]*=[[:space:]]*'\\([^']*\\)'.*/\\1/p" "$file" | tail -n 1)
    if [ "$at" = "$data" ]; then config=$(dirname "$file"); break; fi
  done
fi
section config; printf '%s\\n' "$config"; done_
show postmaster "$data/postmaster.pid"
section process
is_alive() {
  echo alive
  read -r stat < "/proc/$pid/stat" && stat=\${stat##*) } && printf 'state %s\\n' "\${stat%% *}"
}
if [ -f "$data/postmaster.pid" ]; then
  read -r pid < "$data/postmaster.pid"
  if kill -0 "$pid" 2>/dev/null; then
    if { [ "/proc/$pid/cwd" -ef "$data" ]; } 2>/dev/null; then
      is_alive
    elif [ -d "/proc/$pid" ]; then
      here=$(readlink "/proc/$pid/cwd" 2>/dev/null)
      real=$(cd -P -- "$data" && pwd -P)
      if [ "$here" = "$real" ] || [ "$here" = "$data" ]; then is_alive; fi
    elif ps -p "$pid" -o comm= 2>/dev/null | grep -q postgres; then echo alive
    fi
  fi
fi
done_
section signal
[ -f "$data/standby.signal" ] && echo standby.signal
[ -f "$data/recovery.conf" ] && echo recovery.conf
[ -f "$state/rejoin.json" ] && grep -q '"phase":"rewinding"' "$state/rejoin.json" && echo rewinding
[ "$kind" != instance ] || [ -w "$data" ] || echo unwritable
[ -f "$state/pgpass" ] && echo passfile
[ -x "$state/start-guard" ] && echo guard
done_
section guarded-by
if [ -x "$state/start-guard" ]; then
  for file in "$config/pg_ctl.conf" /etc/systemd/system/postgresql*.service.d/replctl-*.conf; do
    [ -r "$file" ] && print_file "$file"
  done
fi
done_
section recovery-conf
# Quotes within the file's own quotes are doubled; the one that ends the value stays.
[ -f "$data/recovery.conf" ] && sed -e "s/password=''[^']*''/password=***/g" \\
  -e "s/password=[^ ']*\\(''[^ ']*\\)*/password=***/g" "$data/recovery.conf"
done_
show standby-conf "$config/replctl.standby.conf"
show auto-conf "$data/postgresql.auto.conf"
show mark "$state/node.json"
show record "$state/cluster.json"
show fence "$state/fenced.json"
show archive-error "$state/archive_error"
section archive-scripts
# Which archive they speak to stands at their head.
for name in archive-push archive-fetch; do
  { [ -x "$state/$name" ] && [ -r "$state/$name" ]; } || continue
  connection=
  while IFS= read -r line; do
    case $line in
      connection=*) connection=\${line#connection=}; break ;;
    esac
  done < "$state/$name"
  printf '%s %s\\n' "$name" "$connection"
done
done_
show rejoin "$state/rejoin.json"
show journal "$state/journal"
show ended "$state/ended"
section holder
if [ -r "$state/holder" ]; then
  { read -r pid; read -r who; } < "$state/holder"
  if kill -0 "$pid" 2>/dev/null; then printf '%s\\n' "$who"; fi
fi
done_
`
