#!/bin/sh
# The start guard of node {{ node }} of cluster {{ cluster }}, rendered by replctl. Do not edit: it is rendered again.
#
# The service runs it before the server. A standby may start at once. What would come up read-write may start only if
# no other node has taken over meanwhile: each is asked over a replication connection whether it leads, and on which
# timeline. Where one has, this node is fenced: from then on it comes up only as a standby, whoever starts it.
#
#   start-guard               ask, and answer by the exit status: 0 the server may start, 1 it must not
#   start-guard --check       ask once and print what each node said, change nothing; 0 if the guard can do its work
#   start-guard --allow-once  the next start within ten minutes does without the answer of nodes that do not answer;
#                             a node that answers and has taken over still counts
set -u
umask 077
PATH=${PATH:-/usr/bin:/bin}:/usr/local/bin:/usr/bin:/bin
LC_ALL=C
export PATH LC_ALL

node={{ node | shell }}
cluster={{ cluster | shell }}
state={{ state_directory | shell }}
data={{ data_directory | shell }}
bin={{ bin_directory | shell }}
others={{ others.size }}
mode=${1:-decide}
newline='
'

say() { printf 'replctl start guard: %s\n' "$*" >&2; }

# Seconds since the host booted, where that is known; a clock that is set at boot would mislead.
uptime() {
  if [ -r /proc/uptime ]; then
    read -r up rest </proc/uptime
    echo "${up%%.*}"
  else
    date +%s
  fi
}

boot_id() {
  if [ -r /proc/sys/kernel/random/boot_id ]; then cat /proc/sys/kernel/random/boot_id; else echo -; fi
}

if [ "$mode" = --allow-once ]; then
  printf '%s %s\n' "$(boot_id)" "$(uptime)" >"$state/start-anyway.new" &&
    mv -f "$state/start-anyway.new" "$state/start-anyway" || exit 1
  exit 0
fi

# Whether --allow-once was said a moment ago, on this boot; it serves one start.
take_permission() {
  [ -f "$state/start-anyway" ] || return 1
  read -r boot at <"$state/start-anyway" || boot=
  rm -f "$state/start-anyway"
  case $at in '' | *[!0-9]*) return 1 ;; esac
  [ "$boot" = "$(boot_id)" ] && [ $(($(uptime) - at)) -ge 0 ] && [ $(($(uptime) - at)) -le 600 ]
}

is_standby() {
  [ -f "$data/standby.signal" ] ||
    { [ "$major" -lt 12 ] && grep -Eq "^[[:space:]]*standby_mode[[:space:]]*=?[[:space:]]*'?(on|true|yes|1)" "$data/recovery.conf" 2>/dev/null; }
}

# One psql, and no longer than 4 s: connect_timeout ends neither a name that is not resolved nor an answer that does not come.
query() {
  info=$1
  shift
  for statement; do
    set -- "$@" -c "$statement"
    shift
  done
  env -i LC_ALL=C PATH="$PATH" ${LD_LIBRARY_PATH+LD_LIBRARY_PATH="$LD_LIBRARY_PATH"} \
    "$bin/psql" -X -A -t -w -d "$info" "$@" </dev/null 2>&1 &
  asked=$!
  (
    sleep 4
    kill -KILL "$asked"
  ) >/dev/null 2>&1 &
  watch=$!
  wait "$asked" 2>/dev/null
  kill "$watch" 2>/dev/null
}

# Where the other's history leaves the timeline of this node; nothing where this node's history is no part of it.
fork_of() {
  OWN="$data/pg_wal/$(printf '%08X' "$timeline").history" awk -v timeline="$timeline" '
    BEGIN {
      own = ENVIRON["OWN"]
      while ((getline line < own) > 0)
        if (split(line, field, "\t") >= 2 && field[1] ~ /^[0-9]+$/) wanted[field[1]] = field[2]
    }
    { sub(/^[0-9A-F]*\.history\|/, "") }
    split($0, field, "\t") >= 2 && field[1] ~ /^[0-9]+$/ { has[field[1]] = field[2] }
    END {
      for (id in wanted) if (has[id] != wanted[id]) exit
      print has[timeline]
    }'
}

# Asks one node; prints one line: NAME|primary, standby, foreign or silent|timeline|fork or -|what it said.
# SHOW transaction_read_only tells a standby on every version, once the default is known to be off. One whose replay is
# delayed or paused shows an older timeline than it follows; but it has the history file of the newer one.
ask() {
  next=$((timeline + 1))
  said=$(query "$2" IDENTIFY_SYSTEM 'SHOW transaction_read_only' "TIMELINE_HISTORY $next")
  identity=${said%%"$newline"*} rest=${said#*"$newline"}
  read_only=${rest%%"$newline"*} history=${rest#*"$newline"}
  identifier=${identity%%|*} its_timeline=${identity#*|}
  its_timeline=${its_timeline%%|*}
  role=silent fork=
  case $identifier in '' | *[!0-9]*) its_timeline= ;; esac
  case $its_timeline in
    '' | *[!0-9]*) its_timeline=0 ;;
    *)
      case $read_only in on) role=standby ;; off) role=primary ;; esac
      [ "$identifier" = "$system" ] || role=foreign
      said=
      ;;
  esac
  case $role in
    primary | standby)
      if [ "$its_timeline" -gt "$timeline" ]; then
        fork=$(query "$2" "TIMELINE_HISTORY $its_timeline" | fork_of)
      elif [ "$role" = standby ]; then
        fork=$(printf '%s\n' "$history" | fork_of)
        [ -z "$fork" ] || its_timeline=$next
      fi
      ;;
  esac
  printf '%s|%s|%s|%s|%s\n' "$1" "$role" "$its_timeline" "${fork:--}" "$(printf %s "${said:--}" | tr '|\n\t' '   ' | cut -c 1-300)"
}

ask_all() {
  {%- for other in others %}
  ask {{ other.name | shell }} {{ other.conninfo | shell }} &
  {%- endfor %}
  wait
}

durable() { sync "$@" 2>/dev/null || sync; }

# From now on this data directory comes up only as a standby.
fence() {
  printf '{"newPrimary":"%s","timeline":%s,"at":"%s","wasRunning":false}\n' \
    "$1" "$timeline" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >"$state/fenced.json.new" &&
    durable "$state/fenced.json.new" && mv -f "$state/fenced.json.new" "$state/fenced.json" &&
    rm -f "$state/promote" || say "could not write $state/fenced.json"
  if [ "$major" -ge 12 ]; then
    signal=$data/standby.signal
    printf '' >"$signal" # not ":", whose failure would end the script here
  else
    signal=$data/recovery.conf
    printf "standby_mode = 'on'\n" >"$signal"
  fi || {
    say "could not write $signal: keep everybody from starting PostgreSQL here by hand, it would come up read-write"
    return
  }
  durable "$signal" "$data" "$state"
}

# Reads the answers into: answered, agreed, leader (a node that has taken over), rival (another that accepts writes), missing.
judge() {
  answered=0 agreed=0 leader= leader_role= leader_timeline= leader_fork= rival= rival_timeline= missing= told=
  IFS=$newline
  set -f
  for line in $1; do
    IFS='|'
    set -- $line
    name=$1 role=$2 its_timeline=$3 fork=$4 said=$5
    case $role in
      primary | standby)
        answered=$((answered + 1))
        told="$told, $name is a $role on timeline $its_timeline"
        if [ "$its_timeline" -gt "$timeline" ] && [ "$fork" != - ]; then
          # The primary itself is named rather than one of its standbys.
          if [ -z "$leader" ] || [ "$role" = primary ]; then
            leader=$name leader_role=$role leader_timeline=$its_timeline leader_fork=$fork
          fi
        elif [ "$role" = primary ]; then
          rival=$name rival_timeline=$its_timeline
        elif [ "$its_timeline" -le "$timeline" ]; then
          agreed=$((agreed + 1))
        else
          missing="$missing; $name is on timeline $its_timeline, which does not come from this node's $timeline"
        fi
        ;;
      foreign) missing="$missing; at the address of $name is another cluster" told="$told, $name is another cluster" ;;
      *) missing="$missing; $name: $said" told="$told, $name does not answer ($said)" ;;
    esac
  done
  IFS=' 	'$newline
  set +f
  missing=${missing#; } told=${told#, }
}

# ---- what stands in the data directory ----

if ! [ -r "$data/PG_VERSION" ]; then
  if [ "$mode" = --check ]; then say "there is no data directory $data"; exit 3; fi
  exit 0 # nothing that could accept writes; the server says so itself
fi
read -r version <"$data/PG_VERSION"
major=${version%%.*}
case $major in '' | *[!0-9]*) say "cannot read $data/PG_VERSION"; exit 1 ;; esac
if is_standby && [ "$mode" != --check ]; then
  # A trigger file that an interrupted promotion left would promote a fenced node at its start.
  [ -f "$state/fenced.json" ] && rm -f "$state/promote"
  exit 0
fi
control=$("$bin/pg_controldata" "$data" 2>&1)
value() { printf '%s\n' "$control" | sed -n "s/^$1: *//p" | tr -d ' \t'; }
system=$(value 'Database system identifier')
timeline=$(value "Latest checkpoint's TimeLineID")
reached=$(value "Min recovery ending loc's timeline")
case ${system:--}${timeline:--} in
  *[!0-9]*)
    say "could not read pg_control with $bin/pg_controldata: $control"
    [ "$mode" = --check ] && exit 3
    exit 1
    ;;
esac
# Promoted and not yet checkpointed, its newest timeline stands here alone.
case $reached in '' | *[!0-9]*) ;; *) [ "$reached" -gt "$timeline" ] && timeline=$reached ;; esac

if [ "$mode" = --check ]; then
  if ! [ -x "$bin/psql" ]; then say "there is no $bin/psql"; exit 3; fi
  if ! [ -r "$state/pgpass" ]; then say "there is no passfile $state/pgpass"; exit 3; fi
  judge "$(ask_all 2>/dev/null | sort)"
  printf '%s\n' "${told:-there is no other node to ask}"
  exit 0
fi
[ "$others" -gt 0 ] || exit 0

# ---- ask, until it is known whether another node has taken over ----

allowed=no
take_permission && allowed=yes
# Hosts that lost their power together come back minutes apart.
begun=$(uptime) patience=10 limit=30
[ -r /proc/uptime ] && [ "$begun" -lt 900 ] && patience=20 limit=300
has_waited=no
while :; do
  judge "$(ask_all 2>/dev/null | sort)"
  waited=$(($(uptime) - begun))
  if [ -n "$leader" ]; then
    fence "$leader"
    say "$node must not start as a primary: $leader is a $leader_role on timeline $leader_timeline of cluster $cluster," \
      "which left timeline $timeline of this node at $leader_fork"
    say "it is fenced now: it comes up only as a standby. Bring it back with: replctl rejoin $node"
    exit 1
  fi
  if [ -n "$rival" ]; then
    say "$node must not start as a primary: $rival accepts writes on timeline $rival_timeline, this node would on $timeline"
    say "find out which of them is to lead (replctl status), and stop the other one"
    exit 1
  fi
  # Not a standby when this began: somebody is at work on it, who starts it when it is ready.
  if is_standby; then
    say "$node was made a standby while the others were asked: start it again"
    exit 1
  fi
  [ "$agreed" -lt "$others" ] || break
  if [ "$allowed" = yes ]; then
    say "starts although not every node answered, as was allowed: $missing"
    break
  fi
  # Where some are away for longer, more than half of the cluster, this node included, must know of no other primary.
  if [ $((2 * (agreed + 1))) -gt $((others + 1)) ] && [ "$waited" -ge "$patience" ]; then
    say "starts without the answer of some: $missing"
    break
  fi
  if [ "$waited" -ge "$limit" ]; then
    say "$node does not start as a primary: too few of the other nodes answer to know that none has taken over: $missing"
    say "start one of them first; one that is gone for good: replctl remove-standby NAME"
    say "if you know that none has taken over: $state/start-guard --allow-once, then start the service again"
    exit 1
  fi
  [ "$has_waited" = yes ] || say "waits up to $limit s for the other nodes: $missing"
  has_waited=yes
  sleep 1
done
exit 0
