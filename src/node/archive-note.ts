import { shellScript } from '../command.ts'
import { type Node, stateVariableScript } from './node.ts'
import type { ArchivePlace } from './read-archive.ts'

/**
 * Whether the archive `$2/$3` was made on this host before: that is noted outside of it, in the state directory `$state`. Made anew
 * on the bare mount point of a disk that is not mounted, it would take WAL that nobody finds again once the disk is back.
 */
export const hasMadeNote = '[ "$(cat "$state/made-$3" 2>/dev/null)" = "$2" ]'

/** For how long this has been the cluster's archive, in seconds by the archive host's clock; null: it is not noted. */
export async function archiveAge(
  host: Node,
  { dir, systemIdentifier }: ArchivePlace,
): Promise<number | null> {
  const script = `${stateVariableScript}
${hasMadeNote} || exit 0
made=$(stat -c %Y "$state/made-$3" 2>/dev/null) || made=$(stat -f %m "$state/made-$3")
echo $(($(date +%s) - made))
`
  const args = [host.settings.stateDir, dir, systemIdentifier]
  const { stdout } = await host.read(shellScript('look since when the archive is there', script, args))
  return /^\d+$/.test(stdout.trim()) ? Number(stdout) : null
}
