import { wantsLogicalSlots } from '../cluster/failover-slots.ts'
import type { NodeSettings } from '../cluster/inventory.ts'
import { inWaves, type NewOrder, type Placement } from '../cluster/judge-switchover.ts'
import {
  asOne,
  comesOfEarlier,
  inOrder,
  mayBeLeftBehind,
  type Plan,
  type Step,
  together,
} from '../engine/step.ts'
import { archiveTimelineEnd } from '../steps/archive-timeline-end.ts'
import { awaitBystander, awaitStreaming } from '../steps/await-streaming.ts'
import { ensureCheckpointOnTimeline, ensureRecentCheckpoint } from '../steps/checkpoint.ts'
import type { ClusterInput } from '../steps/cluster-input.ts'
import { awaitPostmasterEnd } from '../steps/end-postmaster.ts'
import { ensureClusterRecord } from '../steps/ensure-cluster-record.ts'
import { ensureSettings, requireNamesToCome } from '../steps/ensure-configuration.ts'
import { ensureHbaLines } from '../steps/ensure-hba-lines.ts'
import { ensureNoFenceMark } from '../steps/ensure-mark.ts'
import { ensureNoAwaitedSlots } from '../steps/ensure-no-awaited-slots.ts'
import { ensureStandbySettings } from '../steps/ensure-standby-settings.ts'
import { followWithArchive } from '../steps/follow-archive-stream.ts'
import type { Handover } from '../steps/hand-over.ts'
import { onceStopped, prepareDemotion } from '../steps/prepare-demotion.ts'
import {
  dropCopiedSlots,
  dropStaleSlots,
  ensureWantedSlots,
  whileItRuns,
} from '../steps/replication-slots.ts'
import {
  reportOpenWork,
  requireArchiveKeepsUp,
  requireServedSubscribers,
} from '../steps/require-quiet-primary.ts'
import { requireReplicationLogin } from '../steps/require-replication-login.ts'
import {
  requireFitSuccessor,
  requireFlowingWal,
  requireRoomForFollowers,
  requireRoomForWal,
  requireSettingsParity,
} from '../steps/require-successor.ts'
import { reportKeptWal } from '../steps/require-wal.ts'
import { startInstance } from '../steps/start-instance.ts'

export interface SwitchoverPlan {
  readonly oldPrimary: NodeSettings
  readonly candidate: NodeSettings
  /** Where everybody stands afterwards. */
  readonly order: NewOrder
  /** `--allow-unarchived`. */
  readonly allowUnarchived: boolean
  readonly handover: Handover
}

/**
 * Exchanges the roles of the primary and a standby. Every precondition is tried first, the way back above all. What the
 * exchange needs is prepared while writes go on; then the primary is stopped, the candidate is seen to have its shutdown
 * checkpoint, and is promoted: the point of no return. Until then every failure puts the old primary back. Afterwards the
 * others follow and the old primary comes back as a standby, while writes are possible again.
 * By hand: `pg_ctl stop -m fast` on the primary, compare "Latest checkpoint location" of pg_controldata with
 * pg_last_wal_replay_lsn() on the standby, `pg_ctl promote` there, point the others at it.
 */
export function switchover(input: ClusterInput, wish: SwitchoverPlan): Plan {
  const { oldPrimary, candidate, order, handover } = wish
  const { replication } = input.inventory
  const exchange = { oldPrimary: oldPrimary.name, candidate: candidate.name }
  const placements = [order.returning, ...order.following]
  const holders = [candidate, ...placements.map(({ node }) => node)].map((node) => node.name)
  const others = holders.filter((name) => name !== oldPrimary.name)
  const followers = [...placements, ...order.away].filter(({ upstream }) => upstream.name === candidate.name)
  const moved = order.following.filter(({ upstream }) => upstream.name === candidate.name)
  return inOrder([
    requireFitSuccessor(exchange, candidate, input.inventory),
    requireNamesToCome(candidate.name),
    requireSettingsParity(
      exchange,
      order.following.map(({ node }) => node.name),
    ),
    requireRoomForFollowers(
      exchange,
      followers.map(({ node }) => node),
      replication.slots,
    ),
    requireRoomForWal(exchange),
    requireArchiveKeepsUp(oldPrimary.name, candidate.name, input.inventory, wish.allowUnarchived),
    requireServedSubscribers(oldPrimary.name, input.inventory),
    together([
      ...[order.returning, ...moved].map(({ node, upstream }) =>
        requireReplicationLogin(node.name, upstream, input.inventory),
      ),
      reportOpenWork(oldPrimary.name, candidate.name),
      requireFlowingWal(exchange),
    ]),

    // Prepared while writes go on; the mark first, so that whoever finds an interrupted switchover knows the two.
    prepareDemotion(exchange, order.returning.upstream, input),
    // Slots before the restartpoint: it would remove WAL that a standby which lags needs.
    asOne([
      ...ensureWantedSlots(oldPrimary.name, input.inventory, order.roles).map(whileItRuns),
      // A candidate that dies now must not keep the old primary from its post.
      ...[
        ...others.flatMap((name) => ensureWantedSlots(name, input.inventory, order.roles)),
        // With the names of its new standbys before it accepts writes: a commit right after is as safe as one before.
        ensureSettings(candidate.name, input, order.confirming),
        ensureHbaLines(candidate.name, input),
      ].map(mayBeLeftBehind),
    ]),
    ensureRecentCheckpoint(oldPrimary.name, exchange),
    ensureRecentCheckpoint(candidate.name, exchange),

    handover.stopPrimary(),
    handover.awaitShutdownCheckpoint(),
    handover.promoteCandidate(),

    together([
      together(
        inWaves(moved, [candidate.name]).flatMap((wave) => wave.map((one) => inOrder(follow(input, one)))),
      ),
      comeBack(input, order),
      // A checkpoint removes what the archive may not have yet.
      inOrder([
        ...archiveTimelineEnd(input, candidate.name),
        comesOfEarlier(ensureCheckpointOnTimeline(candidate.name)),
      ]),
      ...followWithArchive(input.inventory, candidate.name),
    ]),
    // Those who receive from others again, the old primary among them.
    ...inWaves(
      order.following.filter((one) => !moved.includes(one)),
      [candidate.name, oldPrimary.name, ...moved.map(({ node }) => node.name)],
    ).map((wave) => together(wave.map((one) => inOrder(follow(input, one))))),
    together(
      holders.map((name) => {
        const step = dropStaleSlots(name, input.inventory, order.roles)
        return name === oldPrimary.name && replication.slots ? onceStopped(step) : step
      }),
    ),
    // After the slots: what is said of them is what was read back.
    together(
      [...order.away, ...order.following].map((one) =>
        reportKeptWal(one.node, one.upstream.name, input.inventory),
      ),
    ),
    together([
      ...holders.map((name) =>
        ensureClusterRecord(name, { primary: candidate.name, members: order.members }),
      ),
      onceStopped(ensureNoFenceMark(oldPrimary.name)),
      // One from an earlier life: a node that leads is fenced for nobody.
      ensureNoFenceMark(candidate.name),
    ]),
  ])
}

/** The same once more: steps are known by their titles. */
const again = (step: Step): Step => ({ ...step, title: `still ${step.title}` })

/** Another standby, told to receive from its new upstream: by reload from 13 on, by restart before. */
function follow(input: ClusterInput, { node, upstream }: Placement): Step[] {
  return [ensureStandbySettings(node.name, upstream, input), awaitBystander(node.name, upstream.name)]
}

/** A primary that has handed over, back as a standby: it holds nothing of its own, so it only has to follow. */
function comeBack(input: ClusterInput, { returning: { node, upstream }, roles, away }: NewOrder): Plan {
  const missing = away.map((one) => one.node.name)
  return inOrder([
    awaitPostmasterEnd(node.name, input.inventory, missing),
    ...(wantsLogicalSlots(input.inventory) ? [ensureNoAwaitedSlots(node.name)] : []),
    // Prepared before the stop.
    comesOfEarlier(ensureStandbySettings(node.name, upstream, input)),
    onceStopped(startInstance(node.name)),
    ...ensureWantedSlots(node.name, input.inventory, roles).map(again),
    awaitStreaming(node.name, upstream.name),
    dropCopiedSlots(node.name, upstream.name),
  ])
}
