#!/bin/sh
# Receives the WAL of a cluster on its archive host, up to the last byte that the primary has written. Runs for ever:
# keeps one pg_receivewal connected to whichever node accepts writes, and starts it again when it ends. Which nodes there are stands
# in archive_nodes, a line of a connection string for each; it is read anew whenever one is looked for.
# SIGUSR1: look for that node again, now. "--check" prints which pg_receivewal would be used. "--leap": where the primary has
# removed WAL that the archive lacks, go on behind the gap.
# Written by replctl, which overwrites it: change the inventory, not this file.
cluster={{ cluster | shell }}
system_identifier={{ system_identifier | shell }}
wal={{ wal_directory | shell }}
conninfo={{ conninfo | shell }}
slot={{ slot | shell }}

# In the state directory: stream.lock is held while this runs, stream.pid says as whom, stream.child what it runs, stream.log what
# happened, stream.gap that the primary has removed WAL which the archive lacks.
set -u
LC_ALL=C
PATH=${PATH:-/usr/bin:/bin}:/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin
export LC_ALL PATH
umask 077
# Nothing of the environment decides where this connects to.
unset PGHOST PGPORT PGUSER PGDATABASE PGPASSWORD PGSERVICE PGOPTIONS PGTARGETSESSIONATTRS PGAPPNAME 2>/dev/null
case $0 in
*/*) cd "${0%/*}" || exit 70 ;;
esac

say() {
  printf '%s %s\n' "$(date -u '+%Y-%m-%d %H:%M:%S')" "$*" 2>/dev/null >>stream.log
}

# What goes on for hours is said once.
last_said=
say_once() {
  [ "$*" = "$last_said" ] || say "$*"
  last_said=$*
}

# The newest pg_receivewal there is: it serves older servers, never newer ones.
find_program() {
  program=
  newest=0
  for directory in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin /usr/local/pgsql/bin \
    $(printf '%s' "$PATH" | tr : ' '); do
    [ -x "$directory/pg_receivewal" ] && [ -x "$directory/psql" ] || continue
    version=$("$directory/pg_receivewal" --version 2>/dev/null)
    version=${version##* }
    version=${version%%[!0-9]*}
    if [ "${version:-0}" -gt "$newest" ]; then
      newest=$version
      program=$directory/pg_receivewal
      psql=$directory/psql
    fi
  done
  [ -n "$program" ]
}

find_program || {
  echo "archive-stream: there is no pg_receivewal with a psql beside it on this host" >&2
  exit 69
}
[ "${1-}" = --check ] && {
  echo "$program"
  exit 0
}
leap=no
[ "${1-}" = --leap ] && leap=yes
# What was sent and never confirmed keeps a dead connection alive for a quarter of an hour, whatever keepalives say.
[ "$newest" -lt 12 ] || conninfo="$conninfo tcp_user_timeout=15000"

exec 9>>stream.lock
# Whoever looks whether this runs holds the lock for a moment.
flock -w 10 9 2>/dev/null || flock -n 9 || exit 0
echo $$ >stream.pid
child=
killer=
# One that a killed predecessor left would hold the slot.
if [ -f stream.child ] && read -r left kind <stream.child &&
  ps -p "$left" -o args= 2>/dev/null | grep -q "pg_receivewal.*--slot=$slot"; then
  kill -TERM "$left" 2>/dev/null
  tries=0
  while kill -0 "$left" 2>/dev/null && [ $tries -lt 3 ]; do
    sleep 1
    tries=$((tries + 1))
  done
  kill -KILL "$left" 2>/dev/null
fi

# From version 16 on pg_receivewal takes leave of its server before it ends, and waits for the answer of one that is gone. What it
# has written is durable all the time.
end_child() {
  [ -n "$child" ] || return
  kill -TERM "$child" 2>/dev/null
  [ -z "$killer" ] || return
  {
    exec 9>&-
    sleep 3
    kill -KILL "$child" 2>/dev/null
  } &
  killer=$!
}
stop() {
  trap '' HUP INT TERM USR1
  end_child
  await_child
  say "stopped"
  exit 0
}
poked=no
poke() {
  poked=yes
  end_child
}
trap stop INT TERM
trap poke USR1
trap '' HUP

# Sets $run_status to what $child ended with.
await_child() {
  [ -n "$child" ] || return
  wait "$child"
  run_status=$?
  # A signal ends the wait, not yet the program.
  while [ $run_status -gt 128 ] && kill -0 "$child" 2>/dev/null; do
    wait "$child"
    run_status=$?
  done
  child=
  [ -z "$killer" ] || kill -KILL "$killer" 2>/dev/null
  killer=
}

# Runs a program that a signal to this script ends at once: "run OUTPUT PROGRAM...". What it complains of is in stream.said.
run() {
  output=$1
  shift
  "$@" </dev/null >"$output" 2>stream.said 9>&- &
  child=$!
  echo "$child $kind" >stream.child
  await_child
  return $run_status
}

# Runs pg_receivewal on the node that was found.
receive() {
  run /dev/null "$program" --no-password -d "$conninfo $node target_session_attrs=read-write" --slot="$slot" "$@"
}

# Asks the node that was found for one value.
ask() {
  printf '%s\n' "$1" >stream.ask
  run stream.found "$psql" -XAtqw -F ' ' -v ON_ERROR_STOP=1 -f stream.ask \
    "$conninfo $node target_session_attrs=read-write replication=true application_name=$slot-look" && cat stream.found
}

# Asks all nodes at a time who they are and prints a line for each that accepts writes: "IDENTIFIER TIMELINE POSITION NODE". Where one
# has answered, the others have a second.
ask_nodes() {
  asked=
  trap 'kill -TERM $asked 2>/dev/null; exit 1' TERM
  rm -f stream.answer.*
  number=0
  while IFS= read -r node <&8; do
    [ -n "$node" ] || continue
    number=$((number + 1))
    "$psql" -XAtqw -F ' ' -v ON_ERROR_STOP=1 -f stream.ask \
      "$conninfo $node target_session_attrs=read-write replication=true application_name=$slot-look" >stream.answer.$number 8<&- &
    asked="$asked $!"
  done 8<archive_nodes
  waited=0
  while [ -n "$asked" ]; do
    sleep 0.1 2>/dev/null || sleep 1
    waited=$((waited + 1))
    left=
    for one in $asked; do
      kill -0 "$one" 2>/dev/null && left="$left $one"
    done
    asked=$left
    if [ -n "$asked" ] && [ $waited -ge 10 ] && { [ $waited -ge 100 ] || [ -n "$(cat stream.answer.*)" ]; }; then
      # shellcheck disable=SC2086
      kill -KILL $asked 2>/dev/null
      break
    fi
  done
  number=0
  while IFS= read -r node <&8; do
    [ -n "$node" ] || continue
    number=$((number + 1))
    read -r one_identifier one_timeline one_position rest <stream.answer.$number && [ -n "$one_position" ] &&
      echo "$one_identifier $one_timeline $one_position $node"
  done 8<archive_nodes
  return 0
}

# Finds the node that accepts writes: sets $node, $identified, $timeline and $position. Of several, as after a failover that did not
# fence the old primary, the one on the newest timeline.
find_primary() {
  node=
  timeline=0
  if [ ! -s archive_nodes ]; then
    echo "archive_nodes is missing or empty" >stream.said
    return 1
  fi
  echo 'IDENTIFY_SYSTEM;' >stream.ask
  run stream.found ask_nodes || return
  while read -r one_identifier one_timeline one_position one; do
    if [ -n "$node" ] && { [ "$one_identifier" != "$system_identifier" ] ||
      { [ "$identified" = "$system_identifier" ] && [ "$one_timeline" -le "$timeline" ]; }; }; then
      continue
    fi
    identified=$one_identifier
    timeline=$one_timeline
    position=$one_position
    node=$one
  done <stream.found
  [ -n "$node" ]
}

# Sets $last_timeline to the newest that the archive has, in hexadecimal digits, and $last_file to the WAL file from which
# pg_receivewal goes on: the one with the highest position, on the newest timeline there, whole rather than partial.
find_end() {
  last_timeline=00000000
  last_file=
  # shellcheck disable=SC2012
  set -- $(ls "$wal" | awk '
    { name = $0; sub(/\.(partial|history)$/, "", name) }
    name ~ /[^0-9A-F]/ { next }
    length(name) == 8 || length(name) == 24 { if (substr(name, 1, 8) > newest) newest = substr(name, 1, 8) }
    length(name) == 24 {
      key = substr(name, 9) substr(name, 1, 8) (name == $0)
      if ((key "") > last) { last = key ""; file = $0 }
    }
    END { if (newest != "") print newest, file }')
  [ $# -ge 1 ] && last_timeline=$1
  [ $# -ge 2 ] && last_file=$2
}

# A node that no longer leads keeps no WAL for the archive. One that leads holds the slot in use, so it cannot be lost. To be told that
# it is a standby a server before 14 would have to run a query, which a walsender refuses; whether it is read-only it says to SHOW.
# Without a default of its own only a standby is.
standby="target_session_attrs=read-only options='-c default_transaction_read_only=off'"
drop_left_slots() {
  [ "$newest" -ge 14 ] || return
  while IFS= read -r other <&8; do
    [ -z "$other" ] || [ "$other" = "$node" ] ||
      run /dev/null "$program" --no-password -d "$conninfo $other $standby" --slot="$slot" --drop-slot 8<&-
  done 8<archive_nodes
}

# What the archive has of a timeline beyond the point where the new primary left it is no longer the cluster's. It is taken out of
# pg_receivewal's way, the newest first, until the primary can go on from what is left. Whole segments stay in the archive, for
# that line may be restored yet: after a restore into the past it is all that was written since. A server on no newer timeline is not
# believed: it may be an old primary.
move_diverged() {
  find_end
  file_timeline=${last_file%"${last_file#????????}"}
  [ -n "$last_file" ] && [ "$timeline" -gt $((0x$file_timeline)) ] || return
  case $last_file in
  *.partial) move_aside "$last_file" ;;
  *) pack "$last_file" || move_aside "$last_file" ;;
  esac
}

# pg_receivewal of no version knows this suffix; everybody else who reads the archive does.
pack() {
  command -v zstd >/dev/null 2>&1 || return
  rm -f "$wal"/.*.packing
  packing=$wal/.$1.packing
  if zstd -q -1 "$wal/$1" -o "$packing" && { sync "$packing" 2>/dev/null || sync; } && mv -f "$packing" "$wal/$1.zst"; then
    { sync "$wal" 2>/dev/null || sync; } && rm -f "$wal/$1" && say "packed $1: its timeline was left"
  else
    rm -f "$packing"
    return 1
  fi
}

move_aside() {
  aside=${wal%/wal}/diverged
  mkdir -p "$aside" && mv "$wal/$1" "$aside/$1.$(date +%s)" && say "moved $1 to $aside"
}

# On a full disk pg_receivewal leaves a file that it had not filled with zeros to its end, and then complains of it for ever.
remove_torn() {
  torn=$(sed -n 's/.*write-ahead log file "\([^"]*\)" has .*/\1/p' stream.said | tail -n 1)
  torn=${torn##*/}
  [ -n "$torn" ] && [ -f "$wal/$torn" ] || return
  if [ "$({ tr -d '\000' <"$wal/$torn" | head -c 1 | wc -c; } 2>/dev/null)" -eq 0 ]; then
    rm -f "$wal/$torn" && say "removed $torn: the disk was full before it held any WAL"
  else
    move_aside "$torn"
  fi
}

# The primary has removed what comes next. Only when told to, go on where it is now: an empty file there makes pg_receivewal
# begin with it.
leap_gap() {
  if [ $leap = no ]; then
    [ -f stream.gap ] || say "the primary has removed WAL that the archive lacks; see stream.gap"
    find_end
    echo "$last_file $(cat stream.said)" >stream.gap
    return 1
  fi
  find_end
  # e.g. 16MB, 1GB
  size=$(ask 'SHOW wal_segment_size;')
  case $size in
  [1-9]*MB) size=$((${size%MB} * 1048576)) ;;
  [1-9]*GB) size=$((${size%GB} * 1073741824)) ;;
  *) return 1 ;;
  esac
  low=${position#*/}
  place=$(((0x${position%/*} << 32) + 0x$low))
  first=$(printf %08X%08X%08X "$timeline" $((place >> 32)) $(((place & 0xffffffff) / size)))
  receive --drop-slot
  receive --create-slot --if-not-exists || return
  : >"$wal/$first.partial" && rm -f stream.gap && say "WAL between ${last_file:-the beginning} and $first is missing for ever"
  leap=no
}

# What ended pg_receivewal, where something can be done about it.
mend() {
  if grep -q "is not in this server's history" stream.said; then
    move_diverged
  elif grep -q 'should be 0 or' stream.said; then
    remove_torn
  elif grep -Eq 'has already been removed|can no longer access replication slot' stream.said; then
    leap_gap
  else
    return 1
  fi
}

say "started, $program"
kind=other
while :; do
  poked=no
  delay=2
  if [ ! -d "$wal" ] || [ ! -w "$wal" ]; then
    say_once "the directory $wal is missing or not writable: is its file system mounted?"
  elif ! find_primary; then
    say_once "no node accepts writes: $(tail -n 1 stream.said)"
  elif [ "$identified" != "$system_identifier" ]; then
    say_once "$node belongs to another cluster: its system identifier is $identified, not $system_identifier"
  else
    find_end
    if [ "$timeline" -lt $((0x$last_timeline)) ]; then
      say_once "$node is on timeline $timeline, the archive on a newer one (0x$last_timeline): an old primary is not believed"
    elif ! receive --create-slot --if-not-exists; then
      say_once "$node keeps no WAL for the archive: $(tail -n 1 stream.said)"
    else
      drop_left_slots
      say_once "receives from $node, timeline $timeline"
      kind=receiving
      receive -D "$wal" --no-loop --synchronous
      kind=other
      say "pg_receivewal ended with status $run_status: $(cat stream.said)"
      last_said=
      delay=1
      mend && delay=0
    fi
  fi
  if [ "$(wc -c <stream.log)" -gt 1000000 ]; then
    tail -c 200000 stream.log >stream.log.new && mv stream.log.new stream.log
  fi
  [ $poked = yes ] || [ $delay = 0 ] || run /dev/null sleep $delay
done
