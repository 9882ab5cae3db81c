import {
  asComment,
  deleteStatement,
  insertStatement,
  isSameRow,
  overwriteStatement,
  rowName,
  type SalvageRow,
  type SalvageTable,
  sayIfNothingDone,
  updateStatement,
} from './salvage-sql.ts'
import { xidPrecedes } from './xid-set.ts'

/** What is known of one row that lost transactions changed. */
export interface RowChange {
  readonly xid: number
  /** As it is on the diverged node now; null: it was deleted there. */
  readonly now: SalvageRow | null
  /** It was there at the fork: an update or a deletion. */
  readonly wasThere: boolean
  /** As it was at the fork, where the new primary still has it so. */
  readonly old: SalvageRow | null
  /**
   * What the new primary has under the row's key, where `old` is null or had another key. A row that lost transactions
   * deleted, or gave another key, is not in the way: null. Undefined: the key is not known, or there is none.
   */
  readonly current: SalvageRow | null | undefined
  /** The new primary has no such table, although the fork had. */
  readonly isTableGone?: boolean
}

export type ChangeState =
  /** The new primary has not touched the row: it can be applied. */
  | 'clean'
  /** The new primary changed or deleted it as well, or has another row of this key. */
  | 'conflict'
  /** The new primary has it just so. */
  | 'already-there'

export interface WrittenChange {
  readonly op: 'insert' | 'update' | 'delete'
  readonly state: ChangeState
  readonly xid: number
  /** A line of rows.jsonl. */
  readonly line: string
  /** What stands in salvage.sql. */
  readonly sql: string
}

/** The names that a line of rows.jsonl gives. */
export interface ChangePlace {
  readonly database: string
  readonly schema: string
  readonly table: string
}

/** Writes one change: as data, and as a statement that is commented out where the new primary contradicts. */
export function writeChange(place: ChangePlace, table: SalvageTable, change: RowChange): WrittenChange {
  const { xid, now, old, current } = change
  const op = now === null ? 'delete' : change.wasThere ? 'update' : 'insert'
  const state = stateOf(change)
  const words = state === 'conflict' ? contradiction(op, change) : null
  const fields = [
    `"op":"${op}"`,
    `"database":${JSON.stringify(place.database)}`,
    `"schema":${JSON.stringify(place.schema)}`,
    `"table":${JSON.stringify(place.table)}`,
    `"xid":${xid}`,
    `"old":${old?.json ?? 'null'}`,
    `"new":${now?.json ?? 'null'}`,
    `"state":"${state}"`,
    ...(words === null ? [] : [`"current":${current?.json ?? 'null'}`]),
  ]
  return {
    op,
    state,
    xid,
    line: `{${fields.join(',')}}\n`,
    sql: `${sqlOf(table, op, state, change, words)}\n`,
  }
}

function stateOf({ now, wasThere, old, current, isTableGone }: RowChange): ChangeState {
  if (isTableGone === true) return 'conflict'
  if (wasThere && old !== null) return current ? 'conflict' : 'clean'
  if (now !== null && current && isSameRow(now, current)) return 'already-there'
  if (!wasThere && (current === null || current === undefined)) return 'clean'
  return 'conflict'
}

function contradiction(op: WrittenChange['op'], { current, isTableGone }: RowChange): string {
  if (isTableGone === true) return 'the new primary has no such table any more'
  if (current) return `the new primary has ${current.json}`
  if (op === 'insert') return 'the new primary has another row of this key'
  return current === null
    ? 'the new primary has no row of this key: it deleted it, or changed its key'
    : 'the new primary changed or deleted this row'
}

function sqlOf(
  table: SalvageTable,
  op: WrittenChange['op'],
  state: ChangeState,
  { xid, now, old }: RowChange,
  words: string | null,
): string {
  const title = `${op} by transaction ${xid}, ${table.ident}`
  if (state === 'already-there') return asComment(`${title}: already so on the new primary: ${now?.json}`)
  if (state === 'conflict') {
    const lines = [`CONFLICT: ${title}: ${words}.`]
    if (now !== null && old !== null) lines.push(deleteStatement(table, old))
    if (now !== null) lines.push(overwriteStatement(table, now))
    return asComment(lines.join('\n'))
  }
  const tell = (statement: string, row: SalvageRow, why: string) =>
    `${statement}\n${sayIfNothingDone(`NOT DONE: ${title}, ${rowName(table, row)}: ${why}`)}`
  if (now === null) return old === null ? '' : tell(deleteStatement(table, old), old, notAsItWas)
  if (old === null) return tell(insertStatement(table, now), now, 'its key is taken')
  const update = updateStatement(table, old, now)
  return update === null
    ? asComment(`${title}: it changed nothing that is a column on the new primary`)
    : tell(update, old, notAsItWas)
}

const notAsItWas = 'the row is not as it was at the fork'

/** A row that lies on the new primary where it lay at the fork, in the version of then. */
export const isOfFork = (xmin: number, forkXid: number): boolean => xidPrecedes(xmin, forkXid) || xmin <= 2
