import type { NodeFacts } from '../cluster/facts.ts'
import type { NodeSettings } from '../cluster/inventory.ts'
import { archiveHost } from '../cluster/names.ts'
import { shellScript } from '../command.ts'
import { pending, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { ownHistory, readWalFiles } from '../node/own-wal.ts'
import { parseTimelineHistory, type TimelineHistory, timelinesPast } from '../postgres/timeline-history.ts'
import { historyFileName } from '../postgres/wal-file.ts'
import { identifierOf, whereArchiveAnswers } from './archive-presence.ts'
import type { ClusterInput } from './cluster-input.ts'
import { ask, look } from './look.ts'

/**
 * Moves what the archive has of a timeline that the node was promoted to beside the primary into the folder `diverged` there. Every
 * standby looks for the newest timeline in the archive: with that history file it goes along the dead line, or does not
 * start; and the next promotion, which may take the same number, would find its segments there with other content.
 */
export function setTimelineAsideInArchive(
  input: ClusterInput,
  node: NodeSettings,
  primary: NodeSettings,
): readonly Step[] {
  const { archive } = input.inventory
  if (archive === undefined) return []
  const list = async (ctx: StepContext) => {
    const facts = await look(ctx)
    const { facts: there } = await ask(ctx, primary.name)
    const timelines = await deadTimelines(ctx, facts, there)
    if (timelines.length === 0) return null
    const prefixes = timelines.map((one) => historyFileName(one).slice(0, 8))
    const args = [archive.dir, identifierOf(there) ?? '', ...prefixes]
    const found = await ctx.on(archiveHost).output(shellScript('look for its timeline', listScript, args))
    const files = found.split('\n').filter((name) => name !== '')
    return files.length === 0 ? null : { files, args, timelines }
  }
  const step: Step = {
    title: `set aside what the archive has of a timeline that ${primary.name} never was on`,
    node: node.name,
    check: async (ctx) => {
      const found = await list(ctx)
      if (found === null) return satisfied('there is nothing')
      return pending(`${found.files.length} file(s) of timeline ${found.timelines.join(', ')}`)
    },
    apply: async (ctx) => {
      const found = await list(ctx)
      if (found === null) return
      const host = ctx.on(archiveHost)
      const to = (
        await host.output(shellScript('set its timeline aside', moveScript, found.args), {
          timeoutMs: 600_000,
        })
      ).trim()
      ctx.warn(
        new ReplctlError('wrong-timeline', `the archive had WAL of timeline ${found.timelines.join(', ')}`, {
          detail: `${node.name} was promoted to it beside ${primary.name}. With its history file there, standbys would leave the primary's timeline. Its ${found.files.length} file(s) are in ${to} on ${archive.host} now.`,
          hint: 'Remove them when nobody wants anything of that timeline any more.',
          node: node.name,
        }),
      )
    },
  }
  return [whereArchiveAnswers(input, node, step)]
}

/** Of the node's own line, those that are newer than the primary's and none of its. */
async function deadTimelines(
  ctx: StepContext,
  facts: NodeFacts,
  { instance }: NodeFacts,
): Promise<readonly number[]> {
  if (facts.dataDirectoryState !== 'instance' || instance === null) return []
  const theirs: TimelineHistory = parseTimelineHistory(instance.history ?? '', instance.timeline)
  return timelinesPast(ownHistory(facts, await readWalFiles(ctx.node, facts)), theirs)
}

const listScript = `
cd "$1/$2/wal" 2>/dev/null || exit 0
shift 2
for line; do
  for one in "$line"*; do
    if [ -f "$one" ]; then printf '%s\\n' "$one"; fi
  done
done
`

/** The history file goes first: from then on nobody takes that way. */
const moveScript = `
umask 077
cd "$1/$2/wal" || exit 66
shift 2
mkdir -p ../diverged || exit 73
for line; do
  aside=$(mktemp -d "../diverged/$line.XXXXXX") || exit 73
  for one in "$line".history* "$line"*; do
    [ ! -f "$one" ] || mv -- "$one" "$aside/" || exit 74
  done
  sync -f "$aside" 2>/dev/null || sync
  (cd "$aside" && pwd -P)
done
`
