import type { Inventory } from '../cluster/inventory.ts'
import { archiveConnection } from '../cluster/judge-archiving.ts'
import { archiveHost, type NodeName } from '../cluster/names.ts'
import { pending, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { asReplctlError, ReplctlError } from '../errors.ts'
import { stateScript } from '../node/node.ts'
import { archiveFiles } from '../postgres/archive.ts'
import { awaitState, look } from './look.ts'
import { archiveNodeLine } from './tell-archive-members.ts'

/** How long the archive may take to follow: it may first have to notice that the old primary is gone. */
const patienceMs = 30_000

/**
 * With `mode: stream` the archive host receives from the new primary: with that the end of the old timeline and the new
 * history file come to it. Its supervisor finds the primary by itself; here it is told to look now. That it does not is a
 * warning: the cluster works without its archive, and the slot keeps the WAL.
 */
export function followWithArchive(inventory: Inventory, primary: NodeName): readonly Step[] {
  const { archive, cluster, nodes } = inventory
  if (archive?.mode !== 'stream') return []
  const isReceiving = async (ctx: StepContext) =>
    archiveConnection(cluster, await look(ctx))?.state === 'streaming'
  return [
    {
      title: `have the archive on ${archive.host} receive from it`,
      node: primary,
      comesOfEarlier: true,
      check: async (ctx) => {
        const facts = await look(ctx)
        if (facts.instance?.isInRecovery !== false) return unknownUntil('it leads')
        return archiveConnection(cluster, facts)?.state === 'streaming'
          ? satisfied('it streams')
          : pending('it does not stream yet')
      },
      apply: async (ctx) => {
        try {
          const host = ctx.on(archiveHost)
          const line = nodes.filter(({ name }) => name === primary).map(archiveNodeLine)
          await host.output(stateScript(host, 'have it look for the primary', pokeScript, line))
          await awaitState(
            ctx,
            `${archive.host} receives WAL from ${primary}`,
            async () => ((await isReceiving(ctx)) ? true : undefined),
            { everyMs: 100, timeoutMs: Math.min(ctx.timeoutMs, patienceMs) },
          )
        } catch (thrown) {
          const { code, message, detail } = asReplctlError(thrown)
          if (code === 'interrupted') throw thrown
          ctx.warn(
            new ReplctlError('archive-gap', `the archive does not receive from ${primary} yet`, {
              detail: `${message}. ${detail ?? ''}`.trim(),
              hint: `Point-in-time recovery beyond this point is possible once it does; until then the slot on ${primary} keeps the WAL. It goes on by itself when ${archive.host} is back.`,
              node: primary,
            }),
          )
        }
      },
      // What did not work was said.
      verify: async () => undefined,
    },
  ]
}

/** One that runs looks at once; one that ended, as with a reboot, is started. It knows the node `$2`, also where that joined a moment ago. */
const pokeScript = `
nodes="$state/${archiveFiles.streamNodes}"
[ ! -f "$nodes" ] || grep -qxF -- "$2" "$nodes" || printf '%s\\n' "$2" >> "$nodes"
if [ -f "$state/stream.lock" ] && ! flock -n "$state/stream.lock" true; then
  pid=$(cat "$state/stream.pid" 2>/dev/null)
  case $(ps -p "\${pid:-0}" -o args= 2>/dev/null) in *archive-stream*) kill -s USR1 "$pid" ;; esac
elif [ -x "$state/${archiveFiles.stream}" ]; then
  launch=
  command -v setsid >/dev/null 2>&1 && launch=setsid
  $launch "$state/${archiveFiles.stream}" </dev/null >/dev/null 2>"$state/stream.err" &
else
  echo 'there is no archive-stream: replctl init primary sets it up' >&2
  exit 70
fi
:
`
