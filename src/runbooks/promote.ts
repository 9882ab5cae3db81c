import { primaryWaitsForStandbys } from '../cluster/failover-slots.ts'
import type { NodeSettings } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import type { Roles } from '../cluster/roles.ts'
import { comesOfEarlier, inOrder, mayBeLeftBehind, type Plan, type Step, together } from '../engine/step.ts'
import type { PromotionMethod } from '../postgres/versions.ts'
import { archiveTimelineEnd } from '../steps/archive-timeline-end.ts'
import { awaitBystander } from '../steps/await-streaming.ts'
import { ensureCheckpointOnTimeline } from '../steps/checkpoint.ts'
import type { ClusterInput } from '../steps/cluster-input.ts'
import { ensureClusterRecord } from '../steps/ensure-cluster-record.ts'
import { ensureSettings, requireNamesToCome } from '../steps/ensure-configuration.ts'
import { ensureHbaLines } from '../steps/ensure-hba-lines.ts'
import { ensureNoFenceMark } from '../steps/ensure-mark.ts'
import { ensureStandbySettings } from '../steps/ensure-standby-settings.ts'
import { ensureStartGuard } from '../steps/ensure-start-guard.ts'
import { type FoundInstance, fenceInstance } from '../steps/fence-instance.ts'
import { type FenceCommand, fenceUnreachable } from '../steps/fence-unreachable.ts'
import { type ArchivedEnd, fetchArchivedEnd, requireArchivedEnd } from '../steps/fetch-archived-end.ts'
import { fetchMissingWal } from '../steps/fetch-missing-wal.ts'
import { followWithArchive } from '../steps/follow-archive-stream.ts'
import { measureLoss } from '../steps/measure-loss.ts'
import { promoteInstance } from '../steps/promote-instance.ts'
import { dropStaleSlots, ensureArchiveSlot, ensureReplicationSlot } from '../steps/replication-slots.ts'
import { requireMostAdvanced } from '../steps/require-most-advanced.ts'
import { type AbsentPrimary, requireNoSignOfLife } from '../steps/require-no-sign-of-life.ts'
import { reportKeptWal } from '../steps/require-wal.ts'
import { slotsBeforePromotion } from '../steps/slots-before-promotion.ts'

export interface PromoteWish {
  readonly candidate: NodeSettings
  readonly method: PromotionMethod
  /** Old primaries whose hosts answer: stopped and fenced by replctl. */
  readonly toFence: readonly { readonly node: NodeSettings; readonly found: FoundInstance }[]
  /** Old primaries whose hosts answer and hold no instance of them. */
  readonly absent: readonly AbsentPrimary[]
  /** Old primaries whose hosts do not answer. */
  readonly unreachable: readonly NodeSettings[]
  /** Old primaries whose hosts answer, and in whose data directories nothing can be written: stopped by `toFence` where they run. */
  readonly unwritable: readonly NodeSettings[]
  /** Everybody else who can look for signs of life of an old primary, whether or not it is to follow the candidate. */
  readonly lookouts: readonly NodeName[]
  /** Those of them that are of this cluster: none of them may lead beside the candidate. */
  readonly others: readonly NodeName[]
  readonly fence: FenceCommand | null
  /** Called for each of those that the fence command fenced. */
  readonly onFenced: (node: NodeName) => void
  /** Called for each of `toFence` with the bytes of WAL that it has and the candidate lacks, where its files tell. */
  readonly onLossMeasured: (node: NodeName, bytes: number) => void
  readonly allowSplitBrain: boolean
  /** Running standbys beside the candidate, with whom they shall receive from afterwards. */
  readonly standbys: readonly { readonly node: NodeSettings; readonly upstream: NodeSettings }[]
  /** Standbys that are away now: WAL is kept for them where they will ask for it, so that they can follow when they are back. */
  readonly away: readonly { readonly node: NodeSettings; readonly upstream: NodeSettings }[]
  /** Standbys that are not meant to lead, from which the candidate gets what it lacks; and whom it received from so far. */
  readonly reserves: readonly NodeSettings[]
  readonly former: NodeSettings | null
  /** Standbys that may have got WAL after the survey, so that the candidate is compared with them once more. */
  readonly rivals: readonly NodeName[]
  /** Whether the promotion depends on what an archive received to which WAL is streamed. */
  readonly archivedEnd: ArchivedEnd
  /** Whom everybody receives from afterwards: no slot of replctl's own is left that this does not want. */
  readonly roles: Roles
  /** Nodes that are part of the cluster afterwards. */
  readonly members: readonly NodeName[]
  /** Members that shall confirm commits in sync and quorum mode. */
  readonly confirming: readonly NodeName[]
  /** Where the candidate leads already and others wait for it: on record before it is in force. */
  readonly announced: readonly Step[]
}

/**
 * Fails over to a standby. Every old primary is first proved unable to write: stopped and fenced where its host
 * answers and lets it be written there, else by the fence command. Then comes the promotion, the point of no return, and with it the slots that keep WAL for
 * the others. Everything after it (the other standbys, a checkpoint) happens while writes are possible again, and is finished by
 * running the command again.
 */
export function promote(input: ClusterInput, wish: PromoteWish): Plan {
  const { candidate, standbys } = wish
  const { name } = candidate
  const witnesses = [name, ...standbys.map(({ node }) => node.name)]
  const lookouts = [name, ...wish.lookouts]
  const { replication } = input.inventory
  const receivers = replication.slots ? [...standbys, ...wish.away] : []
  const slots = slotsBeforePromotion(
    name,
    receivers.filter(({ upstream }) => upstream.name === name).map(({ node }) => node),
  )
  const fenceFromOutside = (oldPrimary: NodeSettings, isUnwritable: boolean) =>
    fenceUnreachable({
      ...{ oldPrimary, isUnwritable, witnesses: lookouts, fence: wish.fence, onFenced: wish.onFenced },
      allowSplitBrain: wish.allowSplitBrain,
    })
  const isAwaited = primaryWaitsForStandbys(input.inventory)
  return inOrder([
    // First those that may be refused: nothing has been changed then.
    requireNamesToCome(name),
    ...requireArchivedEnd(name, input.inventory, wish.archivedEnd),
    ...wish.absent.map((one) => requireNoSignOfLife(one, lookouts)),
    ...wish.unreachable.map((oldPrimary) => fenceFromOutside(oldPrimary, false)),
    ...wish.toFence.map(({ node, found }) => fenceInstance(node.name, candidate, input, found)),
    ...wish.unwritable.map((oldPrimary) => fenceFromOutside(oldPrimary, true)),
    ...(wish.reserves.length === 0
      ? []
      : [mayBeLeftBehind(fetchMissingWal(candidate, wish.reserves, wish.former, input))]),
    ...(wish.rivals.length === 0 ? [] : [requireMostAdvanced(name, wish.rivals)]),
    ...fetchArchivedEnd(name, input.inventory, wish.archivedEnd),
    // A commit confirmed right after the promotion must be as safe as one before it, and so must what a subscriber is sent.
    ...(wish.announced.length === 0 ? [] : [together(wish.announced)]),
    ...(isAwaited ? [ensureSettings(name, input, wish.confirming)] : []),
    ...ensureArchiveSlot(name, input.inventory).map(mayBeLeftBehind),
    promoteInstance(name, wish.method, input.inventory, slots, wish.others),
    together([
      inOrder([
        together([
          ...slots.steps,
          ...receivers
            .filter(({ upstream }) => upstream.name !== name)
            .map(({ node, upstream }) => ensureReplicationSlot(upstream.name, node.slotName, node.name)),
        ]),
        ...(isAwaited ? [] : [ensureSettings(name, input, wish.confirming)]),
        ensureHbaLines(name, input),
        together(
          standbys.map(({ node, upstream }) =>
            inOrder([
              ensureStandbySettings(node.name, upstream, input),
              awaitBystander(node.name, upstream.name),
            ]),
          ),
        ),
      ]),
      // A checkpoint removes what the archive may not have yet.
      inOrder([...archiveTimelineEnd(input, name), comesOfEarlier(ensureCheckpointOnTimeline(name))]),
      ...followWithArchive(input.inventory, name),
      ...wish.toFence.map(({ node }) => measureLoss(node.name, name, wish.onLossMeasured)),
    ]),
    together(witnesses.map((node) => dropStaleSlots(node, input.inventory, wish.roles))),
    // After the slots: what is said of them is what was read back.
    together(
      [...wish.away, ...standbys].map((one) => reportKeptWal(one.node, one.upstream.name, input.inventory)),
    ),
    together(witnesses.flatMap((node) => ensureStartGuard(node, input, wish.members))),
    together([
      ...witnesses.map((node) => ensureClusterRecord(node, { primary: name, members: wish.members })),
      // One from an earlier life: a node that leads is fenced for nobody.
      ensureNoFenceMark(name),
    ]),
  ])
}
