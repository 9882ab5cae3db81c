import type { ClusterRecord, NodeFacts } from '../../cluster/facts.ts'
import type { PromotionDecision } from '../../cluster/judge-promotion.ts'
import { gapAfterStop } from '../../cluster/known-gap.ts'
import type { NodeName } from '../../cluster/names.ts'
import { factsOf } from '../../cluster/topology.ts'
import type { Observation } from '../operation.ts'

/** Who led last: as recorded, where that one is among those who might have. */
export function oldPrimaryOf(
  { oldPrimaries }: PromotionDecision,
  record: ClusterRecord | null,
): NodeName | null {
  const recorded = oldPrimaries.find((one) => one.node === record?.primary)
  return (recorded ?? oldPrimaries[0])?.node ?? record?.primary ?? null
}

/** Proved unable to write: on its own host, or by the fence command's own word. */
export function isFenced(
  { oldPrimaries }: PromotionDecision,
  node: NodeName | null,
  { unwritable, fromOutside }: { unwritable: readonly NodeName[]; fromOutside: ReadonlySet<NodeName> },
): boolean {
  const state = oldPrimaries.find((one) => one.node === node)?.state
  if (state === undefined || node === null) return false
  const isThere = (state === 'stopped' || state === 'to-stop') && !unwritable.includes(node)
  return isThere || fromOutside.has(node)
}

/** What the disks of former primaries told; and what others were seen to have. */
function lostBytes(
  after: Observation,
  judged: PromotionDecision,
  leader: NodeFacts | undefined,
  measured: readonly number[],
): number | null {
  const seen = seenLostBytes(after, judged, leader)
  return measured.length === 0 ? seen : Math.max(seen ?? 0, ...measured)
}

/** What was known before, or, where a primary had to be stopped which wrote on until then, what is known since it stands. */
function seenLostBytes(
  { survey }: Observation,
  { oldPrimaries, isAlreadyPrimary, lostBytes: known }: PromotionDecision,
  leader: NodeFacts | undefined,
): number | null {
  const stopped = oldPrimaries.filter(({ state }) => state === 'to-stop')
  if (isAlreadyPrimary || leader === undefined || stopped.length === 0) return known
  const gaps = stopped.map(({ node }) => gapAfterStop(factsOf(survey, node), leader))
  return gaps.includes(null) ? known : Math.max(...gaps.map((gap) => gap ?? 0))
}

/** The `result` of a promotion; see the contract. */
export function promotionResult(
  after: Observation,
  judged: PromotionDecision,
  done: {
    oldPrimary: string | null
    candidate: string
    measured: readonly number[]
    repointed: readonly string[]
    isFenced: boolean
    isRepeated: boolean
  },
): object {
  const facts = after.survey.find((one) => one.name === done.candidate)
  return {
    old_primary: done.oldPrimary,
    new_primary: done.candidate,
    timeline: facts?.instance?.timeline ?? null,
    lsn: facts?.instance?.currentLsn ?? null,
    repointed: done.repointed,
    fenced: done.isFenced,
    write_outage_ms: null,
    lost_bytes: lostBytes(after, judged, facts, done.measured),
    candidates: (done.isRepeated ? [] : judged.choice.verdicts).map((verdict) => ({
      node: verdict.node,
      can_lead: verdict.canLead,
      reason: verdict.reason,
      received_lsn: verdict.receivedLsn,
    })),
  }
}
