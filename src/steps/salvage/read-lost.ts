import type { StepContext } from '../../engine/step.ts'
import { makeWalView, readWal } from '../../node/wal-reader.ts'
import { LostChanges, type LostTransaction, LostTransactions } from '../../postgres/lost-transactions.ts'
import { compareLsn, type Lsn } from '../../postgres/lsn.ts'
import { segmentNumber, walFileName, walFileNameOf } from '../../postgres/wal-file.ts'
import type { WalEnd } from '../../postgres/waldump.ts'
import { type DivergedWal, type FoundDivergence, viewFrom } from './divergence.ts'

/** The lost transactions, and how the reading of the WAL went. */
export interface LostWal {
  readonly lost: LostTransactions
  readonly start: bigint
  /** Why the WAL could not be read to its end, or not from far enough back. */
  readonly gaps: readonly string[]
  /** Where the next record would begin. */
  readonly next: Lsn | null
}

/** How far a diverged node's WAL reaches. */
export interface DivergedEnd {
  /** Null where the node wrote nothing after the fork. */
  readonly lost: LostWal | null
  /** Start of its last record. */
  readonly end: Lsn | null
  /** Where the one after it would begin, as far as pg_waldump tells. */
  readonly next: Lsn | null
  /** Why nothing can be read, although something was written. */
  readonly missing: string | null
}

const nothingWritten: DivergedEnd = { lost: null, end: null, next: null, missing: null }

/** Reads a diverged node's WAL to its end. */
export async function findEnd(
  ctx: StepContext,
  binDirectory: string,
  divergence: FoundDivergence,
  wal: DivergedWal,
): Promise<DivergedEnd> {
  const view = viewFrom(wal, wal.forkSegment)
  if (view.size === 0) {
    const file = walFileName(divergence.timeline, divergence.fork, wal.segmentSizeBytes)
    const missing = `all that was changed: WAL segment ${file}, in which the fork lies, is not there any more`
    return { ...nothingWritten, missing: divergence.isPastFork ? missing : null }
  }
  await makeWalView(ctx.node, view)
  let isAny = false
  const take = ({ lsn }: { lsn: Lsn }) => {
    if (compareLsn(lsn, divergence.fork) >= 0) isAny = true
  }
  await readWal(ctx.node, { binDirectory, view, start: divergence.fork, limit: 1 }, take)
  if (!isAny) return nothingWritten
  const lost = await readTransactions(ctx, binDirectory, divergence, wal)
  return { lost, end: lost.lost.lastLsn, next: lost.next, missing: null }
}

/**
 * First reading: who committed after the fork. It begins a segment before the fork, and where a transaction reaches
 * further back than that, at the oldest WAL that is there.
 */
async function readTransactions(
  ctx: StepContext,
  binDirectory: string,
  divergence: FoundDivergence,
  wal: DivergedWal,
): Promise<LostWal> {
  const near = wal.forkSegment > wal.firstSegment ? wal.forkSegment - 1n : wal.forkSegment
  for (const start of near === wal.firstSegment ? [near] : [near, wal.firstSegment]) {
    const lost = new LostTransactions(divergence.fork)
    const view = viewFrom(wal, start)
    await makeWalView(ctx.node, view)
    const end = await readWal(ctx.node, { binDirectory, view, start: startOf(wal, start) }, (record) =>
      lost.add(record),
    )
    const gaps = gapsOf(end, lost, wal, divergence)
    if (lost.reachesFarEnough || start === wal.firstSegment) {
      const next = end.is === 'end-of-wal' ? end.next : null
      return { lost, start, next, gaps: lost.reachesFarEnough ? gaps : [...gaps, tooShort(lost)] }
    }
  }
  throw new RangeError('unreachable')
}

/** Second reading: what these transactions changed. */
export async function readChanges(
  ctx: StepContext,
  binDirectory: string,
  wal: DivergedWal,
  { lost, start }: LostWal,
  each: (transaction: LostTransaction) => void,
): Promise<LostChanges> {
  const changes = new LostChanges(lost)
  const view = viewFrom(wal, start)
  await makeWalView(ctx.node, view)
  await readWal(ctx.node, { binDirectory, view, start: startOf(wal, start) }, (record) => {
    const ended = changes.add(record)
    if (ended !== undefined) each(ended)
  })
  return changes
}

function startOf(wal: DivergedWal, segment: bigint): string {
  const bytes = segment * BigInt(wal.segmentSizeBytes)
  return `${(bytes >> 32n).toString(16).toUpperCase()}/${(bytes & 0xffffffffn).toString(16).toUpperCase()}`
}

function gapsOf(
  end: WalEnd,
  lost: LostTransactions,
  wal: DivergedWal,
  { timeline, segmentSizeBytes }: FoundDivergence,
): readonly string[] {
  if (end.is === 'failed') return [`the WAL could not be read: ${end.said}`]
  if (end.is === 'segment-missing') return [`WAL segment ${end.segment} is missing`]
  // Where whole segments of this very WAL follow, what stopped the reading was no end but damage.
  const last = lost.lastLsn === null ? wal.forkSegment : segmentNumber(lost.lastLsn, segmentSizeBytes)
  const file = walFileNameOf(timeline, last, segmentSizeBytes)
  return wal.view.has(file) ? [] : [`the WAL ends before ${file}`]
}

function tooShort({ straddlers }: LostTransactions): string {
  return `the WAL does not reach back to the begin of the transactions ${straddlers.join(', ')}: what they changed before it is not known`
}
