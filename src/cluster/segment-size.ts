import { defaultWalSegmentSizeBytes } from '../postgres/wal-file.ts'
import type { NodeFacts } from './facts.ts'

/** Bytes of one WAL segment of a node, as pg_control or the instance says. */
export function segmentSizeOf(facts: NodeFacts): number {
  const reported = Number(facts.instance?.settings.wal_segment_size?.value ?? 0)
  return facts.control?.walSegmentSizeBytes ?? (reported > 0 ? reported : defaultWalSegmentSizeBytes)
}
