import type { NodeSettings } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { segmentSizeOf } from '../cluster/segment-size.ts'
import { pending, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { stateScript } from '../node/node.ts'
import type { Lsn } from '../postgres/lsn.ts'
import { walFileName } from '../postgres/wal-file.ts'
import { whereArchiveAnswers } from './archive-presence.ts'
import type { ClusterInput } from './cluster-input.ts'
import { look } from './look.ts'

/**
 * Archives what a former primary finished and had not archived when it died. As a standby it never would, and a rewind or a
 * clone takes it away: where the new primary had it no more, nobody else has it. Of a node that went its own way nothing
 * from the fork on goes into the archive. A failure is a warning. Nothing where WAL is streamed to the archive.
 */
export function archiveOwed(
  { inventory }: ClusterInput,
  node: NodeName,
  forkLsn: Lsn | null,
): readonly Step[] {
  if (inventory.archive?.mode !== 'push') return []
  return [
    pushThose('archive what it had finished and not archived', node, {
      list: (ctx) => listOwed(ctx, forkLsn),
      failure: (owed, said) =>
        new ReplctlError('archive-gap', `WAL that ${node} had not archived may be missing for ever`, {
          detail: `${tell(owed)}: ${said}`,
          hint: '"replctl archive check" says whether it is missing; a new base backup needs nothing of it: replctl backup',
          node,
        }),
    }),
  ]
}

/**
 * Archives what a primary finished before WAL was streamed to the archive: archive_command went with a reload, archive_mode goes with a
 * restart, and until then PostgreSQL keeps what waits. Comes when the stream is received: then nothing is missing between the two.
 */
export function archiveWaiting(input: ClusterInput, node: NodeSettings): readonly Step[] {
  if (input.inventory.archive?.mode !== 'stream') return []
  const { name } = node
  const step = pushThose('archive what it had finished before WAL was streamed', name, {
    list: async (ctx) => {
      const { archive_mode: mode, archive_command: command } = (await look(ctx)).instance?.settings ?? {}
      return (mode?.value ?? 'off') !== 'off' && command?.value === '' ? await listOwed(ctx, null) : []
    },
    failure: (waiting, said) =>
      new ReplctlError('archive-gap', `WAL that ${name} had finished is not in the archive yet`, {
        detail: `${tell(waiting)}: ${said}`,
        hint: `It stays in pg_wal until PostgreSQL is restarted there: mend what is named, and before that run "replctl init primary ${name}" again.`,
        node: name,
      }),
  })
  return [whereArchiveAnswers(input, node, step)]
}

interface Owed {
  readonly list: (ctx: StepContext) => Promise<readonly string[]>
  readonly failure: (owed: readonly string[], said: string) => ReplctlError
}

function pushThose(title: string, node: NodeName, { list, failure }: Owed): Step {
  return {
    title,
    node,
    check: async (ctx) => {
      const owed = await list(ctx)
      return owed.length === 0 ? satisfied('there is nothing') : pending(tell(owed))
    },
    apply: async (ctx) => {
      const owed = await list(ctx)
      const { dataDir } = ctx.node.settings.postgres
      const command = stateScript(ctx.node, 'archive what it owes', pushScript, [dataDir, ...owed])
      const result = await ctx.node.run(command, { timeoutMs: 3_600_000 })
      if (result.status === 0) return
      const left = await list(ctx)
      ctx.warn(failure(left.length === 0 ? owed : left, result.stderr.trim()))
    },
    // What did not work was said.
    verify: async () => undefined,
  }
}

/** Names of segments, the oldest first; with a fork those that end there or before, whichever timeline they are of. */
async function listOwed(ctx: StepContext, forkLsn: Lsn | null): Promise<readonly string[]> {
  const facts = await look(ctx)
  if (facts.dataDirectoryState !== 'instance') return []
  const fork = forkLsn === null ? '' : walFileName(1, forkLsn, segmentSizeOf(facts)).slice(8)
  const { dataDir } = ctx.node.settings.postgres
  const command = stateScript(ctx.node, 'look for what is not archived', listScript, [dataDir, fork])
  return (await ctx.node.output(command)).split('\n').filter((name) => name !== '')
}

const listScript = `
[ -x "$state/archive-push" ] || exit 0
cd "$2/pg_wal" || exit 70
for ready in archive_status/*.ready; do
  name=\${ready#archive_status/}
  name=\${name%.ready}
  if [ -f "$name" ]; then printf '%s\\n' "$name"; fi
done | LC_ALL=C awk -v fork="$3" 'length($0) == 24 && (fork == "" || ("x" substr($0, 9)) < ("x" fork))' |
  LC_ALL=C sort
`

/**
 * Through a folder of its own: beside archive_status, archive-push would send whatever is ready after it as well. One that the archive
 * refuses keeps no other one out; an archive that is away refuses a few.
 */
const pushScript = `
cd "$2" || exit 70
shift 2
owed="$state/owed"
rm -rf -- "$owed" && mkdir "$owed" || exit 74
trap 'rm -rf -- "$owed"' EXIT
failed=0
for name; do
  if ln -s "$PWD/pg_wal/$name" "$owed/$name" && "$state/archive-push" "$owed/$name" "$name"; then
    mv -f "pg_wal/archive_status/$name.ready" "pg_wal/archive_status/$name.done"
  else
    failed=$((failed + 1))
    [ "$failed" -lt 3 ] || break
  fi
done
[ "$failed" -eq 0 ]
`

const tell = (owed: readonly string[]): string =>
  owed.length === 1 ? `${owed[0]}` : `${owed.length} segments, ${owed[0]} to ${owed.at(-1)}`
