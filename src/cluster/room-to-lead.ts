import { ReplctlError } from '../errors.ts'
import type { NodeFacts } from './facts.ts'

/** What is written beside WAL when a node comes to lead: slots, marks, its log, pages of pg_xact. */
const marginBytes = 4 * 2 ** 20

/** A promotion copies the last segment for its new timeline at full size, and needs the next one soon. */
const promotionSegments = 2

/**
 * Why the disk of a node is too full for it to lead, with the values: without room for the first segment of its own timeline a
 * standby crashes when it is told to. Null: there is room, or nobody looked.
 * @see PostgreSQL, src/backend/access/transam/xlog.c, XLogInitNewTimeline
 */
export function whyItHasNoRoom(
  { control, freeBytes, walFreeBytes }: NodeFacts,
  segments = promotionSegments,
): string | null {
  const walBytes = walFreeBytes ?? freeBytes
  const neededBytes = segments * (control?.walSegmentSizeBytes ?? 0) + marginBytes
  if (walBytes !== null && walBytes < neededBytes) return tell(walBytes, 'pg_wal', neededBytes)
  if (freeBytes !== null && freeBytes < marginBytes) return tell(freeBytes, 'data directory', marginBytes)
  return null
}

const tell = (free: number, place: string, needed: number) =>
  `${Math.floor(free / 2 ** 20)} MiB are free where its ${place} is, and ${Math.ceil(needed / 2 ** 20)} MiB are needed`

/** Segments that a new timeline, a checkpoint and what slots keep for a moment can take. */
const switchoverSegments = 4

/** Refuses a switchover between two of which one has no room for its WAL; null: both have. */
export function refuseWithoutRoom(...both: readonly NodeFacts[]): ReplctlError | null {
  for (const facts of both) {
    const shortage = whyItHasNoRoom(facts, switchoverSegments)
    if (shortage !== null) return noRoomForWal(facts, shortage)
  }
  return null
}

export function noRoomForWal({ name }: NodeFacts, shortage: string): ReplctlError {
  return new ReplctlError('disk-full', `${name} has no room for the WAL of a switchover`, {
    detail: `${shortage}.`,
    hint: `Free some space on ${name} (never in pg_wal), then run the command again.`,
    node: name,
  })
}
