/**
 * Says who listens on the TCP port `$1`: nothing, `busy`, and `data <directory>` where it is a PostgreSQL instance.
 */
export const listenScript = `
hex=$(printf '%04X' "$1")
for file in /proc/net/tcp /proc/net/tcp6; do
  [ -r "$file" ] && awk -v port=":$hex" '$4 == "0A" && substr($2, length($2) - 4) == port { print "busy"; exit }' "$file"
done
for dir in /var/run/postgresql /tmp; do
  lock="$dir/.s.PGSQL.$1.lock"
  [ -f "$lock" ] || continue
  pid=$(sed -n 1p "$lock") data=$(sed -n 2p "$lock")
  case $pid in ''|*[!0-9]*) continue ;; esac
  # A crash leaves the file, and its number goes to another process after a while.
  if [ ! -d /proc/self ]; then kill -0 "$pid" 2>/dev/null || continue
  elif at=$(readlink "/proc/$pid/cwd" 2>/dev/null); then [ "$at" = "$(cd -P -- "$data" 2>/dev/null && pwd -P)" ] || continue
  else case $(cat "/proc/$pid/comm" 2>/dev/null) in postgres*|postmaster*) ;; *) continue ;; esac
  fi
  echo "data $data"
done
:
`
