import type { Problem } from '../cluster/problem.ts'
import { formatDuration } from './bytes.ts'
import type { Paint } from './paint.ts'
import { problemsText } from './problems.ts'
import { columns } from './table.ts'

/** `result` of `verify`. */
export interface VerifyResult {
  readonly token: string
  readonly lsn: string | null
  readonly nodes: readonly VerifiedNode[]
  readonly archive: VerifiedArchive | null
}

export interface VerifiedNode {
  readonly name: string
  readonly ok: boolean
  readonly latency_ms: number | null
  readonly timeline: number | null
  readonly proof?: 'read' | 'received' | null
  readonly received_ms?: number | null
  readonly delay_seconds?: number
}

export interface VerifiedArchive {
  readonly ok: boolean
  readonly segment: string | null
  readonly latency_ms: number | null
}

/** Where the test row was read back, how quickly, and what is wrong elsewhere. */
export function verifyText(result: VerifyResult, problems: readonly Problem[], paint: Paint): string {
  const rows = [...result.nodes.map((node) => nodeRow(node, paint)), ...archiveRows(result.archive, paint)]
  const problemText = problems.length === 0 ? '' : `\n${problemsText(problems, paint)}`
  const at = result.lsn === null ? '' : ` at ${result.lsn}`
  return `${columns(rows)}${summary(result, paint)}\n${paint.dim(`Test row ${result.token}${at}.`)}\n${problemText}`
}

export interface VerifyPlan {
  /** Null where nothing can be written. */
  readonly primary: string | null
  readonly standbys: readonly string[]
  readonly hasArchive: boolean
}

/** What `verify` would do, and what is wrong already. */
export function verifyPlanText(plan: VerifyPlan, problems: readonly Problem[], paint: Paint): string {
  const problemText = problems.length === 0 ? '' : `\n${problemsText(problems, paint)}`
  if (plan.primary === null) return `Would write nothing: no node accepts writes.\n${problemText}`
  const acts = [
    `write a row on ${plan.primary}`,
    ...(plan.standbys.length === 0 ? [] : [`read it back on ${plan.standbys.join(', ')}`]),
    ...(plan.hasArchive ? ['await a WAL segment in the archive'] : []),
  ]
  return `Would ${acts.join(', ')}, and remove the row again.\n${problemText}`
}

function nodeRow(node: VerifiedNode, paint: Paint): string[] {
  const latency = node.latency_ms === null ? '' : ` after ${formatDuration(node.latency_ms)}`
  return [
    `${mark(node.ok, paint)} ${paint.name(node.name)}`,
    node.proof === 'received'
      ? receivedText(node)
      : hasRow(node)
        ? `row read back${latency}`
        : paint.bad('row not read back'),
    node.timeline === null ? '' : `timeline ${node.timeline}`,
  ]
}

/** What is wrong with a standby otherwise takes nothing from that the row came to it. */
const hasRow = ({ ok, proof }: VerifiedNode): boolean => (proof === undefined ? ok : proof !== null)

/** It replays late on purpose: that it has the row's WAL is what can be proved now. */
function receivedText({ received_ms: ms, delay_seconds: delay }: VerifiedNode): string {
  const after = ms === null || ms === undefined ? '' : ` after ${formatDuration(ms)}`
  return `row received${after}, replay delayed by ${formatDuration((delay ?? 0) * 1000)}`
}

function archiveRows(archive: VerifiedArchive | null, paint: Paint): string[][] {
  if (archive === null) return []
  const latency = archive.latency_ms === null ? '' : ` after ${formatDuration(archive.latency_ms)}`
  const segment = archive.segment ?? 'the segment'
  const text = archive.ok ? `${segment} archived${latency}` : paint.bad(`${segment} not archived${latency}`)
  return [[`${mark(archive.ok, paint)} ${paint.name('archive')}`, text, '']]
}

function summary({ nodes, archive }: VerifyResult, paint: Paint): string {
  const hasArchiveFailed = archive?.ok === false
  const isGood = nodes.every((node) => node.ok) && !hasArchiveFailed
  const arrived = nodes.filter(hasRow)
  const ill = arrived.filter((node) => !node.ok).map((node) => node.name)
  const besides = ill.length === 0 ? '' : ` (something else is wrong with ${ill.join(', ')})`
  const kept =
    archive === null ? '' : hasArchiveFailed ? '; the archive did not get it' : '; the archive has it'
  if (nodes.length === 0)
    return paint.warn(`No standby was asked for the row: no replication was proved${kept}.`)
  const count = `${arrived.length} of ${nodes.length} ${nodes.length === 1 ? 'standby' : 'standbys'}`
  const text = `${count} replicated the row${besides}${kept}.`
  return isGood ? paint.good(text) : paint.bad(text)
}

const mark = (ok: boolean, paint: Paint): string => (ok ? paint.good('✓') : paint.bad('✗'))
