import { ReplctlError } from '../errors.ts'
import type { BackupMetadata } from '../postgres/backup-metadata.ts'
import { type BackupCatalog, byFinish, isBackupOn, judgeBackups } from './backup-catalog.ts'
import { livingLine, type PrimaryLine } from './living-line.ts'
import { archiveHost } from './names.ts'
import { type Problem, problemOf } from './problem.ts'

/** What `status` says of the backups; part of `archive`. */
export interface BackupState {
  /** Backups that can be relied on. Null, here and below: nobody could look. */
  readonly backups: number | null
  /** The newest of them that leads to where the cluster is, e.g. `20261126T061500Z`; also null where there is none. */
  readonly last_backup: string | null
  /** How long ago it ended. */
  readonly last_backup_seconds: number | null
  /** `archive.max_backup_age`; null: no limit is set. */
  readonly max_backup_age_seconds: number | null
}

/**
 * How old the newest backup that can be relied on is, and whether that is too old. What is unfinished, tiny, damaged, or
 * builds on something damaged does not count, however young it is; nor does one of a timeline that was abandoned, after a restore
 * into the past: it does not bring the cluster back.
 * @param catalog null: the archive could not be read, which is told elsewhere
 */
export function observeBackups(
  catalog: BackupCatalog | null,
  maxAgeMs: number | null,
  nowMs: number,
  primary: PrimaryLine | null,
): { readonly state: BackupState; readonly problems: readonly Problem[] } {
  const limit = maxAgeMs === null ? null : maxAgeMs / 1000
  if (catalog === null) {
    const unknown = { backups: null, last_backup: null, last_backup_seconds: null }
    return { state: { ...unknown, max_backup_age_seconds: limit }, problems: [] }
  }
  const judged = judgeBackups(catalog)
  const good = judged.flatMap(({ isGood, metadata }) => (isGood && metadata !== null ? [metadata] : []))
  const last = onLine(good, catalog, primary).toSorted(byFinish).at(-1)
  // Clocks may differ by a little: nothing ends in the future.
  const seconds =
    last === undefined ? null : Math.max(0, Math.round((nowMs - Date.parse(last.finishedAt)) / 1000))
  const state: BackupState = {
    backups: good.length,
    last_backup: last?.id ?? null,
    last_backup_seconds: seconds,
    max_backup_age_seconds: limit,
  }
  const bad = judged.filter(({ isGood }) => !isGood)
  return {
    state,
    problems: [
      ...(limit !== null && (seconds ?? Number.POSITIVE_INFINITY) > limit ? [problemOf(tooOld(state))] : []),
      ...bad.map(({ id, damage }) => problemOf(damaged(id, damage), 'warning')),
    ],
  }
}

/** Where nobody knows the line, each may lie on it. */
function onLine(
  good: readonly BackupMetadata[],
  catalog: BackupCatalog,
  primary: PrimaryLine | null,
): readonly BackupMetadata[] {
  const line = livingLine(catalog, primary)
  return line === null ? good : good.filter((backup) => isBackupOn(line, backup))
}

function tooOld({ last_backup: id, last_backup_seconds: age, max_backup_age_seconds: limit }: BackupState) {
  return new ReplctlError(
    'backup-too-old',
    id === null ? 'there is no verified backup' : `the last verified backup is ${inHours(age ?? 0)} old`,
    {
      detail: `${id === null ? '' : `It is ${id}. `}archive.max_backup_age allows ${inHours(limit ?? 0)}.`,
      hint: 'Take one, and look why the job that should do so failed: replctl backup',
      node: archiveHost,
    },
  )
}

function damaged(id: string, damage: readonly string[]): ReplctlError {
  return new ReplctlError('backup-damaged', `backup ${id} cannot be relied on`, {
    detail: `${damage.join('; ')}.`,
    hint: 'It does not count. Take a new one: replctl backup',
    node: archiveHost,
  })
}

/** Hours from one on, for that is how such limits are written: `26.5 h`, `90 s`. */
function inHours(seconds: number): string {
  return seconds < 3_600 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 360) / 10} h`
}
