/**
 * One POSIX sh script that gathers everything the survey needs of a host, in one round trip. It only reads.
 * Sections begin with `@@name` and end with `@@`; arguments: cluster, data directory, bin directory ('' = detect).
 * The programs are searched where Debian, PGDG's RPMs and Homebrew put them, then in PATH.
 */
export const factsScript = `
cluster=$1 data=$2 bin=$3
state="$HOME/.replctl/$cluster"
section() { printf '@@%s\\n' "$1"; }
done_() { printf '\\n@@\\n'; }
show() { section "$1"; [ -f "$2" ] && cat -- "$2" 2>/dev/null; done_; }
section host; uname -n; done_
section home; printf '%s\\n' "$HOME"; done_
section clock; date +%s%3N 2>/dev/null; done_
kind=missing inode=
if [ -d "$data" ]; then
  inode=$(ls -di -- "$data" | awk '{print $1}')
  if [ -f "$data/PG_VERSION" ]; then kind=instance
  elif [ -n "$(ls -A -- "$data" | grep -v '^lost+found$')" ]; then kind=not-an-instance
  else kind=empty; fi
elif [ -e "$data" ]; then kind=not-an-instance
fi
section directory; printf '%s\\n' "$kind"; done_
section inode; printf '%s\\n' "$inode"; done_
show version "$data/PG_VERSION"
section installed
seen=:
for dir in "$bin" /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin \\
    /usr/local/opt/postgresql*/bin /usr/local/pgsql/bin /usr/lib/postgresql*/bin $(printf '%s' "$PATH" | tr : ' '); do
  if [ -n "$bin" ] && [ "$dir" != "$bin" ]; then continue; fi
  case $seen in *":$dir:"*) continue ;; esac
  seen="$seen$dir:"
  [ -x "$dir/postgres" ] && printf '%s\\t%s\\n' "$dir" "$("$dir/postgres" --version 2>/dev/null)"
done
done_
use=$bin
if [ -z "$use" ] && [ -f "$data/PG_VERSION" ]; then
  major=$(cat "$data/PG_VERSION")
  for dir in "/usr/lib/postgresql/$major/bin" "/usr/pgsql-$major/bin" "/opt/homebrew/opt/postgresql@$major/bin" \\
      "/usr/local/opt/postgresql@$major/bin"; do
    if [ -x "$dir/pg_controldata" ]; then use=$dir; break; fi
  done
fi
[ -z "$use" ] && use=$(dirname "$(command -v pg_controldata 2>/dev/null || echo /nowhere/x)")
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
if [ -f "$data/postmaster.pid" ]; then
  pid=$(sed -n 1p "$data/postmaster.pid")
  if kill -0 "$pid" 2>/dev/null; then
    if [ -d "/proc/$pid" ]; then
      here=$(readlink "/proc/$pid/cwd" 2>/dev/null)
      real=$(cd -P -- "$data" && pwd -P)
      if [ "$here" = "$real" ] || [ "$here" = "$data" ]; then
        echo alive
        sed -n 's/^State:[[:space:]]*\\(.\\).*/state \\1/p' "/proc/$pid/status"
      fi
    elif ps -p "$pid" -o comm= 2>/dev/null | grep -q postgres; then echo alive
    fi
  fi
fi
done_
section signal
[ -f "$data/standby.signal" ] && echo standby.signal
[ -f "$data/recovery.conf" ] && echo recovery.conf
[ -f "$state/rewinding" ] && echo rewinding
[ -f "$state/pgpass" ] && echo passfile
done_
section recovery-conf
[ -f "$data/recovery.conf" ] && sed 's/password=[^ ]*/password=***/g' "$data/recovery.conf"
done_
show standby-conf "$config/replctl.standby.conf"
section disk
at=$data
while [ ! -d "$at" ]; do at=$(dirname "$at"); done
df -Pk -- "$at" 2>/dev/null | sed -n 2p
done_
show mark "$state/node.json"
show record "$state/cluster.json"
show fence "$state/fenced.json"
show journal "$state/journal"
section holder
if [ -f "$state/holder" ] && kill -0 "$(sed -n 1p "$state/holder")" 2>/dev/null; then sed 1d "$state/holder"; fi
done_
`
