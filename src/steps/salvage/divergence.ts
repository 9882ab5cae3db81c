import type { NodeFacts } from '../../cluster/facts.ts'
import type { NodeName } from '../../cluster/names.ts'
import type { Divergence } from '../../cluster/salvage.ts'
import type { StepContext } from '../../engine/step.ts'
import { ReplctlError } from '../../errors.ts'
import { readTextFile } from '../../node/files.ts'
import { isSameBranch } from '../../node/own-wal.ts'
import { listWalFiles, type WalView } from '../../node/wal-reader.ts'
import { compareLsn, type Lsn, type TimelineId } from '../../postgres/lsn.ts'
import {
  commonAncestor,
  parseTimelineHistory,
  type TimelineHistory,
} from '../../postgres/timeline-history.ts'
import { historyFileName, isSegmentFile, segmentNumber, walFileNameOf } from '../../postgres/wal-file.ts'
import { ask } from '../look.ts'

export interface FoundDivergence extends Divergence {
  readonly history: TimelineHistory
  readonly segmentSizeBytes: number
  /** By its pg_control alone it reached beyond the fork. */
  readonly isPastFork: boolean
}

/**
 * Where a stopped node's WAL leaves the primary's line; null where it lies on that line altogether.
 * @throws {ReplctlError} `foreign-cluster` if the two have nothing in common
 */
export async function findDivergence(
  ctx: StepContext,
  facts: NodeFacts,
  primary: NodeName,
): Promise<FoundDivergence | null> {
  const { control } = facts
  const { facts: there } = await ask(ctx, primary)
  if (control === null || there.instance === null) throw unreadable(facts)
  const { systemIdentifier } = there.instance
  if (control.systemIdentifier !== systemIdentifier) throw foreign(facts, systemIdentifier)
  const timeline = Math.max(control.timeline, control.minRecoveryEndTimeline ?? 0) as TimelineId
  const history = parseTimelineHistory(await ownHistory(ctx, timeline), timeline)
  const primaryHistory = parseTimelineHistory(there.instance.history ?? '', there.instance.timeline)
  const common = commonAncestor(history, primaryHistory)
  if (common === undefined) throw foreign(facts, systemIdentifier)
  await refuseTwin(ctx, facts, there, history, common)
  if (common.lsn === null) return null
  return {
    systemIdentifier,
    timeline,
    fork: common.lsn,
    history,
    segmentSizeBytes: control.walSegmentSizeBytes,
    isPastFork: [control.checkpointLsn, control.minRecoveryEndLsn].some(
      (lsn) => lsn !== null && compareLsn(lsn, common.lsn ?? lsn) > 0,
    ),
  }
}

/**
 * Two nodes that were promoted beside each other both begin a timeline of the same number, at the same place: by number and
 * place one passes for the other, and what it wrote for what the primary has.
 */
async function refuseTwin(
  ctx: StepContext,
  facts: NodeFacts,
  there: NodeFacts,
  history: TimelineHistory,
  common: { readonly timeline: number; readonly lsn: Lsn | null },
): Promise<void> {
  if (common.timeline !== history.timeline || history.timeline === 1) return
  const sides = [
    { node: ctx.node, facts },
    { node: ctx.on(there.name), facts: there },
  ]
  const isSame = await isSameBranch(sides, history)
  const mayHaveLed = facts.fence !== null || !facts.hasStandbySignal
  if (isSame === true || (isSame === null && (common.lsn !== null || !mayHaveLed))) return
  throw new ReplctlError(
    'salvage-incomplete',
    `what ${facts.name} wrote cannot be told from what ${there.name} wrote`,
    {
      detail: `Timeline ${history.timeline} was begun by either of them: its number and place are the same, ${isSame === null ? 'and the WAL that would tell is gone' : 'and its WAL is not'}.`,
      hint: `Keep its data directory. This sets it aside, and keeps it: replctl rejoin ${facts.name}`,
      node: facts.name,
    },
  )
}

async function ownHistory(ctx: StepContext, timeline: number): Promise<string> {
  if (timeline === 1) return ''
  const path = `${ctx.node.settings.postgres.dataDir}/pg_wal/${historyFileName(timeline)}`
  const text = await readTextFile(ctx.node, path)
  if (text !== null) return text
  throw new ReplctlError('control-data-unreadable', `${path} is missing on ${ctx.node.name}`, {
    hint: 'Copy it there from the archive or from another node, then run the command again.',
    node: ctx.node.name,
  })
}

/** The segments of a diverged node's WAL, from some time before the fork on. */
export interface DivergedWal {
  /** From as far back as they follow each other without a gap, to the last one. */
  readonly view: WalView
  readonly segmentSizeBytes: number
  /** Number of the segment that holds the fork, and of the first of the view. */
  readonly forkSegment: bigint
  readonly firstSegment: bigint
}

/** Finds the segments of the node's own line around the fork. @throws {ReplctlError} `slot-lost`-like gaps are told by reading */
export async function findDivergedWal(ctx: StepContext, divergence: FoundDivergence): Promise<DivergedWal> {
  const { history, segmentSizeBytes, fork, timeline } = divergence
  const files = await listWalFiles(ctx.node)
  const has = (name: string) => isSegmentFile(name) && files.get(name) === segmentSizeBytes
  const fileOf = (number: bigint): string | undefined => {
    const name = walFileNameOf(timelineAt(history, number, segmentSizeBytes), number, segmentSizeBytes)
    return has(name) ? name : undefined
  }
  const forkSegment = segmentNumber(fork, segmentSizeBytes)
  let firstSegment = forkSegment
  while (firstSegment > 0n && fileOf(firstSegment - 1n) !== undefined) firstSegment -= 1n
  const view = new Map<string, string>()
  for (let number = firstSegment; ; number++) {
    const file = fileOf(number)
    if (file === undefined) break
    view.set(walFileNameOf(timeline, number, segmentSizeBytes), file)
  }
  return { view, segmentSizeBytes, forkSegment, firstSegment }
}

/** The timeline under whose name a segment lies: where two meet in it, the later one has a copy of what came before. */
function timelineAt(history: TimelineHistory, number: bigint, segmentSizeBytes: number): number {
  const line = history.switches.find(({ leftAt }) => number < segmentNumber(leftAt, segmentSizeBytes))
  return line?.timeline ?? history.timeline
}

/** The part of a view from a segment on. */
export function viewFrom(wal: DivergedWal, first: bigint): WalView {
  return new Map([...wal.view].slice(Number(first - wal.firstSegment)))
}

function unreadable(facts: NodeFacts): ReplctlError {
  return new ReplctlError('control-data-unreadable', `cannot read pg_control on ${facts.name}`, {
    hint: 'Its data directory may be damaged. Look at what lies there.',
    node: facts.name,
  })
}

function foreign(facts: NodeFacts, systemIdentifier: string): ReplctlError {
  return new ReplctlError('foreign-cluster', `the data directory on ${facts.name} is not of this cluster`, {
    detail: `Its system identifier is ${facts.control?.systemIdentifier}, the primary's is ${systemIdentifier}.`,
    node: facts.name,
  })
}
