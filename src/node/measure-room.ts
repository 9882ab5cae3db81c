import { type CopySize, type Place, type Room, roomFor, tooSmall } from '../cluster/room.ts'
import { shellScript } from '../command.ts'
import { type Node, stateVariableScript } from './node.ts'
import type { SqlOptions, SqlSession } from './sql-session.ts'

/** Asks an instance how large a copy of it would be. Tablespaces inside of the data directory count as part of it. */
export async function readCopySize(sql: SqlSession, options?: SqlOptions): Promise<CopySize> {
  return await sql.json<CopySize>(
    `SELECT json_build_object(
       'dataBytes', coalesce(sum(bytes) FILTER (WHERE location !~ '^/'), 0),
       'tablespaces', coalesce(json_agg(json_build_object('location', location, 'bytes', bytes))
                                 FILTER (WHERE location ~ '^/'), '[]'))
       FROM (SELECT pg_tablespace_location(oid) AS location, coalesce(pg_tablespace_size(oid), 0) AS bytes
               FROM pg_tablespace) AS tablespaces`,
    options,
  )
}

/**
 * Looks at the file systems that a copy of this size would fill. `isBegun`: the data directory is a copy that we began, or an old
 * one that is emptied first; it makes room for the next, and is only measured where the answer depends on it.
 */
export async function measureRoom(node: Node, size: CopySize, isBegun: boolean): Promise<readonly Room[]> {
  const { dataDir } = node.settings.postgres
  const measure = async (countsBegun: boolean) =>
    roomFor(size, dataDir, await readPlaces(node, size, countsBegun))
  const rooms = await measure(false)
  return isBegun && tooSmall(rooms).length > 0 ? await measure(true) : rooms
}

/** The folders that a copy of this size would fill. */
export async function readPlaces(
  node: Node,
  size: CopySize,
  countsBegun: boolean,
): Promise<readonly Place[]> {
  const { dataDir } = node.settings.postgres
  const paths = [dataDir, ...size.tablespaces.map((one) => one.location)]
  const script = `${stateVariableScript}${countsBegun ? countScript : noCountScript}${placesScript}`
  const command = shellScript('look for room', script, [node.settings.stateDir, ...paths])
  const result = await node.read(command, { timeoutMs: countsBegun ? 600_000 : 15_000 })
  return paths.flatMap((path, index) => readPlace(path, result.stdout.split('\n')[index] ?? ''))
}

function readPlace(path: string, line: string): Place[] {
  const found = /^(\d+) (.+?) +\d+ +\d+ +(-?\d+) +\S+ +(\/.*)$/.exec(line)
  if (found === null) return []
  const [, begun, device = '', free, mountPoint = ''] = found
  const fileSystem = device.startsWith('/') ? device : mountPoint
  return [{ path, fileSystem, freeBytes: Number(free) * 1024, begunBytes: Number(begun) * 1024 }]
}

/** What a clone that was begun left in the data directory, and in the tablespace folders that it claimed. */
const countScript = `
count() {
  if [ "$1" = "$data" ]; then du -sk -- "$1/"
  elif grep -qxF -- "$1" "$state/tablespaces"; then du -sk -- "$1"/PG_[0-9]*_*
  fi 2>/dev/null | awk '{ all += $1 } END { printf "%.0f", all }'
}
`

const noCountScript = 'count() { printf 0; }'

/** One line for each folder: kibibytes begun there, and what df says. A folder that is to be made is its parent's. */
const placesScript = `
data=$2; shift
for dir; do
  at=$dir
  while [ ! -d "$at" ]; do at=$(dirname -- "$at"); done
  printf '%s %s\\n' "$(count "$dir")" "$(df -Pk -- "$at" 2>/dev/null | tail -n 1)"
done
`
