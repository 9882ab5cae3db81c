import type { RestoreChoice } from '../cluster/choose-backup.ts'
import type { NodeFacts } from '../cluster/facts.ts'
import type { ArchiveSettings, NodeSettings } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { shellScript } from '../command.ts'
import { pending, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import type { ReplctlError } from '../errors.ts'
import { type Node, stateScript, stateVariableScript } from '../node/node.ts'
import { surveyNode } from '../node/survey.ts'
import { describeTarget, type RecoveryTarget } from '../postgres/recovery-target.ts'
import { removeStateFile, writeStateFile } from './ensure-mark.ts'
import { look } from './look.ts'
import { isOwn } from './require-data-directory.ts'

/** One instance to restore. */
export interface Restore {
  readonly archive: ArchiveSettings
  /** The node whose host and whose key are used. */
  readonly node: NodeSettings
  /** Under which name the steps reach the instance: the node's own, or one beside it. */
  readonly at: NodeName
  readonly choice: RestoreChoice
  readonly target: RecoveryTarget
  /** It becomes the cluster's primary. Else it belongs to nobody and never archives. */
  readonly isMember: boolean
}

/** How far a restore is; `restore.json` in the state directory of the instance, `restored.json` when it is over. */
export interface RestoreRecord {
  readonly backup: string
  readonly timeline: number
  /** As `describeTarget` says it. */
  readonly target: string
  readonly port: number
  /** `opened`: applications may have written to it; from there on nothing of it is ever removed. */
  readonly phase: 'fetching' | 'fetched' | 'recovered' | 'opened'
  readonly reachedLsn: string | null
  readonly reachedTime: string | null
  readonly newTimeline: number | null
}

/** Reads how far a restore is; null where none was begun. */
export async function readRestoreRecord(node: Node, file = 'restore.json'): Promise<RestoreRecord | null> {
  const script = `${stateVariableScript}[ -f "$state/$2" ] && cat "$state/$2"; :`
  const text = await node.output(
    shellScript('look how far the restore is', script, [node.settings.stateDir, file]),
  )
  return text.trim() === '' ? null : (JSON.parse(text) as RestoreRecord)
}

export async function writeRestoreRecord(
  ctx: StepContext,
  restore: Restore,
  part: Partial<RestoreRecord> & Pick<RestoreRecord, 'phase'>,
): Promise<void> {
  const record: RestoreRecord = {
    ...{ backup: restore.choice.backup.id, timeline: restore.choice.timeline },
    ...{ target: describeTarget(restore.target), port: ctx.node.settings.postgres.port },
    ...{ reachedLsn: null, reachedTime: null, newTimeline: null },
    ...part,
  }
  await writeStateFile(ctx, restore.at, 'restore.json', `${JSON.stringify(record)}\n`)
}

/** The record of this very restore, where one was begun in the directory that is there now. */
export async function ownRecord(ctx: StepContext): Promise<RestoreRecord | null> {
  const [facts, record] = await Promise.all([look(ctx), readRestoreRecord(ctx.node)])
  return isOfDirectory(record, facts, ctx.node) ? record : null
}

/**
 * A record speaks of the directory as long as nobody else has built an instance in it since. What was opened is a whole instance; that
 * is gone where the directory is empty.
 */
export function isOfDirectory(
  record: RestoreRecord | null,
  facts: NodeFacts,
  { cluster, settings }: Pick<Node, 'cluster' | 'settings'>,
): record is RestoreRecord {
  if (record === null || !isOwn(facts, cluster, settings.postgres.dataDir)) return false
  if (record.phase === 'opened') return facts.dataDirectoryState === 'instance'
  return facts.mark?.phase === 'cloning'
}

/** Whether what was begun is the restore that is wanted now; another one begins anew. */
export function isSame(record: RestoreRecord, { choice, target }: Restore): boolean {
  return (
    record.backup === choice.backup.id &&
    record.timeline === choice.timeline &&
    record.target === describeTarget(target)
  )
}

/** A restore as a command line says it; what is undefined was left open. */
export interface RestoreAsked {
  readonly target: RecoveryTarget
  readonly backup: string | undefined
  readonly timeline: number | undefined
}

/** Whether a restore that was begun, or is over, is what is asked for: what the command line leaves open was chosen then. */
export function isAskedFor(record: RestoreRecord, { target, backup, timeline }: RestoreAsked): boolean {
  return (
    record.target === describeTarget(target) &&
    (backup === undefined || backup === record.backup) &&
    (timeline === undefined || timeline === record.timeline)
  )
}

/**
 * A restore that was begun here and is what is asked for: it is gone on with, not begun anew. What it had chosen stays
 * chosen, for by now the archive may know a newer line.
 */
export async function unfinishedRestore(node: Node, asked: RestoreAsked): Promise<RestoreRecord | null> {
  const record = await readRestoreRecord(node)
  if (record === null || !isAskedFor(record, asked)) return null
  return isOfDirectory(record, await surveyNode(node), node) ? record : null
}

/** A restore that came to its last step here, and is what is asked for: only the journal of it may be left. */
export async function finishedRestore(node: Node, asked: RestoreAsked): Promise<RestoreRecord | null> {
  const [begun, record] = await Promise.all([
    readRestoreRecord(node),
    readRestoreRecord(node, 'restored.json'),
  ])
  if (begun !== null || record === null || !isAskedFor(record, asked)) return null
  return (await surveyNode(node)).dataDirectoryState === 'instance' ? record : null
}

/** Nobody's any more: what was restored beside a node belongs to the operator. The record of it stays as restored.json. */
export function forgetRestore(restore: Restore, warnings: readonly ReplctlError[] = []): Step {
  return {
    title: 'note what was restored',
    node: restore.at,
    check: async (ctx) => {
      if ((await readRestoreRecord(ctx.node)) !== null) return pending('it is not noted yet')
      const [facts, noted] = await Promise.all([look(ctx), readRestoreRecord(ctx.node, 'restored.json')])
      const isThere = facts.dataDirectoryState === 'instance' && noted !== null && isSame(noted, restore)
      return isThere ? satisfied('it is noted') : unknownUntil('it is restored')
    },
    apply: async (ctx) => {
      const script =
        'mv -f "$state/restore.json" "$state/restored.json" && rm -f "$state/tablespaces" "$state/pg_wal_link"'
      await ctx.node.output(stateScript(ctx.node, 'note what was restored', script))
      if (!restore.isMember) await removeStateFile(ctx, restore.at, 'node.json')
      for (const warning of warnings) ctx.warn(warning)
    },
  }
}
