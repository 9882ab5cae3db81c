import type { NodeSettings } from '../cluster/inventory.ts'
import { archiveHost, type NodeName } from '../cluster/names.ts'
import { shellScript } from '../command.ts'
import { pending, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { stateScript } from '../node/node.ts'
import { historyFileName } from '../postgres/wal-file.ts'
import { whereArchiveAnswers } from './archive-presence.ts'
import type { ClusterInput } from './cluster-input.ts'
import { look } from './look.ts'

/**
 * Has the history file of the primary's timeline in the archive: without it no recovery finds its way there. PostgreSQL archives
 * it once, at the promotion, and an archive that was set up, changed or emptied later never sees it. A failure is a warning.
 */
export function ensureHistoryArchived(input: ClusterInput, node: NodeSettings): readonly Step[] {
  const { archive } = input.inventory
  if (archive === undefined) return []
  const step: Step = {
    title: 'have the history file of its timeline in the archive',
    node: node.name,
    check: async (ctx) => {
      const { instance, control, dataDirectoryState, mark } = await look(ctx)
      // Where there is no data yet a new cluster begins.
      const isNew = dataDirectoryState !== 'instance' || mark?.phase === 'initialising'
      const timeline = isNew ? 1 : (instance ?? control)?.timeline
      if (timeline === 1) return satisfied('it is on its first timeline')
      if (instance === null || instance.isInRecovery) return unknownUntil('it leads')
      const script = `
cd "$1/$2/wal" 2>/dev/null || exit 1
for one in "$3" "$3.zst" "$3.lz4" "$3.gz"; do [ ! -s "$one" ] || exit 0; done
exit 1
`
      const name = historyFileName(instance.timeline)
      const command = shellScript('look for the history file', script, [
        ...[archive.dir, instance.systemIdentifier, name],
      ])
      const { status } = await ctx.on(archiveHost).read(command)
      return status === 0 ? satisfied(`${name} is there`) : pending(`${name} is not there`)
    },
    apply: async (ctx) => {
      const { instance } = await look(ctx)
      if (instance === null) return
      const why = await archiveAgain(ctx, node.name, [historyFileName(instance.timeline)])
      if (why === null) return
      ctx.warn(
        new ReplctlError('archive-gap', `${historyFileName(instance.timeline)} is missing from the archive`, {
          detail: `Recovery cannot find its way to timeline ${instance.timeline} without it. ${why}`,
          hint: 'Mend what it names, then run the command again; no backup counts until it is there.',
          node: node.name,
        }),
      )
    },
    // What did not work was said.
    verify: async () => undefined,
  }
  return [whereArchiveAnswers(input, node, step)]
}

/**
 * Archives history files and finished segments from a node's `pg_wal`, as far as they are there. What PostgreSQL brought into the
 * archive before this one it never archives again. Gives what archive-push said if that failed; null: nothing did.
 */
export async function archiveAgain(
  ctx: StepContext,
  name: NodeName,
  files: readonly string[],
): Promise<string | null> {
  const node = ctx.on(name)
  const command = stateScript(node, 'archive what is missing', againScript, [
    ...[node.settings.postgres.dataDir, ...files],
  ])
  const { status, stderr } = await node.run(command, { timeoutMs: Math.max(ctx.timeoutMs, 60_000) })
  return status === 0 ? null : `${stderr.trim()} (status ${status})`
}

/** One that is not marked as finished may be half written. */
const againScript = `
cd "$2" || exit 70
shift 2
for name; do
  case $name in
    *.history) ;;
    *) [ -f "pg_wal/$name" ] && [ -f "pg_wal/archive_status/$name.done" ] || continue ;;
  esac
  "$state/archive-push" "pg_wal/$name" "$name" || exit
done
`
