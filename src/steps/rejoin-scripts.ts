/**
 * Whether `$1` at the top of the data directory `$data` is the server's own. Everything else there (configuration,
 * certificates, keys, logs, what the operator put there) is the node's, and pg_rewind would replace it by the source's.
 * A socket or pid file is nobody's: it goes.
 */
export const isServerFileScript = `
is_server_file() {
  case $1 in
    base|global|PG_VERSION|postmaster.pid|postmaster.opts|backup_label*|tablespace_map*|backup_manifest*|\\
    current_logfiles*|standby.signal|recovery.signal|recovery.done|promote|fallback_promote|logrotate|\\
    lost+found|.s.PGSQL.*) return 0 ;;
    pg_log|pg_hba.conf|pg_ident.conf) return 1 ;;
    pg_*) [ -d "$data/$1" ] ;;
    *) return 1 ;;
  esac
}
is_log() { case $1 in log|pg_log) [ -d "$data/$1" ] && [ ! -L "$data/$1" ] ;; *) return 1 ;; esac; }
own_names() {
  for at in "$data"/* "$data"/.[!.]*; do
    [ -e "$at" ] || [ -L "$at" ] || continue
    is_server_file "\${at##*/}" || printf '%s\\n' "\${at##*/}"
  done
}
`

/** Nothing runs in the data directory `$data`: what starts PostgreSQL by itself may have done so a moment ago. */
export const requireNotRunningScript = `
if [ -f "$data/postmaster.pid" ]; then
  read -r pid < "$data/postmaster.pid"
  if kill -0 "$pid" 2>/dev/null && [ "$(readlink "/proc/$pid/cwd" 2>/dev/null)" = "$(cd -P "$data" && pwd -P)" ]; then
    echo "replctl: PostgreSQL runs in $data (pid $pid)" >&2; exit 92
  fi
fi
`

/**
 * The data directory `$data` of a stopped instance of system identifier `$id`: looked at on its host right before anything
 * is done in it, whatever was known a moment ago.
 */
export const requireStoppedScript = `
found=$("$bin/pg_controldata" "$data" | sed -n 's/^Database system identifier: *//p')
[ "$found" = "$id" ] || { echo "replctl: the system identifier of $data is $found, not $id" >&2; exit 91; }
${requireNotRunningScript}`

/** All of a data directory to disk, wherever its parts lie. */
export const syncScript = `
for at in "$data" "$data/pg_wal/" "$data"/pg_tblspc/*/; do
  [ -d "$at" ] || continue
  sync -f "$at" 2>/dev/null || sync
done
`
