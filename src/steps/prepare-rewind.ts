import type { NodeFacts } from '../cluster/facts.ts'
import type { NodeSettings } from '../cluster/inventory.ts'
import { rejoinUnderWay } from '../cluster/rejoin-under-way.ts'
import { segmentSizeOf } from '../cluster/segment-size.ts'
import { stateDirectoryOf } from '../cluster/state-directory.ts'
import { pending, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { stateScript } from '../node/node.ts'
import { rewindArgs } from '../postgres/rewind.ts'
import { restoreCommandOf } from './archive-wish.ts'
import type { ClusterInput } from './cluster-input.ts'
import { ask, binDirectoryOf, look, majorOf } from './look.ts'
import { isServerFileScript, requireStoppedScript } from './rejoin-scripts.ts'
import { rewindConninfo } from './rewind-login.ts'
import { workLock } from './work-lock.ts'

/** Folder in the state directory that holds what a rewind must not take from the node. */
export const keptFolder = 'rejoin-kept'

/**
 * pg_rewind runs to the point where it would change something. Then the node's own files are copied (a log
 * folder is only moved, later), and the WAL from the last common checkpoint on is linked or copied: older minor versions of
 * pg_rewind remove it where the source no longer has it, although recovery begins there. What lies past the fork is not kept: a
 * standby reads what it finds in pg_wal first, and a later timeline may get the number of the dead one.
 */
const prepareScript = `
export LC_ALL=C
bin=$2 data=$3 id=$4 size=$5; shift 5
kept="$state/${keptFolder}"
rm -rf "$kept"; mkdir -p "$kept/files" "$kept/wal" || exit 73
${workLock}${isServerFileScript}${requireStoppedScript}
said=$("$bin/pg_rewind" "$@" --dry-run 2>&1 </dev/null) || {
  # A link at the top is taken away before the rewind itself; by then all that a trial can tell has been tried.
  link=$(printf '%s\\n' "$said" | sed -n 's/.*file "\\([^"/]*\\)" is of different type in source and target.*/\\1/p')
  [ -n "$link" ] && [ -L "$data/$link" ] || { printf '%s\\n' "$said" >&2; exit 90; }
}
printf '%s\\n' "$said"
own_names | while IFS= read -r name; do
  is_log "$name" || cp -a -- "$data/$name" "$kept/files/" || exit 74
done || exit 74
checkpoint=$(printf '%s\\n' "$said" | sed -n 's/.*last common checkpoint at \\([0-9A-F/]*\\) on timeline \\([0-9]*\\).*/\\1 \\2/p')
if [ -n "$checkpoint" ]; then
  redo=$("$bin/pg_waldump" -p "$data/pg_wal" -t "\${checkpoint#* }" -s "\${checkpoint% *}" -n 1 2>/dev/null |
    sed -n 's/.*redo \\([0-9A-F]*\\/[0-9A-F]*\\).*/\\1/p')
  from=\${redo:-\${checkpoint% *}}
  segment() { printf '%08X%08X' "$((0x\${1%/*}))" "$((0x\${1#*/} / size))"; }
  in_order() { [ "$(printf '%s\\n%s\\n' "$1" "$2" | sort | sed -n 1p)" = "$1" ]; }
  first=$(segment "$from")
  fork=$(printf '%s\\n' "$said" | sed -n 's/.*diverged at WAL location \\([0-9A-F/]*\\) on timeline \\([0-9]*\\).*/\\1 \\2/p')
  last=FFFFFFFFFFFFFFFF line=FFFFFFFF
  [ -z "$fork" ] || { last=$(segment "\${fork% *}"); line=$(printf '%08X' "\${fork#* }"); }
  for file in "$data"/pg_wal/[0-9A-F]*; do
    name=\${file##*/}
    [ \${#name} -eq 24 ] || continue
    number=\${name#????????}
    in_order "$first" "$number" && in_order "$number" "$last" && in_order "\${name%"$number"}" "$line" || continue
    ln -- "$file" "$kept/wal/$name" 2>/dev/null || cp -p -- "$file" "$kept/wal/$name" || exit 74
  done
fi
sync -f "$kept" 2>/dev/null || sync
: > "$kept/complete"
`

/** The words that pg_rewind gets, here and when it is run for real. */
export async function rewindWords(
  ctx: StepContext,
  facts: NodeFacts,
  primary: NodeSettings,
  { inventory }: ClusterInput,
): Promise<readonly string[]> {
  const node = ctx.node.settings
  const { dataDir } = node.postgres
  return rewindArgs({
    major: majorOf(facts),
    dataDirectory: dataDir,
    conninfo: rewindConninfo(facts.home, node, primary),
    configFile: facts.configDirectory === dataDir ? undefined : `${facts.configDirectory}/postgresql.conf`,
    restoresWal: restoreCommandOf(inventory, node, facts) !== undefined,
  })
}

/**
 * Tries the rewind without changing anything, so that what it lacks is found while nothing is done yet, and keeps the
 * node's own files beside the data directory.
 */
export function prepareRewind(node: NodeSettings, primary: NodeSettings, input: ClusterInput): Step {
  return {
    title: `try pg_rewind from ${primary.name} without changing anything, and keep the node's own files`,
    node: node.name,
    check: async (ctx) =>
      rejoinUnderWay(await look(ctx)) !== null
        ? satisfied('the rewind has begun already')
        : pending('it is tried right before it is done'),
    apply: async (ctx) => {
      const { facts: there } = await ask(ctx, primary.name)
      const facts = await look(ctx)
      const script = stateScript(ctx.node, 'try pg_rewind and keep what is the node’s own', prepareScript, [
        ...[binDirectoryOf(facts), node.postgres.dataDir, there.instance?.systemIdentifier ?? ''],
        String(segmentSizeOf(facts)),
        ...(await rewindWords(ctx, facts, primary, input)),
      ])
      const result = await ctx.node.run(script, { timeoutMs: 3_600_000 })
      if (result.status === 0) return
      throw rewindUnavailable(node.name, result.status === 90, result.stderr || result.stdout)
    },
    verify: async () => undefined,
    undo: (ctx) => removeKeptFiles(ctx),
  }
}

export async function removeKeptFiles(ctx: StepContext): Promise<void> {
  await ctx.node.output(stateScript(ctx.node, 'remove the kept files', `rm -rf "$state/${keptFolder}"`), {
    timeoutMs: 600_000,
  })
}

/** Absolute path of the folder. */
export function keptFolderOf(facts: NodeFacts, node: NodeSettings): string {
  return `${stateDirectoryOf(facts.home, node)}/${keptFolder}`
}

function rewindUnavailable(node: string, isRewind: boolean, said: string): ReplctlError {
  const isFull = /no space left/i.test(said)
  return new ReplctlError(
    isRewind ? 'rewind-unavailable' : isFull ? 'disk-full' : 'remote-command-failed',
    isRewind ? `pg_rewind cannot take ${node} back` : `could not keep the own files of ${node}`,
    {
      detail: `It said: ${said.trim().split('\n').slice(-6).join(' ')}`,
      hint: isRewind
        ? `Its data directory is as it was. To clone it anew: replctl rejoin ${node} --reclone`
        : 'Mend what it names, then run the command again.',
      node,
    },
  )
}
