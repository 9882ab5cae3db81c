import type { NodeFacts, NodeMark } from '../cluster/facts.ts'
import type { NodeName } from '../cluster/names.ts'
import { pending, refused, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { stateScript } from '../node/node.ts'
import { look } from './look.ts'

/** Writes replctl's mark of a node: which data directory is its own, and how far it is built. */
export async function writeMark(
  ctx: StepContext,
  facts: NodeFacts,
  phase: NodeMark['phase'],
  systemIdentifier: string,
): Promise<void> {
  const mark: NodeMark = {
    cluster: ctx.node.cluster,
    node: facts.name,
    dataDirectory: ctx.node.settings.postgres.dataDir,
    systemIdentifier,
    inode: facts.dataDirectoryInode,
    phase,
  }
  await writeStateFile(ctx, facts.name, 'node.json', `${JSON.stringify(mark)}\n`)
}

/** Replaces a file of the state directory as a whole, durably, and reads it back. */
export async function writeStateFile(
  ctx: StepContext,
  node: NodeName,
  name: string,
  text: string,
): Promise<void> {
  const script = `cat > "$state/$2.new" && { sync "$state/$2.new" 2>/dev/null || sync; } && mv -f "$state/$2.new" "$state/$2" && cat "$state/$2"`
  const command = stateScript(ctx.on(node), `write ${name}`, script, [name], text, { isQuick: true })
  const readBack = await ctx.on(node).output(command)
  if (readBack === text) return
  throw new ReplctlError('remote-command-failed', `could not write ${name} on ${node}`, {
    detail: `It was written, and then held: ${readBack.slice(0, 200)}`,
    hint: 'Does something else write into the state directory of replctl?',
    node,
  })
}

/** Removes a file of the state directory; one that is still there afterwards is an error. */
export async function removeStateFile(ctx: StepContext, node: NodeName, name: string): Promise<void> {
  await ctx
    .on(node)
    .output(
      stateScript(
        ctx.on(node),
        `remove ${name}`,
        'rm -f "$state/$2" && [ ! -e "$state/$2" ]',
        [name],
        undefined,
        { isQuick: true },
      ),
    )
}

/** A node that streams again is no longer fenced. */
export function ensureNoFenceMark(node: NodeName): Step {
  return {
    title: 'take the fence mark away',
    node,
    showsOnlyOnItsNode: true,
    check: async (ctx) => {
      const { fence } = await look(ctx)
      return fence === null ? satisfied('there is none') : pending(`it was fenced for ${fence.newPrimary}`)
    },
    apply: (ctx) => removeStateFile(ctx, node, 'fenced.json'),
    // That it is gone was seen there and then.
    verify: async () => undefined,
  }
}

export const builtTitle = 'mark the node as built'

/**
 * The mark says that the node is complete. A standby may be taken back after that: its primary has all it has. A new
 * primary may not: from now on applications may write to it.
 */
export function ensureMarkedAsBuilt(
  node: NodeName,
  options: { readonly isNewPrimary?: true; readonly mustLead?: true } = {},
): Step {
  return {
    title: builtTitle,
    node,
    ...(options.isNewPrimary === true ? { pointOfNoReturn: true } : {}),
    check: async (ctx) => {
      const { mark, instance, control, dataDirectoryInode } = await look(ctx)
      // Whatever made it one, a standby is made a primary by a promotion only.
      if (options.mustLead === true && instance?.isInRecovery === true) return refused(isStandby(node))
      const isRight =
        mark?.phase === 'done' &&
        mark.systemIdentifier === (instance ?? control)?.systemIdentifier &&
        mark.inode === dataDirectoryInode
      return isRight ? satisfied('its mark is right') : pending('its mark is missing or unfinished')
    },
    apply: async (ctx) => {
      const facts = await look(ctx)
      const identifier = facts.instance?.systemIdentifier ?? facts.control?.systemIdentifier ?? ''
      await writeMark(ctx, facts, 'done', identifier)
    },
    undo: async (ctx) => {
      const facts = await look(ctx)
      if (facts.mark?.phase !== 'done' || !facts.hasStandbySignal) return
      await writeMark(ctx, facts, 'cloned', facts.mark.systemIdentifier)
    },
  }
}

function isStandby(node: NodeName): ReplctlError {
  return new ReplctlError('foreign-cluster', `${node} is a standby`, {
    detail: 'It is in recovery: it does not accept writes.',
    hint: `Bring its primary back, or, if that is lost: replctl promote ${node}`,
    node,
  })
}
