import type { NodeSettings } from '../cluster/inventory.ts'
import type { RejoinMethod } from '../cluster/judge-rejoin.ts'
import type { NodeName } from '../cluster/names.ts'
import type { Roles } from '../cluster/roles.ts'
import { inOrder, type Plan, type Step, together } from '../engine/step.ts'
import { archiveOwed } from '../steps/archive-owed.ts'
import { requireArchiveHost } from '../steps/archive-presence.ts'
import { asOnceStopped, keptThroughRewind } from '../steps/as-it-will-be.ts'
import { ensureCheckpointOnTimeline } from '../steps/checkpoint.ts'
import type { ClusterInput } from '../steps/cluster-input.ts'
import { copyConfigurationFiles } from '../steps/copy-configuration-files.ts'
import { endEarlierRejoin, endRejoin, removeDirectoryAside } from '../steps/end-rejoin.ts'
import { announceConfirming, ensureClusterRecord } from '../steps/ensure-cluster-record.ts'
import { ensureSettings } from '../steps/ensure-configuration.ts'
import { ensureHbaLines } from '../steps/ensure-hba-lines.ts'
import { ensurePassfile } from '../steps/ensure-replication-role.ts'
import { ensureStartGuard } from '../steps/ensure-start-guard.ts'
import { fenceInstance, fenceTitle, onceFenced } from '../steps/fence-instance.ts'
import { noteForeignSlots, remakeForeignSlots } from '../steps/foreign-slots.ts'
import { prepareRewind } from '../steps/prepare-rewind.ts'
import { recoverInIsolation } from '../steps/recover-in-isolation.ts'
import { dropStaleSlots, ensureReplicationSlot } from '../steps/replication-slots.ts'
import { requireSameMajorVersion } from '../steps/require-binaries.ts'
import {
  requireRejoinable,
  requireTablespacePlaces,
  stopStandbyForRejoin,
} from '../steps/require-rejoinable.ts'
import { requireReplicationLogin } from '../steps/require-replication-login.ts'
import { type Lost, putBackOwnFiles, rewindDataDirectory } from '../steps/rewind-data-directory.ts'
import { dropRewindLogin, ensureRewindLogin } from '../steps/rewind-login.ts'
import { awaitDownstream, type Downstream, keepSlotForDownstream } from '../steps/serve-downstream.ts'
import {
  afterRecloning,
  afterSettingAside,
  requireRoomForSecondCopy,
  setDataDirectoryAside,
  takeOwnFilesOver,
} from '../steps/set-data-directory-aside.ts'
import { setTimelineAsideInArchive } from '../steps/set-timeline-aside.ts'
import { tellArchiveMembers } from '../steps/tell-archive-members.ts'
import { copySteps, standbyConfiguration, standbySteps, startSteps } from './add-standby.ts'

export interface RejoinWish extends Lost {
  readonly node: NodeSettings
  readonly primary: NodeSettings
  /** Whom it receives from afterwards. */
  readonly upstream: NodeSettings
  readonly method: Exclude<RejoinMethod, 'none'>
  readonly reasons: readonly string[]
  /** `writer`: it answers as a primary beside the new one; `standby`: it runs in recovery. */
  readonly runsAs: 'writer' | 'standby' | 'stopped'
  /** It was a primary and has not been fenced for the one that leads now. */
  readonly isToBeFenced: boolean
  /** Writes out what only this node has, before anything is discarded; nothing where it has nothing of its own. */
  readonly salvage: readonly Step[]
  /** An earlier run had begun to replace what is in the data directory. */
  readonly isContinued: boolean
  /** An earlier run was interrupted behind what it discarded: what this one does to the data is told with that. */
  readonly isUntold: boolean
  /** All that the old data directory holds is elsewhere, too. */
  readonly isRedundant: boolean
  /** Who receives from whom afterwards: no slot of replctl's own is left that this does not want. */
  readonly roles: Roles
  readonly members: readonly NodeName[]
  /** Standbys that confirm commits in sync and quorum mode afterwards. */
  readonly confirming: readonly NodeName[]
  /** Members that run, the node not among them. */
  readonly running: readonly NodeName[]
  /** Where its data becomes a copy: who is to receive from it afterwards. */
  readonly downstream: readonly NodeSettings[]
  /** Those of them that may come back to it by themselves, and are told of where they do not. */
  readonly awaited: readonly NodeSettings[]
}

/**
 * Brings a former or diverged member back as a standby, the cheapest way that is safe: it follows as it is where it holds
 * nothing of its own; else what only it has is written out first, and pg_rewind takes it back to the fork, or it is cloned
 * anew. A rewind is the point of no return: what is stopped in it cannot be started, and is gone on with by the same
 * command. A clone leaves the old data directory beside the new one until that streams.
 */
export function rejoin(input: ClusterInput, wish: RejoinWish): Plan {
  const { node, primary, upstream, running, members, confirming } = wish
  const { replication } = input.inventory
  const { name } = node
  const isReplaced = becomesCopy(wish)
  return inOrder([
    requireRejoinable({
      ...{ node: name, primary: primary.name, reasons: wish.reasons },
      isSecondWriter: wish.runsAs === 'writer',
      isRestarted: isReplaced || wish.runsAs !== 'standby',
    }),
    ...requireArchiveHost(input, node),
    requireSameMajorVersion(name, primary.name),
    ...(wish.method === 'reclone'
      ? [requireRoomForSecondCopy(name, primary.name)]
      : [requireTablespacePlaces(name, primary.name)]),
    together(running.map((one) => ensureHbaLines(one, input))),
    ensurePassfile(name, replication, primary.name),
    requireReplicationLogin(name, upstream, input.inventory),
    ...(upstream.name === primary.name ? [] : [requireReplicationLogin(name, primary, input.inventory)]),
    // From now on WAL is kept for it; what it needs from before is there, or in the archive.
    ...(replication.slots ? [ensureReplicationSlot(upstream.name, node.slotName, name)] : []),
    ...(wish.isToBeFenced && !wish.isContinued
      ? wayBack(input, wish).map((step) => afterFencing(step, input, wish))
      : wayBack(input, wish)),
    remakeForeignSlots(name, input.inventory, wish.roles, { isReplaced }),
    // None of them is left in what became a copy of another node's.
    ...(replication.slots ? below(wish, wish.downstream).map(keepSlotForDownstream) : []),
    removeDirectoryAside(name, { isReplaced: wish.method === 'reclone' }),
    dropRewindLogin(primary, node, input, { isToBeMade: wish.method === 'rewind' }),
    together(
      [...running, name].map((one) =>
        dropStaleSlots(one, input.inventory, wish.roles, { isReplaced: one === name && isReplaced }),
      ),
    ),
    together(announceConfirming([...running, name], primary.name, input, confirming)),
    ensureSettings(primary.name, input, confirming),
    together([...running, name].flatMap((one) => ensureStartGuard(one, input, members))),
    together([...running, name].map((one) => ensureClusterRecord(one, { primary: primary.name, members }))),
    ...tellArchiveMembers(input.inventory, primary.name, members),
    together(below(wish, wish.awaited).map((one) => awaitDownstream(one, input.inventory))),
    endRejoin(name, { isReplaced }),
  ])
}

/** The fencing itself is checked as the node is now. */
const afterFencing = (step: Step, input: ClusterInput, { node, primary }: RejoinWish): Step =>
  step.node === node.name && step.title !== fenceTitle(primary.name) ? onceFenced(step, primary, input) : step

/** A copy of the primary's data takes the place of its own: no slot of before is in it. */
const becomesCopy = ({ method }: RejoinWish): boolean => method !== 'follow'

const below = ({ node, primary }: RejoinWish, nodes: readonly NodeSettings[]): Downstream[] =>
  nodes.map((one) => ({ node: one, upstream: node.name, primary: primary.name }))

function wayBack(input: ClusterInput, wish: RejoinWish): Step[] {
  const { node, primary, upstream } = wish
  const standby = { node, upstream, isReclone: becomesCopy(wish) }
  // Should it ever lead, whoever confirms now would, and the one that leads now.
  const confirming = [...wish.confirming, primary.name]
  if (wish.method === 'follow') {
    return [...archiveOwed(input, node.name, null), ...standbySteps(input, primary, standby, confirming)]
  }
  const configuration = () => standbyConfiguration(input, primary, standby, confirming)
  if (wish.method === 'reclone') {
    return [
      ...stopAndSave(input, wish),
      setDataDirectoryAside({ ...wish, primary: primary.name }),
      ...copySteps(input, { node, upstream, source: upstream }).map(afterSettingAside),
      takeOwnFilesOver(node),
      ...[
        copyConfigurationFiles(node.name, upstream.name),
        ...standbySteps(input, primary, standby, confirming),
      ].map(afterRecloning),
    ]
  }
  return [
    ...stopAndSave(input, wish),
    // A source that was just promoted shows its new timeline in pg_control only after a checkpoint.
    ensureCheckpointOnTimeline(primary.name),
    ...(wish.isContinued
      ? []
      : [
          ...configuration().map(asOnceStopped),
          recoverInIsolation(node.name, { isSalvaged: wish.salvage.length > 0 }),
        ]),
    ensureRewindLogin(primary, node, input),
    ...(wish.isContinued ? [] : [prepareRewind(node, primary, input)]),
    rewindDataDirectory(node, primary, input, wish),
    putBackOwnFiles(node),
    ...(wish.isContinued ? configuration() : configuration().map(keptThroughRewind)),
    ...startSteps(primary, standby).map(asOnceStopped),
  ]
}

/** It stands still, cannot come up read-write, and what only it has is saved, before anything of it is touched. */
function stopAndSave(input: ClusterInput, wish: RejoinWish): Step[] {
  const { node, primary } = wish
  // Where an earlier run stopped a standby, this one may have to start it again: it is taken back by `abort`.
  const stop = wish.runsAs === 'writer' ? [] : [stopStandbyForRejoin(node)]
  const note = becomesCopy(wish) ? [noteForeignSlots(node.name, input.inventory, wish.roles, wish)] : []
  if (wish.isContinued) return [...stop, ...note]
  return [
    ...(wish.isToBeFenced
      ? [keepFenced(fenceInstance(node.name, primary, input, { wasRunning: false }), wish)]
      : []),
    ...stop,
    ...(wish.forkLsn === null ? [] : archiveOwed(input, node.name, wish.forkLsn)),
    ...wish.salvage,
    ...setTimelineAsideInArchive(input, node, primary),
    ...note,
    endEarlierRejoin(node.name, wish),
  ]
}

/**
 * A former primary stays fenced whatever comes after: taking that back would make a second writer. Where it accepted writes
 * until now there is only forward.
 */
function keepFenced(step: Step, { runsAs }: RejoinWish): Step {
  const { undo: _, ...rest } = step
  return runsAs === 'writer' ? { ...rest, pointOfNoReturn: true } : rest
}
