#!/bin/sh
# Sends one finished WAL file to the archive host. PostgreSQL runs it: archive_command = 'archive-push %p %f'.
# "archive-push --check" sends nothing and prints what the archive host answers: "replctl-archive 1 SUFFIX...".
#
# PostgreSQL asks for one file after the other. Where more of them are ready, one process in the background ("--ahead")
# sends those that follow, some at a time, and notes in `sent/` which are in the archive, durably. When PostgreSQL comes to
# such a file, the note is all that is looked at: it holds for this very file as it was read (device, inode, size, times of
# change to the nanosecond) and this archive; whatever is not exactly so is pushed as if there were no note.
# Written by replctl, which overwrites it: change the inventory, not this file.
cluster={{ cluster | shell }}
state_directory={{ state_directory | shell }}
system_identifier={{ system_identifier | shell }}
archive_host={{ host | shell }}
archive_port={{ port | shell }}
archive_user={{ user | shell }}
compression={{ compression | shell }}
connect_timeout={{ connect_timeout | shell }}
connection={{ connection | shell }}

# Exit status. From 126 on PostgreSQL would take it for a crash and restart its archiver, so it stays below.
#   0  the file is in the archive, durably     5  the archive host cannot store it
#   2  the archive host refused the request    6  the archive host cannot read what it holds or is sent
#   3  conflict: it holds other content        7  the archive host cannot be reached
#   4  damaged on the way                      8  the file is not what its name and this cluster say
set -u
LC_ALL=C
PATH=${PATH:-/usr/bin:/bin}:/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin
export LC_ALL PATH
umask 077

path=${1-}
name=${2-}
log=$state_directory/push.$$.log
messages=$log
packed=$state_directory/push.$$.packed
draft=$state_directory/push.$$.draft
sent=$state_directory/sent
ahead=$state_directory/ahead
known=$state_directory/archive_receiver

# What most calls come to where many files wait: this one was sent ahead, and more are on their way. It is told before the rest
# of this script is even read: the shell's own means, and one stat.
if [ $# -eq 2 ] && [ -s "$sent/$name" ] && [ -f "$ahead.pid" ]; then
  IFS= read -r noted <"$sent/$name"
  mark=$(exec stat -c "$connection $system_identifier %d %i %s %y %z" -- "$path" 2>/dev/null)
  # Seconds are too coarse to tell whether a file was changed.
  case $mark in
  '' | *.000000000*) ;;
  "$noted")
    if read -r busy <"$ahead.pid" && kill -0 "$busy" 2>/dev/null; then
      : >"$sent/$name"
      [ ! -e "$state_directory/archive_error" ] || rm -f "$state_directory/archive_error"
      exit 0
    fi
    ;;
  esac
fi

say() {
  line="archive-push: $cluster: $*"
  # On a full disk at least PostgreSQL's log has it.
  printf '%s\n' "$line" 2>/dev/null >>"$messages" || printf '%s\n' "$line" >&2
}

# What was said goes to PostgreSQL's log; the last failure stays in archive_error for replctl to show.
finish() {
  trap - EXIT HUP INT TERM
  if [ "$path" = --check ] || [ "$path" = --ahead ]; then
    :
  elif [ "$1" -ne 0 ]; then
    { echo "$1 $name" && cat "$messages"; } 2>/dev/null >"$draft" && mv -f "$draft" "$state_directory/archive_error"
  elif [ -e "$state_directory/archive_error" ]; then
    rm -f "$state_directory/archive_error"
  fi
  [ -s "$messages" ] && cat "$messages" >&2
  rm -f "$log" "$packed" "$draft"
  [ "$1" -ne 0 ] || [ -z "${mark-}" ] || start_ahead
  exit "$1"
}

stop_by_signal() {
  trap - EXIT "$1"
  rm -f "$log" "$packed" "$draft"
  kill -s "$1" $$
}

fail() {
  fail_status=$1
  shift
  say "$@"
  finish "$fail_status"
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

# Whether the newest history here says that the timeline of $name was left before $name began; then $left_at says where. PostgreSQL
# keeps files for WAL to come. Where a timeline ends with a segment, a standby that follows to the next one keeps the file for the
# segment that never was, and wants it archived once it leads. An archiver that fails would keep all that comes after it waiting.
was_never_written() {
  is_segment "$name" || return 1
  case $path in
  */*) never_folder=${path%/*} ;;
  *) never_folder=. ;;
  esac
  never_timeline=$((0x${name%????????????????}))
  never_high=${name#????????}
  never_begin=$(((0x${never_high%????????} << 32) + 0x${name#????????????????} * $(wc -c <"$path")))
  never_newest=
  for never_history in "$never_folder"/????????.history; do
    [ ! -f "$never_history" ] || never_newest=$never_history
  done
  [ -n "$never_newest" ] || return 1
  left_at=
  while read -r never_id never_lsn never_rest; do
    [ "$never_id" = "$never_timeline" ] && left_at=$never_lsn
  done <"$never_newest"
  case $left_at in
  */*) [ $(((0x${left_at%/*} << 32) + 0x${left_at#*/})) -le "$never_begin" ] ;;
  *) return 1 ;;
  esac
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

# One status of `ask` as one of ours.
judge() {
  case $1 in
  0 | [2-6]) ;;
  255) fail 7 "the archive host $archive_host (port $archive_port, user $archive_user) cannot be reached" ;;
  127) fail 7 "there is no ssh in $PATH" ;;
  *) fail 5 "the archive host $archive_host answered with status $1" ;;
  esac
}

# Sets $offers to what the receiver can unpack, and keeps it for a day.
ask_offers() {
  offers=$(ask probe </dev/null)
  asked=$?
  judge $asked
  [ $asked -eq 0 ] || finish $asked
  # What a login shell's start-up files print may stand before it.
  case $offers in
  *"replctl-archive 1 "*) offers="replctl-archive 1 ${offers##*replctl-archive 1 }" ;;
  *) fail 5 "the archive host $archive_host does not answer as archive-receive does: $offers" ;;
  esac
  echo "$connection $offers" >"$draft" && mv -f "$draft" "$known"
}

# Sets $suffix for `auto`: the fastest that both ends have.
choose_suffix() {
  offers=
  if [ -f "$known" ] && [ -z "$(find "$known" -mtime +0)" ]; then
    read -r offers <"$known"
  fi
  case $offers in
  "$connection replctl-archive 1 "*) ;;
  *) ask_offers ;;
  esac
  for suffix in zst lz4; do
    case "$offers " in
    *" $suffix "*) command -v "$(packer)" >/dev/null 2>&1 && return ;;
    esac
  done
  suffix=none
}

packer() {
  case $suffix in
  zst) echo zstd ;;
  lz4) echo lz4 ;;
  gz) echo gzip ;;
  esac
}

hash_input() {
  if command -v sha256sum >/dev/null 2>&1; then
    hash=$(sha256sum)
  elif command -v shasum >/dev/null 2>&1; then
    hash=$(shasum -a 256)
  else
    hash=$(openssl dgst -sha256 -r)
  fi
  echo "${hash%% *}"
}

# Sets $file to what travels, $hash to its SHA-256. A full disk here must not stop the archiving that would empty it:
# then the file goes as it is.
pack() {
  if [ "$suffix" != none ]; then
    if ! command -v "$(packer)" >/dev/null 2>&1; then
      say "there is no $(packer) on this host, $name is archived without compression"
    else
      hash=$({
        { "$(packer)" -1 -q -c <"$path" 2>>"$messages" || echo failed >&3; } |
          { tee "$packed" 2>>"$messages" || echo failed >&3; } | hash_input
      } 3>&1)
      case $hash in
      *failed*)
        rm -f "$packed"
        say "could not pack $name here, it is archived without compression"
        ;;
      *)
        file=$packed
        return
        ;;
      esac
    fi
    suffix=none
  fi
  file=$path
  hash=$(hash_input <"$path")
}

send() {
  pack
  ask push "$system_identifier" "$name" $(($(wc -c <"$file"))) "$hash" "$suffix" <"$file"
  asked=$?
  judge $asked
}

# How many segments travel together at most (the first ones are fewer, so that PostgreSQL soon has something to go on with), and
# how many may wait for PostgreSQL to ask for them.
batch_size=2
largest_batch=16
most_ahead=48

# What a note says of these files, a line for each; it fails where this host cannot tell.
marks_of() {
  stat -c "$connection $system_identifier %d %i %s %y %z" -- "$@" 2>/dev/null
}

# Sets $next to the segment after $1; $2 is the size of a segment. Mostly only the last digit changes: no process for that.
set_next() {
  next=${1%?}
  case ${1#???????????????????????} in
  [0-8]) next_digit=$((${1#???????????????????????} + 1)) ;;
  9) next_digit=A ;;
  A) next_digit=B ;;
  B) next_digit=C ;;
  C) next_digit=D ;;
  D) next_digit=E ;;
  E) next_digit=F ;;
  *) next_digit= ;;
  esac
  if [ -n "$next_digit" ] && [ "$2" -le 268435456 ]; then
    next=$next$next_digit
    return
  fi
  next_low=${1#????????????????}
  next_high=${1#????????}
  next_high=${next_high%????????}
  next_place=$(((0x$next_high << 32) + 0x$next_low * $2 + $2))
  next=${1%????????????????}$(printf %08X%08X $((next_place >> 32)) $(((next_place & 0xffffffff) / $2)))
}

is_segment() {
  [ ${#1} -eq 24 ] || return 1
  case $1 in
  *[!0-9A-F]*) return 1 ;;
  esac
}

# Whether the file was sent ahead. A note is for one use: it is emptied, which takes no process.
was_sent() {
  [ -s "$sent/$name" ] || return 1
  IFS= read -r noted <"$sent/$name"
  : >"$sent/$name"
  [ -n "$mark" ] && [ "$noted" = "$mark" ]
}

# Has the background process send what follows $name, if it is ready and two more are: one alone is not worth it. It
# holds nothing of PostgreSQL's: neither its folder nor its log.
start_ahead() {
  # Where it runs it sees for itself what is ready.
  if [ -f "$ahead.pid" ] && read -r busy <"$ahead.pid" && kill -0 "$busy" 2>/dev/null; then
    # A number that was given to another process by now does not count.
    busy_with=archive-push
    [ ! -r "/proc/$busy/comm" ] || read -r busy_with <"/proc/$busy/comm"
    [ "$busy_with" != archive-push ] || return 0
  fi
  set_next "$name" "$size"
  [ -f "$status_directory/$next.ready" ] || return 0
  set_next "$next" "$size"
  # A note for the last but one means that there is enough for now.
  [ -f "$status_directory/$next.ready" ] && [ ! -s "$sent/$next" ] || return 0
  (
    cd "$state_directory" || exit
    trap - EXIT HUP INT TERM
    exec "$0" --ahead "$name" "$wal_directory" "$size" </dev/null >/dev/null 2>ahead.log \
      3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-
  ) &
}

# Waits for the batch that $name is part of, if it is in one.
await_batch() {
  for turn in 0 1; do
    [ -f "$ahead.names.$turn" ] && read -r under_way <"$ahead.names.$turn" || continue
    case " $under_way " in
    *" $name "*) flock -w 60 "$ahead.lock.$turn" true ;;
    esac
  done
}

# Sets $waiting to how many notes PostgreSQL has not come to yet, and removes those that were used.
count_notes() {
  waiting=0
  set --
  for one in "$sent"/*; do
    if [ -s "$one" ]; then
      waiting=$((waiting + 1))
    elif [ -f "$one" ]; then
      set -- "$@" "$one"
    fi
  done
  [ $# -eq 0 ] || rm -f "$@"
}

# "--ahead NAME FOLDER SIZE": sends the ready segments after NAME until there are no more.
send_ahead() {
  wal_directory=$2
  status_directory=$2/archive_status
  size=$3
  messages=/dev/null
  exec 9>>"$ahead.lock"
  flock -n 9 || exit 0
  echo $$ >"$ahead.pid"
  mkdir -p "$sent"
  find "$sent" -type f -mmin +60 -exec rm -f {} +
  trap 'cd / && rm -rf "$ahead.pid" "$ahead".box.* "$ahead".names.*' EXIT
  for signal in HUP INT TERM; do
    # shellcheck disable=SC2064
    trap "exit 5" $signal
  done
  rm -rf "$ahead".box.*
  name=$1
  case $compression in
  zstd) suffix=zst ;;
  lz4) suffix=lz4 ;;
  gzip) suffix=gz ;;
  none) suffix=none ;;
  *) choose_suffix ;;
  esac
  [ -n "${offers-}" ] || ask_offers
  case "$offers " in
  *" batch "*) ;;
  *) exit 0 ;;
  esac
  packer=$(packer)
  [ "$suffix" = none ] || command -v "$packer" >/dev/null 2>&1 || suffix=none
  set_next "$name" "$size"
  turn=0
  older=
  newer=
  while :; do
    # Two batches at a time: one is packed while the other travels. The older one makes room for the next.
    [ -z "$older" ] || wait "$older" || break
    # What PostgreSQL has not come to yet, it need not be far ahead of.
    count_notes
    patience=50
    while [ $waiting -ge $most_ahead ] && [ $patience -gt 0 ]; do
      sleep 0.1 2>/dev/null || sleep 1
      patience=$((patience - 1))
      count_notes
    done
    [ $patience -gt 0 ] || break
    set --
    while [ $# -lt $batch_size ] && [ -f "$status_directory/$next.ready" ]; do
      [ -s "$sent/$next" ] || set -- "$@" "$next"
      set_next "$next" "$size"
    done
    [ $# -gt 0 ] || break
    # The lock is what a push of one of these waits for. It ends with the process that sends them.
    exec 8>>"$ahead.lock.$turn"
    flock 8
    echo "$*" >"$ahead.new" && mv -f "$ahead.new" "$ahead.names.$turn"
    send_batch "$turn" "$@" &
    older=$newer
    newer=$!
    exec 8>&-
    turn=$((1 - turn))
    [ $batch_size -ge $largest_batch ] || batch_size=$((batch_size * 2))
  done
  wait
  exit 0
}

# Whether these segments are what they are called, each $size bytes. Two processes for all of them.
are_segments() (
  cd "$wal_directory" || exit
  names=$*
  # shellcheck disable=SC2046
  set -- $(head -q -c 40 "$@" | od -A n -v -t x1)
  for one in $names; do
    [ $# -ge 40 ] || exit
    header=
    turn=0
    while [ $turn -lt 40 ]; do
      header="$header $1"
      shift
      turn=$((turn + 1))
    done
    # shellcheck disable=SC2086
    segment_fault "$one" "$system_identifier" $header "$size"
    [ -z "$fault" ] || exit 1
  done
  [ $# -eq 0 ]
)

# Packs these files into the current folder. Where zstd can, it does all of them at once and without threads of its own, which
# takes half the CPU time; an older one goes from file to file, as the others do.
pack_together() {
  if [ "$suffix" = zst ] && zstd -1 -q -f --single-thread --output-dir-flat . -- "$@" 2>/dev/null; then
    return
  fi
  for one; do
    "$packer" -1 -q -c <"$one" >"${one##*/}.$suffix" || return
  done
}

# Packs segments into a folder of their own, sends them, and notes which are durable.
send_batch() {
  box=$ahead.box.$1
  shift
  rm -rf "$box"
  mkdir -p "$box/notes" && cd "$box" || return
  names=$*
  for one in $names; do
    set -- "$@" "$wal_directory/$one"
    shift
  done
  # Read before the files are: what changes later is noticed.
  marks_of "$@" >marks || return
  # One that is not what its name says goes alone, and is told what is wrong.
  # shellcheck disable=SC2086
  are_segments $names || return
  if [ "$suffix" != none ]; then
    pack_together "$@" || return
    set --
    for one in $names; do
      set -- "$@" "$one.$suffix"
    done
  fi
  hash_files "$@" >hashes && wc -c "$@" >sizes || return
  {
    for one in $names; do
      read -r hash rest <&3 && read -r bytes rest <&4 && IFS= read -r mark <&5 || exit
      echo "$mark" >"notes/$one"
      echo "$one $bytes $hash $suffix"
    done 3<hashes 4<sizes 5<marks
    cat "$@"
  } | ask batch "$system_identifier" $# >answer || return
  set --
  while read -r word done one; do
    if [ "$word $done" = "replctl-archive done" ] && is_segment "$one" && [ -f "notes/$one" ]; then
      set -- "$@" "notes/$one"
    fi
  done <answer
  [ $# -eq 0 ] || mv "$@" "$sent/"
}

# SHA-256 of files, a line that begins with "HASH " for each. openssl has the CPU's own instructions for it everywhere.
hash_files() {
  if openssl dgst -sha256 -r "$@" 2>/dev/null; then
    :
  elif command -v sha256sum >/dev/null 2>&1; then
    sha256sum "$@"
  else
    shasum -a 256 "$@"
  fi
}

if [ "$path" = --ahead ]; then
  send_ahead "$name" "$3" "$4"
fi

# The quick way, and the way to be quicker: only for segments, and only where this host has what it takes.
mark=
if is_segment "$name" && [ -s "$path" ] && [ -d "$state_directory" ] && command -v flock >/dev/null 2>&1; then
  mark=$(exec stat -c "$connection $system_identifier %d %i %s %y %z" -- "$path" 2>/dev/null)
  # Seconds are too coarse to tell whether a file was changed.
  case $mark in
  *.000000000*) mark= ;;
  esac
  wal_directory=$PWD
  case $path in
  /*) wal_directory=${path%/*} ;;
  */*) wal_directory=$PWD/${path%/*} ;;
  esac
  status_directory=$wal_directory/archive_status
  # The fifth word: connection, identifier, device and inode come before it.
  size=${mark#* * * * }
  size=${size%% *}
  if was_sent || { await_batch && was_sent; }; then
    [ ! -e "$state_directory/archive_error" ] || rm -f "$state_directory/archive_error"
    start_ahead
    exit 0
  fi
fi

trap 'finish 5' EXIT
for signal in HUP INT TERM; do
  # shellcheck disable=SC2064
  trap "stop_by_signal $signal" $signal
done

# What a killed push left behind.
for old in "$state_directory"/push.*.*; do
  owner=${old#"$state_directory"/push.}
  [ -f "$old" ] && ! kill -0 "${owner%%.*}" 2>/dev/null && rm -f "$old"
done
# true, not ":": a redirection that fails must not end the script.
true 2>/dev/null >"$log" || messages=/dev/null

if [ ! -d "$state_directory" ]; then
  echo "archive-push: $cluster: the state directory $state_directory is missing" >&2
  exit 8
elif [ "$path" = --check ]; then
  ask_offers
  echo "$offers"
  finish 0
elif [ ! -f "$path" ] || [ ! -r "$path" ]; then
  fail 8 "cannot read $path"
elif [ ! -s "$path" ]; then
  fail 8 "$path is empty and was not archived"
fi
case $name in
*.history | *.backup) suffix=none ;;
*)
  # shellcheck disable=SC2046
  segment_fault "$name" "$system_identifier" $(segment_outline "$path")
  if [ -n "$fault" ]; then
    was_never_written || fail 8 "$path was not archived as $name: $fault"
    say "$name holds nothing to archive: its timeline was left at $left_at, before it was written to ($fault)"
    finish 0
  fi
  case $compression in
  zstd) suffix=zst ;;
  lz4) suffix=lz4 ;;
  gzip) suffix=gz ;;
  none) suffix=none ;;
  *) choose_suffix ;;
  esac
  ;;
esac

send
if [ $asked -eq 6 ] && [ "$suffix" != none ]; then
  say "the archive host cannot read .$suffix, $name is archived without compression"
  rm -f "$known"
  suffix=none
  send
fi
finish $asked
