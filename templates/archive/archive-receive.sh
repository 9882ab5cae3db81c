#!/bin/sh
# The archive host's end. sshd runs it for a node's key, whatever the node asks for; authorized_keys says
#   restrict,command="archive-receive DIR SYSTEM_IDENTIFIER" ssh-ed25519 ...
# so a key reaches one cluster's archive and nothing else. A request is one of
#   push SYSTEM_IDENTIFIER NAME BYTES SHA256 SUFFIX   stores standard input; BYTES and SHA256 are of what travels
#   batch SYSTEM_IDENTIFIER COUNT                     stores COUNT segments: standard input is for each a line "NAME BYTES
#                                                     SHA256 SUFFIX", then the bytes of all in this order; prints
#                                                     "replctl-archive done NAME" for each that is in the archive, durably
#   has SYSTEM_IDENTIFIER NAME                        prints "replctl-archive SUFFIX BYTES" of the stored file
#   get SYSTEM_IDENTIFIER NAME [SUFFIX...]            prints the same line, then the stored file: as it is if its
#                                                     SUFFIX is among those, else unpacked (SUFFIX none, BYTES -).
#                                                     With the further word "partial": where there is only NAME.partial and no
#                                                     newer timeline, that one, packed on its way, after "... SUFFIX - partial"
#   backup SYSTEM_IDENTIFIER ID FILE [SUFFIX...]      the same for a file of a base backup
#   probe                                             prints "replctl-archive 1 SUFFIX... [batch]"
# with SUFFIX one of none, gz, lz4, zst. Written by replctl, which overwrites it.
cluster={{ cluster | shell }}

# Exit status:
#   0  done; of push: the file is in the archive, durably     4  what arrived is damaged
#   1  there is no such file                                  5  this host cannot do it: disk full, directory missing
#   2  the request is not allowed                             6  the program for that compression is missing here
#   3  conflict: the archive holds other content
set -u
set -f
newline='
'
LC_ALL=C
PATH=${PATH:-/usr/bin:/bin}:/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin
export LC_ALL PATH
umask 077

fail() {
  fail_status=$1
  shift
  echo "archive-receive: $cluster: $*" >&2
  exit "$fail_status"
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

# What segment_fault wants to know of file $1 with suffix $2. A file that cannot be unpacked to its end must not pass:
# the stray byte makes its size wrong.
segment_outline() {
  { unpack "$2" <"$1" 2>/dev/null || echo; } | {
    dd bs=40 count=1 2>/dev/null | od -A n -v -t x1
    echo $(($(wc -c) + 40))
  }
}

# Whether $1 consists of $3 to $4 characters, none of them outside the set $2.
is_word() {
  [ ${#1} -ge "$3" ] && [ ${#1} -le "$4" ] || return 1
  case $1 in
  *[!$2]*) return 1 ;;
  esac
}

is_archive_name() {
  case $1 in
  *.history) is_word "${1%.history}" 0-9A-F 8 8 ;;
  *.partial) is_word "${1%.partial}" 0-9A-F 24 24 ;;
  *.*.backup)
    backup=${1%.backup}
    is_word "${backup%.*}" 0-9A-F 24 24 && is_word "${backup##*.}" 0-9A-F 8 8
    ;;
  *) is_word "$1" 0-9A-F 24 24 ;;
  esac
}

# Sets $system and $name from the words of a request, or refuses it.
set_file() {
  [ $# -ge 2 ] && is_word "$1" 0-9 1 20 || fail 2 "this request is not allowed"
  [ "$1" = "$allowed" ] || fail 2 "this key is for system identifier $allowed, not for $1"
  is_archive_name "$2" || fail 2 "this is not the name of a WAL file"
  name=$2
}

require_store() {
  [ -d "$wal" ] && [ -w "$wal" ] ||
    fail 5 "the directory $wal is missing or not writable: is its file system mounted?"
}

can_unpack() {
  case $1 in
  none) ;;
  gz) command -v gzip >/dev/null 2>&1 ;;
  lz4) command -v lz4 >/dev/null 2>&1 ;;
  zst) command -v zstd >/dev/null 2>&1 ;;
  *) return 1 ;;
  esac
}

unpack() {
  case $1 in
  none) cat ;;
  gz) gzip -d -c ;;
  lz4) lz4 -d -c -q ;;
  zst) zstd -d -c -q ;;
  esac
}

require_unpacker() {
  can_unpack "$1" || fail 6 "there is no program for .$1 files on this host"
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

# SHA-256 of the content of file $1 with suffix $2; a file that cannot be unpacked to its end ends the run.
content_hash() {
  require_unpacker "$2"
  unpack "$2" <"$1" >/dev/null 2>&1 || fail 5 "$1 is damaged and was left as it is"
  unpack "$2" <"$1" | hash_input
}

# Sets $place to where file $1 with suffix $2 is.
set_place() {
  case $2 in
  none) place=$wal/$1 ;;
  *) place=$wal/$1.$2 ;;
  esac
}

# Sets $stored and $stored_suffix, if the archive has the file under any suffix.
find_stored() {
  for stored_suffix in none zst lz4 gz; do
    set_place "$name" "$stored_suffix"
    stored=$place
    [ -f "$stored" ] && return 0
  done
  return 1
}

# Two copies that differ are never handed out: which of them is right is not for us to guess.
require_one_content() {
  for other_suffix in zst lz4 gz; do
    set_place "$name" "$other_suffix"
    other=$place
    if [ "$other" != "$stored" ] && [ -f "$other" ]; then
      first=$(content_hash "$stored" "$stored_suffix") || exit
      second=$(content_hash "$other" "$other_suffix") || exit
      [ "$first" = "$second" ] || fail 3 "$stored and $other differ: remove the wrong one"
    fi
  done
}

# Success if the archive holds what arrived, conflict if it holds something else.
compare_with_stored() {
  here=$(content_hash "$stored" "$stored_suffix") || exit
  arrived=$(content_hash "$temporary" "$suffix") || exit
  if [ "$here" = "$arrived" ]; then
    sync "$stored" "$wal" 2>/dev/null || fail 5 "cannot make $stored durable"
    echo "archive-receive: $cluster: warning: $name was already archived, with the same content" >&2
    exit 0
  fi
  case $name in
  *.partial) keep_aside ;;
  esac
  echo "archive-receive: $cluster: conflict: $name is already archived with other content, and was left as it is" >&2
  echo "detail: $stored has sha256 $here, what was sent has sha256 $arrived (both uncompressed)." >&2
  echo "hint: Two servers write this timeline: there is a second primary, or a standby was promoted" \
    "without a new timeline. Find out which of them is right before you remove anything." >&2
  exit 3
}

# A timeline that was left twice in the same segment has two ends, and recovery asks for neither. An archiver that fails would
# keep all that comes after it waiting: the later one is kept beside the archive, once, and reported as done.
keep_aside() {
  diverged=${wal%/wal}/diverged
  target=$diverged/$name.${arrived%"${arrived#????????????????}"}
  [ "$suffix" = none ] || target=$target.$suffix
  [ -d "$diverged" ] || mkdir -p "$diverged" || fail 5 "cannot make $diverged"
  if [ ! -f "$target" ]; then
    mv -f "$temporary" "$target" || fail 5 "cannot give $temporary its name $target"
  fi
  sync "$target" "$diverged" "${wal%/wal}" 2>/dev/null || fail 5 "cannot make $target durable"
  echo "archive-receive: $cluster: warning: $name is already archived with other content, and was left as it is;" \
    "what was sent is kept as $target" >&2
  exit 0
}

# Gives what arrived its final name unless the archive has one by now. ln never replaces a file; the lock, which
# dies with its holder, keeps two pushes apart that would use different suffixes.
publish() {
  locked=no
  if command -v flock >/dev/null 2>&1; then
    # Tried first, since a redirection of exec that fails ends the script.
    true 2>/dev/null >>"$incoming/lock" || fail 5 "cannot write to $incoming"
    exec 9>>"$incoming/lock"
    flock 9 && locked=yes
  fi
  find_stored && return 1
  set_place "$name" "$suffix"
  target=$place
  if ! ln "$temporary" "$target" 2>/dev/null; then
    find_stored && return 1
    # A file system without hard links.
    [ $locked = yes ] && mv -n "$temporary" "$target" && [ ! -e "$temporary" ] ||
      fail 5 "cannot give $temporary its name $target"
  fi
  exec 9>&-
}

# fsync for file $1: dd says whether it worked, and both coreutils and busybox have it.
make_durable() {
  dd if=/dev/null of="$1" conv=notrunc,fsync 2>/dev/null
}

# Whether process $1 may be a receiver: numbers are given again.
may_be_receiver() {
  [ -r "/proc/$1/comm" ] && read -r command <"/proc/$1/comm" || return 0
  case $command in
  archive-receive | sh | dash | bash | ash | busybox) ;;
  *) return 1 ;;
  esac
}

# What a killed push left behind: its process is gone, or is another one by now.
remove_stale() {
  set +f
  for old in "$incoming"/*.push; do
    owner=${old%.push}
    owner=${owner##*.}
    if [ ! -e "$old" ] || [ "$owner" = $$ ]; then
      continue
    elif kill -0 "$owner" 2>/dev/null && may_be_receiver "$owner"; then
      find "$old" -prune -mtime +0 -exec rm -rf {} \;
    else
      rm -rf "$old"
    fi
  done
  set -f
}

push() {
  [ $# -eq 5 ] && is_word "$3" 0-9 1 10 && is_word "$4" 0-9a-f 64 64 || fail 2 "this request is not allowed"
  set_file "$1" "$2"
  bytes=$3
  sha256=$4
  suffix=$5
  case $suffix in
  none | gz | lz4 | zst) require_unpacker "$suffix" ;;
  *) fail 2 "this is not a known suffix" ;;
  esac
  [ "$bytes" -gt 0 ] || fail 2 "an empty file is not archived"
  require_store
  [ -d "$incoming" ] || mkdir -p "$incoming" || fail 5 "cannot make $incoming"
  remove_stale

  fault=
  temporary=$incoming/$name.$suffix.$$.push
  trap 'rm -f "$temporary"' EXIT
  trap 'exit 5' HUP INT TERM PIPE
  # Hashed as it arrives; then made durable while its content is looked at.
  arrived=$({ { tee "$temporary" 2>&3 || echo failed >&3; } | hash_input; } 3>&1)
  case $arrived in
  *failed*) fail 5 "cannot write to $incoming: ${arrived%%failed*}" ;;
  esac
  size=$(($(wc -c <"$temporary")))
  [ "$size" -eq "$bytes" ] || fail 4 "of $name $size bytes arrived, not $bytes"
  [ "$arrived" = "$sha256" ] || fail 4 "$name arrived damaged: sha256 $arrived, not $sha256"
  make_durable "$temporary" &
  case $name in
  *.history | *.backup) unpack "$suffix" <"$temporary" >/dev/null 2>&1 || fault="it cannot be unpacked" ;;
  # shellcheck disable=SC2046
  *) segment_fault "$name" "$allowed" $(segment_outline "$temporary" "$suffix") ;;
  esac
  wait $! || fail 5 "cannot make $temporary durable"
  [ -z "$fault" ] || fail 2 "$name was not archived: $fault"

  if find_stored || ! publish; then
    compare_with_stored
  fi
  sync "$wal" 2>/dev/null || fail 5 "cannot make $wal durable"
  exit 0
}

# Copies exactly $1 bytes of standard input. A reader that takes more into its buffer would swallow what follows.
take_bytes() {
  if [ "$taker" = head ]; then
    head -c "$1"
  else
    dd bs="$1" count=1 iflag=fullblock 2>/dev/null
  fi
}

# Sets $taker to the program that can do that: busybox's head takes more, a dd of old knows no fullblock.
find_taker() {
  if head --version >/dev/null 2>&1; then
    taker=head
  elif dd if=/dev/null of=/dev/null bs=1 count=1 iflag=fullblock 2>/dev/null; then
    taker=dd
  else
    return 1
  fi
}

# Many segments with few processes: each step is done for all of them at once. One that is not as it should be ends the
# whole batch, nothing of which is then reported as done: its sender pushes one by one and hears why.
batch() {
  [ $# -eq 2 ] && is_word "$2" 0-9 1 2 && [ "$2" -gt 0 ] && [ "$1" = "$allowed" ] ||
    fail 2 "this request is not allowed"
  find_taker || fail 6 "there is no program to receive a batch with"
  require_store
  [ -d "$incoming" ] || mkdir -p "$incoming" || fail 5 "cannot make $incoming"
  remove_stale
  count=$2
  box=$incoming/batch.$$.push
  trap 'cd / && rm -rf "$box"' EXIT
  trap 'exit 5' HUP INT TERM PIPE
  rm -rf "$box"
  mkdir "$box" || fail 5 "cannot write to $incoming"
  expected=
  lengths=
  set --
  while [ $# -lt "$count" ] && IFS=' ' read -r name bytes sha256 suffix; do
    is_word "$name" 0-9A-F 24 24 && is_word "$bytes" 0-9 1 10 && is_word "$sha256" 0-9a-f 64 64 ||
      fail 2 "this request is not allowed"
    set_place "$name" "$suffix"
    case $suffix in
    none | gz | lz4 | zst) require_unpacker "$suffix" ;;
    *) fail 2 "this is not a known suffix" ;;
    esac
    file=${place##*/}
    case " $* " in
    *" $name "* | *" $name."*) fail 2 "$name is in the batch twice" ;;
    esac
    expected="$expected$sha256 $file$newline"
    lengths="$lengths $bytes"
    set -- "$@" "$file"
  done
  [ $# -eq "$count" ] || fail 4 "of $count files $# were named"
  cd "$box" || fail 5 "cannot enter $box"
  for file in "$@"; do
    lengths=${lengths# }
    take_bytes "${lengths%% *}" >"$file" || fail 5 "cannot write to $incoming"
    lengths=${lengths#"${lengths%% *}"}
  done
  have_hashes "$expected" "$@" || fail 4 "a batch arrived damaged"
  sync "$@" 2>/dev/null &
  require_segments "$@"
  wait $! || fail 5 "cannot make a batch durable"
  publish_together "$@" ||
    for file in "$@"; do
      name=${file%%.*}
      set_suffix "$file"
      temporary=$box/$file
      if find_stored || ! publish; then
        (compare_with_stored) || exit
      fi
    done
  sync "$wal" 2>/dev/null || fail 5 "cannot make $wal durable"
  for file in "$@"; do
    echo "replctl-archive done ${file%%.*}"
  done
  exit 0
}

# Ends the run unless all of these files can be unpacked to their end, and those that are not packed are the segments that they
# are called (the sender looked at the headers of all, before it packed them). A few processes for all of them.
require_segments() {
  zst=
  gz=
  plain=
  for file in "$@"; do
    case $file in
    *.zst) zst="$zst $file" ;;
    *.gz) gz="$gz $file" ;;
    *.lz4) lz4 -d -c -q <"$file" >/dev/null 2>&1 || fail 2 "$file was not archived: it cannot be unpacked" ;;
    *) plain="$plain $file" ;;
    esac
  done
  # shellcheck disable=SC2086
  {
    [ -z "$zst" ] || zstd -t -q $zst 2>/dev/null || fail 2 "a batch was not archived: it cannot be unpacked"
    [ -z "$gz" ] || gzip -t $gz 2>/dev/null || fail 2 "a batch was not archived: it cannot be unpacked"
    [ -z "$plain" ] || require_headers $plain
  }
}

# Ends the run unless each of these unpacked files is the segment that it is called.
require_headers() {
  files=$*
  # shellcheck disable=SC2046
  set -- $(for file in "$@"; do
    dd if="$file" bs=40 count=1 2>/dev/null
  done | od -A n -v -t x1)
  for file in $files; do
    size=$(($(wc -c <"$file")))
    header=
    turn=0
    while [ $turn -lt 40 ] && [ $# -gt 0 ]; do
      header="$header $1"
      shift
      turn=$((turn + 1))
    done
    # shellcheck disable=SC2086
    segment_fault "$file" "$allowed" $header $size
    [ -z "$fault" ] || fail 2 "$file was not archived: $fault"
  done
  [ $# -eq 0 ] || fail 2 "a batch was not archived: it holds what is no segment"
}

# Gives all of a batch their names at once, if the archive has none of them. Else, or where that fails, they go one by one.
publish_together() (
  command -v flock >/dev/null 2>&1 || exit 1
  true 2>/dev/null >>"$incoming/lock" || fail 5 "cannot write to $incoming"
  exec 9>>"$incoming/lock"
  flock 9 || exit 1
  for file in "$@"; do
    name=${file%%.*}
    find_stored && exit 1
  done
  ln "$@" "$wal/" 2>/dev/null
)

# Whether $1, lines of "HASH FILE", is the SHA-256 of the files that follow. openssl has the CPU's own instructions for it
# everywhere; where there is none or it cannot, the other programs are asked.
have_hashes() {
  wanted=$1
  shift
  hashes=$(openssl dgst -sha256 -r "$@" 2>/dev/null) || hashes=$(hash_files "$@")
  for file in "$@"; do
    [ "${hashes%%[ *]*}" = "${wanted%% *}" ] || return
    hashes=${hashes#*"$newline"}
    wanted=${wanted#*"$newline"}
  done
}

# SHA-256 of files, a line that begins with "HASH " for each.
hash_files() {
  if command -v sha256sum >/dev/null 2>&1; then
    sha256sum "$@"
  else
    shasum -a 256 "$@"
  fi
}

# Sets $suffix by the name of a file.
set_suffix() {
  case $1 in
  *.*) suffix=${1##*.} ;;
  *) suffix=none ;;
  esac
}

has() {
  [ $# -eq 2 ] || fail 2 "this request is not allowed"
  set_file "$1" "$2"
  require_store
  find_stored || exit 1
  require_one_content
  echo "replctl-archive $stored_suffix $(($(wc -c <"$stored")))"
  exit 0
}

get() {
  set_file "$@"
  shift 2
  require_store
  if ! find_stored; then
    case " $* " in
    *" partial "*) [ ${#name} -ne 24 ] || get_partial "$@" ;;
    esac
    exit 1
  fi
  require_one_content
  for accepted in none "$@"; do
    if [ "$accepted" = "$stored_suffix" ]; then
      echo "replctl-archive $stored_suffix $(($(wc -c <"$stored")))"
      cat "$stored" || exit 5
      exit 0
    fi
  done
  require_unpacker "$stored_suffix"
  echo "replctl-archive none -"
  unpack "$stored_suffix" <"$stored" || fail 5 "$stored is damaged"
  exit 0
}

# What was streamed of a segment under way. It ends in zeros mostly. Once there is a newer timeline, what the old one holds of it
# may lie behind the point where the new one began, and is nobody's WAL any more.
get_partial() {
  stored=$wal/$name.partial
  [ -s "$stored" ] || return
  set +f
  for history in "$wal"/????????.history*; do
    [ -e "$history" ] || continue
    history=${history##*/}
    history=${history%%.*}
    is_word "$history" 0-9A-F 8 8 && [ $((0x$history)) -gt $((0x${name%????????????????})) ] && return
  done
  set -f
  for accepted in "$@"; do
    can_unpack "$accepted" 2>/dev/null || continue
    echo "replctl-archive $accepted - partial"
    case $accepted in
    zst) zstd -1 -q -c ;;
    lz4) lz4 -1 -q -c ;;
    gz) gzip -1 -c ;;
    *) cat ;;
    esac <"$stored" || exit 5
    exit 0
  done
  echo "replctl-archive none $(($(wc -c <"$stored"))) partial"
  cat "$stored" || exit 5
  exit 0
}

# A file of a base backup goes out as `get` sends a WAL file. Its name says how it is packed.
backup() {
  [ $# -ge 3 ] && [ "$1" = "$allowed" ] && is_word "$2" 0-9TZ 16 16 && is_word "$3" 0-9A-Za-z._ 1 80 ||
    fail 2 "this request is not allowed"
  stored=${wal%/wal}/backup/$2/$3
  stored_suffix=${3##*.}
  case $stored_suffix in
  gz | lz4 | zst) ;;
  *) stored_suffix=none ;;
  esac
  shift 3
  [ -f "$stored" ] || exit 1
  for accepted in none "$@"; do
    if [ "$accepted" = "$stored_suffix" ]; then
      echo "replctl-archive $stored_suffix $(($(wc -c <"$stored")))"
      cat "$stored" || exit 5
      exit 0
    fi
  done
  require_unpacker "$stored_suffix"
  echo "replctl-archive none -"
  unpack "$stored_suffix" <"$stored" || fail 5 "$stored is damaged"
  exit 0
}

probe() {
  require_store
  offers=none
  for suffix in gz lz4 zst; do
    can_unpack $suffix && offers="$offers $suffix"
  done
  find_taker && offers="$offers batch"
  echo "replctl-archive 1 $offers"
  exit 0
}

[ $# -eq 2 ] && is_word "$2" 0-9 1 20 || fail 2 "usage: archive-receive DIR SYSTEM_IDENTIFIER"
allowed=$2
wal=$1/$allowed/wal
incoming=$wal/.incoming
IFS=' '
# shellcheck disable=SC2086
set -- ${SSH_ORIGINAL_COMMAND-}
IFS=' 	
'
verb=${1-}
[ $# -gt 0 ] && shift
case $verb in
push | batch | has | get | backup | probe) "$verb" "$@" ;;
*) fail 2 "this key only serves push, batch, has, get, backup and probe" ;;
esac
