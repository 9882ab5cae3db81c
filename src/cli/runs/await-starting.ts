import { setTimeout as pause } from 'node:timers/promises'
import { chooseCandidate } from '../../cluster/choose-candidate.ts'
import type { NodeFacts, Survey } from '../../cluster/facts.ts'
import type { Inventory } from '../../cluster/inventory.ts'
import type { NodeName } from '../../cluster/names.ts'
import { observeTopology } from '../../cluster/topology.ts'
import type { Ripening } from '../operation.ts'

/** One that is only starting may have more WAL than those who can lead already; no longer than this do writes wait for it. */
const worthMs = 3_000
const lookEveryMs = 100

export interface StartingWait extends Ripening {
  readonly inventory: Inventory
  /** Who shall lead, where somebody was named. */
  readonly wanted: NodeName | undefined
  /** The operator's --timeout: so long is waited where nobody else can lead. */
  readonly timeoutMs: number
  readonly signal: AbortSignal
}

/**
 * The survey by which somebody is chosen to lead: after all hosts lost their power, or a standby was restarted, PostgreSQL says
 * for a moment that it is starting up, and no more. Where somebody leads there is nothing to choose.
 */
export async function awaitStarting(survey: Survey, wait: StartingWait): Promise<Survey> {
  const startedAt = performance.now()
  let seen = survey
  let hasTold = false
  for (;;) {
    const starting = seen.filter(isStartingStandby).map(({ name }) => name)
    if (starting.length === 0 || seen.some(({ instance }) => instance?.isInRecovery === false)) return seen
    const limitMs = canSomebodyLead(seen, wait) ? Math.min(worthMs, wait.timeoutMs) : wait.timeoutMs
    if (performance.now() - startedAt >= limitMs || wait.signal.aborted) return seen
    if (!hasTold) wait.tell(`PostgreSQL is starting on ${starting.join(', ')}`)
    hasTold = true
    await pause(lookEveryMs)
    seen = await Promise.all(
      seen.map((facts) => (starting.includes(facts.name) ? wait.lookAgain(facts.name) : facts)),
    )
  }
}

function isStartingStandby({ instance, postmaster, hasStandbySignal }: NodeFacts): boolean {
  if (instance !== null || postmaster === null || !hasStandbySignal) return false
  return postmaster.isAlive && !postmaster.isFrozen && postmaster.status === 'starting'
}

function canSomebodyLead(survey: Survey, { inventory, wanted }: StartingWait): boolean {
  const { verdicts } = chooseCandidate(observeTopology(inventory, survey))
  return verdicts.some(({ node, canLead }) => canLead && (wanted === undefined || node === wanted))
}
