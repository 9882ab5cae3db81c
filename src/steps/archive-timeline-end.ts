import type { NodeFacts } from '../cluster/facts.ts'
import type { NodeName } from '../cluster/names.ts'
import { pending, type Step, satisfied, unknownUntil } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { stateScript } from '../node/node.ts'
import { parseTimelineHistory } from '../postgres/timeline-history.ts'
import { historyFileName, walFileName } from '../postgres/wal-file.ts'
import type { ClusterInput } from './cluster-input.ts'
import { look } from './look.ts'

/**
 * Archives from a new primary what its predecessor may have owed: the finished segments of the timeline that it left, and
 * the history file of its own. A standby marks what it received as archived, for archiving is the primary's work: what a
 * dead primary had not archived would be missing for ever, and recovery could not get across. A failure is a warning:
 * the cluster works without its archive. Nothing where WAL is streamed to the archive.
 */
export function archiveTimelineEnd({ inventory }: ClusterInput, node: NodeName): readonly Step[] {
  return inventory.archive?.mode === 'push' ? [archiveFrom(node)] : []
}

function archiveFrom(node: NodeName): Step {
  return {
    title: 'archive the end of the old timeline and the new history file',
    node,
    check: async (ctx) => {
      const facts = await look(ctx)
      const wish = wishOf(facts)
      if (wish === null) {
        return facts.instance?.isInRecovery === false
          ? satisfied('it is on its first timeline')
          : unknownUntil('it leads')
      }
      const script = 'cat "$state/archived_timeline" 2>/dev/null; :'
      const done = await ctx.node.output(stateScript(ctx.node, 'look what is archived', script))
      return done.trim() === wish.mark
        ? satisfied('they were archived before')
        : pending('they may be missing')
    },
    apply: async (ctx) => {
      const wish = wishOf(await look(ctx))
      if (wish === null) return
      const { dataDir } = ctx.node.settings.postgres
      const command = stateScript(ctx.node, 'archive the end of the old timeline', script, [
        ...[dataDir, wish.history, wish.firstOfNew, wish.mark],
      ])
      const result = await ctx.node.run(command, { timeoutMs: Math.max(ctx.timeoutMs, 60_000) })
      if (result.status === 0) return
      ctx.warn(
        new ReplctlError(
          'archive-gap',
          `point-in-time recovery across the start of timeline ${wish.timeline} is not possible yet`,
          {
            detail: `The end of the old timeline or ${wish.history} could not be archived: ${result.stderr.trim()}`,
            hint: `Mend the archive, then run "replctl promote ${node}" again; "replctl archive check" says what is missing.`,
            node,
          },
        ),
      )
    },
    // What did not work was said, and is tried again by the next run.
    verify: async () => undefined,
  }
}

function wishOf(facts: NodeFacts) {
  const { instance } = facts
  if (instance === null || instance.isInRecovery || instance.history === null) return null
  const { timeline } = instance
  const last = parseTimelineHistory(instance.history, timeline).switches.at(-1)
  const size = Number(instance.settings.wal_segment_size?.value ?? 0)
  if (last === undefined || size === 0) return null
  return {
    timeline,
    history: historyFileName(timeline),
    /** On the old timeline this one was not finished: what lies before it was. */
    firstOfNew: walFileName(last.timeline, last.leftAt, size),
    mark: `${instance.systemIdentifier} ${timeline}`,
  }
}

/** The newest go first, until one is met that the archive has: those before it were archived in their order. */
const script = `
cd "$2" || exit 70
push="$state/archive-push"
wal=pg_wal
"$push" "$wal/$3" "$3" || exit
for name in $(ls "$wal" | LC_ALL=C awk -v end="$4" '
    length($0) == 24 && substr($0, 1, 8) == substr(end, 1, 8) && ("x" $0) < ("x" end)' | LC_ALL=C sort -r); do
  said=$("$push" "$wal/$name" "$name" 2>&1) || { status=$?; printf '%s\\n' "$said" >&2; exit $status; }
  case $said in *'was already archived'*) break ;; esac
done
printf '%s\\n' "$5" > "$state/archived_timeline.new" && mv -f "$state/archived_timeline.new" "$state/archived_timeline"
`
