import type { Paint } from './paint.ts'

/** `result` of `restore`. */
export interface RestoreResult {
  readonly node: string
  readonly data_dir: string
  readonly port: number
  readonly backup: string
  readonly timeline: number | null
  readonly target: string
  readonly reached_lsn: string | null
  readonly reached_time: string | null
}

export function restoredText(result: RestoreResult, isMember: boolean, paint: Paint): string {
  const end = result.reached_time === null ? '' : `, the last transaction is of ${result.reached_time}`
  const reached = `Restored backup ${result.backup} to ${result.target}: reached ${result.reached_lsn}${end}.\n`
  return isMember
    ? `${reached}${paint.strong(result.node)} is the primary, on timeline ${result.timeline}.\nNext: replctl add-standby NODE… --reclone, then replctl backup\n`
    : `${reached}It runs on ${paint.strong(result.node)} in ${result.data_dir}, port ${result.port}, timeline ${result.timeline}. It archives nowhere and is no member of the cluster.\n`
}

/** `result` of `restore --drill`. */
export interface DrillResult {
  readonly node: string
  readonly backup: string
  readonly checked_with: string | null
  readonly tables: readonly { readonly ok: boolean; readonly is_changing: boolean }[]
  readonly findings: readonly string[]
}

export function drillText(
  { node, backup, checked_with, tables, findings }: DrillResult,
  paint: Paint,
): string {
  const still = tables.filter((table) => !table.is_changing).length
  const verdict =
    findings.length === 0 ? paint.good('all is well') : paint.bad(`${findings.length} finding(s)`)
  return `Backup ${paint.strong(backup)} was restored on ${node}, read with ${checked_with}, and removed: ${verdict}. ${tables.length} tables counted, ${still} of them compared.\n`
}
