/**
 * Prints what pg_controldata of PostgreSQL 11 prints, from pg_control of 11 or 12. A stand-in for tests: the packages with
 * these servers lack that program, and those of newer major versions cannot read their file. Little-endian, 64 bit.
 * `$1` to `$74` are the file's first 74 words of four bytes; ControlFileData of 11 has them in this order, and that of 12 is
 * brought into it (its 64-bit next XID is aligned, and max_wal_senders is new).
 * @see https://www.postgresql.org/docs/11/app-pgcontroldata.html
 */
export const controlDataScript = `#!/bin/sh
if [ "$1" = --version ] || [ "$1" = -V ]; then
  echo 'pg_controldata (PostgreSQL) 11.22'
  exit 0
fi
[ "$1" = -D ] && shift
file=\${1:-$PGDATA}/global/pg_control
if ! [ -r "$file" ]; then
  echo "pg_controldata: could not open file \\"$file\\" for reading: No such file or directory" >&2
  exit 2
fi
set -- $(od -An -v -t u4 -N 296 "$file")
if [ "$3" -ge 1200 ]; then
  set -- "$1" "$2" "$3" "$4" "$5" "$6" "$7" "$8" "$9" "\${10}" "\${11}" "\${12}" "\${13}" "\${14}" "\${15}" "\${18}" "\${17}" \
    "\${19}" "\${20}" "\${21}" "\${22}" "\${23}" "\${24}" "\${25}" "\${27}" "\${28}" "\${29}" "\${30}" "\${31}" 0 \
    "\${33}" "\${34}" "\${35}" "\${36}" "\${37}" "\${38}" "\${39}" "\${40}" "\${41}" "\${42}" "\${43}" "\${44}" "\${45}" \
    "\${46}" "\${47}" "\${49}" "\${50}" "\${51}" "\${52}" 0 "\${53}" "\${54}" "\${55}" "\${56}" "\${57}" "\${58}" "\${59}" \
    "\${60}" "\${61}" "\${62}" "\${63}" "\${64}"
fi
lsn() { printf '%-37s %X/%X\\n' "$1" "$3" "$2"; }
line() { printf '%-37s %s\\n' "$1" "$2"; }
time() { line "$1" "$(date -d "@$2" '+%a %b %e %H:%M:%S %Y')"; }
on() { if [ $(($2 & 255)) -ne 0 ]; then line "$1" "$3"; else line "$1" "$4"; fi; }
pick() { shift "$1"; shift; echo "$1"; }
state=$(pick $(($5 > 6 ? 7 : $5)) 'starting up' 'shut down' 'shut down in recovery' 'shutting down' \\
  'in crash recovery' 'in archive recovery' 'in production' 'unrecognized status code')
segment=$(((\${12} << 32 | \${11}) / \${56}))
per=$((4294967296 / \${56}))
line 'pg_control version number:' "$3"
line 'Catalog version number:' "$4"
line 'Database system identifier:' "$(($2 << 32 | $1))"
line 'Database cluster state:' "$state"
time 'pg_control last modified:' "$7"
lsn 'Latest checkpoint location:' "$9" "\${10}"
lsn "Latest checkpoint's REDO location:" "\${11}" "\${12}"
printf '%-37s %08X%08X%08X\\n' "Latest checkpoint's REDO WAL file:" "\${13}" $((segment / per)) $((segment % per))
line "Latest checkpoint's TimeLineID:" "\${13}"
line "Latest checkpoint's PrevTimeLineID:" "\${14}"
on "Latest checkpoint's full_page_writes:" "\${15}" on off
line "Latest checkpoint's NextXID:" "\${16}:\${17}"
line "Latest checkpoint's NextOID:" "\${18}"
line "Latest checkpoint's NextMultiXactId:" "\${19}"
line "Latest checkpoint's NextMultiOffset:" "\${20}"
line "Latest checkpoint's oldestXID:" "\${21}"
line "Latest checkpoint's oldestXID's DB:" "\${22}"
line "Latest checkpoint's oldestActiveXID:" "\${29}"
line "Latest checkpoint's oldestMultiXid:" "\${23}"
line "Latest checkpoint's oldestMulti's DB:" "\${24}"
printf '%s%s\\n' "Latest checkpoint's oldestCommitTsXid:" "\${27}" "Latest checkpoint's newestCommitTsXid:" "\${28}"
time 'Time of latest checkpoint:' "\${25}"
lsn 'Fake LSN counter for unlogged rels:' "\${31}" "\${32}"
lsn 'Minimum recovery ending location:' "\${33}" "\${34}"
line "Min recovery ending loc's timeline:" "\${35}"
lsn 'Backup start location:' "\${37}" "\${38}"
lsn 'Backup end location:' "\${39}" "\${40}"
on 'End-of-backup record required:' "\${41}" yes no
line 'wal_level setting:' "$(pick $((\${42} > 2 ? 3 : \${42})) minimal replica logical 'unrecognized wal_level')"
on 'wal_log_hints setting:' "\${43}" on off
line 'max_connections setting:' "\${44}"
line 'max_worker_processes setting:' "\${45}"
line 'max_prepared_xacts setting:' "\${46}"
line 'max_locks_per_xact setting:' "\${47}"
on 'track_commit_timestamp setting:' "\${48}" on off
line 'Maximum data alignment:' "\${49}"
line 'Database block size:' "\${53}"
line 'Blocks per segment of large relation:' "\${54}"
line 'WAL block size:' "\${55}"
line 'Bytes per WAL segment:' "\${56}"
line 'Maximum length of identifiers:' "\${57}"
line 'Maximum columns in an index:' "\${58}"
line 'Maximum size of a TOAST chunk:' "\${59}"
line 'Size of a large-object chunk:' "\${60}"
line 'Date/time type storage:' '64-bit integers'
on 'Float4 argument passing:' "\${61}" 'by value' 'by reference'
on 'Float8 argument passing:' $((\${61} >> 8)) 'by value' 'by reference'
line 'Data page checksum version:' "\${62}"
line 'Mock authentication nonce:' "$(od -An -v -t x1 -j 248 -N 32 "$file" | tr -d ' \\n')"
`
