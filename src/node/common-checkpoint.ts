import type { NodeFacts } from '../cluster/facts.ts'
import { segmentSizeOf } from '../cluster/segment-size.ts'
import { shellScript } from '../command.ts'
import { bytesToLsn, compareLsn, type Lsn, lsnToBytes } from '../postgres/lsn.ts'
import { settingNumber } from '../postgres/setting-value.ts'
import { segmentOnLine, type TimelineHistory } from '../postgres/timeline-history.ts'
import { segmentNumber } from '../postgres/wal-file.ts'
import type { Node } from './node.ts'

/** The newest segment first: as a rule it is the one. Status 1: none of them holds a checkpoint; 2: that is not known. */
const lookScript = `
bin=$1 data=$2 fork=$3; shift 3
[ -x "$bin/pg_waldump" ] || exit 2
end="-e $fork"
for file; do
  LC_ALL=C "$bin/pg_waldump" $end --rmgr=XLOG "$data/pg_wal/$file" 2>/dev/null |
    grep -q -E 'desc: CHECKPOINT_(ONLINE|SHUTDOWN)' && exit 0
  [ -r "$data/pg_wal/$file" ] || exit 2
  end=
done
exit 1
`

/** As many file names as a command line takes for sure. */
const mostSegments = 2048

export interface BeforeFork {
  readonly fork: Lsn
  readonly history: TimelineHistory
  /** Names of what lies in its pg_wal. */
  readonly files: readonly string[]
}

/**
 * pg_rewind begins with the last checkpoint before the fork, which it looks for in the node's own WAL, from the fork back. Where
 * there is none: from where on that WAL is there. Null: one is there, or it is not known.
 */
export async function findMissingCheckpoint(
  node: Node,
  facts: NodeFacts,
  before: BeforeFork,
): Promise<Lsn | null> {
  const { control, instance } = facts
  // A crash is recovered from there on: the server itself keeps that WAL.
  const isWriter = instance !== null && !instance.isInRecovery
  if (!isWriter && control !== null && compareLsn(control.checkpointLsn, before.fork) < 0) return null
  const size = segmentSizeOf(facts)
  const { segments, from } = segmentsBefore(before, size, firstKeptAfterStop(facts, size))
  if (segments.length === 0) return from
  const args = [facts.binaries?.directory ?? '', node.settings.postgres.dataDir, before.fork]
  const look = shellScript('look for a checkpoint before the fork', lookScript, [
    ...args,
    ...segments.slice(0, mostSegments),
  ])
  const { status } = await node.read(look, { timeoutMs: 600_000 })
  return status === 1 && segments.length <= mostSegments ? from : null
}

/**
 * The segments of the node's own line from the one that holds the fork back to the last one without a gap, the newest first; and
 * where they begin. Those before number `first` do not count.
 */
export function segmentsBefore(
  { fork, history, files }: BeforeFork,
  sizeBytes: number,
  first = 0n,
): { readonly segments: readonly string[]; readonly from: Lsn } {
  const has = new Set(files)
  const segments: string[] = []
  let number = segmentNumber(fork, sizeBytes)
  for (; number >= first && number >= 0n; number -= 1n) {
    const name = segmentOnLine(history, number, sizeBytes)
    if (!has.has(name)) break
    segments.push(name)
  }
  return { segments, from: segments.length === 0 ? fork : bytesToLsn((number + 1n) * BigInt(sizeBytes)) }
}

/**
 * What accepts writes is stopped first, and its last checkpoint removes all WAL that nothing holds: a slot, wal_keep_size, an
 * archive that is behind.
 * @see src/backend/access/transam/xlog.c, KeepLogSeg
 */
export function firstKeptAfterStop({ instance }: NodeFacts, sizeBytes: number): bigint {
  if (instance === null || instance.isInRecovery || instance.currentLsn === null) return 0n
  const setting = (name: string) => instance.settings[name]?.value ?? ''
  if (setting('archive_mode') !== 'off') return 0n
  const last = segmentNumber(instance.currentLsn, sizeBytes)
  const byCount = BigInt(settingNumber(setting('wal_keep_segments')) ?? 0)
  const bySize = BigInt(settingNumber(setting('wal_keep_size')) ?? 0) / BigInt(sizeBytes)
  const held = instance.slots.flatMap(({ restartLsn, walStatus }) =>
    restartLsn === null || walStatus === 'lost' ? [] : [lsnToBytes(restartLsn) / BigInt(sizeBytes)],
  )
  return [last - byCount - bySize, ...held].reduce((a, b) => (a < b ? a : b))
}
