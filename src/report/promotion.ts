import type { CandidateVerdict } from '../cluster/choose-candidate.ts'
import { formatBytes, formatDuration } from './bytes.ts'
import type { Paint } from './paint.ts'
import { columns } from './table.ts'

/** `result` of `promote` and `switchover`. */
export interface PromotionResult {
  readonly old_primary: string | null
  readonly new_primary: string
  readonly timeline: number | null
  readonly lsn: string | null
  readonly repointed: readonly string[]
  readonly fenced: boolean
  readonly write_outage_ms: number | null
  readonly lost_bytes: number | null
}

/**
 * The outcome of a change of roles, why it is this node, and what to do next.
 * @param isMeasured whether `lost_bytes` was read from the old primary's own disk
 */
export function promotionText(
  result: PromotionResult,
  verdicts: readonly CandidateVerdict[],
  paint: Paint,
  isMeasured = false,
): string {
  const timeline = result.timeline === null ? '' : `, on timeline ${result.timeline}`
  const from = result.lsn === null ? '' : `, from ${result.lsn} on`
  return [
    `${paint.good('✓')} ${paint.name(result.new_primary)} ${paint.strong('is the primary now')}${timeline}${from}.\n`,
    verdictsText(result, verdicts, paint),
    ...[...consequences(result, isMeasured), ...next(result, paint)].map((line) => `${line}\n`),
  ].join('')
}

function verdictsText(result: PromotionResult, verdicts: readonly CandidateVerdict[], paint: Paint): string {
  return columns(
    verdicts.map(({ node, canLead, reason }) => {
      const isChosen = node === result.new_primary
      const word = isChosen ? paint.good('chosen') : canLead ? 'not chosen' : paint.dim('could not lead')
      return [`  ${paint.name(node)}`, word, reason]
    }),
  )
}

function consequences(result: PromotionResult, isMeasured: boolean): string[] {
  const { repointed, write_outage_ms: outage } = result
  return [
    ...(repointed.length === 0
      ? []
      : [`${list(repointed)} ${repointed.length === 1 ? 'follows' : 'follow'} it.`]),
    ...(outage === null ? [] : [`Writes were not possible for ${formatDuration(outage)}.`]),
    ...lossText(result, isMeasured),
  ]
}

function lossText(
  { lost_bytes: lost, old_primary: old, new_primary, repointed }: PromotionResult,
  isMeasured: boolean,
): string[] {
  if (old === null || old === new_primary) return []
  if (lost === null) return ['How much WAL it lacks is not known.']
  if (lost > 0) {
    const much = `${formatBytes(lost)} of WAL`
    return [
      isMeasured
        ? `It lacks ${much} that ${old} has (${lost} bytes): what was committed there is saved by its rejoin.`
        : `At least ${much} is missing on it (${lost} bytes).`,
    ]
  }
  return [repointed.includes(old) || isMeasured ? 'Nothing is lost.' : 'It is not known to lack any WAL.']
}

function next(result: PromotionResult, paint: Paint): string[] {
  const { old_primary: old, new_primary: primary, fenced, repointed } = result
  if (old === null || old === primary || repointed.includes(old)) return []
  const look = paint.strong('replctl status')
  if (fenced)
    return [`The old primary ${old} is fenced. It comes back with: ${paint.strong(`replctl rejoin ${old}`)}`]
  return [
    paint.warn(`The old primary ${old} is not known to be fenced: make sure that it cannot accept writes.`),
    `When its host is back: ${look}`,
  ]
}

function list(names: readonly string[]): string {
  return names.length < 2 ? names.join('') : `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`
}
