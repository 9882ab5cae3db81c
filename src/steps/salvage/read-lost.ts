import type { StepContext } from '../../engine/step.ts'
import { type Node, stateScript } from '../../node/node.ts'
import { makeWalView, readWal } from '../../node/wal-reader.ts'
import { LostChanges, type LostTransaction, LostTransactions } from '../../postgres/lost-transactions.ts'
import { compareLsn, type Lsn } from '../../postgres/lsn.ts'
import { parseSegmentHeader, segmentHeaderBytes } from '../../postgres/segment-header.ts'
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
  /** How the first reading ended: the second has to come as far. */
  readonly end: WalEnd
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
  /** The last segment behind the end that holds WAL of this very node: what stopped the reading was damage. Null: none. */
  readonly beyond: bigint | null
}

const nothingWritten: DivergedEnd = { lost: null, end: null, next: null, missing: null, beyond: null }

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
  const first = await readWal(ctx.node, { binDirectory, view, start: divergence.fork, limit: 1 }, take)
  if (!isAny) return { ...nothingWritten, missing: whyNothing(first, divergence) }
  const lost = await readTransactions(ctx, binDirectory, divergence, wal)
  const end = lost.lost.lastLsn
  const stopped = lost.next ?? end ?? divergence.fork
  const beyond = await lastSegmentBehind(ctx.node, wal, divergence, stopped)
  const gaps =
    beyond === null ? lost.gaps : [...lost.gaps, `the WAL is damaged behind ${stopped}: more of it follows`]
  return { lost: { ...lost, gaps }, end, next: lost.next, missing: null, beyond }
}

/**
 * Segments that the server made ready for use again are named for the future and begin with what they held before: one
 * whose first page has the address of its name was written there.
 */
async function lastSegmentBehind(
  node: Node,
  wal: DivergedWal,
  { systemIdentifier, segmentSizeBytes }: FoundDivergence,
  stopped: Lsn,
): Promise<bigint | null> {
  const first = segmentNumber(stopped, segmentSizeBytes) + 1n
  const behind = [...viewFrom(wal, first).values()].slice(0, mostBehind)
  if (behind.length === 0) return null
  const heads = await node.output(
    stateScript(node, 'look at the WAL behind the end', headsScript, [
      node.settings.postgres.dataDir,
      ...behind,
    ]),
  )
  const isReal = heads.split('\n').map((hex, index) => {
    const header = parseSegmentHeader(Buffer.from(hex, 'hex'))
    const isInPlace =
      header !== undefined && segmentNumber(header.startLsn, segmentSizeBytes) === first + BigInt(index)
    return isInPlace && header.systemIdentifier === systemIdentifier
  })
  const last = isReal.lastIndexOf(true)
  return last < 0 ? null : first + BigInt(last)
}

/** The server keeps no more than a few for use again; what follows damage is looked at so far. */
const mostBehind = 256

const headsScript = `
cd -- "$2/pg_wal/" || exit 74
shift 2
for file; do
  dd if="$file" bs=${segmentHeaderBytes} count=1 2>/dev/null | od -An -v -tx1 | tr -d ' \\n'
  echo
done
`

/** No record at the fork is the end of a node that wrote nothing, unless it is known that it did, or nothing could be read. */
function whyNothing(end: WalEnd, { isPastFork, fork }: FoundDivergence): string | null {
  if (end.is === 'failed')
    return `all that was changed: the WAL at the fork ${fork} could not be read: ${end.said}`
  return isPastFork ? `all that was changed: there is no readable record at the fork ${fork}` : null
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
      return { lost, start, next, end, gaps: lost.reachesFarEnough ? gaps : [...gaps, tooShort(lost)] }
    }
  }
  throw new RangeError('unreachable')
}

/** Second reading: what these transactions changed. */
export async function readChanges(
  ctx: StepContext,
  binDirectory: string,
  wal: DivergedWal,
  { lost, start, end }: LostWal,
  each: (transaction: LostTransaction) => void,
): Promise<{ readonly changes: LostChanges; readonly gaps: readonly string[] }> {
  const changes = new LostChanges(lost)
  const view = viewFrom(wal, start)
  await makeWalView(ctx.node, view)
  const again = await readWal(ctx.node, { binDirectory, view, start: startOf(wal, start) }, (record) => {
    const ended = changes.add(record)
    if (ended !== undefined) each(ended)
  })
  const isAsFar = JSON.stringify(again) === JSON.stringify(end)
  return {
    changes,
    gaps: isAsFar
      ? []
      : [`the WAL could not be read twice alike: ${JSON.stringify(again)} after ${JSON.stringify(end)}`],
  }
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
  const last = lost.lastLsn === null ? wal.forkSegment : segmentNumber(lost.lastLsn, segmentSizeBytes)
  const file = walFileNameOf(timeline, last, segmentSizeBytes)
  return wal.view.has(file) ? [] : [`the WAL ends before ${file}`]
}

function tooShort({ straddlers }: LostTransactions): string {
  if (straddlers.length === 0) {
    return 'the WAL before the fork does not tell which transactions were open there: what they changed before it is not known'
  }
  return `the WAL does not reach back to the begin of the transactions ${straddlers.join(', ')}: what they changed before it is not known`
}
