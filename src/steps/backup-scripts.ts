import { tellingScript } from '../node/jobs.ts'

/** Functions that several of the scripts on the archive host share: to unpack a stored file, and to hash one. */
export const storedFileScript = `
LC_ALL=C; export LC_ALL
unpack() {
  case $1 in
    *.zst) zstd -d -c -q < "$1" ;;
    *.lz4) lz4 -d -c -q < "$1" ;;
    *.gz) gzip -d -c < "$1" ;;
    *) cat "$1" ;;
  esac
}
hash_of() {
  if command -v sha256sum >/dev/null 2>&1; then hash=$(sha256sum < "$1")
  elif command -v shasum >/dev/null 2>&1; then hash=$(shasum -a 256 < "$1")
  else hash=$(openssl dgst -sha256 -r < "$1"); fi || return 1
  printf '%s\\n' "\${hash%% *}"
}
# What fails in either half of the pipe is an error.
extract() {
  wrong=$({ { unpack "$1" 2>&4 || echo "cannot unpack" >&3; } | { tar -xf - -C "$2" 2>&4 || echo "no tar file" >&3; }; } 3>&1 4>&2)
  if [ -n "$wrong" ]; then echo "\${1##*/}: $wrong" >&2; exit 91; fi
}
`

/**
 * The copy. pg_basebackup does not fsync each file: what has arrived goes to disk while the rest is on its way, and all
 * of it before \`taken\` says so. Arguments: folder of programs, folder of this backup, compression, then pg_basebackup's.
 */
export const takeBackupScript = `
umask 077
bin=$1 into=$2 pack=$3; shift 3
rm -rf "$into/new" "$into/taken" "$into/proved"
# It must not hold the job's lock: the job is over when pg_basebackup is.
( while sleep 1; do sync -f "$into" 2>/dev/null || exit 0; done ) 7>&- &
syncer=$!
"$bin/pg_basebackup" "$@"
status=$?
kill "$syncer" 2>/dev/null
[ "$status" -eq 0 ] || exit "$status"
now=$(date +%s%3N)
case $now in *N*|*[!0-9]*) now=$(( $(date +%s) + 1 ))000 ;; esac
grep -o 'write-ahead log .* point: .*' "\${0%/*}/output" > "$into/log" || exit 90
wal="$into/new/pg_wal.tar"
if [ -f "$wal" ]; then
  case $pack in
    zstd) zstd -1 -q --rm "$wal" || exit 93 ;;
    lz4) lz4 -1 -q --rm "$wal" "$wal.lz4" || exit 93 ;;
    gzip) gzip -1 "$wal" || exit 93 ;;
  esac
fi
sync -f "$into/new" 2>/dev/null || sync
echo "$now" > "$into/taken.new" && mv "$into/taken.new" "$into/taken"
`

/**
 * The proof: unpacks everything and has PostgreSQL's own program compare it with the manifest, WAL included. Beside that the
 * stored files are hashed, so that later their content can be proved by reading them alone. Arguments: folder of
 * programs, folder of this backup, and \`full\`, \`no-wal\` or \`none\`.
 */
export const proveBackupScript = `
umask 077
bin=$1 into=$2 how=$3 scratch=$2/scratch
${storedFileScript}${tellingScript}
unpacked() { du -sk "$scratch"; }
rm -rf "$scratch" "$into/proved" "$into/sums"
mkdir -p "$scratch/data" || exit 70
cd "$into/new" || exit 66
# It must not hold the job's lock: the job is over when its proof is.
(
  for file in *; do
    hash=$(hash_of "$file") || exit 94
    echo "$hash $(($(wc -c < "$file"))) $file"
  done > "$into/sums"
) 7>&- &
hasher=$!
trap 'kill "$hasher" 2>/dev/null; rm -rf "$scratch" "$into/sums"' EXIT
for file in base.tar*; do echo "unpacking $file"; telling unpacked extract "$file" "$scratch/data" || exit; done
for file in [0-9]*.tar*; do
  [ -f "$file" ] || continue
  oid=\${file%%.tar*}
  echo "unpacking $file"
  mkdir -p "$scratch/$oid" || exit 70
  telling unpacked extract "$file" "$scratch/$oid" || exit
  rm -f "$scratch/data/pg_tblspc/$oid"
  ln -s "$scratch/$oid" "$scratch/data/pg_tblspc/$oid" || exit 70
done
for file in pg_wal.tar*; do echo "unpacking $file"; telling unpacked extract "$file" "$scratch/data/pg_wal" || exit; done
echo "verifying"
case $how in
  full) cp backup_manifest "$scratch/data/" && telling read_by "$bin/pg_verifybackup" -q "$scratch/data" || exit 92 ;;
  no-wal) cp backup_manifest "$scratch/data/" && telling read_by "$bin/pg_verifybackup" -q -n "$scratch/data" || exit 92 ;;
  none) [ -f "$scratch/data/global/pg_control" ] && [ -f "$scratch/data/backup_label" ] || exit 92 ;;
esac
{
  echo "@@label"; cat "$scratch/data/backup_label"
  echo "@@map"; [ -f "$scratch/data/tablespace_map" ] && cat "$scratch/data/tablespace_map"; echo
  echo "@@wal"
  for file in "$scratch"/data/pg_wal/*; do
    name=\${file##*/}
    case $name in *[!0-9A-F]*) ;; ????????????????????????) echo "$(($(wc -c < "$file"))) $name" ;; esac
  done
  echo "@@history"
  newest=
  for file in "$scratch"/data/pg_wal/????????.history; do [ ! -f "$file" ] || newest=$file; done
  [ -z "$newest" ] || { echo "\${newest##*/}"; cat "$newest"; echo; }
  echo "@@bytes"; du -sk "$scratch" | awk '{ print $1 }'
  echo "@@spaces"
  for at in "$scratch"/[0-9]*; do
    [ ! -d "$at" ] || du -sk "$at" | awk -v oid="\${at##*/}" '{ print oid, $1 }'
  done
  echo "@@sums"
  wait "$hasher" && cat "$into/sums" || exit 94
} > "$into/proved.new" || exit 94
mv "$into/proved.new" "$into/proved"
`
