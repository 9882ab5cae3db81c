#!/bin/sh
# Receives the WAL of a cluster on its archive host, up to the last byte that the primary has written. Runs for ever:
# keeps one pg_receivewal connected to whichever node accepts writes, and starts it again when it ends.
# Written by replctl, which overwrites it: change the inventory, not this file.
cluster={{ cluster | shell }}
wal={{ wal_directory | shell }}
conninfo={{ conninfo | shell }}
standby_conninfos={{ standby_conninfos | shell }}
slot={{ slot | shell }}

# In the state directory: stream.lock is held while this runs, stream.pid says as whom, stream.log what happened.
set -u
LC_ALL=C
PATH=${PATH:-/usr/bin:/bin}:/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin
export LC_ALL PATH
umask 077
# Nothing of the environment decides where this connects to.
unset PGHOST PGPORT PGUSER PGDATABASE PGPASSWORD PGSERVICE PGOPTIONS PGTARGETSESSIONATTRS 2>/dev/null
case $0 in
*/*) cd "${0%/*}" || exit 70 ;;
esac

say() {
  printf '%s %s\n' "$(date -u '+%Y-%m-%d %H:%M:%S')" "$*" >>stream.log
}

# The newest pg_receivewal there is: it serves older servers, never newer ones.
find_program() {
  program=
  newest=0
  for directory in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin /usr/local/pgsql/bin \
    $(printf '%s' "$PATH" | tr : ' '); do
    [ -x "$directory/pg_receivewal" ] || continue
    version=$("$directory/pg_receivewal" --version 2>/dev/null)
    version=${version##* }
    version=${version%%[!0-9]*}
    if [ "${version:-0}" -gt "$newest" ]; then
      newest=$version
      program=$directory/pg_receivewal
    fi
  done
  [ -n "$program" ]
}

find_program || {
  echo "archive-stream: there is no pg_receivewal on this host" >&2
  exit 69
}
[ "${1-}" = --check ] && {
  echo "$program"
  exit 0
}

exec 9>>stream.lock
# Whoever looks whether this runs holds the lock for a moment.
flock -w 10 9 2>/dev/null || flock -n 9 || exit 0
echo $$ >stream.pid
receiver=
# One that a killed predecessor left would hold the slot.
if [ -f stream.child ] && read -r left <stream.child &&
  ps -p "$left" -o args= 2>/dev/null | grep -q "pg_receivewal.*--slot=$slot"; then
  kill -TERM "$left" 2>/dev/null
fi
stop() {
  trap '' HUP INT TERM
  if [ -n "$receiver" ]; then
    kill -TERM "$receiver" 2>/dev/null
    wait "$receiver"
  fi
  say "stopped"
  exit 0
}
trap stop INT TERM
trap '' HUP

# Ends after the program; a signal reaches it at once.
run() {
  "$program" --no-password "$@" >/dev/null 2>>stream.log 9>&- &
  receiver=$!
  echo "$receiver" >stream.child
  wait "$receiver"
  run_status=$?
  receiver=
  return $run_status
}

# A node that no longer leads keeps no WAL for the archive. One that leads holds the slot in use, so it cannot be lost.
drop_left_slots() {
  [ "$newest" -ge 14 ] || return
  printf '%s\n' "$standby_conninfos" | while IFS= read -r other; do
    [ -n "$other" ] || continue
    "$program" --no-password -d "$other" --slot="$slot" --drop-slot >/dev/null 2>&1 9>&-
  done
}

# What the archive has of a timeline beyond the point where the new primary left it is nobody's WAL any more. It is moved
# aside, the newest first, until the primary can go on from what is left; it may hold transactions that were lost.
move_diverged() {
  tail -n 3 stream.log | grep -q "is not in this server's history" || return
  last=
  for file in "$wal"/????????????????????????; do
    [ -f "$file" ] && last=$file
  done
  [ -n "$last" ] || return
  aside=${wal%/wal}/diverged
  mkdir -p "$aside" && mv "$last" "$aside/${last##*/}.$(date +%s)" && say "moved ${last##*/} to $aside"
}

say "started, $program"
delay=1
slots_dropped=no
while :; do
  if [ ! -d "$wal" ] || [ ! -w "$wal" ]; then
    say "the directory $wal is missing or not writable: is its file system mounted?"
  else
    began=$(date +%s)
    if run -d "$conninfo" --slot="$slot" --create-slot --if-not-exists; then
      drop_left_slots
      run -d "$conninfo" --slot="$slot" -D "$wal" --no-loop --synchronous
      say "pg_receivewal ended with status $run_status"
      move_diverged
    fi
    [ $(($(date +%s) - began)) -lt 30 ] || delay=1
  fi
  if [ "$(wc -c <stream.log)" -gt 1000000 ]; then
    tail -c 200000 stream.log >stream.log.new && mv stream.log.new stream.log
  fi
  sleep "$delay" 9>&- &
  receiver=$!
  wait "$receiver"
  receiver=
  delay=$((delay * 2))
  [ "$delay" -le 8 ] || delay=8
done
