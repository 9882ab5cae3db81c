import type { NodeName } from '../cluster/names.ts'
import type { StepContext } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'

/** Whoever does not answer at once is what it was when it was looked at. */
const patienceMs = 500

/**
 * Which of these nodes accepts writes by now: somebody may have promoted it by hand, or with another control host, while a fence
 * command ran, say. Asked in the sessions that are open, side by side: nobody can write at this moment.
 */
export async function whoLeadsBeside(ctx: StepContext, names: readonly NodeName[]): Promise<NodeName | null> {
  const leads = async (name: NodeName) => {
    const open = await ctx.on(name).openSql()
    return open !== null && (await open.sql.value('SELECT pg_is_in_recovery()::text')) === 'false'
  }
  const found = await Promise.all(
    names.map(async (name) => {
      const isLeading = await Promise.race([leads(name).catch(() => false), late()])
      return isLeading ? [name] : []
    }),
  )
  return found.flat()[0] ?? null
}

const late = () => new Promise<false>((resolve) => setTimeout(resolve, patienceMs, false).unref())

export function ledMeanwhile(candidate: NodeName, leader: NodeName): ReplctlError {
  return new ReplctlError('primary-alive', `${leader} was promoted meanwhile, by somebody else`, {
    detail: `It accepts writes. Promoting ${candidate} beside it would make two writers.`,
    hint: `Let ${leader} lead, and have the others follow it: replctl promote ${leader}`,
    node: leader,
  })
}
