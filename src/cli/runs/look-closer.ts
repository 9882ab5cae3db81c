import type { NodeFacts, Survey } from '../../cluster/facts.ts'
import type { Inventory, NodeSettings } from '../../cluster/inventory.ts'
import { type Divergence, judgeDivergence } from '../../cluster/judge-divergence.ts'
import { rejoinUnderWay } from '../../cluster/rejoin-under-way.ts'
import { segmentSizeOf } from '../../cluster/segment-size.ts'
import { factsOf, hasDiverged, isRunningStandby, isWriter, receivedLsn } from '../../cluster/topology.ts'
import { findMissingCheckpoint } from '../../node/common-checkpoint.ts'
import { findMissingSegment, firstForeignSegment, readSegmentAges } from '../../node/missing-wal.ts'
import {
  isSameBranch,
  ownHistory,
  readWalEnd,
  readWalFiles,
  type WalFiles,
  walKeptFrom,
} from '../../node/own-wal.ts'
import { readSlotFiles, type SlotFile } from '../../node/slot-files.ts'
import { compareLsn, type Lsn } from '../../postgres/lsn.ts'
import {
  commonAncestor,
  parseTimelineHistory,
  type TimelineHistory,
} from '../../postgres/timeline-history.ts'
import { segmentNumber } from '../../postgres/wal-file.ts'
import { readNotedSlots } from '../../steps/foreign-slots.ts'
import type { ClusterSession } from '../cluster-session.ts'

export interface CloserLook {
  readonly divergence: Divergence | null
  readonly walKeptFrom: Lsn | null
  readonly needsWalFrom: Lsn | null
  readonly missingSegment: string | null
  readonly lacksCheckpointFrom: Lsn | null
  readonly hasRewindProgram: boolean
  readonly bootId: string
  /** In its data directory, and those that a run before had noted there. */
  readonly slots: readonly SlotFile[]
}

export interface Sides {
  readonly node: NodeSettings
  readonly primary: NodeSettings
  readonly upstream: NodeSettings
}

/** What a survey does not tell: the WAL files of both, read on their hosts. */
export async function lookCloser(
  { inventory, nodes }: ClusterSession,
  sides: Sides,
  survey: Survey,
): Promise<CloserLook> {
  const [node, primary, upstream] = [sides.node, sides.primary, sides.upstream].map(({ name }) => {
    const found = nodes.get(name)
    if (found === undefined) throw new RangeError(`no connection to node ${name}`)
    return { node: found, facts: factsOf(survey, name) }
  }) as [Side, Side, Side]
  const [files, kept, slots, noted] = await Promise.all([
    readWalFiles(node.node, node.facts),
    readWalFiles(upstream.node, upstream.facts),
    readSlotFiles(node.node),
    readNotedSlots(node.node, node.facts.home),
  ])
  const current = upstream.facts.instance?.currentLsn ?? receivedLsn(upstream.facts)
  const common = {
    walKeptFrom: current && walKeptFrom(kept.segments, current, segmentSizeOf(upstream.facts)),
    hasRewindProgram: files.hasRewindProgram,
    bootId: files.bootId,
    slots: [
      ...slots,
      ...noted
        .filter(({ name }) => slots.every((slot) => slot.name !== name))
        .map((slot) => ({ ...slot, type: 'physical' as const, isTemporary: false })),
    ],
  }
  const isWhole = node.facts.dataDirectoryState === 'instance' && node.facts.mark?.phase !== 'cloning'
  if (!isWhole || rejoinUnderWay(node.facts) !== null)
    return {
      ...common,
      divergence: null,
      needsWalFrom: null,
      missingSegment: null,
      lacksCheckpointFrom: null,
    }
  const history = ownHistory(node.facts, files)
  const divergence = await compare(node, primary, history, files)
  const needsWalFrom = needsFrom(node.facts)
  const missingSegment = await askArchive(inventory, node, upstream, divergence, {
    needsWalFrom,
    walKeptFrom: common.walKeptFrom,
  })
  const isToBeRewound = divergence.is === 'diverged' && !divergence.isTwinTimeline
  const fork = isToBeRewound ? divergence.forkLsn : null
  const lacksCheckpointFrom =
    fork === null
      ? null
      : await findMissingCheckpoint(node.node, node.facts, { fork, history, files: files.segments })
  return { ...common, divergence, needsWalFrom, missingSegment, lacksCheckpointFrom }
}

/**
 * One question to the archive, and only where the upstream no longer has what the node needs. One that is rewound begins at the fork, on
 * the upstream's line; one that follows has some of it itself.
 */
async function askArchive(
  { archive }: Inventory,
  { node, facts }: Side,
  upstream: Side,
  divergence: Divergence,
  { needsWalFrom, walKeptFrom }: Pick<CloserLook, 'needsWalFrom' | 'walKeptFrom'>,
): Promise<string | null> {
  const isDiverged = divergence.is === 'diverged'
  const from = isDiverged ? divergence.forkLsn : needsWalFrom
  const leads = upstream.facts.instance
  if (archive === undefined || from === null || walKeptFrom === null || leads === null) return null
  if (compareLsn(walKeptFrom, from) <= 0) return null
  const size = segmentSizeOf(facts)
  return await findMissingSegment({
    ...{ node, facts, archive, kept: segmentNumber(walKeptFrom, size) },
    needs: isDiverged
      ? segmentNumber(from, size)
      : firstForeignSegment(await readSegmentAges(node), from, size),
    history: parseTimelineHistory(leads.history ?? '', leads.timeline),
  })
}

interface Side {
  readonly node: NonNullable<ReturnType<ClusterSession['nodes']['get']>>
  readonly facts: NodeFacts
}

async function compare(
  node: Side,
  primary: Side,
  history: TimelineHistory,
  files: WalFiles,
): Promise<Divergence> {
  const { facts } = node
  const { timeline, history: text } = primary.facts.instance ?? { timeline: 1, history: null }
  const theirs = parseTimelineHistory(text ?? '', timeline)
  const ancestor = commonAncestor(history, theirs)
  const isStopped = facts.instance === null
  const end =
    isStopped && ancestor?.lsn != null && files.hasWaldumpProgram
      ? await readWalEnd(node.node, facts, history.timeline, ancestor.lsn)
      : { lastRecord: 'unknown' as const, endLsn: facts.instance?.currentLsn ?? null }
  return judgeDivergence(
    {
      history,
      control: facts.control,
      isWriter: isWriter(facts),
      receivedLsn: isRunningStandby(facts) ? effectivelyReceived(facts, primary.facts) : null,
      ...end,
      isSameBranch:
        ancestor?.timeline === history.timeline ? await isSameBranch([node, primary], history) : null,
      mayHaveLed: facts.fence !== null || !facts.hasStandbySignal,
    },
    theirs,
  )
}

/** A torn piece of a record that a dying primary sent is overwritten when the standby follows. */
function effectivelyReceived(facts: NodeFacts, primary: NodeFacts): Lsn | null {
  return hasDiverged(facts, primary) ? receivedLsn(facts) : (facts.instance?.replayLsn ?? null)
}

/** Where replay begins when it is started, or goes on where it runs. */
function needsFrom({ instance, control }: NodeFacts): Lsn | null {
  return instance?.receiver?.status === 'streaming'
    ? null
    : (instance?.replayLsn ?? control?.minRecoveryEndLsn ?? control?.redoLsn ?? null)
}
