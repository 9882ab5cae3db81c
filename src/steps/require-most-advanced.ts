import type { NodeFacts } from '../cluster/facts.ts'
import type { NodeName } from '../cluster/names.ts'
import { receivedLsn } from '../cluster/topology.ts'
import { pending, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { compareLsn, lsnDistance } from '../postgres/lsn.ts'
import { look } from './look.ts'

/** What a primary sent before it was stopped is on its way for a moment at most. */
const patienceMs = 3_000

/**
 * The candidate has what every other running standby received. Looked at once more after the old primary was fenced:
 * until then it may have written on, and a commit that only another standby confirmed would be lost silently.
 */
export function requireMostAdvanced(candidate: NodeName, others: readonly NodeName[]): Step {
  const aheadOf = async (ctx: StepContext) => {
    const [own, ...rest] = await Promise.all([candidate, ...others].map((name) => look(ctx, name)))
    return rest.flatMap((facts) => gapTo(own, facts))
  }
  return {
    title: `require all WAL that ${others.join(', ')} received`,
    node: candidate,
    leavesClusterAlone: true,
    comesOfEarlier: true,
    check: async (ctx) => {
      if (ctx.isDryRun) return unknownUntil('the old primary is stopped')
      const ahead = await aheadOf(ctx)
      return ahead.length === 0 ? satisfied('nobody is ahead of it') : pending(tell(ahead))
    },
    apply: async (ctx) => {
      const deadline = Date.now() + patienceMs
      for (;;) {
        const ahead = await aheadOf(ctx)
        if (ahead.length === 0) return
        if (Date.now() > deadline) throw standbyAhead(ctx, candidate, ahead)
        await new Promise((resolve) => setTimeout(resolve, 50))
      }
    },
  }
}

interface Gap {
  readonly node: NodeName
  readonly bytes: number
}

function gapTo(own: NodeFacts | undefined, other: NodeFacts): Gap[] {
  const from = own === undefined ? null : receivedLsn(own)
  const to = receivedLsn(other)
  if (from === null || to === null || compareLsn(to, from) <= 0) return []
  return [{ node: other.name, bytes: lsnDistance(from, to) }]
}

const tell = (gaps: readonly Gap[]) => gaps.map(({ node, bytes }) => `${node} by ${bytes} bytes`).join(', ')

function standbyAhead(ctx: StepContext, candidate: NodeName, gaps: readonly Gap[]): ReplctlError {
  const sorted = gaps.toSorted((a, b) => b.bytes - a.bytes).map(({ node }) => node)
  const mayLead = (name: NodeName) => ctx.on(name).settings.promotable
  const first = sorted.find(mayLead) ?? sorted[0]
  const way =
    first === undefined || mayLead(first)
      ? `Promote the most advanced standby: replctl promote ${first}.`
      : `${first} may not lead: take "promotable: false" away from it in the inventory, then: replctl promote ${first}.`
  return new ReplctlError('standby-ahead', `refused to promote ${candidate}: ${first} has more WAL`, {
    detail: `Ahead of it: ${tell(gaps)}.`,
    hint: `${way} To give up what ${candidate} lacks: --allow-data-loss.`,
    node: candidate,
  })
}
