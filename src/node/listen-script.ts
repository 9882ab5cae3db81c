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
  pid=$(sed -n 1p "$lock")
  if kill -0 "$pid" 2>/dev/null || [ -d "/proc/$pid" ]; then echo "data $(sed -n 2p "$lock")"; fi
done
:
`
