#!/bin/sh
# Brings one WAL file back from the archive host. PostgreSQL runs it: restore_command = 'archive-fetch %f %p'.
# "archive-fetch --has NAME" only asks whether the archive has it: status 0 or 1.
# "archive-fetch --compare SEGMENT FOLDER [soon]" changes nothing and prints "ahead" if the archive has more of the timeline, from
# this segment on, than the folder (pg_wal), else "level". With "soon" an archive host that has just not answered is not asked.
#
# WAL that is streamed to the archive is there up to its last byte: of the segment under way as SEGMENT.partial, filled up with
# zeros. A server that replays gets that one for the full name, while no newer timeline is known, unless it has as much itself.
# Which one it got so is noted in "fetched_partial": it is no finished segment, and is asked for again.
# Written by replctl, which overwrites it: change the inventory, not this file.
cluster={{ cluster | shell }}
state_directory={{ state_directory | shell }}
system_identifier={{ system_identifier | shell }}
archive_host={{ host | shell }}
archive_port={{ port | shell }}
archive_user={{ user | shell }}
connect_timeout={{ connect_timeout | shell }}
connection={{ connection | shell }}

# Exit status:
#   0  the file is there                       6  a program to unpack it is missing
#   1  the archive has no such file            7  the archive host cannot be reached
#   2  the archive host refused the request    8  the archived file is not what its name and this cluster say
#   3  the archive holds two that differ
#   4  damaged on the way
#   5  the archive host or this one failed
# PostgreSQL takes 1 to 125 for "the archive has no such file", and from 126 on it gives up. On a standby both this
# and a failure are tried again in a few seconds, so every status is safe. In a recovery that is to end (a restore)
# "no such file" is the end of WAL and opens the server: there a failure must not be reported at all. It is said in
# PostgreSQL's log and tried again until the archive answers; stopping the server ends that.
set -u
LC_ALL=C
PATH=${PATH:-/usr/bin:/bin}:/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin
export LC_ALL PATH
umask 077

name=${1-}
path=${2-}
log=$state_directory/fetch.$$.log
messages=$log
unreachable=$state_directory/archive_unreachable
fetched_partial=$state_directory/fetched_partial
# One name for all: PostgreSQL restores one file at a time, so the next one replaces what a killed run left.
case $path in
*/*) temporary=${path%/*}/replctl-fetch.tmp ;;
*) temporary=replctl-fetch.tmp ;;
esac

say() {
  line="archive-fetch: $cluster: $*"
  # On a full disk at least PostgreSQL's log has it.
  printf '%s\n' "$line" 2>/dev/null >>"$messages" || printf '%s\n' "$line" >&2
}

clean() {
  rm -f "$log" "$temporary"
}

stop_by_signal() {
  trap - EXIT "$1"
  clean
  kill -s "$1" $$
}

# Sets $fault to what is wrong with a WAL segment $1 of the cluster $2, to nothing if all is well. The words that follow are its
# first 40 bytes, as od prints them, and its size, or - where that is not known. Its first page has the long header: magic 2,
# info 2, timeline 4, address 8, remaining 4, padding 4, system identifier 8, segment size 4, block size 4 bytes, in its writer's
# byte order.
segment_fault() {
  fault=
  fault_name=${1%.partial}
  fault_identifier=$2
  shift 2
  if [ $# -ne 41 ]; then
    fault="it is empty or shorter than a page header"
    return
  fi
  fault_size=${41}
  case $1$2 in
  ??d[0-3])
    fault_flags=$3
    fault_address=${16}${15}${14}${13}${12}${11}${10}${9}
    fault_owner=${32}${31}${30}${29}${28}${27}${26}${25}
    fault_length=${36}${35}${34}${33}
    ;;
  d[0-3]??)
    fault_flags=$4
    fault_address=${9}${10}${11}${12}${13}${14}${15}${16}
    fault_owner=${25}${26}${27}${28}${29}${30}${31}${32}
    fault_length=${33}${34}${35}${36}
    ;;
  *)
    fault="it does not begin with a WAL page (magic number $1 $2)"
    return
    ;;
  esac
  # One process for all segments of a run.
  fault_wanted=${fault_wanted:-$(printf %016x "$fault_identifier")}
  if [ $((0x$fault_flags & 2)) -eq 0 ]; then
    fault="its first page has no long header (flags $fault_flags)"
  elif [ "$fault_owner" != "$fault_wanted" ]; then
    fault="it belongs to another cluster: its system identifier is 0x$fault_owner, not $fault_identifier (0x$fault_wanted)"
  elif [ "$fault_size" != - ] && [ $((0x$fault_length)) -ne "$fault_size" ]; then
    fault="it has $fault_size bytes, its header says $((0x$fault_length))"
  else
    fault_log=${fault_name#????????}
    fault_segment=${fault_log#????????}
    fault_log=${fault_log%????????}
    if [ $((0x$fault_address)) -ne $(((0x$fault_log << 32) + 0x$fault_segment * 0x$fault_length)) ]; then
      fault="its header says it begins at 0x$fault_address, which is another segment"
    fi
  fi
}

# What segment_fault wants to know of file $1.
segment_outline() {
  dd if="$1" bs=40 count=1 2>/dev/null | od -A n -v -t x1
  wc -c <"$1"
}

# Asks the archive host: $* is the request, standard input goes along. It runs in the state directory: relative
# names keep the socket's path short and need no quoting, and the connection that stays behind for the next file
# holds neither the data directory nor PostgreSQL's log nor any other descriptor of it open.
ask() (
  cd "$state_directory" || exit 5
  exec ssh -T -l "$archive_user" -p "$archive_port" -i archive_key \
    -o IdentitiesOnly=yes -o BatchMode=yes -o PreferredAuthentications=publickey -o LogLevel=ERROR \
    -o UserKnownHostsFile=archive_known_hosts -o GlobalKnownHostsFile=/dev/null \
    -o StrictHostKeyChecking=yes -o UpdateHostKeys=no -o CheckHostIP=no \
    -o ConnectTimeout="$connect_timeout" -o ServerAliveInterval=3 -o ServerAliveCountMax=3 \
    -o ControlMaster=auto -o ControlPersist=300 -o ControlPath="$connection" \
    -o ClearAllForwardings=yes -o ForwardAgent=no -o ForwardX11=no -o PermitLocalCommand=no -o Compression=no \
    -c aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes128-ctr,aes256-ctr,chacha20-poly1305@openssh.com \
    -- "$archive_host" "$*" 2>>"$messages" 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-
)

unpack() {
  case $1 in
  none) cat ;;
  gz) gzip -d -c ;;
  lz4) lz4 -d -c -q ;;
  zst) zstd -d -c -q ;;
  *) return 2 ;;
  esac 2>>"$messages"
}

# Reads "replctl-archive SUFFIX BYTES" and the file that follows, past whatever a login shell's start-up files print.
# read takes one byte at a time from a pipe, so no data is lost.
receive() {
  while IFS=' ' read -r mark suffix bytes kind && [ "$mark" != replctl-archive ]; do :; done
  [ "$mark" = replctl-archive ] || return 0
  [ "$kind" != partial ] || echo "kind=partial." >&3
  unpack "$suffix" >"$temporary" || return 1
  if [ "$suffix" = none ] && [ "$bytes" != - ]; then
    received=$(($(wc -c <"$temporary")))
    if [ "$received" -ne "$bytes" ]; then
      say "of $name $received bytes arrived, not $bytes"
      return 1
    fi
  fi
}

fetch() {
  # true, not ":": a redirection that fails must not end the script.
  messages=$log
  true 2>/dev/null >"$log" || messages=/dev/null
  rm -f "$temporary"
  fault=
  accepted=
  for pair in gz:gzip lz4:lz4 zst:zstd; do
    command -v "${pair#*:}" >/dev/null 2>&1 && accepted="$accepted ${pair%:*}"
  done
  case $path in
  pg_wal/RECOVERYXLOG | pg_xlog/RECOVERYXLOG | -) accepted="$accepted partial" ;;
  esac
  # shellcheck disable=SC2086
  ended=$({
    {
      ask get "$system_identifier" "$name" $accepted </dev/null
      echo "ask=$?." >&3
    } | {
      receive
      echo "receive=$?." >&3
    }
  } 3>&1)
  case $ended in
  *ask=255.*) status=7 ;;
  *ask=127.*)
    say "there is no ssh in $PATH"
    status=7
    ;;
  *ask=[1-6].*)
    status=${ended##*ask=}
    status=${status%%.*}
    ;;
  *ask=0.*) status=0 ;;
  *) status=5 ;;
  esac
  [ $status -eq 0 ] || return
  case $ended in
  *receive=0.*) ;;
  *)
    say "$name arrived damaged or could not be written to $temporary"
    status=4
    return
    ;;
  esac
  case $name in
  *.history | *.backup) [ -s "$temporary" ] || fault="it is empty" ;;
  # shellcheck disable=SC2046
  *) segment_fault "$name" "$system_identifier" $(segment_outline "$temporary") ;;
  esac
  if [ -n "$fault" ]; then
    say "the archived $name was not restored: $fault"
    status=8
    return
  fi
  case $ended in
  *kind=partial.*) is_partial=yes ;;
  *) is_partial=no ;;
  esac
  [ "$path" != - ] || return
  if [ $is_partial = yes ] && has_as_much "${path%/*}/$name"; then
    status=1
  elif [ $is_partial = yes ] && ! { echo "$name" >"$fetched_partial"; } 2>/dev/null; then
    say "cannot write to $fetched_partial"
    status=5
  elif ! mv -f "$temporary" "$path"; then
    say "cannot rename $temporary to $path"
    status=5
  elif [ $is_partial = no ] && [ -f "$fetched_partial" ] && read -r noted <"$fetched_partial" && [ "$noted" = "$name" ]; then
    rm -f "$fetched_partial"
  fi
}

# Whether file $1 has all that the segment in $temporary has. Behind the end of either stand zeros, or what the file held
# before it was used again: the archive has more where it has something at or behind the first difference.
has_as_much() {
  [ -f "$1" ] || return 1
  command -v cmp >/dev/null 2>&1 || return 0
  difference=$(cmp "$temporary" "$1" 2>/dev/null) && return 0
  difference=${difference##*differ: }
  difference=${difference#* }
  difference=${difference%%,*}
  case $difference in
  '' | *[!0-9]*) return 1 ;;
  esac
  [ "$({ tail -c "+$difference" "$temporary" | tr -d '\000' | head -c 1 | wc -c; } 2>/dev/null)" -eq 0 ]
}

# "--compare SEGMENT FOLDER"
compare() {
  folder=$path
  path=-
  temporary=$state_directory/fetch.$$.segment.log
  command -v cmp >/dev/null 2>&1 || {
    echo "archive-fetch: $cluster: there is no cmp on this host" >&2
    exit 6
  }
  if [ "$soon" = soon ] && failed_just_now; then
    echo "archive-fetch: $cluster: the archive host $archive_host could not be reached $age s ago" >&2
    exit 7
  fi
  while :; do
    fetch
    [ $status -ne 7 ] || date +%s >"$unreachable"
    [ -s "$messages" ] && cat "$messages" >&2
    [ $status -ne 1 ] || break
    [ $status -eq 0 ] || exit $status
    if ! has_as_much "$folder/$name"; then
      echo ahead
      exit 0
    fi
    [ $is_partial = no ] || break
    size=$(($(wc -c <"$temporary")))
    low=${name#????????????????}
    high=${name#????????}
    high=${high%????????}
    place=$(((0x$high << 32) + 0x$low * size + size))
    name=${name%????????????????}$(printf %08X%08X $((place >> 32)) $(((place & 0xffffffff) / size)))
  done
  echo level
  exit 0
}

# Whether the server is in a recovery that ends where the archive ends. pg_rewind names another target.
ends_with_the_archive() {
  case $path in
  pg_wal/RECOVERY* | pg_xlog/RECOVERY*) ;;
  *) return 1 ;;
  esac
  [ -e standby.signal ] && return 1
  # A server that becomes a primary asks once more, for the history of the timeline that it leaves, when its signal file is
  # gone already: a promotion must not wait for the archive, and pg_wal keeps every history that it came by.
  [ -e recovery.signal ] || [ -e recovery.conf ] || return 1
  # Up to PostgreSQL 11.
  ! grep -Eiq "^[[:space:]]*standby_mode[[:space:]]*=?[[:space:]]*'?(on|t|y|1)" recovery.conf 2>/dev/null
}

# A standby tries its archive again and again, and a promotion has to wait for the try under way: an archive host
# that has just not answered is not asked again for ten seconds.
failed_just_now() {
  [ -f "$unreachable" ] && read -r since <"$unreachable" || return 1
  case $since in
  '' | *[!0-9]*) return 1 ;;
  esac
  age=$(($(date +%s) - since))
  [ $age -ge 0 ] && [ $age -lt 10 ]
}

# Whether the server has the finished segment in pg_wal: received by streaming, or written by itself. Told that the
# archive has no such file it reads that one, without a byte over the network. One that is not marked as finished (.done
# or .ready) may be half written or one of old under a new name: then the archive's copy is the one to read.
has_its_own() {
  case $path in
  pg_wal/RECOVERYXLOG | pg_xlog/RECOVERYXLOG) ;;
  *) return 1 ;;
  esac
  own=${path%/*}
  [ -f "$own/$name" ] || return 1
  [ -f "$fetched_partial" ] && read -r noted <"$fetched_partial" && [ "$noted" = "$name" ] && return 1
  [ -f "$own/archive_status/$name.done" ] || [ -f "$own/archive_status/$name.ready" ] || return 1
  # shellcheck disable=SC2046
  segment_fault "$name" "$system_identifier" $(segment_outline "$own/$name")
  [ -z "$fault" ]
}

if [ -z "$name" ] || [ -z "$path" ]; then
  echo "archive-fetch: usage: archive-fetch NAME PATH" >&2
  exit 2
fi
if [ "$name" = --has ]; then
  ask has "$system_identifier" "$path" </dev/null >/dev/null
  asked=$?
  [ $asked -le 1 ] || cat "$messages" >&2
  rm -f "$log"
  exit $asked
fi
comparing=no
if [ "$name" = --compare ]; then
  comparing=yes
  name=$path
  path=${3-}
  soon=${4-}
fi
has_its_own && exit 1
trap clean EXIT
for signal in HUP INT TERM; do
  # shellcheck disable=SC2064
  trap "stop_by_signal $signal" $signal
done
for old in "$state_directory"/fetch.*.log; do
  owner=${old#"$state_directory"/fetch.}
  [ -f "$old" ] && ! kill -0 "${owner%%.*}" 2>/dev/null && rm -f "$old"
done

[ $comparing = no ] || compare
while :; do
  if ! ends_with_the_archive && failed_just_now; then
    echo "archive-fetch: $cluster: the archive host $archive_host could not be reached $age s ago" >&2
    exit 7
  fi
  fetch
  if [ $status -eq 7 ]; then
    say "the archive host $archive_host (port $archive_port, user $archive_user) cannot be reached"
    date +%s >"$unreachable"
  elif [ -e "$unreachable" ]; then
    rm -f "$unreachable"
  fi
  [ -s "$messages" ] && cat "$messages" >&2
  if [ $status -le 1 ] || ! ends_with_the_archive; then
    exit $status
  fi
  echo "archive-fetch: $cluster: recovery waits for $name, trying again in 5 s" >&2
  sleep 5
done
