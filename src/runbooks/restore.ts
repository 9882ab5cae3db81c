import type { NodeSettings } from '../cluster/inventory.ts'
import { needsReclone } from '../cluster/judge-restore.ts'
import type { NodeName } from '../cluster/names.ts'
import { inOrder, type Plan, type Step, together } from '../engine/step.ts'
import type { ClusterInput } from '../steps/cluster-input.ts'
import { clearDrill, type DrillNotes, examineDrill, noteRowsOfPrimary, removeDrill } from '../steps/drill.ts'
import { ensureArchiving } from '../steps/ensure-archiving.ts'
import { ensureClusterRecord } from '../steps/ensure-cluster-record.ts'
import { ensureSettings } from '../steps/ensure-configuration.ts'
import { ensureHbaLines } from '../steps/ensure-hba-lines.ts'
import { ensureMarkedAsBuilt, ensureNoFenceMark } from '../steps/ensure-mark.ts'
import { ensurePassfile, ensureReplicationRole } from '../steps/ensure-replication-role.ts'
import { ensureRestoreDirectory } from '../steps/ensure-restore-directory.ts'
import { ensureStartGuard } from '../steps/ensure-start-guard.ts'
import { fenceInstance } from '../steps/fence-instance.ts'
import { type FenceCommand, fenceUnreachable } from '../steps/fence-unreachable.ts'
import { fetchBackup } from '../steps/fetch-backup.ts'
import { followWithArchive } from '../steps/follow-archive-stream.ts'
import { recoverInstance } from '../steps/recover-instance.ts'
import { ensureArchiveSlot } from '../steps/replication-slots.ts'
import { requireFreePort } from '../steps/require-environment.ts'
import { type AbsentPrimary, requireNoSignOfLife } from '../steps/require-no-sign-of-life.ts'
import {
  requireRestorePrograms,
  requireRestoreTarget,
  requireRoomForRestore,
} from '../steps/require-restore-place.ts'
import { forgetRestore, type Restore } from '../steps/restore-record.ts'
import {
  awaitTimelineArchived,
  openToCluster,
  requireNoOtherPrimary,
  settleAsMember,
  settleBeside,
} from '../steps/settle-restored.ts'

/** All that can refuse comes first. */
function preconditions(restore: Restore): Step[] {
  return [
    requireRestorePrograms(restore),
    requireRestoreTarget(restore),
    requireFreePort(restore.at),
    requireRoomForRestore(restore),
  ]
}

/** The copy on the node's disk, recovered to its target and opened, still alone. */
function recovered(input: ClusterInput, restore: Restore): Step[] {
  return [
    ...ensureArchiving(input, restore.node, { systemIdentifier: restore.choice.systemIdentifier }),
    ensureRestoreDirectory(restore),
    fetchBackup(restore),
    recoverInstance(restore),
  ]
}

/**
 * Restores a backup beside the cluster, into a directory and onto a port of its own. The instance recovers alone and is
 * opened only at the target; then it belongs to the operator. It archives nowhere and is no member of the cluster. Until
 * the end a failure takes everything back.
 */
export function restoreBeside(input: ClusterInput, restore: Restore): Plan {
  return inOrder([
    ...preconditions(restore),
    ...recovered(input, restore),
    settleBeside(restore),
    forgetRestore(restore),
  ])
}

/**
 * Tries a backup out: restores it into a scratch directory, recovers it to the end of the archive, reads all of it, compares
 * its rows with the primary's, and removes it. What it finds is its result; nothing of it stays.
 */
export function drill(
  input: ClusterInput,
  restore: Restore,
  primary: NodeName | null,
  notes: DrillNotes,
): Plan {
  return inOrder([
    clearDrill(restore),
    ...preconditions(restore),
    ...(primary === null ? [] : [noteRowsOfPrimary(restore, primary, notes)]),
    ...recovered(input, restore),
    examineDrill(restore, primary, notes),
    removeDrill(restore, notes),
  ])
}

/** What an unfinished restore, or drill, may have begun before its point of no return and leaves until it is taken back. */
export function takeBackRestore(input: ClusterInput, restore: Restore, fenced: readonly NodeName[]): Plan {
  return inOrder([
    ...fenced.map((other) => fenceInstance(other, restore.node, input, { wasRunning: false })),
    ensureRestoreDirectory(restore),
    fetchBackup(restore),
    recoverInstance(restore),
    ...(restore.isMember ? [] : [settleBeside(restore)]),
  ])
}

export interface DisasterWish {
  readonly restore: Restore
  /** Nodes that could come up as a primary: stopped ones are fenced, for others see `fence`. */
  readonly toFence: readonly NodeName[]
  readonly unreachable: readonly NodeSettings[]
  /** Those that led, whose hosts answer and hold no instance of them. */
  readonly absent: readonly AbsentPrimary[]
  readonly fence: FenceCommand | null
  readonly allowSplitBrain: boolean
  /** Nodes that cannot follow the restored one: told at the end. */
  readonly toReclone: readonly NodeName[]
  /** The other nodes that answer. */
  readonly others: readonly NodeName[]
}

/**
 * Brings a lost cluster back: restores a backup into a node's own, empty data directory and makes it the primary, on a
 * new timeline, archiving again. Its start with the cluster's own settings is the point of no return: from then on
 * applications may write. The other nodes have another past now and are cloned anew.
 */
export function restoreCluster(input: ClusterInput, wish: DisasterWish): Plan {
  const { restore, others } = wish
  const { node } = restore
  const { name } = node
  const { replication } = input.inventory
  return inOrder([
    ...preconditions(restore),
    ...wish.absent.map((one) => requireNoSignOfLife(one, [name, ...others])),
    ...wish.unreachable.map((oldPrimary) =>
      fenceUnreachable({
        ...{ oldPrimary, fence: wish.fence, allowSplitBrain: wish.allowSplitBrain },
        witnesses: [name, ...others],
      }),
    ),
    ...wish.toFence.map((other) => fenceInstance(other, node, input, { wasRunning: false })),
    ...recovered(input, restore),
    settleAsMember(restore),
    ensureSettings(name, input, []),
    ensureHbaLines(name, input),
    requireNoOtherPrimary(name, { ...wish, everybody: input.inventory.nodes.map((one) => one.name) }),
    openToCluster(restore),
    ensurePassfile(name, replication, name),
    ensureReplicationRole(name, replication),
    ...ensureStartGuard(name, input, [name]),
    ensureMarkedAsBuilt(name, { isNewPrimary: true }),
    ensureNoFenceMark(name),
    together([name, ...others].map((one) => ensureClusterRecord(one, { primary: name, members: [name] }))),
    ...ensureArchiveSlot(name, input.inventory),
    ...followWithArchive(input.inventory, name),
    awaitTimelineArchived(name, restore.archive),
    forgetRestore(
      restore,
      wish.toReclone.map((other) => needsReclone(other, name)),
    ),
  ])
}
