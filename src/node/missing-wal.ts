import { fetchesFrom } from '../cluster/archiving-fault.ts'
import type { NodeFacts } from '../cluster/facts.ts'
import type { ArchiveSettings } from '../cluster/inventory.ts'
import { segmentSizeOf } from '../cluster/segment-size.ts'
import { shellScript } from '../command.ts'
import { ReplctlError } from '../errors.ts'
import { archiveFiles, archiveStatus } from '../postgres/archive.ts'
import type { Lsn } from '../postgres/lsn.ts'
import { segmentOnLine, type TimelineHistory } from '../postgres/timeline-history.ts'
import { endOfLocalWal, segmentNumber, walFileName, walFileStart } from '../postgres/wal-file.ts'
import { type Node, stateScript } from './node.ts'

/** A segment's place in WAL (its name without the timeline) and the time of its last change. */
export type SegmentAge = readonly [place: string, modified: number]

const hexDigits = '[0-9A-F]'.repeat(24)

const agesScript = `
cd "$1/pg_wal" || exit 66
if stat -c %Y . >/dev/null 2>&1; then set -- stat -c '%Y %n'; else set -- stat -f '%m %N'; fi
find . -maxdepth 1 -type f -name '${hexDigits}' -exec "$@" {} +
`

/** The segments in a node's pg_wal, by place, as its files say: whether the instance runs does not matter. */
export async function readSegmentAges(node: Node): Promise<readonly SegmentAge[]> {
  const command = shellScript('look at the age of its WAL', agesScript, [node.settings.postgres.dataDir])
  const ages = new Map<string, number>()
  for (const line of (await node.output(command)).split('\n')) {
    const [, time, place] = /^(\d+) \S*([0-9A-F]{16})$/.exec(line) ?? []
    if (place !== undefined) ages.set(place, Math.max(ages.get(place) ?? 0, Number(time)))
  }
  return [...ages].toSorted(([a], [b]) => (a < b ? -1 : 1))
}

/**
 * The number of the first segment that a node which replays from `from` on certainly needs from elsewhere. That its own WAL ends
 * within the last segment it has is not looked at: what it lacks of that one is not counted.
 */
export function firstForeignSegment(own: readonly SegmentAge[], from: Lsn, segmentSizeBytes: number): bigint {
  const place = walFileName(1, from, segmentSizeBytes).slice(8)
  if (!own.some(([one]) => one === place)) return segmentNumber(from, segmentSizeBytes)
  const end = endOfLocalWal(own, place, segmentSizeBytes)
  return segmentNumber(walFileStart(`00000001${end}`, segmentSizeBytes), segmentSizeBytes) + 1n
}

export interface WalQuestion {
  readonly node: Node
  readonly facts: NodeFacts
  readonly archive: ArchiveSettings
  /** The first segment that the node needs from elsewhere, and the first one that its upstream still has. */
  readonly needs: bigint
  readonly kept: bigint
  /** Of the upstream: where the node is to go. */
  readonly history: TimelineHistory
}

/** One connection and one answer: an archive host that takes longer counts as one that does not answer. */
const patienceMs = 20_000

/**
 * The segment that a node needs next, where neither its upstream nor the archive has it: the archive is asked for that one. Null where
 * the archive has it, does not answer, or cannot be asked yet: nobody has said then that it is gone.
 */
export async function findMissingSegment(question: WalQuestion): Promise<string | null> {
  const { node, facts, archive, needs, kept, history } = question
  if (needs >= kept || !fetchesFrom(archive, facts)) return null
  const name = segmentOnLine(history, needs, segmentSizeOf(facts))
  const script = `"$state/${archiveFiles.fetch}" --has "$2"`
  const command = stateScript(node, `ask the archive for ${name}`, script, [name])
  try {
    const { status } = await node.run(command, { timeoutMs: patienceMs })
    return status === 1 ? name : null
  } catch (thrown) {
    if (thrown instanceof ReplctlError && thrown.code === 'timeout') return null
    throw thrown
  }
}

/**
 * Why a node that takes its WAL from the archive gets no answer there now; null where it gets one, or cannot ask yet. It asks as
 * restore_command does, for a segment of the present.
 */
export async function whyArchiveIsSilent(
  node: Node,
  facts: NodeFacts,
  archive: ArchiveSettings,
): Promise<string | null> {
  const { instance } = facts
  if (instance === null || !fetchesFrom(archive, facts)) return null
  const name = walFileName(
    instance.timeline,
    instance.currentLsn ?? instance.receiveLsn ?? instance.replayLsn ?? ('0/0' as Lsn),
    segmentSizeOf(facts),
  )
  const script = `"$state/${archiveFiles.fetch}" --has "$2"`
  const command = stateScript(node, 'ask the archive host', script, [name])
  try {
    const { status, stderr } = await node.run(command, { timeoutMs: patienceMs })
    return status === 0 || status === archiveStatus.missing
      ? null
      : endOfSentence(stderr.trim() || `archive-fetch ended with status ${status}`)
  } catch (thrown) {
    if (thrown instanceof ReplctlError && thrown.code === 'timeout')
      return `It did not answer within ${patienceMs / 1000} s.`
    throw thrown
  }
}

const endOfSentence = (text: string) => (/[.!?]$/.test(text) ? text : `${text}.`)
