import type { PostgresSettings } from '../cluster/inventory.ts'

/**
 * Says who has the TCP port `$1`: nothing, `busy`, and `data <directory>` where it is a PostgreSQL instance. `$2`: only on these
 * addresses, as /proc/net/tcp writes them (or on all of them); the rest: folders of sockets.
 */
export const listenScript = `
port=$1 only=$2 hex=$(printf '%04X' "$1"); shift 2
for file in /proc/net/tcp /proc/net/tcp6; do
  [ -r "$file" ] && awk -v port=":$hex" -v only=" $only " '
    $4 == "0A" && substr($2, length($2) - 4) == port {
      at = substr($2, 1, length($2) - 5); sub(/^0000000000000000FFFF0000/, "", at)
      if (only == "  " || at ~ /^0+$/ || index(only, " " at " ")) { print "busy"; exit }
    }' "$file"
done
for dir; do
  lock="$dir/.s.PGSQL.$port.lock"
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

/** Arguments of {@link listenScript} for an instance: two with addresses and socket folders of their own may share a port. */
export function listenArgs({
  port,
  parameters,
}: Pick<PostgresSettings, 'port' | 'parameters'>): readonly string[] {
  const addresses = listOf(parameters.listen_addresses)
  const octets = addresses.map((one) => (one === 'localhost' ? '127.0.0.1' : one).split('.').map(Number))
  const areLiteral = octets.every((four) => four.length === 4 && four.every((one) => one >= 0 && one < 256))
  // The kernel prints them as numbers, on a machine with the lowest byte first.
  const hex = (one: number) => one.toString(16).toUpperCase().padStart(2, '0')
  const only = areLiteral ? octets.map((four) => four.toReversed().map(hex).join('')) : []
  const folders = listOf(parameters.unix_socket_directories)
  return [String(port), only.join(' '), ...(folders.length > 0 ? folders : ['/var/run/postgresql', '/tmp'])]
}

const listOf = (value: string | undefined): readonly string[] =>
  (value ?? '')
    .split(',')
    .map((one) => one.trim())
    .filter((one) => one !== '')
