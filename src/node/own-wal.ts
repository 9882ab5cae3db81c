import type { NodeFacts } from '../cluster/facts.ts'
import { segmentSizeOf } from '../cluster/segment-size.ts'
import { shellScript } from '../command.ts'
import { bytesToLsn, type Lsn, lsnToBytes, parseLsn } from '../postgres/lsn.ts'
import { parseTimelineHistory, type TimelineHistory } from '../postgres/timeline-history.ts'
import {
  defaultWalSegmentSizeBytes,
  isSegmentFile,
  parseWalFileName,
  segmentNumber,
  walFileName,
  walFileStart,
} from '../postgres/wal-file.ts'
import { commandFailed, type Node } from './node.ts'

/** What lies in a node's pg_wal and beside it, as its files say: whether the instance runs does not matter. */
export interface WalFiles {
  readonly segments: readonly string[]
  /** Text of each history file, by timeline. */
  readonly histories: ReadonlyMap<number, string>
  readonly hasRewindProgram: boolean
  readonly hasWaldumpProgram: boolean
  /** Changes with each boot of the host. */
  readonly bootId: string
}

const filesScript = `
data=$1 bin=$2
for file in "$data"/pg_wal/*; do
  name=\${file##*/}
  case $name in
    *.history) printf 'history %s %s\\n' "$name" "$(tr '\\n\\t' '\\036\\037' < "$file")" ;;
    [0-9A-F][0-9A-F][0-9A-F][0-9A-F][0-9A-F][0-9A-F][0-9A-F][0-9A-F]*) printf 'segment %s\\n' "$name" ;;
  esac
done
for name in pg_rewind pg_waldump; do [ -x "$bin/$name" ] && printf 'program %s\\n' "$name"; done
printf 'boot %s\\n' "$(cat /proc/sys/kernel/random/boot_id 2>/dev/null || sysctl -n kern.boottime 2>/dev/null | tr -d ' ')"
`

/** Looks at the WAL files of a node. */
export async function readWalFiles(node: Node, facts: NodeFacts): Promise<WalFiles> {
  const command = shellScript('look at its WAL files', filesScript, [
    node.settings.postgres.dataDir,
    facts.binaries?.directory ?? '',
  ])
  const result = await node.read(command)
  if (result.status !== 0) throw commandFailed(node.name, command, result)
  const lines = result.stdout.split('\n').map((line) => line.split(' '))
  const all = (kind: string) => lines.filter((line) => line[0] === kind)
  return {
    segments: all('segment').map((line) => line[1] ?? ''),
    histories: new Map(
      all('history').map(([, name = '', ...text]) => [
        Number.parseInt(name.slice(0, 8), 16),
        text.join(' ').replaceAll('\x1e', '\n').replaceAll('\x1f', '\t'),
      ]),
    ),
    hasRewindProgram: all('program').some((line) => line[1] === 'pg_rewind'),
    hasWaldumpProgram: all('program').some((line) => line[1] === 'pg_waldump'),
    bootId: all('boot')[0]?.[1] ?? '',
  }
}

/**
 * The timeline a node's newest WAL is on, with its ancestors. pg_control may lag behind: a node that was promoted and
 * crashed before its next checkpoint still shows the one before. A segment without the history file of its timeline is left of
 * one that the node was rewound from.
 */
export function ownHistory(facts: NodeFacts, files: WalFiles): TimelineHistory {
  const inFiles = files.segments
    .filter(isSegmentFile)
    .map((name) => parseWalFileName(name).timeline)
    .filter((timeline) => files.histories.has(timeline))
  const timeline =
    facts.instance?.timeline ??
    Math.max(facts.control?.timeline ?? 1, facts.control?.minRecoveryEndTimeline ?? 1, ...inFiles)
  return parseTimelineHistory(files.histories.get(timeline) ?? '', timeline)
}

/** The last whole record of a stretch of WAL. */
export interface WalEnd {
  readonly lastRecord: Lsn | 'none' | 'unknown'
  readonly endLsn: Lsn | null
}

// It always ends with a complaint: at the end of WAL. What counts is the last record before that.
const endScript = `
LC_ALL=C "$1/pg_waldump" -p "$2/pg_wal" -t "$3" -s "$4" 2>&1 >&3 3>&- | tail -n 1 >&2
`

const lastRecordScript = `{${endScript}} 3>&1 | tail -n 1`

/** Reads WAL of one timeline from `from` to its end, on the node itself. A long divergence takes its time. */
export async function readWalEnd(
  node: Node,
  facts: NodeFacts,
  timeline: number,
  from: Lsn,
  timeoutMs = 3_600_000,
): Promise<WalEnd> {
  const args = [facts.binaries?.directory ?? '', node.settings.postgres.dataDir, String(timeline), from]
  const command = shellScript(`read its WAL from ${from} on`, lastRecordScript, args)
  const result = await node.read(command, { timeoutMs })
  return parseWalEnd(result.stdout, result.stderr)
}

/** Reads the last line of records that pg_waldump printed, and its complaint. */
export function parseWalEnd(records: string, complaint: string): WalEnd {
  const record = /len \(rec\/tot\): *\d+\/ *(\d+), .*lsn: ([0-9A-F]+\/[0-9A-F]+)/.exec(records)
  if (record === null) {
    const isEnd = /could not find a valid record|could not find file|invalid (record|magic|contrecord)/.test(
      complaint,
    )
    return { lastRecord: isEnd ? 'none' : 'unknown', endLsn: null }
  }
  const lastRecord = shortLsn(record[2] ?? '')
  const told = /\bat ([0-9A-F]+\/[0-9A-F]+): (?:wanted|expected) /.exec(complaint)?.[1]
  const aligned = lsnToBytes(lastRecord) + BigInt(Math.ceil(Number(record[1]) / 8) * 8)
  return { lastRecord, endLsn: told === undefined ? bytesToLsn(aligned) : shortLsn(told) }
}

/** pg_waldump pads with zeros: `0/017814E0`. */
function shortLsn(text: string): Lsn {
  return bytesToLsn(lsnToBytes(parseLsn(text)))
}

/** Enough to hold what makes the first record of a timeline one of a kind (its time and checksum), and no more than it. */
const headBytes = 40
/** A page of WAL begins with a header that is the same on every branch. */
const pageHeaderBytes = 40
const walPageBytes = 8192

/**
 * Whether a node's timeline is the one of that number in the primary's history: both begin with the same record.
 * Null where one of them no longer has that WAL, or on timeline 1.
 */
export async function isSameBranch(
  sides: readonly { readonly node: Node; readonly facts: NodeFacts }[],
  history: TimelineHistory,
): Promise<boolean | null> {
  const begin = history.switches.at(-1)?.leftAt
  if (begin === undefined) return null
  const sizes = sides.map(({ facts }) => segmentSizeOf(facts))
  const size = sizes[0] ?? defaultWalSegmentSizeBytes
  const offset = Number(lsnToBytes(begin) % BigInt(size))
  const length = headBytes + (offset % walPageBytes === 0 ? pageHeaderBytes : 0)
  const script =
    '[ -r "$1" ] && tail -c "+$(($2 + 1))" "$1" | head -c "$3" | od -An -v -tx1 | tr -d " \\n"; :'
  const [a = '', b = ''] = await Promise.all(
    sides.map(async ({ node }) => {
      const path = `${node.settings.postgres.dataDir}/pg_wal/${walFileName(history.timeline, begin, size)}`
      return await node.output(
        shellScript('look at the beginning of its timeline', script, [path, String(offset), String(length)]),
      )
    }),
  )
  const isKnown = (hex: string) => hex.length === length * 2 && !/^0*$/.test(hex)
  return isKnown(a) && isKnown(b) ? a === b : null
}

/** From where on a node's pg_wal holds every segment up to `current`, on whichever timeline; null: not even the current one. */
export function walKeptFrom(segments: readonly string[], current: Lsn, sizeBytes: number): Lsn | null {
  const numbers = new Set(
    segments.filter(isSegmentFile).map((name) => segmentNumber(walFileStart(name, sizeBytes), sizeBytes)),
  )
  let first = segmentNumber(current, sizeBytes)
  if (!numbers.has(first)) return null
  while (numbers.has(first - 1n)) first -= 1n
  return bytesToLsn(first * BigInt(sizeBytes))
}
