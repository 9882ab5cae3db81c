import { quoteIdentifier } from './sql.ts'

export interface SynchronousStandbys {
  /** `async`: none; `sync`: the first `count` in the order of `names`; `quorum`: any `count` of them. */
  readonly mode: 'async' | 'sync' | 'quorum'
  /** How many must confirm; capped at the number of names, or no commit would ever return. */
  readonly count: number
  /** application_name of each standby, by falling priority. */
  readonly names: readonly string[]
}

/**
 * A value for synchronous_standby_names: `FIRST 1 ("shop_pg2", "shop_pg3")`, `ANY 2 (…)`, or `''` for none.
 * Danger: with `''` commits are confirmed without any standby, also in `sync` and `quorum` mode with no names.
 * @see https://www.postgresql.org/docs/current/runtime-config-replication.html#GUC-SYNCHRONOUS-STANDBY-NAMES
 */
export function synchronousStandbyNames({ mode, count, names }: SynchronousStandbys): string {
  if (mode === 'async' || names.length === 0) return ''
  const needed = Math.max(1, Math.min(count, names.length))
  const method = mode === 'quorum' ? 'ANY' : 'FIRST'
  return `${method} ${needed} (${names.map(quoteIdentifier).join(', ')})`
}

/** How many standbys must confirm, and by which names they are known. */
export interface ParsedSynchronousStandbys {
  readonly method: 'FIRST' | 'ANY'
  readonly count: number
  /** application_name of each; `*` stands for every standby. */
  readonly names: readonly string[]
}

/**
 * Reads a value of synchronous_standby_names, whoever wrote it: `ANY 2 (a, "b c")`, `2 (a, b)`, `a, b`. Null: nobody is
 * waited for. Names that are not quoted are matched without regard to case, and come back in lower case.
 * @see src/backend/replication/syncrep_gram.y
 */
export function parseSynchronousStandbyNames(value: string): ParsedSynchronousStandbys | null {
  const [, method, count, list] = /^\s*(?:(?:(first|any)\s+)?(\d+)\s*\((.*)\))\s*$/is.exec(value) ?? []
  const names = [...(list ?? value).matchAll(/"((?:[^"]|"")*)"|([^\s,"]+)/g)].map(
    ([, quoted, plain = '']) => quoted?.replaceAll('""', '"') ?? plain.toLowerCase(),
  )
  if (names.length === 0) return null
  return { method: method?.toLowerCase() === 'any' ? 'ANY' : 'FIRST', count: Number(count ?? 1), names }
}
