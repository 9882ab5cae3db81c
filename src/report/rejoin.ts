import type { RejoinMethod } from '../cluster/judge-rejoin.ts'
import type { SalvageResult } from '../cluster/salvage.ts'
import type { ObservedNode } from '../cluster/topology.ts'
import { formatBytes } from './bytes.ts'
import type { Paint } from './paint.ts'
import { receivingText } from './receiving.ts'
import { besidesRows } from './salvage.ts'

/** `result` of `rejoin`. */
export interface RejoinResult {
  readonly node: string
  readonly method: RejoinMethod
  readonly fork_lsn: string | null
  readonly salvage: SalvageResult | null
  readonly primary: string
  readonly upstream: string
  readonly discarded_bytes: number | null
  /** Why this way back and no other. */
  readonly reasons: readonly string[]
}

const how: Readonly<Record<RejoinMethod, string>> = {
  none: 'was a standby already',
  follow: 'follows as it was',
  rewind: 'was rewound',
  reclone: 'was cloned anew',
}

/** How a member came back, and where lies what only it had. `now`: the member as it was seen afterwards. */
export function rejoinText(result: RejoinResult, now: ObservedNode | undefined, paint: Paint): string {
  const { node, method, upstream, salvage, discarded_bytes: bytes, fork_lsn: fork } = result
  return [
    `${paint.good('✓')} ${paint.name(node)} ${paint.strong(how[method])} and ${receivingText(now, paint.name(upstream))}.`,
    ...result.reasons.map((reason) => `  ${reason}`),
    ...(bytes === null || bytes === 0
      ? []
      : [
          `  ${formatBytes(bytes)} of WAL of its own (${bytes} bytes${fork === null ? '' : ` after ${fork}`}) were discarded.`,
        ]),
    ...(salvage === null
      ? []
      : [
          `  What only it had: ${salvage.transactions} transaction(s), ${salvage.rows} row(s), in ${salvage.dir} on ${node}.`,
          ...besidesRows(salvage)
            .flatMap((text) => text.trimEnd().split('\n'))
            .map((line) => `  ${line}`),
          salvage.conflicts === 0
            ? '  Review salvage.sql there before you apply it.'
            : `  Review salvage.sql there before you apply it: ${salvage.conflicts} of its changes are commented out, the primary changed the same rows.`,
        ]),
  ]
    .map((line) => `${line}\n`)
    .join('')
}
