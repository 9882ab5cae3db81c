import type { NodeFacts } from '../cluster/facts.ts'
import type { NodeName } from '../cluster/names.ts'
import { segmentSizeOf } from '../cluster/segment-size.ts'
import { receivedLsn } from '../cluster/topology.ts'
import { type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { asReplctlError } from '../errors.ts'
import { ownHistory, readWalEnd, readWalFiles } from '../node/own-wal.ts'
import { type Lsn, lsnDistance } from '../postgres/lsn.ts'
import { forkPoint, parseTimelineHistory } from '../postgres/timeline-history.ts'
import { walFileName } from '../postgres/wal-file.ts'
import { look } from './look.ts'

/** A gap that takes longer to read is hundreds of megabytes: that much is lost, or more. */
const readingTimeoutMs = 15_000

/**
 * Reads from the disk of a stopped former primary how much WAL it has past what its successor took over: what was confirmed
 * there, and had reached nobody. A rejoin saves it. It refuses nothing: where it cannot be read, `onMeasured` is not called.
 * @param onMeasured bytes, also 0
 */
export function measureLoss(
  former: NodeName,
  leader: NodeName,
  onMeasured: (node: NodeName, bytes: number) => void,
): Step {
  return {
    title: `see how much WAL it has that ${leader} lacks`,
    node: former,
    check: async (ctx) => {
      try {
        const [facts, leads] = await Promise.all([look(ctx), look(ctx, leader)])
        if (facts.instance !== null) return unknownUntil('PostgreSQL is stopped there')
        const bytes = await bytesPast(ctx, facts, leads)
        if (bytes === null) return satisfied('its files do not tell')
        onMeasured(former, bytes)
        return satisfied(bytes === 0 ? 'none' : `${bytes} bytes`)
      } catch (thrown) {
        return satisfied(`it could not be read: ${asReplctlError(thrown).message}`)
      }
    },
  }
}

/** Null: its files do not tell. */
async function bytesPast(ctx: StepContext, facts: NodeFacts, leads: NodeFacts): Promise<number | null> {
  const { control } = facts
  if (control === null || leads.instance === null) return null
  const files = await readWalFiles(ctx.node, facts)
  const { timeline } = ownHistory(facts, files)
  const fork = takenOverAt(leads, timeline)
  if (fork === null) return null
  // The record of its shutdown is no loss.
  if (control.state === 'shut down') return Math.max(0, lsnDistance(fork, control.checkpointLsn))
  const first = walFileName(timeline, fork, segmentSizeOf(facts))
  if (!files.hasWaldumpProgram || !files.segments.includes(first)) return null
  const end = await readWalEnd(ctx.node, facts, timeline, fork, readingTimeoutMs)
  if (end.lastRecord === 'none') return 0
  return end.endLsn === null ? null : Math.max(0, lsnDistance(fork, end.endLsn))
}

/** Where the new primary left that timeline, or will leave it. */
function takenOverAt({ instance, ...facts }: NodeFacts, timeline: number): Lsn | null {
  if (instance === null) return null
  if (instance.isInRecovery)
    return instance.timeline === timeline ? receivedLsn({ ...facts, instance }) : null
  return forkPoint(parseTimelineHistory(instance.history ?? '', instance.timeline), timeline) ?? null
}
