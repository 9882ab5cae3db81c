import type { NodeFacts } from '../cluster/facts.ts'
import type { NodeName } from '../cluster/names.ts'
import { pending, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { readTextFile, writeTextFile } from '../node/files.ts'
import {
  checkGuard,
  findGuardPlace,
  type GuardPlace,
  type GuardWish,
  guardScripts,
  removeStartGuard,
  tryGuardedServer,
  writeDropIn,
} from '../node/start-guard.ts'
import type { ClusterInput } from './cluster-input.ts'
import { binDirectoryOf, look } from './look.ts'

/**
 * Has what starts PostgreSQL on a host ask the other nodes first, so that a former primary whose host was off when
 * another node took over does not come up read-write. Every node gets it, for every node may become primary. Nothing
 * where the whole cluster is on this machine (a sandbox). Where no service starts the instance the scripts lie there
 * for the operator's own; `doctor` and `promote` say so.
 */
export function ensureStartGuard(
  node: NodeName,
  { inventory, templates }: ClusterInput,
  members: readonly NodeName[],
): readonly Step[] {
  if (inventory.nodes.every((one) => one.host === 'local')) return []
  const wishOf = (ctx: StepContext, facts: NodeFacts): GuardWish => ({
    ...{ inventory, templates, node: ctx.node.settings, facts, members },
    binDirectory: binDirectoryOf(facts),
  })
  const step: Step = {
    title: 'have the start guard that the service runs before the server',
    node,
    check: async (ctx) => {
      const facts = await look(ctx)
      if (facts.dataDirectoryState !== 'instance') return unknownUntil('the data directory is made')
      const wish = wishOf(ctx, facts)
      const [place, older] = await Promise.all([findGuardPlace(ctx.node, wish), olderScripts(ctx, wish)])
      if (older.length > 0) return pending(`to write: ${older.map((file) => file.path).join(', ')}`)
      if (place.is === 'none') return satisfied(`it lies there, and nothing runs it: ${place.because}`)
      if (place.live === place.wanted) return satisfied(`${place.path} names it`)
      const refusal = await tryGuardedServer(ctx.node)
      return refusal === null
        ? pending(`${place.path} does not name it`)
        : satisfied(`it lies there, and cannot be run: ${refusal}`)
    },
    apply: async (ctx) => {
      const facts = await look(ctx)
      const wish = wishOf(ctx, facts)
      await writeScripts(ctx, wish)
      const place = await findGuardPlace(ctx.node, wish)
      if (place.is === 'none' || place.live === place.wanted) return
      // Never named by the service before it was seen to work: a guard that cannot be run would stop every start.
      const refusal = (await tryGuardedServer(ctx.node)) ?? (await refusalOfGuard(ctx))
      if (refusal === null) await enter(ctx, place)
      else ctx.warn(cannotRun(node, refusal))
    },
    undo: async (ctx) => {
      const facts = await look(ctx)
      if (facts.mark?.phase !== 'done') return await removeStartGuard(ctx.node, facts, inventory.cluster)
      // One that asks for a node which was not built after all would wait for it: who belongs here says the record.
      if (facts.record !== null)
        await writeScripts(ctx, { ...wishOf(ctx, facts), members: facts.record.members })
    },
  }
  return [step]
}

async function olderScripts(ctx: StepContext, wish: GuardWish) {
  const scripts = guardScripts(wish)
  const live = await Promise.all(scripts.map((file) => readTextFile(ctx.node, file.path)))
  return scripts.filter((file, index) => live[index] !== file.text)
}

async function writeScripts(ctx: StepContext, wish: GuardWish): Promise<void> {
  for (const file of await olderScripts(ctx, wish)) {
    await writeTextFile(ctx.node, file.path, file.text, { mode: '0700' })
  }
}

async function refusalOfGuard(ctx: StepContext): Promise<string | null> {
  const { works, said } = await checkGuard(ctx.node)
  return works ? null : said
}

async function enter(ctx: StepContext, place: Exclude<GuardPlace, { is: 'none' }>): Promise<void> {
  if (place.is === 'unit') await ctx.node.output(writeDropIn(place))
  else await writeTextFile(ctx.node, place.path, place.wanted, place.live === null ? { mode: '0644' } : {})
}

function cannotRun(node: NodeName, said: string): ReplctlError {
  return new ReplctlError('start-guard-missing', `the start guard cannot be run on ${node}`, {
    detail: `It said: ${said}. The service there starts PostgreSQL without asking the other nodes.`,
    hint: `Is the file system of the state directory mounted noexec? Look with "replctl doctor ${node}".`,
    node,
  })
}
