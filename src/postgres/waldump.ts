import { type Lsn, parseLsn } from './lsn.ts'

/** Where a tuple lies: `block` and line pointer `offset` of a relation's main fork. */
export interface TupleId {
  readonly block: number
  readonly offset: number
}

/** One record that pg_waldump printed, as far as it matters for what transactions changed. */
export type WalRecord = { readonly xid: number; readonly lsn: Lsn } & WalAction

export type WalAction =
  | { readonly is: 'insert'; readonly relation: string; readonly at: TupleId }
  /** COPY and the like. Up to 15 pg_waldump does not tell the offsets: null. On a page that it begins, they are 1 to count. */
  | {
      readonly is: 'multi-insert'
      readonly relation: string
      readonly block: number
      readonly count: number
      readonly offsets: readonly number[] | null
    }
  | { readonly is: 'update'; readonly relation: string; readonly from: TupleId; readonly to: TupleId }
  | { readonly is: 'delete'; readonly relation: string; readonly at: TupleId }
  /** A speculative insertion (ON CONFLICT) that was taken back: the tuple is gone. */
  | { readonly is: 'kill'; readonly relation: string; readonly at: TupleId }
  | {
      readonly is: 'commit'
      /** The transaction; for a prepared one not the record's own xid. */
      readonly of: number
      readonly subxacts: readonly number[]
      readonly time: string
      readonly wasPrepared: boolean
      /** Files that went away with it, as `relation`: a table was dropped, truncated or rewritten. */
      readonly dropped: readonly string[]
    }
  | { readonly is: 'abort'; readonly of: number; readonly subxacts: readonly number[] }
  | { readonly is: 'prepare'; readonly gid: string }
  /** A checkpoint or a snapshot of running transactions: every xid from `nextXid` on is younger. */
  | { readonly is: 'next-xid'; readonly nextXid: number }
  /** A file for a new table, or for one that was truncated or rewritten. */
  | { readonly is: 'create-file'; readonly relation: string }
  | { readonly is: 'sequence'; readonly relation: string }
  | { readonly is: 'other' }

/** The resource managers whose records are of use; what others write need not even be sent. */
export const usefulResourceManagers = [
  'Heap',
  'Heap2',
  'Transaction',
  'Standby',
  'XLOG',
  'Storage',
  'Sequence',
]

/**
 * Parses one line of pg_waldump, 11 to 18; undefined for lines that are no record (its complaint at the end of WAL).
 * `relation` is `tablespace/database/file`, e.g. `1663/5/16384`.
 * Shape: `rmgr: Heap        len (rec/tot):     54/  4382, tx:        728, lsn: 0/017814E0, prev 0/01781468, desc: INSERT off 98 flags 0x00, blkref #0: rel 1663/5/16384 blk 1 FPW`
 * @see src/backend/access/rmgrdesc/heapdesc.c, xactdesc.c, xlogdesc.c, standbydesc.c
 */
export function parseWalRecord(line: string): WalRecord | undefined {
  const match = /^rmgr: (\S+) .*?\btx: *(\d+), lsn: ([0-9A-F]+\/[0-9A-F]+), .*?desc: (\S*) ?(.*)$/.exec(line)
  if (match === null) return undefined
  const [, manager = '', xid = '0', lsn = '', verb = '', rest = ''] = match
  return { xid: Number(xid), lsn: shortLsn(lsn), ...actionOf(manager, verb, rest) }
}

function actionOf(manager: string, verb: string, rest: string): WalAction {
  const read = readers[manager]
  return read?.(verb.replace('+INIT', ''), rest, verb.endsWith('+INIT')) ?? other
}

const other: WalAction = { is: 'other' }

type Reader = (verb: string, rest: string, isInit: boolean) => WalAction | undefined

const readers: Readonly<Record<string, Reader>> = {
  Heap: readHeap,
  Heap2: readHeap2,
  Transaction: readTransaction,
  Standby: (verb, rest) => (verb === 'RUNNING_XACTS' ? nextXid(/nextXid (\d+)/.exec(rest)?.[1]) : undefined),
  XLOG: (verb, rest) =>
    verb.startsWith('CHECKPOINT_') ? nextXid(/; xid \d+[:/](\d+);/.exec(rest)?.[1]) : undefined,
  Storage: (verb, rest) =>
    verb === 'CREATE' ? { is: 'create-file', relation: relationOfPath(rest.trim()) } : undefined,
  Sequence: (_, rest) => {
    const [block] = readBlocks(rest)
    return block === undefined ? undefined : { is: 'sequence', relation: block.relation }
  },
}

function readHeap(verb: string, rest: string): WalAction | undefined {
  const [block, oldBlock] = readBlocks(rest)
  if (block === undefined) return undefined
  const { relation } = block
  const own = rest.slice(0, rest.indexOf('blkref #'))
  if (verb === 'INSERT' || verb === 'DELETE') {
    const offset = numberAfter(/\boff:? (\d+)/, own)
    if (offset === undefined) return undefined
    const at = { block: block.block, offset }
    if (verb === 'INSERT') return { is: 'insert', relation, at }
    return { is: isSuperDelete(own) ? 'kill' : 'delete', relation, at }
  }
  if (verb === 'UPDATE' || verb === 'HOT_UPDATE') {
    const from = numberAfter(/^off (\d+)|\bold_off: (\d+)/, own)
    const to = numberAfter(/; new off (\d+)|\bnew_off: (\d+)/, own)
    if (from === undefined || to === undefined) return undefined
    return {
      is: 'update',
      relation,
      // The new tuple's page comes first; the old one's only where it is another.
      from: { block: (oldBlock ?? block).block, offset: from },
      to: { block: block.block, offset: to },
    }
  }
  return undefined
}

/** XLH_DELETE_IS_SUPER. @see src/include/access/heapam_xlog.h */
const isSuperDelete = (own: string): boolean =>
  (Number.parseInt(/flags:? 0x([0-9A-F]+)/.exec(own)?.[1] ?? '0', 16) & 0x08) !== 0

function readHeap2(verb: string, rest: string, isInit: boolean): WalAction | undefined {
  if (verb !== 'MULTI_INSERT') return undefined
  const [block] = readBlocks(rest)
  const count = numberAfter(/(\d+) tuples|ntuples: (\d+)/, rest)
  if (block === undefined || count === undefined) return undefined
  const listed = /offsets: ?\[([\d, ]*)\]/.exec(rest)?.[1]
  const offsets = isInit
    ? Array.from({ length: count }, (_, index) => index + 1)
    : (listed?.split(',').map(Number) ?? null)
  return { is: 'multi-insert', relation: block.relation, block: block.block, count, offsets }
}

function readTransaction(verb: string, rest: string): WalAction | undefined {
  if (verb === 'PREPARE') return { is: 'prepare', gid: /^gid (.*): \d{4}-/.exec(rest)?.[1] ?? rest }
  const kind = /^(COMMIT|ABORT)(_PREPARED)?$/.exec(verb)
  if (kind === null) return undefined
  const wasPrepared = kind[2] !== undefined
  const prepared = wasPrepared ? Number(/^(\d+):/.exec(rest)?.[1]) : 0
  const subxacts = listAfter('subxacts', rest).map(Number)
  if (kind[1] === 'ABORT') return { is: 'abort', of: prepared, subxacts }
  const time = /(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[^;]*)/.exec(rest)?.[1]?.trim() ?? ''
  return {
    is: 'commit',
    of: prepared,
    subxacts,
    time,
    wasPrepared,
    dropped: listAfter('rels', rest).map(relationOfPath),
  }
}

const listAfter = (label: string, rest: string): readonly string[] =>
  new RegExp(`; ${label}: ([^;]*)`).exec(rest)?.[1]?.trim().split(/\s+/) ?? []

/** `base/5/16396` → `1663/5/16396`, `pg_tblspc/16500/PG_15_202209061/5/16501` → `16500/5/16501`. */
function relationOfPath(path: string): string {
  const parts = path.replace(/_(fsm|vm|init)$/, '').split('/')
  const [kind = '', second = ''] = parts
  const file = parts.at(-1) ?? ''
  if (kind === 'base') return `${defaultTablespace}/${second}/${file}`
  if (kind === 'global') return `${globalTablespace}/0/${file}`
  return `${second}/${parts.at(-2)}/${file}`
}

/** OIDs of pg_default and pg_global, fixed by initdb. */
const defaultTablespace = 1663
const globalTablespace = 1664

const nextXid = (text: string | undefined): WalAction | undefined =>
  text === undefined ? undefined : { is: 'next-xid', nextXid: Number(text) }

function numberAfter(pattern: RegExp, text: string): number | undefined {
  const match = pattern.exec(text)
  const digits = match?.[1] ?? match?.[2]
  return digits === undefined ? undefined : Number(digits)
}

/** Blocks of the main fork that a record touches, in the order of their numbers. */
function readBlocks(rest: string): readonly { relation: string; block: number }[] {
  const found = rest.matchAll(/blkref #\d+: rel (\d+\/\d+\/\d+) (?:fork main )?blk (\d+)/g)
  return [...found].map((match) => ({ relation: match[1] ?? '', block: Number(match[2]) }))
}

/** `0/017814E0` as PostgreSQL prints it elsewhere: `0/17814E0`. */
function shortLsn(text: string): Lsn {
  const [high = '', low = ''] = text.split('/')
  return parseLsn(`${high}/${low.replace(/^0+(?=.)/, '')}`)
}

/** How pg_waldump's reading ended, by what it complained of on standard error. */
export type WalEnd =
  /** Nothing valid follows: where the server's own writing ended, or where a page was torn. */
  | { readonly is: 'end-of-wal'; readonly next: Lsn | null }
  | { readonly is: 'segment-missing'; readonly segment: string }
  | { readonly is: 'failed'; readonly said: string }
  /** It came to the end that it was given. */
  | { readonly is: 'complete' }

/**
 * Tells the end of WAL, which pg_waldump reports as an error, from a segment that is missing.
 * @see src/bin/pg_waldump/pg_waldump.c; xlogreader.c, report_invalid_record
 */
export function readWalEnd(status: number | null, stderr: string): WalEnd {
  const said = stderr.trim().split('\n').at(-1) ?? ''
  if (status === 0) return { is: 'complete' }
  const missing = /could not (?:find|open) file "(?:.*\/)?([0-9A-F]{24})"/.exec(stderr)?.[1]
  if (missing !== undefined) return { is: 'segment-missing', segment: missing }
  if (/error in WAL record at|could not find a valid record after/.test(stderr)) {
    const next = / at ([0-9A-F]+\/[0-9A-F]+)(?::|$)/.exec(
      said.replace(/.*error in WAL record at \S+/, ''),
    )?.[1]
    return { is: 'end-of-wal', next: next === undefined ? null : shortLsn(next) }
  }
  return { is: 'failed', said }
}
