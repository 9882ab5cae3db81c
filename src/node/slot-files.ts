import { shellScript } from '../command.ts'
import type { Node } from './node.ts'

/** A replication slot as its file says: whether the instance runs does not matter. */
export interface SlotFile {
  readonly name: string
  readonly type: 'physical' | 'logical'
  readonly isTemporary: boolean
  /** It keeps WAL. */
  readonly isReserved: boolean
}

/**
 * Behind 16 bytes of header and 64 of the name: database (0 for a physical one), persistency (0: it outlives the server), xmin,
 * catalog_xmin and restart_lsn. So from 9.4 to 18 at least.
 * @see https://github.com/postgres/postgres/blob/master/src/include/replication/slot.h
 */
const slotsScript = `
cd "$1/pg_replslot" 2>/dev/null || exit 0
for file in */state; do
  [ -f "$file" ] || continue
  printf '%s %s\\n' "\${file%/state}" "$(od -A n -t x4 -j 80 -N 24 "$file" | tr '\\n' ' ')"
done
`

/** The slots in a node's data directory; none where there is no data directory. */
export async function readSlotFiles(node: Node): Promise<readonly SlotFile[]> {
  const command = shellScript('look at its slots', slotsScript, [node.settings.postgres.dataDir])
  return parseSlotFiles(await node.output(command))
}

/** What cannot be read counts as logical: nobody can make it again. */
export function parseSlotFiles(text: string): readonly SlotFile[] {
  return text.split('\n').flatMap((line) => {
    const [name, ...words] = line.split(/\s+/).filter((word) => word !== '')
    if (name === undefined) return []
    const isZero = (word: string | undefined) => word !== undefined && /^0+$/.test(word)
    const [database, persistency, , , ...restart] = words
    return [
      {
        name,
        type: isZero(database) ? ('physical' as const) : ('logical' as const),
        isTemporary: persistency !== undefined && !isZero(persistency),
        isReserved: restart.some((word) => !isZero(word)),
      },
    ]
  })
}
