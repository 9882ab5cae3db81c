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
  return leaderAmong(await askWhetherTheyLead(ctx, names))
}

/** The same of each that answered in time: whether it accepts writes. */
export async function askWhetherTheyLead(
  ctx: StepContext,
  names: readonly NodeName[],
  withinMs = patienceMs,
): Promise<ReadonlyMap<NodeName, boolean>> {
  const leads = async (name: NodeName) => {
    const open = await ctx.on(name).openSql()
    return open === null ? null : (await open.sql.value('SELECT pg_is_in_recovery()::text')) === 'false'
  }
  const found = await Promise.all(
    names.map(async (name) => {
      const isLeading = await Promise.race([leads(name).catch(() => null), late(withinMs)])
      return isLeading === null ? [] : [[name, isLeading] as const]
    }),
  )
  return new Map(found.flat())
}

export function leaderAmong(answers: ReadonlyMap<NodeName, boolean>): NodeName | null {
  for (const [name, isLeading] of answers) if (isLeading) return name
  return null
}

const late = (ms: number) => new Promise<null>((resolve) => setTimeout(resolve, ms, null).unref())

export function ledMeanwhile(candidate: NodeName, leader: NodeName): ReplctlError {
  return new ReplctlError('primary-alive', `${leader} was promoted meanwhile, by somebody else`, {
    detail: `It accepts writes. Promoting ${candidate} beside it would make two writers.`,
    hint: `Let ${leader} lead, and have the others follow it: replctl promote ${leader}`,
    node: leader,
  })
}

/** The same where another one leads in any case, and nobody was told to promote. */
export function secondWriter(node: NodeName): ReplctlError {
  return new ReplctlError('two-writers', `${node} accepts writes`, {
    detail: 'Somebody else promoted it meanwhile.',
    hint: 'Look with "replctl status", and stop one of the two.',
    node,
  })
}
