import { archiveClosed } from '../cluster/archive-closed.ts'
import type { NodeFacts } from '../cluster/facts.ts'
import type { ArchiveSettings, NodeSettings } from '../cluster/inventory.ts'
import { archiveHost, type NodeName } from '../cluster/names.ts'
import { stateDirectoryOf } from '../cluster/state-directory.ts'
import { shellScript } from '../command.ts'
import { refused, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { asReplctlError, ReplctlError } from '../errors.ts'
import { hasMadeNote } from '../node/archive-note.ts'
import { readTextFile } from '../node/files.ts'
import { stateVariableScript } from '../node/node.ts'
import { archiveFiles } from '../postgres/archive.ts'
import type { ClusterInput } from './cluster-input.ts'
import { look } from './look.ts'

/**
 * Before anything is done: the archive host answers, an archive that was made there is still there, and it can be written to. A node that was
 * equipped before goes on without it; PostgreSQL keeps its WAL meanwhile. One that was not has nowhere to archive to, and
 * nothing is begun. `source`: whose cluster it is going to be part of, where it has no data yet.
 */
export function requireArchiveHost(
  { inventory }: ClusterInput,
  node: NodeSettings,
  source: NodeName = node.name,
): readonly Step[] {
  const { archive } = inventory
  if (archive === undefined) return []
  return [
    {
      title: `require that the archive host ${archive.host} answers`,
      node: node.name,
      check: async (ctx) => {
        const why = await archiveAbsence(ctx, archive, source)
        if (why === null) return satisfied('it answers, and its directory is there or can be made')
        if (!(await isEquipped(ctx, node))) return refused(why)
        ctx.warn(why)
        return satisfied('it does not; the node has what it needs to archive from before')
      },
    },
  ]
}

/** Does its work where the archive is there; an equipped node is left as it is where it is not. */
export function whereArchiveAnswers({ inventory }: ClusterInput, node: NodeSettings, step: Step): Step {
  const { archive } = inventory
  if (archive === undefined) return step
  return {
    ...step,
    check: async (ctx) => {
      const isAway = (await archiveAbsence(ctx, archive, ctx.node.name)) !== null
      return isAway && (await isEquipped(ctx, node))
        ? satisfied('the archive is away: what is there from before stays')
        : await step.check(ctx)
    },
  }
}

/** Why the archive cannot be reached or written to; null where it can. */
async function archiveAbsence(
  ctx: StepContext,
  archive: ArchiveSettings,
  source: NodeName,
): Promise<ReplctlError | null> {
  const host = ctx.on(archiveHost)
  try {
    await host.transport.connect()
  } catch (thrown) {
    return asReplctlError(thrown).with({ node: archiveHost })
  }
  const identifier = identifierOf(await look(ctx, source)) ?? ''
  const args = [host.settings.stateDir, archive.dir, identifier]
  const { status, stdout } = await host.read(shellScript('look for the archive', presenceScript, args))
  if (status === 66) return archiveGone(archive, identifier)
  if (status !== 73) return null
  return archiveClosed({ dir: archive.dir, host: archive.host, user: archive.user, place: stdout.trim() })
}

/** 66: what was made before is gone. 73: it cannot be written to, or not be made; printed is where. */
const presenceScript = `${stateVariableScript}
at=$2
if [ -n "$3" ]; then
  [ -d "$2/$3/wal" ] || ! ${hasMadeNote} || exit 66
  at=$2/$3/wal
fi
while [ ! -e "$at" ]; do at=$(dirname -- "$at"); done
[ -d "$at" ] && [ -w "$at" ] && [ -x "$at" ] || { printf '%s\\n' "$at"; exit 73; }
`

/** What is told where an archive that was there is gone. */
export function archiveGone({ dir, host, user }: ArchiveSettings, systemIdentifier: string): ReplctlError {
  return new ReplctlError('archive-failing', `the archive ${dir} on ${host} is gone`, {
    detail: `${dir}/${systemIdentifier}/wal was made there before. Made anew it might lie below the mount point of its disk.`,
    hint: `Mount its file system. If it was removed on purpose, make it again yourself: install -d -m 0700 -o ${user} ${dir}/${systemIdentifier}/wal`,
    node: archiveHost,
  })
}

/** Whether an earlier run gave the node its key and its scripts. */
async function isEquipped(ctx: StepContext, node: NodeSettings): Promise<boolean> {
  const facts = await look(ctx, node.name)
  const state = stateDirectoryOf(facts.home, node)
  const [key, push] = await Promise.all([
    readPublicKey(ctx, node, facts),
    readTextFile(ctx.on(node.name), `${state}/${archiveFiles.push}`),
  ])
  return key !== null && push !== null
}

/** The public half of the key that a node shows to the archive host. */
export async function readPublicKey(
  ctx: StepContext,
  node: NodeSettings,
  facts: NodeFacts,
): Promise<string | null> {
  return await readTextFile(
    ctx.on(node.name),
    `${stateDirectoryOf(facts.home, node)}/${archiveFiles.key}.pub`,
  )
}

/** The system identifier of a node's data, running or not. */
export function identifierOf(facts: NodeFacts): string | null {
  return facts.instance?.systemIdentifier ?? facts.control?.systemIdentifier ?? null
}
