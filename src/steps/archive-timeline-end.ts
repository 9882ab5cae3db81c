import type { NodeFacts } from '../cluster/facts.ts'
import type { Inventory } from '../cluster/inventory.ts'
import { standingFaults } from '../cluster/judge-archiving.ts'
import type { NodeName } from '../cluster/names.ts'
import { pending, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { asReplctlError, ReplctlError } from '../errors.ts'
import { stateScript } from '../node/node.ts'
import { parseTimelineHistory } from '../postgres/timeline-history.ts'
import {
  historyFileName,
  parseWalFileName,
  segmentNumber,
  walFileName,
  walFileNameOf,
  walFileStart,
} from '../postgres/wal-file.ts'
import type { ClusterInput } from './cluster-input.ts'
import { look } from './look.ts'

/**
 * Archives from a new primary what its predecessor may have owed: the finished segments of the timeline that it left, and
 * the history file of its own. A standby marks what it received as archived, for archiving is the primary's work: what a
 * dead primary had not archived would be missing for ever, and recovery could not get across. A failure is a warning:
 * the cluster works without its archive. Nothing where WAL is streamed to the archive.
 */
export function archiveTimelineEnd({ inventory }: ClusterInput, node: NodeName): readonly Step[] {
  return inventory.archive?.mode === 'push' ? [archiveFrom(node, inventory)] : []
}

function archiveFrom(node: NodeName, inventory: Inventory): Step {
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
      const facts = await look(ctx)
      for (const [error] of standingFaults(inventory, facts)) ctx.warn(error)
      const wish = wishOf(facts)
      if (wish === null) return
      const missing = await archiveEnd(ctx, wish).catch((thrown) => asReplctlError(thrown).message)
      if (missing === null) return
      ctx.warn(
        new ReplctlError(
          'archive-gap',
          `point-in-time recovery across the start of timeline ${wish.timeline} is not possible yet`,
          {
            detail: missing,
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

/** Archives what is here. Gives why the archive is not whole up to the end of the old timeline; null: it is. */
async function archiveEnd(ctx: StepContext, wish: Wish): Promise<string | null> {
  const { dataDir } = ctx.node.settings.postgres
  const timeoutMs = Math.max(ctx.timeoutMs, 60_000)
  const push = stateScript(ctx.node, 'archive the end of the old timeline', pushScript, [
    ...[dataDir, wish.history, wish.firstOfNew],
  ])
  const pushed = await ctx.node.run(push, { timeoutMs })
  if (pushed.status !== 0) {
    return `The end of the old timeline or ${wish.history} could not be archived: ${pushed.stderr.trim()}`
  }
  const before = segmentBefore(pushed.stdout.trim(), wish)
  const finish = stateScript(ctx.node, 'look for what comes before it in the archive', finishScript, [
    ...[before, wish.mark],
  ])
  const finished = await ctx.node.run(finish, { timeoutMs })
  if (finished.status === 0) return null
  return finished.status === 1
    ? `${before} is neither on ${ctx.node.name} nor in the archive; the old primary may still have it in pg_wal.`
    : `Whether the archive has ${before} could not be found out: ${finished.stderr.trim()}`
}

/** The segment of the old timeline that the archive must have already; '' where there is none before what was archived now. */
function segmentBefore(oldest: string, wish: Wish): string {
  if (oldest === '' || oldest === wish.firstOfOld) return ''
  const { timeline } = parseWalFileName(oldest)
  const number = segmentNumber(walFileStart(oldest, wish.segmentSize), wish.segmentSize)
  // initdb begins with segment 1.
  return number <= 1n ? '' : walFileNameOf(timeline, number - 1n, wish.segmentSize)
}

type Wish = NonNullable<ReturnType<typeof wishOf>>

function wishOf(facts: NodeFacts) {
  const { instance } = facts
  if (instance === null || instance.isInRecovery || instance.history === null) return null
  const { timeline } = instance
  const { switches } = parseTimelineHistory(instance.history, timeline)
  const [last, before] = [switches.at(-1), switches.at(-2)]
  const size = Number(instance.settings.wal_segment_size?.value ?? 0)
  if (last === undefined || size === 0) return null
  return {
    timeline,
    history: historyFileName(timeline),
    /** On the old timeline this one was not finished: what lies before it was. */
    firstOfNew: walFileName(last.timeline, last.leftAt, size),
    /** The segment in which the old timeline began: its beginning stands on the one before. Null for timeline 1. */
    firstOfOld: before === undefined ? null : walFileName(last.timeline, before.leftAt, size),
    segmentSize: size,
    mark: `${instance.systemIdentifier} ${timeline}`,
  }
}

/** Two batches of sixteen travel at a time, and the later one may arrive before the earlier. */
const sideBySide = 32

/**
 * The newest go first, until one is met that the archive has. Those before it were archived in their order, but that some
 * travelled side by side: so many more are asked for. Where none is met the oldest one is printed that was looked at.
 */
const pushScript = `
cd "$2" || exit 70
push="$state/archive-push"
wal=pg_wal oldest=$4 left=
"$push" "$wal/$3" "$3" || exit
for name in $(ls "$wal" | LC_ALL=C awk -v end="$4" '
    length($0) == 24 && substr($0, 1, 8) == substr(end, 1, 8) && ("x" $0) < ("x" end)' | LC_ALL=C sort -r); do
  if [ -n "$left" ]; then
    [ "$left" -gt 0 ] || break
    left=$((left - 1))
    "$state/archive-fetch" --has "$name"
    status=$?
    [ $status -ne 0 ] || continue
    [ $status -eq 1 ] || exit $status
  fi
  said=$("$push" "$wal/$name" "$name" 2>&1) || { status=$?; printf '%s\\n' "$said" >&2; exit $status; }
  case $said in
    *'was already archived'*) oldest= left=\${left:-${sideBySide}} ;;
    *) [ -n "$left" ] || oldest=$name ;;
  esac
done
printf '%s\\n' "$oldest"
`

/** All that is here was archived; where the archive has what comes before it, too, that is noted. Status 1: it lacks segment `$2`. */
const finishScript = `
if [ -n "$2" ]; then "$state/archive-fetch" --has "$2" || exit; fi
printf '%s\\n' "$3" > "$state/archived_timeline.new" && mv -f "$state/archived_timeline.new" "$state/archived_timeline" || exit 74
`
